"""The paper's Figures 3 to 11 again, with intervals: all scores along alpha and along r, and the variants side by side.

A variant is a method on a target set. A study with other values of r and alpha has the same figures of its own ones; their
captions say what the paper's show.
"""

from lorastudy.presentation.figures import captions, panels, style
from lorastudy.study import grid, paper

METHODS = ("lora", "qlora")  # of all these figures
SIDE_BY_SIDE = 5  # figures of variants: 7 to 11
FIRST = 7


def along(number, axis, targets):
    """What draws the figure of all four scores of both methods along ``axis`` on a target set."""

    def draw(results, look):
        line = grid.trend(results.lines, axis)
        cells = _on(panels.along(panels.cells(results), line), targets)
        points = _on(panels.along(panels.points(results), line), targets)
        figure, axes = style.subplots(2, 2, style.TWO_COLUMNS, 4.1, sharex=True, sharey=True)
        stated = _stated(results, points)
        for score, one in zip(style.SCORES, axes.flat):
            for index, method in enumerate(METHODS):
                _one_method(one, points, cells, score, axis, look, method, (index, len(METHODS)))
            if score == "accuracy" and len(stated):
                one.plot(stated[axis], stated.accuracy, linestyle="none", label="_paper", **_paper_mark(look))
            style.title(one, style.SCORES[score], 2)
        ranges = [*_reach(points), *zip(stated.accuracy, stated.accuracy)]
        style.limit(axes[0, 0], ranges, marks=cells.status.ne("finished").any())
        for one in axes[-1]:
            style.log2_axis(one, [value[axis == "alpha"] for value in line.points], 2.9)
            one.set_xlabel(style.AXES[axis])
        for row in axes:
            row[0].set_ylabel("Score")
        handles = [
            style.handle(style.METHODS[method], linestyle=style.LINES[method], **style.mark(look, method, targets))
            for method in METHODS
        ]
        handles += [style.handle("the paper's text", linestyle="none", **_paper_mark(look))] if len(stated) else []
        style.legend(figure, handles + style.hole_handles(cells.status))
        return figure, captions.write(
            f"{_repeats(number, _same_line(line, axis))} accuracy and weighted F1, precision and recall against "
            f"{panels.SYMBOLS[axis]} at {line.words}, {style.TARGETS[targets]}, LoRA and QLoRA, {panels.rate(results)}.",
            f"The paper's: {_line_of_the_paper(axis)}." * (not _same_line(line, axis)),
            "Diamonds: the accuracies that the paper's text states." * bool(len(stated)),
            *_closing(results, cells, points),
        )

    draw.__doc__ = f"All four scores along {axis} on {style.TARGETS[targets]}, as in the paper's Figure {number}."
    return draw


def _closing(results, cells, points):
    """What the captions of all scores end with: the sample, the intervals, what is cut off, what is missing."""
    cut = {score: reach for score in style.SCORES for reach in _reach(points)}
    return (
        captions.sample(results, cells),
        captions.intervals(results, points),
        captions.cut(points, cut),
        captions.holes(cells),
    )


def side_by_side(index):
    """What draws the figure of all variants at the ``index``-th group of values of r."""
    number = FIRST + index

    def draw(results, look):
        line = grid.trend(results.lines, "r")
        ranks = groups(line)[index]
        variants = _variants(results.settings["grid"])
        cells, points = (
            rows[rows.method.isin(METHODS) & rows.r.isin(ranks)]
            for rows in (panels.along(panels.cells(results), line), panels.along(panels.points(results), line))
        )
        width = style.TWO_COLUMNS if len(ranks) > 1 else style.ONE_COLUMN
        figure, (row,) = style.subplots(1, len(ranks), width, 2.9, sharey=True)
        for r, axes in zip(ranks, row):
            for slot, (method, targets) in enumerate(variants):
                _one_variant(axes, points, cells, r, (slot, len(variants)), look, method, targets)
            alpha = dict(line.points)[r]
            style.title(axes, f"r = {r:g}, α = {alpha:g}", len(ranks))
            axes.set_xticks(range(len(style.SCORES)), [text.partition(",")[0] for text in style.SCORES.values()])
            axes.set_xlim(-0.6, len(style.SCORES) - 0.4)
            axes.grid(axis="x", visible=False)
        style.limit(row[0], _reach(points), marks=cells.status.ne("finished").any())
        row[0].set_ylabel("Score")
        handles = [
            style.handle(
                f"{style.METHODS[method]}, {style.TARGETS[targets]}",
                linestyle="none",
                **style.mark(look, method, targets),
            )
            for method, targets in variants
        ]
        style.legend(figure, handles + style.hole_handles(cells.status))
        theirs = _ranks_of_the_paper(index)
        same = tuple(ranks) == theirs and _same_line(line, "r")
        return figure, captions.write(
            f"{_repeats(number, same)} the variants side by side at r = {' and '.join(f'{r:g}' for r in ranks)} "
            f"({line.words}), {panels.rate(results)}; F1, precision and recall are weighted.",
            f"The paper's: r = {theirs[0]} and {theirs[1]}, {_line_of_the_paper('r')}." * (not same),
            *_closing(results, cells, points),
        )

    draw.__doc__ = f"All variants side by side at some values of r, as in the paper's Figure {number}."
    return draw


def variants(results, look):
    """Accuracy of each variant along every line of r and of alpha, the other variants behind it."""
    wanted = [
        (method, panel)
        for panel in panels.each(results)
        for method in results.settings["grid"]["methods"]
        if method in style.METHODS and method not in grid.CONTROLS
    ]
    lines = [(axis, part) for axis in grid.AXES for line in results.lines for part in line.along(axis)]
    columns = min(4, len(wanted))
    deep = -(-len(wanted) // columns)
    width = style.TWO_COLUMNS if columns > 2 else style.ONE_COLUMN
    figure, grid_of_axes = style.subplots(
        len(lines) * deep, columns, width, min(9.0, 0.6 + 1.75 * len(lines) * deep), sharey=True
    )
    every_cell, every_point = panels.cells(results), panels.points(results)
    on_a_line = [every_point.loc[line.holds(every_point)] for _, line in lines]
    for block, ((axis, line), points) in enumerate(zip(lines, on_a_line)):
        cells = panels.along(every_cell, line)
        panes = grid_of_axes[block * deep : (block + 1) * deep]
        for axes, (method, panel) in zip(panes.flat, wanted):
            _small_multiple(axes, points, cells, axis, look, wanted, (method, panel))
            stated = _stated(results, panels.of(points, method, panel), method)
            axes.plot(stated[axis], stated.accuracy, linestyle="none", label="_paper", **_paper_mark(look))
            style.log2_axis(axes, [value[axis == "alpha"] for value in line.points], 5.8 / columns)
            style.title(axes, panels.title(panel, method), columns, fontsize=6.5)
        for axes in panes.flat[len(wanted) :]:
            axes.set_visible(False)
        for row in panes:
            row[0].set_ylabel("Accuracy")
        for axes in panes[-1]:
            axes.set_xlabel(f"{style.AXES[axis]} ({line.words})")
    shown = every_cell.loc[[any(on) for on in zip(*(line.holds(every_cell) for _, line in lines))]]
    points = every_point[every_point.point.isin({name for part in on_a_line for name in part.point})]
    reach = style.reach(points, "accuracy", shown.accuracy[shown.status.eq("finished")])
    stated = _stated(results, points)
    reaches = ([reach] if reach else []) + [*zip(stated.accuracy, stated.accuracy)]
    style.limit(grid_of_axes[0, 0], reaches, marks=shown.status.ne("finished").any())
    handles = [style.handle("the paper's text", linestyle="none", **_paper_mark(look))] if len(stated) else []
    style.legend(figure, handles + style.hole_handles(shown.status))
    return figure, captions.write(
        "Accuracy of each method and target set along the lines of the grid, one panel each; the others are the grey lines "
        f"behind it, {panels.rate(results)}. What the paper's Figures 3 to 11 show of accuracy, on one scale.",
        "Diamonds: the accuracies that the paper's text states." * bool(len(stated)),
        captions.sample(results, shown),
        captions.intervals(results, points),
        captions.cut(points, {"accuracy": reach}),
        captions.holes(shown),
    )


def groups(line):
    """The values of r that stand in one figure: two at a time; of more than ten values as many as five figures need."""
    values = sorted({r for r, _ in line.points}) if line else []
    each = max(2, -(-len(values) // SIDE_BY_SIDE))
    return [tuple(values[start : start + each]) for start in range(0, len(values), each)]


def has_line(of_grid, axis, targets):
    """Whether a ``settings.Grid`` has what ``along`` draws."""
    both = set(METHODS) <= set(of_grid.methods) and targets in of_grid.targets
    return both and grid.trend(grid.lines(of_grid), axis) is not None


def has_group(of_grid, index):
    """Whether a ``settings.Grid`` has what ``side_by_side`` draws."""
    several = len(_variants({"methods": of_grid.methods, "targets": of_grid.targets})) > 1
    return several and len(groups(grid.trend(grid.lines(of_grid), "r"))) > index


def _variants(of_grid):
    return [(method, targets) for targets in of_grid["targets"] for method in of_grid["methods"] if method in METHODS]


def _on(rows, targets):
    return rows[rows.method.isin(METHODS) & rows.targets.eq(targets) & rows.scaling.eq(grid.STANDARD)]


def _reach(points):
    """What the common axis of all scores has to show, in a list that is empty if that is nothing."""
    reaches = [reach for score in style.SCORES if (reach := style.reach(points, score))]
    return [(min(low for low, _ in reaches), max(high for _, high in reaches))] if reaches else []


def _repeats(number, same):
    return f"{'Repeats' if same else 'As'} the paper's Figure {number}:"


def _points_of_the_paper(axis):
    """(r, alpha) of the paper's line, of settings.csv."""
    value = paper.settings().set_index("setting").value
    ranks, alphas = ([int(word) for word in value[name].split()] for name in ("line of r: r", "line of alpha: alpha"))
    if axis == "r":
        return tuple((r, int(value["line of r: alpha / r"]) * r) for r in ranks)
    return tuple((int(value["line of alpha: r"]), alpha) for alpha in alphas)


def _ranks_of_the_paper(index):
    ranks = [r for r, _ in _points_of_the_paper("r")]
    return tuple(ranks[2 * index : 2 * index + 2])


def _line_of_the_paper(axis):
    line = grid.Line("", axis, _points_of_the_paper(axis))
    values = ", ".join(str(point[axis == "alpha"]) for point in line.points)
    return f"{panels.SYMBOLS[axis]} = {values} at {line.words}"


def _same_line(line, axis):
    return set(line.points) == set(_points_of_the_paper(axis))


def _stated(results, points, method=METHODS[0]):
    """The accuracies that the paper states of a method's points; none where the model is another."""
    stated = paper.accuracies()
    if results.settings["model"]["name"] != paper.MODEL or points.empty:
        return stated.iloc[:0]
    here = points[["targets", "r", "alpha"]].astype({"r": int, "alpha": float}).drop_duplicates()
    return stated[stated.method.eq(method)].astype({"alpha": float}).merge(here).sort_values(["r", "alpha"])


def _paper_mark(look):
    return {
        "marker": "D", "markersize": 4, "color": look.baseline_colour, "markerfacecolor": "none", "markeredgewidth": 0.8,
        "zorder": 3,
    }  # fmt: skip


def _one_method(axes, points, cells, score, axis, look, method, slot):
    part = points[points.method.eq(method)].sort_values(axis)
    x = style.aside(part[axis], *slot)
    mark = style.mark(look, method, part.targets.iloc[0] if len(part) else grid.ATTENTION)
    style.bars(axes, x, part, score, mark["color"])
    _single_seeds(axes, x, part, cells, score, mark["color"])
    axes.plot(x, part[score], linestyle=style.LINES[method], label=method, **mark)
    lost = cells[cells.method.eq(method) & cells.status.ne("finished")]
    style.crosses(axes, lost[axis], lost.status, mark["color"], slot[0])


def _one_variant(axes, points, cells, r, slot, look, method, targets):
    index, count = slot
    part = points[points.method.eq(method) & points.targets.eq(targets) & points.r.eq(r)]
    part = part[part.scaling.eq(grid.STANDARD)]
    mark, offset = style.mark(look, method, targets), 0.62 * ((index + 0.5) / count - 0.5)
    for x, score in enumerate(style.SCORES):
        style.bars(axes, [x + offset] * len(part), part, score, mark["color"])
        _single_seeds(axes, [x + offset] * len(part), part, cells, score, mark["color"])
    drawn = [x + offset for x in range(len(style.SCORES))]
    axes.plot(
        drawn if len(part) else [], part[list(style.SCORES)].iloc[0] if len(part) else [], linestyle="none",
        label=f"{method} {targets}", **mark,
    )  # fmt: skip
    lost = cells[cells.method.eq(method) & cells.targets.eq(targets) & cells.r.eq(r) & cells.status.ne("finished")]
    style.crosses(axes, [drawn[0]] * len(lost), lost.status, mark["color"], 0)


def _single_seeds(axes, x, points, cells, score, colour):
    for where, (_, point) in zip(x, points.iterrows()):
        values = panels.runs(cells, point)[score]
        if len(values) > 1:
            style.singles(axes, [where] * len(values), values, colour)


def _small_multiple(axes, points, cells, axis, look, wanted, own):
    for method, panel in wanted:
        part = panels.of(points, method, panel).sort_values(axis)
        if (method, panel) != own:
            axes.plot(part[axis], part.accuracy, color="#c8c8c8", linewidth=0.8, label="_behind", zorder=1)
    method, panel = own
    part = panels.of(points, method, panel).sort_values(axis)
    mark, x = style.mark(look, method, panel[0]), [float(value) for value in part[axis]]
    style.bars(axes, x, part, "accuracy", mark["color"])
    _single_seeds(axes, x, part, cells, "accuracy", mark["color"])
    axes.plot(x, part.accuracy, linestyle=style.LINES[method], label=method, **mark)
    lost = panels.of(cells[cells.status != "finished"], method, panel)
    style.crosses(axes, lost[axis], lost.status, mark["color"], 0)
