"""Figures of r and alpha at once: all cells over the scale that the two make, and the full grid as a map."""

import math

from lorastudy.presentation.figures import captions, panels, style

MARKERS = "o^vD"  # of the grid's lines
JOINED = {"r": "-", "alpha": ":"}
SCALES = {
    "α / r": lambda rows: rows.alpha / rows.r.astype(float),
    "α / √r": lambda rows: rows.alpha / rows.r.astype(float) ** 0.5,
}


def scale(results, look):
    """Accuracy of all cells against alpha / r and against alpha / √r."""
    cells, points = panels.cells(results), panels.points(results)
    each, methods = panels.each(results), results.settings["grid"]["methods"]
    sweeps = _sweeps(results)
    figure, rows = style.subplots(len(each), 2, style.TWO_COLUMNS, 0.6 + 1.9 * len(each), sharex="col", sharey=True)
    for panel, row in zip(each, rows):
        for (label, scale_of), axes in zip(SCALES.items(), row):
            for index, method in enumerate(methods):
                part = panels.of(points, method, panel)
                mark = style.mark(look, method, panel[0])
                for marker, line, _, of_grid in sweeps:
                    some = panels.along(part, of_grid)
                    some = some.iloc[scale_of(some).argsort(kind="stable")]
                    x = style.aside(scale_of(some), index, len(methods))
                    style.bars(axes, x, some, "accuracy", mark["color"], 0.35)
                    axes.plot(
                        x, some.accuracy, label=method, linestyle=line, linewidth=0.9, **mark | {"marker": marker}
                    )
                lost = panels.of(cells[cells.status != "finished"], method, panel)
                style.crosses(axes, scale_of(lost), lost.status, mark["color"], index)
            style.title(axes, panels.title(panel), 2)
            if panel == each[-1]:
                style.log2_axis(axes, scale_of(points), 2.9, _powers(scale_of(points)))
                axes.set_xlabel(label)
        row[0].set_ylabel(style.METRICS["accuracy"])
    reach = style.reach(points, "accuracy")
    style.limit(rows[0][0], [reach] if reach else [], marks=cells.status.ne("finished").any())
    handles = [
        style.handle(style.METHODS[method], linestyle="none", **style.mark(look, method, each[0][0]))
        for method in methods
    ]
    handles += [
        style.handle(label, linestyle=line, marker=marker, color=style.DARK, markerfacecolor="white")
        for marker, line, label, _ in sweeps
    ]
    style.legend(figure, handles + style.hole_handles(cells.status))
    return figure, captions.write(
        "Accuracy of all cells against the scale of the adapters: α / r, the factor of standard LoRA, and α / √r, that of "
        "rank-stabilised LoRA. Where one of them alone decides, the sweeps over r and over α lie on one curve in its column. "
        f"{panels.rate(results).capitalize()}.",
        captions.sample(results, cells),
        captions.intervals(results, points, singles=False),
        captions.cut(points, {"accuracy": reach}),
        captions.holes(cells),
    )


def _sweeps(results):
    """Marker, line style, name and chooser of rows of each line of the grid."""
    sweeps = []
    for index, line in enumerate(results.lines):
        marker, joined = (
            (".", "none") if line.varies == "both" else (MARKERS[index % len(MARKERS)], JOINED[line.varies])
        )
        name = line.words if line.varies == "both" else f"{panels.SYMBOLS[line.varies]} varies at {line.words}"
        sweeps.append((marker, joined, name, line))
    return sweeps


def _powers(values):
    """Powers of two within the range of ``values``; if these are fewer than two, the values."""
    low, high = math.log2(min(values)), math.log2(max(values))
    within = [2.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    return within if len(within) > 1 else sorted(set(values))


def r_alpha_map(results, look):
    """Accuracy of the full grid as a map of r × alpha."""
    from matplotlib.patches import Patch

    cells, points = panels.cells(results), panels.points(results)
    methods, each = results.settings["grid"]["methods"], panels.each(results)
    line = next(line for line in results.lines if line.varies == "both")
    cells, points = panels.along(cells, line), panels.along(points, line)
    ranks, alphas = (sorted(set(values)) for values in zip(*line.points))
    width = style.TWO_COLUMNS if len(each) > 1 else style.ONE_COLUMN
    height = 0.6 + len(methods) * min(3.2, 0.75 + 0.28 * len(ranks))
    figure, rows = style.subplots(len(methods), len(each), width, height, sharex=True, sharey=True)
    values = points.accuracy.dropna()
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    numbered = len(ranks) * len(alphas) * len(each) <= 200
    for method, row in zip(methods, rows):
        for panel, axes in zip(each, row):
            part = panels.of(points, method, panel).set_index(["r", "alpha"])
            table = [[part.accuracy.get((r, alpha), math.nan) for alpha in alphas] for r in ranks]
            shades = axes.pcolormesh(table, cmap=style.MAP, vmin=low, vmax=max(high, low + 1e-6))
            for y, r in enumerate(ranks):
                for x, alpha in enumerate(alphas):
                    _tile(axes, x, y, table[y][x], part.status.get((r, alpha), "missing"), (low, high), numbered)
            axes.grid(False)
            style.title(axes, panels.title(panel, method), len(each))
            axes.set_xticks([x + 0.5 for x in range(len(alphas))], [f"{alpha:g}" for alpha in alphas])
            axes.set_yticks([y + 0.5 for y in range(len(ranks))], [f"{r:g}" for r in ranks])
        row[0].set_ylabel(style.AXES["r"])
    for axes in rows[-1]:
        axes.set_xlabel(style.AXES["alpha"])
    style.colour_bar(figure, shades, rows, "Accuracy")
    lost = points[points.accuracy.isna()].status
    handles = [
        Patch(label=f"{status[0].upper()}: {style.STATUSES[status]} ({count})", facecolor="white", hatch="////", edgecolor="#999999")
        for status in style.STATUSES
        if (count := list(lost).count(status))
    ]  # fmt: skip
    style.legend(figure, handles)
    return figure, captions.write(
        f"Accuracy over r and α in the full grid, one map a method and target set, one colour scale for all, "
        f"{panels.rate(results)}.",
        captions.sample(results, cells),
        "Numbers are means over the seeds." * panels.several_seeds(results),
        captions.holes(cells),
    )


def _tile(axes, x, y, value, status, limits, numbered):
    """Number of a field of the map, or a hatch with the first letter of why it has none."""
    from matplotlib.patches import Rectangle

    text, pale = f"{value:.3f}".removeprefix("0"), value - limits[0] < 0.55 * (limits[1] - limits[0])
    if math.isnan(value):
        axes.add_patch(
            Rectangle(
                (x, y), 1, 1, facecolor="white", hatch="////", edgecolor="#999999", linewidth=0, label=f"_{status}"
            )
        )
        text, pale = status[0].upper(), False
    if numbered:
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=5.5, color="white" if pale else "black")
