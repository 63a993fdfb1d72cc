"""Figure of paired differences: LoRA against QLoRA, all else equal, on the same texts."""

import math

from lorastudy.analysis import comparisons, tuning
from lorastudy.presentation.figures import captions, panels, style

LEVEL = 0.05  # of the tests; the intervals are 95% ones
WIDER = 3  # times what three quarters of the differences need: then the axis ends there, and arrows show what goes on
HEIGHT = 9.0  # the most that a page holds, inches
WORDS = {
    "fontsize": 5, "va": "center", "color": style.DARK,
    "bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6},
}  # fmt: skip


def lora_against_qlora(results, look):
    """Paired differences in accuracy between LoRA and QLoRA."""
    from matplotlib.ticker import MaxNLocator

    cells = panels.cells(results)
    each = panels.each(results)
    combinations = cells[["r", "alpha"]].drop_duplicates().reset_index(drop=True)
    differences, pooled = compared(results, "method"), compared(results, "pooled_method")
    every = [single for panel in each for single in _of_single_seeds(panels.of(cells, panel=panel))]
    low, high, scale = _range(differences, every, _margin(results))
    width = style.TWO_COLUMNS if len(each) > 1 else style.ONE_COLUMN
    height = min(HEIGHT, 1.0 + 0.16 * (len(combinations) + len(pooled)))
    figure, (axes_of,) = style.subplots(1, len(each), width, height, sharex=True, sharey=True)
    for panel, axes in zip(each, axes_of):
        part = panels.of(differences, panel=panel).set_index(["r", "alpha"])
        axes.axvline(0, color=style.DARK, linewidth=0.7, zorder=1)
        for y, combination in enumerate(combinations.itertuples(index=False)):
            drawn = (combination.r, combination.alpha) in part.index
            if drawn:
                _difference(axes, y, part.loc[(combination.r, combination.alpha)], panel, look, (low, high))
            runs = panels.of(cells[(cells.r == combination.r) & (cells.alpha == combination.alpha)], panel=panel)
            singles = _of_single_seeds(runs)
            if len(singles) > 1:
                style.singles(axes, singles, [y] * len(singles), style.DARK)
            if text := _lost(runs):  # under the bar, if there is one
                place = y + 0.42 * drawn
                axes.annotate(text, (0.01, place), xycoords=("axes fraction", "data"), zorder=0.5, **WORDS)
        for row in pooled.itertuples():
            _diamond(axes, len(combinations), row)
        style.title(axes, panels.title(panel), len(each))
        axes.grid(axis="y", visible=False)
        axes.axvspan(-_margin(results), _margin(results), color=look.baseline_colour, alpha=0.12, linewidth=0, zorder=0)
    inches = 2.2 if len(each) == 1 else 6.0 / len(each)  # of a panel, about
    figure.supxlabel("Difference in accuracy, LoRA − QLoRA", fontsize=7.5)
    labels = [f"r = {r:g}, α = {alpha:g}" for r, alpha in combinations.itertuples(index=False)]
    labels += ["average"] * len(pooled)
    axes_of[0].set_yticks(range(len(labels)), labels, fontsize=min(6.5, 72 * (height - 1) / len(labels) * 0.8))
    axes_of[0].set_ylim(len(labels) - 0.4, -0.6)
    axes_of[0].set_xlim(low, high)
    axes_of[0].xaxis.set_major_locator(MaxNLocator(int(inches / 0.44), steps=style.STEPS))
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


def _range(differences, singles, margin):
    """Ends of the axis of differences: all of them, or where a few are far wider what most need.

    Args:
        singles: differences of single seeds.
        margin: of equivalence; shown in any case.

    Returns:
        low, high, and a sentence for the caption that gives what goes on beyond; empty if nothing does.
    """
    ends = differences[["low", "high", "difference"]].abs().max(axis=1).dropna()
    most = max(2 * margin, ends.quantile(0.75)) if len(ends) else max([2 * margin, *map(abs, singles)])
    widest = max([2 * margin, *ends, *map(abs, singles)])
    values = [*differences.low.dropna(), *differences.high.dropna(), *differences.difference.dropna(), *singles]
    low, high = min([-margin, *values]), max([margin, *values])
    if widest > WIDER * most:
        low, high = max(low, -1.5 * most), min(high, 1.5 * most)
    room = 0.05 * (high - low)
    low, high = low - room, high + room
    beyond = differences[
        differences.low.lt(low) | differences.high.gt(high) | ~differences.difference.between(low, high)
    ]
    hidden = sum(not low <= single <= high for single in singles)
    text = "; ".join(
        f"{panels.title((row.targets, row.scaling))}, r = {row.r:g}, α = {row.alpha:g} {_signed(row.difference)} {_ends(row)}"
        for row in beyond.itertuples()
    )
    return (
        low,
        high,
        (
            f"Arrows go on beyond the axis: {text}. " * bool(text) + f"Single seeds beyond it: {hidden}." * bool(hidden)
        ).strip(),
    )


def _ends(row):
    return "without an interval" if math.isnan(row.low) else f"[{_signed(row.low)}, {_signed(row.high)}]"


def _difference(axes, y, row, panel, look, reach):
    """Draw a difference with its interval; arrows at the ends of the axis (``reach``) that it goes beyond."""
    shown = row.p_holm < LEVEL
    colour = look.lora_colour if row.difference >= 0 else look.qlora_colour
    colour = colour if shown else look.baseline_colour
    axes.hlines(y, row.low, row.high, color=colour, linewidth=1.0)
    axes.plot(
        [row.difference], [y], marker=style.marker(look, panel[0]), color=colour, label="difference",
        markerfacecolor=colour if shown else "white",
    )  # fmt: skip
    for edge, goes_on, marker in (
        (reach[0], min(row.low, row.difference) < reach[0] or row.difference < reach[0], "<"),
        (reach[1], max(row.high, row.difference) > reach[1] or row.difference > reach[1], ">"),
    ):
        if goes_on:
            axes.plot([edge], [y], marker=marker, markersize=4.5, color=colour, clip_on=False, label="_beyond")


def _diamond(axes, y, row):
    """The average of all pairs: as wide as its interval, a mark alone where it has none."""
    if math.isnan(row.low):
        axes.plot([row.difference], [y], marker="D", color=style.DARK, markersize=3.5, label="average")
        return
    corners = [(row.low, y), (row.difference, y - 0.32), (row.high, y), (row.difference, y + 0.32)]
    axes.fill(*zip(*corners), color=style.DARK, linewidth=0, zorder=2.5, label="average")


def _of_single_seeds(runs):
    done = runs[runs.status == "finished"]
    table = done.pivot_table(index=["r", "alpha", "seed"], columns="method", values="accuracy")
    return (table.lora - table.qlora).dropna().tolist() if {"lora", "qlora"} <= set(table) else []


def _lost(runs):
    """What of a pair has no value, in a few words."""
    lost = runs[runs.status != "finished"]
    counts = lost.groupby(["method", "status"]).size()
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
        f"p < {LEVEL:g} after Holm's correction (filled); {differences.smallest_margin.lt(margin).sum()} are equal within "
        f"± {margin:g} by their intervals."
    )


def _average(results):
    pooled = compared(results, "pooled_method")
    if pooled.empty:
        return ""
    row = pooled.iloc[0]
    around = row.reason if row.isna().low else f"95% interval {_signed(row.low)} to {_signed(row.high)}"
    without = "" if row.isna().left_out else f" without {row.left_out}, where runs scatter far more than elsewhere"
    average = f"Average over {row.units:.0f} pairs{without}: {_signed(row.difference)}, {around}."
    return f"{average} It is the diamond, the same in every panel."


def _intervals(differences):
    if differences.empty:
        return ""
    sample = "groups of texts" if differences.test.isin(comparisons.OF_GROUPS.values()).any() else "texts"
    if differences.seeds.max() == 1:
        return f"Bars are 95% intervals of the paired difference over {sample}, for one seed alone."
    at_large = differences.test.isin(comparisons.AT_LARGE).any()
    over = f"over {sample} and seeds" if at_large else f"over {sample}, for these runs"
    without = int(differences.low.isna().sum())
    none = f" {without} of {len(differences)} have too few seeds in common for an interval." if without else ""
    return f"Bars are 95% intervals of the paired difference, {over}; small points are single seeds." + none


def _signed(value):
    return f"{value:+.3f}".replace("-", "−")
