"""Figures of accuracy against what it costs: trainable parameters, memory, time."""

from lorastudy.analysis import ratios, tuning
from lorastudy.presentation.figures import captions, panels, style

LEVEL = 0.05
PAIRS = ("method", "targets", "scaling", "r_pair", "alpha_pair", "set_pair")  # families that compare two points


def accuracy_against_parameters(results, look):
    """Accuracy against the number of trainable parameters."""
    cells = panels.cells(results)
    points = panels.points(results)
    figure, ((axes,),) = style.subplots(1, 1, style.ONE_COLUMN, 2.7)
    _cloud(axes, points, "trainable_parameters", look)
    axes.set(xlabel="Trainable parameters", ylabel="Accuracy")
    style.legend(figure, _handles(results, look, cells))
    return figure, captions.write(
        f"Accuracy against trainable parameters (adapters and classification head), {panels.rate(results)}.",
        _shown(results, cells, points),
    )


def accuracy_against_cost(results, look):
    """Accuracy against peak memory and against time in training, with the Pareto front as far as it is shown."""
    cells = panels.cells(results)
    points = panels.points(results)
    done = cells[cells.status == "finished"]
    times, unit = in_unit(points.seconds)
    points = points.assign(time=times)
    figure, ((memory, time),) = style.subplots(1, 2, style.TWO_COLUMNS, 2.9, sharey=True)
    fronts, ahead = [], shown_ahead(results)
    for axes, column in ((memory, "peak_memory_gib"), (time, "time")):
        _cloud(axes, points, column, look)
        front = beyond_noise(pareto(points, column), ahead)
        fronts.append(front)
        axes.plot(front[column], front.accuracy, drawstyle="steps-post", color=style.DARK, linewidth=0.8, zorder=1.5)
        axes.plot(
            front[column],
            front.accuracy,
            "o",
            markersize=8,
            color=style.DARK,
            markerfacecolor="none",
            markeredgewidth=0.7,
        )
    memory.set(xlabel="Peak memory in training (GiB)", ylabel="Accuracy")
    time.set(xlabel=f"Time of training ({unit})")
    ring = style.handle(
        "Pareto front, beyond noise",
        color=style.DARK,
        linewidth=0.8,
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgewidth=0.7,
    )
    style.legend(figure, [*_handles(results, look, cells), ring])
    meters, devices = (sorted(done[column].dropna().unique()) for column in ("memory_meter", "device"))
    processes = ratios.processes_per_gpu(done)
    return figure, captions.write(
        f"Accuracy against peak memory (left) and time (right) of training, {panels.rate(results)}. The line and rings are the "
        "Pareto front as far as it is shown: the cheapest point, and each dearer one that is shown to be more accurate than the "
        "one before (compared on the same texts, p < 0.05 after Holm's correction; points that are not compared, by 95% "
        "intervals that do not overlap). That points which are not ringed are worse is not said.",
        *(
            f"Front of {what}: {'; '.join(panels.name(row) for row in front.itertuples())}."
            for what, front in zip(("memory", "time"), fronts)
            if len(front)
        ),
        f"Memory is the {' or the '.join(meters)}." if meters else "",
        f"Measured on {' and on '.join(devices)}{'; times of different devices do not compare' * (len(devices) > 1)}."
        if devices
        else "",
        f"A GPU had {processes} processes at a time; times are those of running side by side." if processes else "",
        _shown(results, cells, points),
    )


def pareto(points, cost):
    """The points that no other beats: none costs at most as much and is at least as accurate.

    Of those that are equal in both the first one is kept. In the order of rising cost.
    """
    order = points[points.accuracy.notna() & points[cost].notna()]
    order = order.sort_values([cost, "accuracy"], ascending=[True, False], kind="stable")
    return order[order.accuracy > order.accuracy.cummax().shift(fill_value=-1.0)]


def beyond_noise(front, ahead):
    """Of a Pareto front in the order of rising cost, the first point and each that is ahead of the one kept before it.

    Args:
        front: of ``pareto``.
        ahead: (one row, other row) → whether the first is shown to be more accurate.
    """
    kept = []
    for row in front.itertuples():
        if not kept or ahead(row, kept[-1]):
            kept.append(row)
    return front.loc[[row.Index for row in kept]]


def shown_ahead(results):
    """What tells of two rows of ``results.points`` whether the first is shown to be more accurate."""
    table = results.comparisons
    rows = table[table["view"].eq(tuning.CONFIGURED) & table.metric.eq("accuracy") & table.family.isin(PAIRS)]
    least = {}  # one pair may be of several families: each has to show it
    for row in rows[rows.p_holm.notna()].itertuples():
        for key, lead in (((row.a, row.b), row.difference), ((row.b, row.a), -row.difference)):
            least[key] = least.get(key, True) and lead > 0 and row.p_holm < LEVEL

    def ahead(one, other):
        return least.get((one.point, other.point), one.accuracy_low > other.accuracy_high)

    return ahead


def in_unit(seconds):
    """Seconds in the unit that suits the longest of them: values, and the name of the unit."""
    longest = seconds.max()
    for name, size, below in (("s", 1, 300), ("min", 60, 300 * 60)):
        if not longest >= below:  # also if there is none
            return seconds / size, name
    return seconds / 3600, "h"


def _cloud(axes, points, column, look):
    points = points[points.accuracy.notna() & points[column].notna()]
    for (method, targets), part in points.groupby(["method", "targets"], sort=False):
        mark = style.mark(look, method, targets)
        style.bars(axes, part[column], part, "accuracy", mark["color"], 0.3)
        axes.plot(part[column], part.accuracy, linestyle="none", label=f"{method} {targets}", **mark)
    if points.empty:
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[])
        style.empty(axes)
    else:
        style.positive_axis(axes, points[column])
        style.limit(axes, [style.reach(points, "accuracy")])


def _shown(results, cells, points):
    """The end of the caption: what is drawn, with which intervals, and what is not."""
    return captions.write(
        captions.sample(results, cells),
        captions.intervals(results, points, singles=False),
        captions.cut(points, {"accuracy": style.reach(points, "accuracy")}),
        captions.holes(cells),
    )


def _handles(results, look, cells):
    wanted = results.settings["grid"]
    return [
        style.handle(
            f"{style.METHODS[method]}, {style.TARGETS[targets]}", linestyle="none", **style.mark(look, method, targets)
        )
        for targets in wanted["targets"]
        for method in wanted["methods"]
    ] + style.hole_handles(cells.status, drawn=())
