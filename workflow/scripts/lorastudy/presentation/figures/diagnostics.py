"""Figures of single cells: what they confuse, how their loss falls."""

import itertools

import numpy as np

from lorastudy.analysis import tuning
from lorastudy.presentation.figures import captions, panels, style
from lorastudy.study import grid

LONGEST = 12  # characters of a class's name
NAMED = 16  # classes up to which each has its name at the axis
NUMBERED = 10  # classes up to which a matrix shows its numbers


def confusion(results, look):
    """Confusion matrices of the baselines and of the best cell of each method and target set."""
    from matplotlib.cm import ScalarMappable

    groups, by = _groups(results)
    names, explained = style.short(results.classes or _numbers(results), LONGEST)
    longest = max(len(group) for group in groups)
    across = longest > len(groups)  # a group is a column, or a row where columns would be too long
    shape = (len(groups), longest) if across else (longest, len(groups))
    side = min(2.15, (style.TWO_COLUMNS - 1) / shape[1])
    figure, axes = style.subplots(*shape, style.TWO_COLUMNS, 0.55 + 1.15 * side * shape[0])
    figure.set_layout_engine("compressed")  # the axes are square
    positions = range(0, len(names), -(-len(names) // NAMED))
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    for group, every in zip(groups, axes if across else axes.T):
        for (title, counts), one in itertools.zip_longest(group, every, fillvalue=(None, None)):
            one.set_visible(title is not None)
            if title is not None:
                _matrix(one, counts)
                style.title(one, title, shape[1], fontsize=6.5)
                one.set_xticks(positions, [names[position] for position in positions], **turned)
                one.set_yticks(positions, [names[position] for position in positions])
                one.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    for column in axes.T:
        seen = [one for one in column if one.get_visible()]
        for one in seen:
            one.tick_params(labelbottom=one is seen[-1])
        seen[-1].set_xlabel("Predicted")
    for one in axes[:, 0]:
        one.set_ylabel("True")
        one.tick_params(labelleft=True)
    for one in axes[:, 1:].flat:
        one.tick_params(labelleft=False)
    style.colour_bar(figure, ScalarMappable(cmap=style.MAP), axes, "Fraction of the true class")
    cells = panels.cells(results)
    shown = results.summary[results.summary.id.isin(cells.id) | results.summary.kind.eq("baseline")]
    return figure, captions.write(
        "Confusion matrices of the base model before fine-tuning and of the best cell of each method and target set"
        + {
            "validation_accuracy": ", chosen by accuracy on the validation texts.",
            "accuracy": ", chosen by accuracy on these test texts, which flatters it a little.",
            None: ".",
        }[by],
        "Rows add up to 1" + ("; numbers are percent." if len(names) <= NUMBERED else "."),
        "Counts of the seeds of a cell are added up." * panels.several_seeds(results),
        explained,
        captions.sample(results, shown),
        captions.holes(shown),
    )


def _numbers(results):
    """Names of classes of which nothing but their number is known."""
    return [str(index + 1) for index in range(len(next(iter(results.confusion.values()), [])))] or ["?"]


def _groups(results):
    """What is shown: the baselines and the best cells of each method; and what the best were chosen by.

    Returns:
        list of groups, each a list of (title, counts or None if nothing has finished); column of the points.
    """
    first, groups, by = [], [], None
    for name, row in results.baselines.iterrows():
        title, counts = style.BASELINES[name].rstrip(")").replace(" (", "\n"), None
        if row.status == "finished":
            title, counts = f"{title}\naccuracy {row.accuracy:.3f}", np.array(results.confusion[name])
        first.append((title, counts))
    cells, points = panels.cells(results), panels.points(results)
    for method in results.settings["grid"]["methods"]:
        groups.append([])
        for panel in panels.each(results):
            part = panels.of(points, method, panel)
            title, counts = panels.title(panel, method), None
            if (part.seeds > 0).any():
                best, by = _best(part)
                title += f"\nr = {best.r:g}, α = {best.alpha:g}\naccuracy {best.accuracy:.3f}"
                counts = sum(np.array(results.confusion[name]) for name in panels.runs(cells, best).id)
            groups[-1].append((title, counts))
    return [first, *groups], by


def _best(points):
    """The best point, and what it was chosen by: validation texts where there are any."""
    points = points[points.seeds > 0]
    by = "accuracy" if points.validation_accuracy.isna().any() else "validation_accuracy"
    return points.loc[points[by].idxmax()], by


def _matrix(axes, counts):
    """One matrix, its rows divided by their sums; an empty frame that says so without counts."""
    axes.grid(False)
    axes.set_box_aspect(1)
    if counts is None:
        style.empty(axes)
        return
    total = counts.sum(axis=1, keepdims=True)
    fractions = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axes.imshow(fractions, cmap=style.MAP, vmin=0, vmax=1)
    if len(counts) <= NUMBERED:
        for (y, x), value in np.ndenumerate(fractions):
            colour = "white" if value < 0.55 else "black"
            axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=colour)


def loss_curves(results, look):
    """Training loss of the cells over the steps."""
    from matplotlib.ticker import MaxNLocator

    cells, each = panels.cells(results), panels.each(results)
    full = any(line.varies == "both" for line in results.lines)
    lines = [(method, panel) for panel in each for method in results.settings["grid"]["methods"]]
    height = 0.7 + min(1.35 * len(lines), 8.0)
    figure, rows = style.subplots(len(lines), 2, style.TWO_COLUMNS, height, sharex=True, sharey=True)
    curves = results.curves[["id", "step", "loss"]].merge(cells[["id", "status", *tuning.POINT]], on="id")
    for axis, column in zip(("r", "alpha"), rows.T):
        line = grid.trend(results.lines, axis)
        chosen, shown = (curves, cells) if full else (panels.along(curves, line), panels.along(cells, line))
        values = sorted(shown[axis].unique())
        shades = {value: _shade(index, len(values)) for index, value in enumerate(values)}
        for (method, panel), axes in zip(lines, column):
            _losses(axes, panels.of(chosen, method, panel), axis, shades)
            style.title(axes, panels.title(panel, method), 2)
        column[0].legend(
            handles=[style.handle(f"{value:g}", linewidth=1.2, **shade) for value, shade in shades.items()],
            title=style.AXES[axis] if full or not line else f"{style.AXES[axis]} at {line.words}",
            loc="lower left", bbox_to_anchor=(0, 1.18), borderaxespad=0, alignment="left",
            ncols=min(len(values), 7), handlelength=1.3, columnspacing=0.8,
        )  # fmt: skip
        column[-1].set_xlabel("Step")
        column[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=style.STEPS))
    for row in rows:
        row[0].set_ylabel("Training loss")
    kept = curves.loss[curves.status == "finished"]
    if len(kept):
        room = 0.05 * (kept.max() - kept.min()) + 1e-3
        rows[0][0].set_ylim(kept.min() - room, kept.max() + room)
    style.legend(figure, style.hole_handles(cells.status, drawn=("diverged",)))
    diverged = "A cross ends a run that diverged; what lies above all runs that finished is cut off."
    split = "all cells, by r on the left and by α on the right" if full else "r varies on the left, α on the right"
    return figure, captions.write(
        f"Training loss (cross-entropy, mean over the steps since the last point) by cell: {split}.",
        "Each line is the mean over the seeds." * panels.several_seeds(results),
        diverged if (curves.status == "diverged").any() else "",
        captions.sample(results, cells),
        captions.holes(cells),
    )


def _losses(axes, curves, axis, shades):
    """A line for each point of the grid, the mean over its seeds; a cross at the last step of a run that diverged."""
    for _, curve in curves.groupby(tuning.POINT, sort=False):
        value = curve[axis].iloc[0]
        mean = curve.groupby("step").loss.mean()
        axes.plot(mean.index, mean, linewidth=0.9, label=f"{axis} = {value:g}", **shades[value])
    for _, curve in curves[curves.status == "diverged"].groupby("id", sort=False):
        end = curve.iloc[-1]
        cross = {"marker": style.HOLES["diverged"], "color": shades[end[axis]]["color"], "label": "_diverged"}
        axes.plot([end.step], [end.loss], linestyle="none", **cross)


def _shade(index, count):
    """Colour and line style of one of ``count`` ordered values: from dark to light, styles in turn."""
    from matplotlib import colormaps

    position = 0.0 if count == 1 else 0.75 * index / (count - 1)
    return {"color": colormaps["viridis"](position), "linestyle": ("-", (0, (3, 1)), (0, (1, 1)))[index % 3]}
