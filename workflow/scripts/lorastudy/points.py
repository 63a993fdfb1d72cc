"""What figures draw of the summary: the runs of one point (all seeds) joined, and what cannot be drawn kept by name."""

import math

from lorastudy import grid, metrics, style

AXES = ["method", "targets", "scaling", "learning_rate", "r", "alpha"]  # a point of the grid, apart from the seed
COSTS = ["trainable_parameters", "seconds", "peak_memory_gib", "validation_accuracy", "validation_nll"]


def main(results):
    """Cells at the study's own learning rate: what every figure shows but those about the learning rate."""
    cells = results.cells
    return cells[cells.learning_rate == results.settings["training"]["learning_rate"]]


def over_seeds(values, lows, highs):
    """Mean of one score over seeds, with a 95% interval.

    With one seed it is that run's own interval, over texts alone. With more, each side of it joins (as squares) the
    seeds' mean distance from value to bound with t · s / √seeds of the values. All seeds meet the same texts, whose
    part of the error thus does not shrink with their number; the mean distance is the most that it can be. The
    interval errs on the wide side.

    Returns:
        mean, low, high; all nan for no values.
    """
    from scipy.stats import t

    values, lows, highs = list(values), list(lows), list(highs)
    n = len(values)
    if not n:
        return math.nan, math.nan, math.nan
    mean = math.fsum(values) / n
    seeds = 0.0
    if n > 1:
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        seeds = t.ppf((1 + metrics.COVERAGE) / 2, n - 1) * spread / math.sqrt(n)
    below = math.fsum(value - low for value, low in zip(values, lows)) / n
    above = math.fsum(high - value for value, high in zip(values, highs)) / n
    return mean, mean - math.hypot(below, seeds), mean + math.hypot(above, seeds)


def join(cells, scores=("accuracy",)):
    """One row a point of the grid, over its seeds.

    Args:
        cells: rows of the summary, one a cell.
        scores: names of scores.

    Returns:
        data frame with the columns ``AXES``; ``status`` (``finished`` if any seed is, else what most are); ``seeds``
        finished; each score with ``_low`` and ``_high`` (see ``over_seeds``), and its ``_seeds``, a list of the single
        values; means of ``COSTS``. A score without values is nan.
    """
    import pandas as pd

    rows = []
    for key, group in cells.groupby(AXES, sort=False):
        done = group[group.status == "finished"]
        row = dict(zip(AXES, key)) | {"seeds": len(done)}
        row["status"] = "finished" if len(done) else group.status.mode().iloc[0]
        for name in scores:
            columns = (name, f"{name}_low", f"{name}_high")
            row |= dict(zip(columns, over_seeds(*(done[column] for column in columns))))
            row[f"{name}_seeds"] = done[name].tolist()
        row |= {name: float(done[name].mean()) if done[name].notna().any() else math.nan for name in COSTS}
        rows.append(row)
    columns = [*AXES, "seeds", "status", *COSTS]
    columns += [f"{name}{end}" for name in scores for end in ("", "_low", "_high", "_seeds")]
    return pd.DataFrame(rows, columns=columns)


def constant(results, name):
    """The value at which ``r`` or ``alpha`` is held while the other varies; the middle one where none is configured."""
    value = results.settings["grid"][f"constant_{name}"]
    values = sorted(results.settings["grid"][name])
    return values[(len(values) - 1) // 2] if value is None else value


def along(results, cells, axis):
    """The cells along which ``axis`` (``r`` or ``alpha``) varies and the other is constant."""
    other = "alpha" if axis == "r" else "r"
    return cells[cells[other] == constant(results, other)]


def panels(results):
    """The (targets, scaling) pairs of the study, one a panel."""
    wanted = results.settings["grid"]
    return [(targets, scaling) for targets in wanted["targets"] for scaling in wanted["scaling"]]


def of(cells, method=None, panel=None):
    """The rows of a method and of a (targets, scaling) pair."""
    if method is not None:
        cells = cells[cells.method == method]
    if panel is not None:
        cells = cells[(cells.targets == panel[0]) & (cells.scaling == panel[1])]
    return cells


def title(panel):
    """What a (targets, scaling) pair is called above its panel."""
    targets, scaling = panel
    name = style.TARGETS[targets]
    return name[0].upper() + name[1:] + ("" if scaling == grid.STANDARD else ", rank-stabilised")


def name(row):
    """A point of the grid in words."""
    text = f"{style.METHODS[row.method]}, {style.TARGETS[row.targets]}, r = {row.r:g}, α = {row.alpha:g}"
    return text if row.scaling == grid.STANDARD else f"{text}, rank-stabilised"


def best(table):
    """The best point of a joined table, and what it was chosen by: validation texts where there are any."""
    table = table[table.seeds > 0]
    by = "accuracy" if table.validation_accuracy.isna().any() else "validation_accuracy"
    return table.loc[table[by].idxmax()], by
