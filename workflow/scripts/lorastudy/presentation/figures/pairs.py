"""Figure of paired differences: LoRA against QLoRA, all else equal, on the same texts."""

import math

from lorastudy.analysis import tuning
from lorastudy.presentation.figures import captions, panels, style

LEVEL = 0.05  # of the tests; the intervals are 95% ones
WIDER = 5  # times what three quarters of the differences need: then the axis is logarithmic beyond that
HEIGHT = 9.0  # the most that a page holds, inches
WORDS = {
    "fontsize": 5.5, "va": "center", "color": style.DARK,
    "bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6},
}  # fmt: skip


def lora_against_qlora(results, look):
    """Paired differences in accuracy between LoRA and QLoRA."""
    from matplotlib.ticker import MaxNLocator

    cells = panels.cells(results)
    each = panels.each(results)
    places = cells[["r", "alpha"]].drop_duplicates().reset_index(drop=True)
    differences = compared(results, "method")
    every = [single for panel in each for single in _of_single_seeds(panels.of(cells, panel=panel))]
    width = style.TWO_COLUMNS if len(each) > 1 else style.ONE_COLUMN
    height = min(HEIGHT, 1.0 + 0.16 * len(places))
    figure, (row,) = style.subplots(1, len(each), width, height, sharex=True, sharey=True)
    for panel, axes in zip(each, row):
        part = panels.of(differences, panel=panel).set_index(["r", "alpha"])
        axes.axvline(0, color=style.DARK, linewidth=0.7, zorder=1)
        for y, place in enumerate(places.itertuples(index=False)):
            if (place.r, place.alpha) in part.index:
                _difference(axes, y, part.loc[(place.r, place.alpha)], panel, look)
            runs = panels.of(cells[(cells.r == place.r) & (cells.alpha == place.alpha)], panel=panel)
            singles = _of_single_seeds(runs)
            if len(singles) > 1:
                style.singles(axes, singles, [y] * len(singles), style.DARK)
            if text := _lost(runs):  # beneath what there is of the pair
                axes.annotate(text, (0.01, y), xycoords=("axes fraction", "data"), zorder=0.5, **WORDS)
        style.title(axes, panels.title(panel), len(each))
        axes.grid(axis="y", visible=False)
        axes.axvspan(-_margin(results), _margin(results), color=look.baseline_colour, alpha=0.12, linewidth=0, zorder=0)
    inches = 2.2 if len(each) == 1 else 6.0 / len(each)  # of a panel, about
    figure.supxlabel("Difference in accuracy, LoRA − QLoRA", fontsize=7.5)
    size = min(6.5, 72 * (height - 1) / len(places) * 0.8)
    labels = [f"r = {place.r:g}, α = {place.alpha:g}" for place in places.itertuples()]
    row[0].set_yticks(range(len(places)), labels, fontsize=size)
    row[0].set_ylim(len(places) - 0.4, -0.6)
    scale = _scale(row[0], differences, every, _margin(results), MaxNLocator(int(inches / 0.44), steps=style.STEPS))
    style.legend(figure, _handles(results, look))
    return figure, captions.write(
        "Difference in accuracy between LoRA and QLoRA of the same target set, r, α and seed, on the same texts: right of 0 "
        f"LoRA is better. Shaded: differences below {_margin(results):g}, which count as none.",
        _verdicts(differences, _margin(results)),
        _average(results),
        captions.sample(results, cells),
        _intervals(differences),
        scale,
        captions.holes(cells),
    )


def compared(results, family):
    """The comparisons of accuracy of a family at the study's own learning rate."""
    table = results.comparisons
    return table[(table.family == family) & (table.metric == "accuracy") & (table["view"] == tuning.CONFIGURED)]


def _margin(results):
    return results.settings["statistics"]["equivalence_margin"]


def _scale(axes, differences, singles, margin, ticks):
    """Set the axis of differences: linear, or logarithmic beyond what most of them need where a few are far wider.

    Args:
        singles: differences of single seeds.
        margin: of equivalence; shown in any case.
        ticks: locator of the linear axis.

    Returns:
        A sentence for the caption; empty if all is linear.
    """
    from matplotlib.ticker import NullLocator

    ends = differences[["low", "high", "difference"]].abs().max(axis=1).dropna()
    widest = max([2 * margin, *ends, *map(abs, singles)])
    most = max(2 * margin, ends.quantile(0.75)) if len(ends) else widest
    lowest = min([-margin, *differences.low.dropna(), *singles])
    highest = max([margin, *differences.high.dropna(), *singles])
    if widest <= WIDER * most:
        room = 0.05 * (highest - lowest)
        axes.set_xlim(lowest - room, highest + room)
        axes.xaxis.set_major_locator(ticks)
        return ""
    power = 10 ** math.floor(math.log10(most))
    linear = next(step * power for step in (1, 2, 5, 10) if step * power >= most)
    axes.set_xscale("symlog", linthresh=linear, linscale=2)
    axes.set_xlim(1.2 * lowest, 1.2 * highest)
    axes.set_xticks([sign * tick for sign in (-1, 1) for tick in (linear, 10 * linear) if tick < widest] + [0])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.xaxis.set_minor_locator(NullLocator())
    return f"The axis is linear up to ±{linear:g} and logarithmic beyond."


def _difference(axes, y, row, panel, look):
    shown = row.p_holm < LEVEL
    colour = look.lora_colour if row.difference >= 0 else look.qlora_colour
    colour = colour if shown else look.baseline_colour
    axes.hlines(y, row.low, row.high, color=colour, linewidth=1.0)
    axes.plot(
        [row.difference], [y], marker=style.marker(look, panel[0]), color=colour, label="difference",
        markerfacecolor=colour if shown else "white",
    )  # fmt: skip


def _of_single_seeds(runs):
    done = runs[runs.status == "finished"]
    table = done.pivot_table(index=["r", "alpha", "seed"], columns="method", values="accuracy")
    return (table.lora - table.qlora).dropna().tolist() if {"lora", "qlora"} <= set(table) else []


def _lost(runs):
    """What of a pair has no value, in a few words."""
    lost = runs[runs.status != "finished"]
    counts = lost.groupby(["method", "status"], sort=False).size()
    several = runs.seed.nunique() > 1
    return ", ".join(
        f"{style.METHODS[method]} {style.STATUSES[status]}"
        + (f" ({count} of {runs.seed.nunique()})" if several else "")
        for (method, status), count in counts.items()
    )


def _handles(results, look):
    filled = {"linewidth": 1.0, "marker": style.marker(look, results.settings["grid"]["targets"][0])}
    return [
        style.handle("LoRA better, p < 0.05", color=look.lora_colour, **filled),
        style.handle("QLoRA better, p < 0.05", color=look.qlora_colour, **filled),
        style.handle("not distinguishable", color=look.baseline_colour, markerfacecolor="white", **filled),
    ]


def _verdicts(differences, margin):
    if differences.empty:
        return "There is no pair of finished runs."
    total, sure = len(differences), differences[differences.p_holm < LEVEL]
    return (
        f"Of {total} pairs LoRA is better in {(sure.difference > 0).sum()} and QLoRA in {(sure.difference < 0).sum()} at "
        f"p < {LEVEL:g} after Holm's correction (filled); {(differences.p_equivalent < LEVEL).sum()} are equal within "
        f"± {margin:g} by two one-sided tests at {LEVEL:g}, not corrected."
    )


def _average(results):
    pooled = compared(results, "pooled_method")
    if pooled.empty:
        return ""
    row = pooled.iloc[0]
    around = row.reason if row.isna().low else f"95% interval {_signed(row.low)} to {_signed(row.high)}"
    return f"Average over {row.units:.0f} pairs: {_signed(row.difference)}, {around}."


def _intervals(differences):
    if differences.empty:
        return ""
    single = (differences.seeds == 1).sum()
    if single == len(differences):
        return "Bars are 95% intervals of the paired difference over texts, for one seed alone."
    text = "Bars are 95% intervals of the paired difference, over texts and seeds; small points are single seeds."
    return text + f" For {single} pairs with one common seed they are over texts alone." * bool(single)


def _signed(value):
    return f"{value:+.3f}".replace("-", "−")
