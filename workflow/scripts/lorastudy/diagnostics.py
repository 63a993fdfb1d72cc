"""Figures of single cells: what they confuse, how their loss falls."""

import math

from lorastudy import captions, panels, style, tuning

LONGEST = 12  # characters of a class's name
NUMBERED = 10  # classes up to which a matrix shows its numbers


def confusion(results, look):
    """Confusion matrices of the baselines and of the best cell of each method and target set."""
    shown, by = _chosen(results)
    columns = min(3, len(shown)) or 1
    rows = math.ceil(len(shown) / columns) or 1
    names = _class_names(results, shown)
    size = 2.15
    width = style.TWO_COLUMNS if columns > 1 else style.ONE_COLUMN
    figure, grid_of_axes = style.subplots(rows, columns, width, 0.55 + (size + 0.25) * rows, sharex=True, sharey=True)
    every = list(grid_of_axes.flat)
    shades = None
    for axes, (title, counts) in zip(every, shown):
        shades = _matrix(axes, title, counts)
    ticks = range(len(names))
    for index, axes in enumerate(every):
        axes.grid(False)
        axes.set_visible(index < len(shown))
        if index + columns >= len(shown):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("Predicted")
        if index % columns == 0:
            axes.set_ylabel("True")
    if shades is None:
        every[0].set_visible(True)
        every[0].text(0.5, 0.5, "nothing has finished", ha="center", transform=every[0].transAxes)
    else:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
        for axes in every:
            axes.set_xticks(ticks, names, **turned)
            axes.set_yticks(ticks, names)
        every[0].invert_yaxis()
        style.colour_bar(figure, shades, every, "Fraction of the true class")
    cells = panels.cells(results)
    chosen = {
        "validation_accuracy": "by its accuracy on the validation texts",
        "accuracy": "by its accuracy on the test texts, which flatters it a little",
        None: "",
    }[by]
    return figure, captions.write(
        "Confusion matrices of the base model before fine-tuning and of the best cell of each method and target set"
        + (f", chosen {chosen}." if chosen else "."),
        "Each row adds up to 1; numbers are percent." if len(names) <= NUMBERED else "Each row adds up to 1.",
        "Those of the seeds of a cell are added up." * panels.several_seeds(results),
        captions.sample(results, results.summary),
        captions.holes(results.summary[(results.summary.kind == "baseline") | results.summary.id.isin(cells.id)]),
    )


def _chosen(results):
    """(title, counts) of what is shown, and by which column the best cells were chosen (None without any)."""
    import numpy as np

    shown, by = [], None
    for name, row in results.baselines.iterrows():
        if row.status == "finished":
            title = style.BASELINES[name]
            shown.append(
                (f"{title[0].upper()}{title[1:]}\n\naccuracy {row.accuracy:.3f}", np.array(results.confusion[name]))
            )
    cells = panels.cells(results)
    points = panels.points(results)
    for method in results.settings["grid"]["methods"]:
        for panel in panels.each(results):
            part = panels.of(points, method, panel)
            if not (part.seeds > 0).any():
                continue
            best, by = _best(part)
            counts = sum(np.array(results.confusion[name]) for name in panels.runs(cells, best).id)
            place = f"r = {best.r:g}, α = {best.alpha:g}"
            shown.append((f"{panels.title(panel, method)}\n{place}\naccuracy {best.accuracy:.3f}", counts))
    return shown, by


def _best(points):
    """The best point, and what it was chosen by: validation texts where there are any."""
    points = points[points.seeds > 0]
    by = "accuracy" if points.validation_accuracy.isna().any() else "validation_accuracy"
    return points.loc[points[by].idxmax()], by


def _class_names(results, shown):
    data = results.settings["data"]
    classes = len(shown[0][1]) if shown else 0
    names = data["class_names"] or data["labels"] or range(classes)
    return [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in map(str, names)]


def _matrix(axes, title, counts):
    import numpy as np

    total = counts.sum(axis=1, keepdims=True)
    fractions = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    shades = axes.imshow(fractions, cmap=style.MAP, vmin=0, vmax=1, aspect="equal")
    if len(counts) <= NUMBERED:
        for (y, x), value in np.ndenumerate(fractions):
            axes.text(
                x,
                y,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if value < 0.55 else "black",
            )
    axes.set_title(title, loc="left", fontsize=6.5)
    return shades


def loss_curves(results, look):
    """Training loss of the cells over the steps."""
    cells = panels.cells(results)
    full = results.settings["grid"]["design"] == "full"
    sweeps = {axis: cells if full else panels.along(results, cells, axis) for axis in ("r", "alpha")}
    methods, each = results.settings["grid"]["methods"], panels.each(results)
    lines = [(method, panel) for panel in each for method in methods]
    figure, rows = style.subplots(
        len(lines), 2, style.TWO_COLUMNS, 0.7 + 1.35 * len(lines), sharex=True, sharey=True
    )  # fmt: skip
    curves = results.curves[["id", "step", "loss"]].merge(cells[["id", *tuning.POINT]], on="id")
    for column, (axis, chosen) in enumerate(sweeps.items()):
        values = sorted(chosen[axis].unique())
        for (method, panel), row in zip(lines, rows):
            axes = row[column]
            part = panels.of(curves[curves.id.isin(chosen.id)], method, panel)
            for _, curve in part.groupby(tuning.POINT, sort=False):
                mean = curve.groupby("step").loss.mean()
                look_of = _shade(values.index(curve[axis].iloc[0]), len(values))
                axes.plot(mean.index, mean, linewidth=0.9, label=f"{axis}={curve[axis].iloc[0]:g}", **look_of)
            ended = panels.of(chosen[chosen.status == "diverged"], method, panel)
            for cell in ended.itertuples():
                last = curves[curves.id == cell.id].tail(1)
                axes.plot(
                    last.step, last.loss, marker=style.HOLES["diverged"], linestyle="none", label="_diverged",
                    color=_shade(values.index(getattr(cell, axis)), len(values))["color"],
                )  # fmt: skip
            axes.set_title(panels.title(panel, method), loc="left")
        handles = [
            style.handle(f"{value:g}", linewidth=1.2, **_shade(index, len(values)))
            for index, value in enumerate(values)
        ]
        name = {"r": "Rank r", "alpha": "α"}[axis]
        rows[0][column].legend(
            handles=handles, title=name + ("" if full else f" at {panels.held(results, axis)}"), loc="lower left", bbox_to_anchor=(0, 1.18),
            ncols=min(len(values), 7), handlelength=1.3, columnspacing=0.8, borderaxespad=0, alignment="left",
        )  # fmt: skip
    for axes in rows[-1]:
        axes.set_xlabel("Step")
    for row in rows:
        row[0].set_ylabel("Training loss")
    if curves.empty:
        rows[0][0].set(xlim=(0, 1), ylim=(0, 1))
    style.legend(figure, style.hole_handles(cells.status))
    return figure, captions.write(
        "Training loss (cross-entropy, mean over the steps since the last point) by cell: "
        + (
            "all cells, coloured by r on the left and by α on the right."
            if full
            else "r varies on the left, α on the right."
        ),
        "Each line is the mean over the seeds." * panels.several_seeds(results),
        "A cross ends a run that diverged." if (cells.status == "diverged").any() else "",
        captions.sample(results, cells),
        captions.holes(cells),
    )


def _shade(index, count):
    """Colour and line style of one of ``count`` ordered values: from dark to light, styles alternating."""
    from matplotlib import colormaps

    position = 0.0 if count == 1 else 0.85 * index / (count - 1)
    return {"color": colormaps["viridis"](position), "linestyle": ("-", (0, (3, 1)), (0, (1, 1)))[index % 3]}
