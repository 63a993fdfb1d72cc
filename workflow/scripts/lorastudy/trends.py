"""Figures of scores over r and alpha: the two trends, also at a tuned learning rate, the scale, the full grid."""

import math

from lorastudy import captions, points, style

SYMBOLS = {"r": "r", "alpha": "α"}
LABELS = {"r": "Rank r", "alpha": "α"}
FAR = 0.5  # a baseline further below the cells than this part of their range gets a strip of its own


def r_trend(results, look):
    """Scores against r at constant alpha."""
    return _trend(results, look, "r")


def alpha_trend(results, look):
    """Scores against alpha at constant r."""
    return _trend(results, look, "alpha")


def _trend(results, look, axis):
    cells = points.along(results, points.main(results), axis)
    scores = list(style.METRICS)
    table = points.join(cells, scores)
    figure, rows = _panels(results, [_range_of(table, score) for score in scores], _baselines(results, scores), axis)
    for score, row in zip(scores, rows):
        for panel, axes in zip(points.panels(results), row.main):
            for index, method in enumerate(results.settings["grid"]["methods"]):
                part = points.of(table, method, panel)
                _line(axes, part, score, axis, look, method, panel, index, len(results.settings["grid"]["methods"]))
                _holes(axes, points.of(cells, method, panel), axis, look, method, index)
        for axes in [*row.main, *row.strip]:
            _bands(axes, results.baselines, score, look)
        row.main[0].set_ylabel(style.METRICS[score])
    _x_axes(rows, cells, axis)
    handles = _method_handles(results, look) + _baseline_handles(results, look) + style.hole_handles(cells.status)
    style.legend(figure, handles, columns=2 if len(points.panels(results)) == 1 else 4)
    other = "alpha" if axis == "r" else "r"
    return figure, captions.write(
        f"Accuracy and weighted F1 against {SYMBOLS[axis]} at {_constant(results, other)}; {_rate(results)}.",
        captions.sample(results, _with_baselines(results, cells)),
        "Horizontal lines and bands: the base model before fine-tuning, with its 95% interval."
        if _baselines(results, scores)[0]
        else "",
        "The axis is cut between the cells and a baseline far below them."
        if any(len(row.strip) for row in rows)
        else "",
        captions.holes(_with_baselines(results, cells)),
    )


def tuned_r_trend(results, look):
    """Accuracy against r at constant alpha, at one learning rate and at the one chosen for each point."""
    return _tuned(results, look, "r")


def tuned_alpha_trend(results, look):
    """Accuracy against alpha at constant r, at one learning rate and at the one chosen for each point."""
    return _tuned(results, look, "alpha")


def _tuned(results, look, axis):
    cells = points.along(results, results.cells, axis)
    fixed_rate = results.settings["training"]["learning_rate"]
    table = points.join(cells)
    fixed, tuned = table[table.learning_rate == fixed_rate], select(table)
    figure, rows = _panels(results, [_range_of(table, "accuracy"), None], [[], []], axis)
    methods = results.settings["grid"]["methods"]
    for panel, axes, below in zip(points.panels(results), rows[0].main, rows[1].main):
        for index, method in enumerate(methods):
            for part, pale in ((points.of(fixed, method, panel), True), (points.of(tuned, method, panel), False)):
                _line(axes, part, "accuracy", axis, look, method, panel, 2 * index + (not pale), 2 * len(methods), pale)
            part = points.of(tuned, method, panel).sort_values(axis)
            below.plot(
                style.aside(part[axis], index, len(methods)), part.learning_rate, linestyle=style.LINES[method],
                **style.mark(look, method, panel[0]),
            )  # fmt: skip
            _holes(axes, points.of(cells, method, panel), axis, look, method, index)
        style.positive_axis(below, cells.learning_rate, "y")
        rates = sorted(set(cells.learning_rate))
        below.set_yticks(rates, [f"{rate:g}" for rate in rates])
        below.set_ylim(rates[0] / 1.5, rates[-1] * 1.5)
    rows[0].main[0].set_ylabel("Accuracy")
    rows[1].main[0].set_ylabel("Learning rate chosen")
    _x_axes(rows, cells, axis)
    handles = [
        style.handle(
            f"{style.METHODS[method]}, {text}", linestyle=style.LINES[method], alpha=0.45 if pale else 1,
            **style.mark(look, method, results.settings["grid"]["targets"][0]),
        )
        for method in methods
        for text, pale in ((f"learning rate {fixed_rate:g}", True), ("tuned", False))
    ]  # fmt: skip
    style.legend(figure, handles + style.hole_handles(cells.status), columns=2)
    other = "alpha" if axis == "r" else "r"
    rates = ", ".join(f"{rate:g}" for rate in sorted({fixed_rate, *results.settings["grid"]["learning_rates"]}))
    return figure, captions.write(
        f"Accuracy on the test texts against {SYMBOLS[axis]} at {_constant(results, other)}: pale at the learning rate "
        f"{fixed_rate:g}, strong at the one of {rates} with the highest accuracy on the validation texts (mean over seeds; "
        "on a tie the lower loss). Below, the learning rate chosen.",
        captions.sample(results, cells),
        captions.holes(cells),
    )


def select(table):
    """Of each (method, targets, scaling, r, alpha) of a joined table the learning rate that is best in validation."""
    done = table[(table.seeds > 0) & table.validation_accuracy.notna()]
    order = done.sort_values(["validation_accuracy", "validation_nll"], ascending=[False, True], kind="stable")
    return order.drop_duplicates([name for name in points.AXES if name != "learning_rate"]).sort_index()


def scale(results, look):
    """Accuracy of all cells against alpha / r and against alpha / √r."""
    cells = points.main(results)
    table = points.join(cells)
    kinds = {"α / r": lambda rows: rows.alpha / rows.r, "α / √r": lambda rows: rows.alpha / rows.r**0.5}
    panels, methods = points.panels(results), results.settings["grid"]["methods"]
    figure, grid_of_axes = style.subplots(
        len(panels), 2, style.TWO_COLUMNS, 0.6 + 1.9 * len(panels), sharex="col", sharey=True
    )
    sweeps = _sweeps(results)
    every = table.assign(r=table.r.astype(float))
    for panel, row in zip(panels, grid_of_axes):
        for (text, of), axes in zip(kinds.items(), row):
            for index, method in enumerate(methods):
                part = points.of(every, method, panel)
                for name, (marker, line, chosen) in sweeps.items():
                    some = chosen(part)
                    some = some.sort_values(name) if name in SYMBOLS else some
                    x = style.aside(of(some), index, len(methods))
                    _scatter(axes, x, some, look, method, panel, marker, line)
                lost = points.of(cells[cells.status != "finished"], method, panel)
                lost = lost.assign(r=lost.r.astype(float))
                _crosses(axes, of(lost), lost.status, style.colour(look, method), index)
            axes.set_title(f"{points.title(panel)}", loc="left")
            if panel == panels[-1]:
                axes.set_xlabel(text)
                style.log2_axis(axes, of(every), 3.0, _powers(of(every)))
        row[0].set_ylabel("Accuracy")
    handles = [
        style.handle(style.METHODS[method], linestyle="none", **style.mark(look, method, "attention"))
        for method in methods
    ] + [
        style.handle(text, linestyle=line, marker=marker, color=style.DARK, markerfacecolor="white")
        for text, (marker, line, chosen) in {
            _sweep_name(results, name): sweep for name, sweep in sweeps.items()
        }.items()
    ]
    style.legend(figure, handles + style.hole_handles(cells.status), columns=5)
    return figure, captions.write(
        "Accuracy of all cells against the scale of the adapters: α / r, the factor of standard LoRA, and α / √r. Where the "
        "scale alone decides, the sweep over r and the sweep over α lie on one curve.",
        f"{_rate(results, capital=True)}.",
        captions.sample(results, cells),
        captions.holes(cells),
    )


def _sweeps(results):
    """Name → marker, line and the rows of a joined table: the r sweep, the alpha sweep and, in a full grid, the rest."""
    r, alpha = points.constant(results, "r"), points.constant(results, "alpha")
    sweeps = {
        "r": ("o", "-", lambda table: table[table.alpha == alpha]),
        "alpha": ("^", ":", lambda table: table[table.r == r]),
    }
    if results.settings["grid"]["design"] == "full":
        sweeps["neither"] = (".", "none", lambda table: table[(table.alpha != alpha) & (table.r != r)])
    return sweeps


def _sweep_name(results, name):
    if name == "neither":
        return "other cells"
    other = "alpha" if name == "r" else "r"
    return f"{SYMBOLS[name]} varies at {_constant(results, other)}"


def _powers(values):
    """Powers of two within the range of ``values``, or around them if there are none."""
    low, high = math.log2(min(values)), math.log2(max(values))
    within = range(math.ceil(low), math.floor(high) + 1) or range(math.floor(low), math.ceil(high) + 1)
    return [2.0**power for power in within]


def _scatter(axes, x, rows, look, method, panel, marker, line):
    mark = style.mark(look, method, panel[0]) | {"marker": marker}
    _bars(axes, x, rows, "accuracy", mark["color"], 0.35)
    axes.plot(x, rows.accuracy, linestyle=line, linewidth=0.9, **mark)


def r_alpha_map(results, look):
    """Accuracy of the full grid as a map of r × alpha."""
    from matplotlib.patches import Patch

    cells = points.main(results)
    table = points.join(cells)
    methods, panels = results.settings["grid"]["methods"], points.panels(results)
    rs, alphas = sorted(results.settings["grid"]["r"]), sorted(results.settings["grid"]["alpha"])
    width = style.TWO_COLUMNS if len(panels) > 1 else style.ONE_COLUMN
    height = len(methods) * (0.55 + min(2.6, 0.3 * len(rs) + 0.3)) + 0.5
    figure, rows = style.subplots(len(methods), len(panels), width, height, sharex=True, sharey=True)
    finished = table.accuracy.dropna()
    low, high = (finished.min(), finished.max()) if len(finished) else (0.0, 1.0)
    small = len(rs) * len(alphas) <= 100
    shades = None
    for method, row in zip(methods, rows):
        for panel, axes in zip(panels, row):
            part = points.of(table, method, panel).set_index(["r", "alpha"])
            values = [[float(part.accuracy.get((r, alpha), math.nan)) for alpha in alphas] for r in rs]
            shades = axes.pcolormesh(values, cmap=style.MAP, vmin=low, vmax=max(high, low + 1e-9), rasterized=False)
            for y, r in enumerate(rs):
                for x, alpha in enumerate(alphas):
                    value = values[y][x]
                    if math.isnan(value):
                        axes.add_patch(_hatched(x, y))
                        text = part.status.get((r, alpha), "missing")[0].upper()
                    else:
                        text = f"{value:.3f}".removeprefix("0")
                    if small:
                        pale = not math.isnan(value) and (value - low) < 0.55 * (high - low)
                        axes.text(
                            x + 0.5,
                            y + 0.5,
                            text,
                            ha="center",
                            va="center",
                            fontsize=5.5,
                            color="white" if pale else "black",
                        )
            axes.grid(False)
            axes.set_title(
                f"{style.METHODS[method]}, {points.title(panel)[0].lower()}{points.title(panel)[1:]}", loc="left"
            )
            axes.set_xticks([index + 0.5 for index in range(len(alphas))], [f"{alpha:g}" for alpha in alphas])
            axes.set_yticks([index + 0.5 for index in range(len(rs))], [f"{r:g}" for r in rs])
    for axes in rows[-1]:
        axes.set_xlabel(LABELS["alpha"])
    for row in rows:
        row[0].set_ylabel(LABELS["r"])
    bar = figure.colorbar(shades, ax=rows, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label("Accuracy")
    bar.outline.set_linewidth(0.6)
    statuses = list(table.status[table.seeds == 0])
    style.legend(
        figure,
        [
            Patch(label=f"{status[0].upper()}: {label} ({statuses.count(status)})", facecolor="white", hatch="////", edgecolor="#999999")
            for status, label in style.STATUSES.items()
            if status in statuses
        ],
    )  # fmt: skip
    return figure, captions.write(
        f"Accuracy over r and α in the full grid, one map a method and target set, all on one colour scale; {_rate(results)}.",
        captions.sample(results, cells, intervals=False),
        "Numbers are means over the seeds." if len(results.settings["grid"]["seeds"]) > 1 else "",
        captions.holes(cells),
    )


def _hatched(x, y):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor="white", hatch="////", edgecolor="#999999", linewidth=0)


class _Row:
    """Axes of one score: ``main`` a panel each, ``strip`` those below for a baseline far away (or none)."""

    def __init__(self, main, strip):
        self.main, self.strip = main, strip


def _panels(results, ranges, baselines, axis):
    """Figure with a row a score and a column a panel.

    Args:
        ranges: of each score (lowest, highest) of what its cells draw, None for free.
        baselines: of each score a list of (low, high) of the baselines.
    """
    panels = points.panels(results)
    heights, strips = [], []
    for reach, bands in zip(ranges, baselines):
        far = [] if reach is None else [band for band in bands if reach[0] - band[1] > FAR * (reach[1] - reach[0])]
        strips.append(far)
        heights += [1.0, 0.22] if far else [1.0]
    width = style.TWO_COLUMNS if len(panels) > 1 else style.ONE_COLUMN
    figure, axes = style.subplots(
        len(heights), len(panels), width, 0.75 + 1.75 * sum(heights), sharex=True, sharey="row", height_ratios=heights
    )
    axes = list(axes)
    rows = []
    for reach, bands, far in zip(ranges, baselines, strips):
        main = axes.pop(0)
        strip = axes.pop(0) if far else []
        if reach is None and not bands:
            main[0].set_ylim(0, 1)
        else:
            near = [*([reach] if reach else []), *(band for band in bands if band not in far)]
            _limits(main[0], min(low for low, _ in near), max(high for _, high in near), 0.1)
        if far:
            _limits(strip[0], min(low for low, _ in far), max(high for _, high in far), 0.25)
            _cut(main, strip)
        rows.append(_Row(main, strip))
    for panel, first in zip(panels, rows[0].main):
        first.set_title(points.title(panel), loc="left")
    return figure, rows


def _limits(axes, low, high, margin):
    room = max(high - low, 0.01) * margin
    axes.set_ylim(low - 1.4 * room, high + room)


def _cut(main, strip):
    """Show that the axis is cut between two axes."""
    from matplotlib.ticker import MaxNLocator

    for upper, lower in zip(main, strip):
        upper.spines.bottom.set_visible(False)
        upper.tick_params(axis="x", which="both", length=0)
        for axes, y in ((upper, 0), (lower, 1)):
            axes.plot(
                [0], [y], transform=axes.transAxes, marker=[(-1, -0.5), (1, 0.5)], markersize=6, linestyle="none",
                color=style.DARK, markeredgewidth=0.7, clip_on=False,
            )  # fmt: skip
        lower.yaxis.set_major_locator(MaxNLocator(2))


def _range_of(table, score):
    """Lowest and highest of what the cells draw of a score, None if nothing is finished."""
    done = table[table.seeds > 0]
    if done.empty:
        return None
    singles = [value for values in done[f"{score}_seeds"] for value in values]
    return min(done[f"{score}_low"].min(), *singles), max(done[f"{score}_high"].max(), *singles)


def _baselines(results, scores):
    done = results.baselines[results.baselines.status == "finished"]
    return [[(row[f"{score}_low"], row[f"{score}_high"]) for _, row in done.iterrows()] for score in scores]


def _line(axes, part, score, axis, look, method, panel, index, count, pale=False):
    """One method's line over ``axis``; broken where a point has no value."""
    part = part.sort_values(axis)
    x = style.aside(part[axis], index, count)
    mark = style.mark(look, method, panel[0])
    alpha = 0.45 if pale else 1.0
    _bars(axes, x, part, score, mark["color"], alpha)
    for place, values in zip(x, part[f"{score}_seeds"]):
        if len(values) > 1:
            axes.plot(
                [place] * len(values), values, ".", color=mark["color"], markersize=2.2, alpha=0.6, label="_seeds"
            )
    axes.plot(x, part[score], linestyle=style.LINES[method], alpha=alpha, label=method, **mark)


def _bars(axes, x, rows, score, colour, alpha):
    done = rows[score].notna().to_numpy()
    x = [place for place, drawn in zip(x, done) if drawn]
    axes.vlines(x, rows[f"{score}_low"][done], rows[f"{score}_high"][done], color=colour, linewidth=0.8, alpha=alpha)


def _bands(axes, baselines, score, look):
    for name, row in baselines[baselines.status == "finished"].iterrows():
        axes.axhspan(
            row[f"{score}_low"], row[f"{score}_high"], color=look.baseline_colour, alpha=0.12, linewidth=0, zorder=0
        )
        axes.axhline(row[score], color=look.baseline_colour, linestyle=style.LINES[name], linewidth=0.9, zorder=1)


def _holes(axes, cells, axis, look, method, index):
    lost = cells[cells.status != "finished"]
    _crosses(axes, lost[axis].astype(float), lost.status, style.colour(look, method), index)


def _crosses(axes, x, statuses, colour, index):
    """A mark at the lower edge for each cell without a value; methods one above the other."""
    for place, status in zip(x, statuses):
        axes.plot(
            [place], [0.035 + 0.055 * index], transform=axes.get_xaxis_transform(), marker=style.HOLES[status],
            color=colour, linestyle="none", label=f"_{status}",
        )  # fmt: skip


def _x_axes(rows, cells, axis):
    last = rows[-1].strip if len(rows[-1].strip) else rows[-1].main
    inches = 3.0 if len(last) < 3 else 6.0 / len(last)
    for axes in last:
        style.log2_axis(axes, cells[axis], inches)
        axes.set_xlabel(LABELS[axis])


def _method_handles(results, look):
    wanted = results.settings["grid"]
    one = len(wanted["targets"]) == 1
    return [
        style.handle(
            style.METHODS[method], linestyle=style.LINES[method],
            **style.mark(look, method, wanted["targets"][0] if one else "attention"),
        )
        for method in wanted["methods"]
    ]  # fmt: skip


def _baseline_handles(results, look):
    done = results.baselines[results.baselines.status == "finished"]
    return [
        style.handle(style.BASELINES[name][0].upper() + style.BASELINES[name][1:], linestyle=style.LINES[name], color=look.baseline_colour, linewidth=0.9)
        for name in done.index
    ]  # fmt: skip


def _with_baselines(results, cells):
    import pandas as pd

    return pd.concat([cells, results.summary[results.summary.kind == "baseline"]])


def _constant(results, name):
    return f"{SYMBOLS[name]} = {points.constant(results, name):g}"


def _rate(results, capital=False):
    text = f"learning rate {results.settings['training']['learning_rate']:g}"
    return text.capitalize() if capital else text
