"""Figures of scores along r and along alpha, at the study's learning rate and at one tuned for each point."""

import numpy as np
import pandas as pd

from lorastudy.analysis import tuning
from lorastudy.presentation.figures import captions, panels, style
from lorastudy.study import grid

LOST = 0.09  # height of the strip of runs without a value, as a part of a row's
FAR = 0.5  # a baseline further below the cells than this part of their range gets a strip of its own


def r_trend(results, look):
    """Accuracy and F1 along the line of the grid on which r varies."""
    return _trend(results, look, "r")


def alpha_trend(results, look):
    """Accuracy and F1 along the line of the grid on which alpha varies."""
    return _trend(results, look, "alpha")


def _trend(results, look, axis):
    line = grid.trend(results.lines, axis)
    cells, points = panels.along(panels.cells(results), line), panels.along(panels.points(results), line)
    baselines = results.baselines[results.baselines.status == "finished"]
    methods, scores = results.settings["grid"]["methods"], list(style.METRICS)
    bands = {score: list(zip(baselines[f"{score}_low"], baselines[f"{score}_high"])) for score in scores}
    reaches = {score: style.reach(points, score, panels.finished(cells)[score]) for score in scores}
    figure, rows, lost = _rows(results, reaches, bands, cells)
    for score, (main, strip) in rows.items():
        inner = apart(results, score, line)
        for panel, axes in zip(panels.each(results), main):
            for index, method in enumerate(methods):
                _line(axes, points, cells, score, axis, look, method, panel, (index, len(methods)), inner)
        for axes in [*main, *strip]:
            _bands(axes, baselines, score, look)
        main[0].set_ylabel(style.METRICS[score])
    _holes(lost, results, cells, axis, look)
    _x_axes(rows, lost, cells, axis)
    handles = _method_handles(results, look) + [
        style.handle(style.BASELINES[name], linestyle=style.LINES[name], color=look.baseline_colour, linewidth=0.9)
        for name in baselines.index
    ]
    style.legend(figure, handles + style.hole_handles(cells.status))
    shown = results.summary[results.summary.id.isin(cells.id) | results.summary.kind.eq("baseline")]
    return figure, captions.write(
        f"Accuracy and weighted F1 against {panels.SYMBOLS[axis]} at {line.words}, {panels.rate(results)}.",
        captions.sample(results, shown),
        captions.intervals(results, points),
        "Thick bars are for comparison along a line, on the same texts: where those of two points just touch, the 95% interval of "
        "their difference just reaches 0 (least squares over all pairs)." * bool(apart(results, scores[0], line)),
        captions.cut(points, reaches),
        "Horizontal lines and bands: the base model before fine-tuning, with its 95% interval." * bool(len(baselines)),
        "The axis is cut between the cells and a baseline far below them."
        * any(len(strip) for _, strip in rows.values()),
        captions.holes(shown),
        _others(results, line),
    )


def _others(results, line):
    """That a grid has further lines along the same axis, which the figure of all variants draws."""
    names = [part.name for other in results.lines for part in other.along(line.varies) if part != line]
    return f"Not drawn here: the lines {', '.join(names)}; the figure of all variants has them." if names else ""


def tuned_r_trend(results, look):
    """Accuracy along r, at one learning rate and at the best one for each point."""
    return _tuned(results, look, "r")


def tuned_alpha_trend(results, look):
    """Accuracy along alpha, at one learning rate and at the best one for each point."""
    return _tuned(results, look, "alpha")


def _tuned(results, look, axis):
    views = (tuning.CONFIGURED, tuning.TUNED)
    line = grid.trend(results.lines, axis)
    points = {view: panels.along(panels.points(results, view), line) for view in views}
    cells = {view: panels.along(panels.cells(results, view), line) for view in views}
    every = panels.along(results.cells, line)
    rates, methods = sorted(set(every.learning_rate)), results.settings["grid"]["methods"]
    drawn = pd.concat(points.values())
    reach = style.reach(drawn, "accuracy", panels.finished(pd.concat(cells.values())).accuracy)
    figure, rows, lost = _rows(results, {"accuracy": reach, "rate": (rates[0], rates[-1])}, {}, cells[tuning.TUNED])
    (main, _), (below, _) = rows.values()
    for panel, axes, lower in zip(panels.each(results), main, below):
        for index, method in enumerate(methods):
            for view in views:
                slot = (2 * index + views.index(view), 2 * len(methods))
                pale = view == tuning.CONFIGURED
                _line(axes, points[view], cells[view], "accuracy", axis, look, method, panel, slot, pale=pale)
            chosen = panels.of(points[tuning.TUNED], method, panel).sort_values(axis)
            chosen = chosen[chosen.seeds > 0]
            lower.plot(
                style.aside(chosen[axis], index, len(methods)), chosen.learning_rate, linestyle=style.LINES[method],
                label=f"{method} rate", **style.mark(look, method, panel[0]),
            )  # fmt: skip
        lower.set_yscale("log")
        lower.set_ylim(rates[0] / 1.6, rates[-1] * 1.6)
        lower.set_yticks(rates, [f"{rate:g}" for rate in rates])
        lower.set_yticks([], minor=True)
    main[0].set_ylabel(style.METRICS["accuracy"])
    below[0].set_ylabel("Learning rate chosen")
    _holes(lost, results, cells[tuning.TUNED], axis, look)
    _x_axes(rows, lost, every, axis)
    handles = [
        style.handle(
            f"{style.METHODS[method]}, {text}", linestyle=style.LINES[method], alpha=_alpha(pale),
            **style.mark(look, method, results.settings["grid"]["targets"][0]),
        )
        for method in methods
        for text, pale in ((panels.rate(results), True), ("tuned", False))
    ]  # fmt: skip
    style.legend(figure, handles + style.hole_handles(cells[tuning.TUNED].status))
    return figure, captions.write(
        f"Accuracy on the test texts against {panels.SYMBOLS[axis]} at {line.words}: pale at the "
        f"{panels.rate(results)}, strong at the one of {', '.join(f'{rate:g}' for rate in rates)} with the highest accuracy on "
        "the validation texts (mean over seeds). Below, the learning rate chosen.",
        *tuning.edge_notes(results.summary),
        captions.sample(results, every),
        captions.intervals(results, points[tuning.TUNED]),
        captions.cut(drawn, {"accuracy": reach}),
        captions.holes(every),
    )


def apart(results, score, line):
    """Half the width of a bar for each point of a line, so that bars which touch are of points that are barely apart.

    The half-widths of two points add up to that of the 95% interval of their difference, on the same texts, as nearly as
    one number a point can be made to (as Goldstein and Healy 1995 did for independent means).

    Returns:
        name of a point → half-width of its score; empty where nothing on the line is compared.
    """
    from scipy.optimize import nnls

    table = results.comparisons
    rows = table[table.family.eq(f"{line.varies}_pair") & table.metric.eq(score) & table.line.eq(line.name)] if line else table[:0]  # fmt: skip
    rows = rows[rows["view"].eq(tuning.CONFIGURED) & rows.low.notna()]
    found = {}
    for _, pairs in rows.groupby("group", sort=False):
        names = list(dict.fromkeys([*pairs.a, *pairs.b]))
        both = np.array([[name in pair for name in names] for pair in zip(pairs.a, pairs.b)], dtype=float)
        # of two points alone each gets half: the smallest numbers that do
        least = 1e-6 * np.eye(len(names))
        widths = nnls(np.vstack([both, least]), np.append((pairs.high - pairs.low) / 2, np.zeros(len(names))))[0]
        found |= dict(zip(names, widths))
    return found


def _rows(results, reaches, bands, cells):
    """A figure with a row a score and a column a panel; a score whose baselines are far below has a second, low row.

    Args:
        reaches: score → (lowest, highest) of what its cells draw, None without any.
        bands: score → (low, high) of each baseline; a score may lack them.
        cells: those that are drawn.

    Returns:
        figure, score → (axes of the row, one a panel, and axes of the low row or nothing), axes of the strip for runs
        without a value (nothing where there is none).
    """
    each, far, heights = panels.each(results), {}, []
    for score, reach in reaches.items():
        gap = FAR * (reach[1] - reach[0]) if reach else 0.0
        far[score] = [band for band in bands.get(score, []) if reach and reach[0] - band[1] > gap]
        heights += [1.0, 0.22] if far[score] else [1.0]
    if cells.status.isin(style.HOLES).any():
        heights.append(LOST * len(results.settings["grid"]["methods"]))
    width = style.TWO_COLUMNS if len(each) > 1 else style.ONE_COLUMN
    figure, axes = style.subplots(
        len(heights), len(each), width, 0.75 + 1.75 * sum(heights), sharex=True, sharey="row", height_ratios=heights
    )
    left, rows = list(axes), {}
    for score, reach in reaches.items():
        main, strip = left.pop(0), left.pop(0) if far[score] else []
        near = [band for band in bands.get(score, []) if band not in far[score]] + ([reach] if reach else [])
        style.limit(main[0], near)
        if far[score]:
            style.limit(strip[0], far[score], 0.25)
            _cut(main, strip)
        rows[score] = main, strip
    for panel, first in zip(each, axes[0]):
        style.title(first, panels.title(panel), len(each))
    return figure, rows, left.pop(0) if left else []


def _cut(main, strip):
    """Show that the axis is cut between two axes."""
    from matplotlib.ticker import MaxNLocator

    for upper, lower in zip(main, strip):
        upper.spines.bottom.set_visible(False)
        upper.tick_params(axis="x", which="both", length=0)
        for axes, y in ((upper, 0), (lower, 1)):
            axes.plot(
                [0], [y], transform=axes.transAxes, marker=[(-1, -0.5), (1, 0.5)], markersize=6, linestyle="none",
                color=style.DARK, markeredgewidth=0.7, clip_on=False, label="_cut",
            )  # fmt: skip
        lower.yaxis.set_major_locator(MaxNLocator(2))


def _line(axes, points, cells, score, axis, look, method, panel, slot, inner=None, pale=False):
    """One method's points along ``axis``, joined where neighbours both have a value; small ones for single seeds.

    Args:
        inner: of ``apart``; thick bars within those of the scores.
    """
    part = panels.of(points, method, panel).sort_values(axis)
    x = style.aside(part[axis], *slot)
    mark = style.mark(look, method, panel[0])
    style.bars(axes, x, part, score, mark["color"], _alpha(pale))
    for where, (_, point) in zip(x, part.iterrows()):
        if half := (inner or {}).get(point.point):
            style.thick(axes, where, point[score], half, mark["color"])
        singles = panels.runs(cells, point)[score]
        if len(singles) > 1:
            style.singles(axes, [where] * len(singles), singles, mark["color"])
    axes.plot(x, part[score], linestyle=style.LINES[method], alpha=_alpha(pale), label=method + " pale" * pale, **mark)


def _alpha(pale):
    return 0.4 if pale else 1.0


def _holes(strip, results, cells, axis, look):
    """Fill the strip below with a mark for each run that has no value, a line a method."""
    methods = results.settings["grid"]["methods"]
    for panel, axes in zip(panels.each(results), strip):
        axes.set(ylim=(len(methods) - 0.4, -0.6), yticks=[])
        axes.grid(visible=False)
        axes.set_facecolor("#f4f4f4")
        for level, method in enumerate(methods):
            lost = panels.of(cells[cells.status.isin(style.HOLES)], method, panel)
            for (x, status), count in lost.groupby([axis, "status"], sort=False).size().items():
                style.lost(axes, float(x), level, status, count, style.colour(look, method))


def _bands(axes, baselines, score, look):
    for name, row in baselines.iterrows():
        axes.axhspan(
            row[f"{score}_low"], row[f"{score}_high"], color=look.baseline_colour, alpha=0.12, linewidth=0, zorder=0
        )
        axes.axhline(
            row[score],
            color=look.baseline_colour,
            linestyle=style.LINES[name],
            linewidth=0.9,
            zorder=1,
            label=f"_{name}",
        )


def _x_axes(rows, lost, cells, axis):
    main, strip = list(rows.values())[-1]
    last = next(row for row in (lost, strip, main) if len(row))
    for axes in last:
        style.log2_axis(axes, cells[axis], 2.9 if len(last) < 3 else 5.8 / len(last))
        axes.set_xlabel(style.AXES[axis])


def _method_handles(results, look):
    wanted = results.settings["grid"]
    return [
        style.handle(
            style.METHODS[method], linestyle=style.LINES[method], **style.mark(look, method, wanted["targets"][0])
        )
        for method in wanted["methods"]
    ]
