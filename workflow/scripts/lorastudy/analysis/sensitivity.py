"""What a study can tell: the smallest differences that it will show, the smallest margins of equality, seeds still needed.

Before anything has run, from variances of a study that was (``DEFAULT``); once cells have finished, from their own. Both
say how much of a run's accuracy is chance, by what the chance falls on: a method, a set (method, target set and scaling
together), a point (an r with an alpha) or a cell alone. From them follow the errors of every comparison that the grid
holds, as ``comparisons`` will estimate them.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lorastudy.analysis import comparisons, contrasts, scatter, tuning
from lorastudy.statistics import components, equivalence, paired, power
from lorastudy.study import grid
from lorastudy.study.settings import REPOSITORY

DEFAULT = REPOSITORY / "resources" / "variances.yaml"
STRATA = (*scatter.FACTORS, "set", "point", "cell")
# families that a plan has a row for, with what is compared
FAMILIES = {
    "pooled_method": "LoRA and QLoRA, mean of {units}",
    "method": "LoRA and QLoRA, one pair",
    "pooled_targets": "target sets, mean of {units}",
    "targets": "target sets, one pair",
    "pooled_scaling": "scalings, mean of {units}",
    "scaling": "scalings, one pair",
    "pooled_r_pair": "two values of r, mean of {units}",
    "r_pair": "two values of r, one pair",
    "pooled_alpha_pair": "two values of alpha, mean of {units}",
    "alpha_pair": "two values of alpha, one pair",
}
MEASURED = (*FAMILIES, "set_pair")  # that variances are read off
MOST = 30  # seeds that are looked at


@dataclass(frozen=True)
class Variances:
    """Variances of the accuracy of a run, fractions squared, by stratum (``STRATA``).

    Attributes:
        runs: between seeds, over all texts that could be: what a seed does to all runs of the stratum, beyond what it
            does to every run.
        texts: between texts, over all seeds that could be: what a text has against the stratum; of one text.
        both: what is left of a text with a seed; of one text.
        source: what they were measured on, in words.
    """

    runs: dict
    texts: dict
    both: dict
    source: str


@dataclass(frozen=True)
class Row:
    """What a plan says of one family of comparisons.

    Attributes:
        what: what is compared, in words.
        test: what its interval will be about (``comparisons.TESTS``).
        tests: how many are corrected together.
        difference: smallest true difference that is shown after Holm's correction, as a fraction.
        margin: smallest margin within which equal cells are shown to be.
    """

    what: str
    test: str
    tests: int
    difference: float
    margin: float


def default(path=DEFAULT):
    """The ``Variances`` that hold until a study has its own."""
    stated = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return Variances(**{name: stated[name] for name in ("runs", "texts", "both", "source")})


def measured(table, of_runs, rows, wanted, source):
    """The ``Variances`` of finished cells; None if no variance over seeds is shared by them.

    Args:
        table: of ``contrasts.points``.
        of_runs: ``scatter.Scatter`` of the accuracies.
        rows: comparisons of the accuracy, with the columns ``family``, ``a``, ``b``, ``se_texts``, ``se_fixed``, ``n``
            and ``seeds``.
        wanted: the contrasts of that table.
        source: in words.
    """
    from scipy.optimize import nnls

    if of_runs is None or of_runs.shared is None:
        return None
    positions = _positions(table)
    known = {(row.family, row.a, row.b): row for row in rows.itertuples() if row.se_fixed >= 0}
    amounts, texts, both = [], [], []
    for contrast in wanted:
        if contrast.family not in MEASURED:
            continue
        row = known.get((contrast.family, contrast.a, contrast.b))
        units, _ = contrasts.complete(contrast.members(of_runs))
        if row is None or not units or row.seeds < scatter.SEEDS or of_runs.mixes(units):
            continue
        amounts.append(list(_uneven(_weights(units, positions)).values()))
        texts.append(row.se_texts**2 * row.n)
        both.append((row.se_fixed**2 - row.se_texts**2) * row.n * row.seeds)
    if not amounts:
        return None
    of_texts, of_both = (
        dict(zip(STRATA, map(float, nnls(np.array(amounts), np.array(side))[0]))) for side in (texts, both)
    )
    size = int(rows.n.iloc[0])
    found = components.variances(of_runs.shared)
    runs = {stratum: max(0.0, found.get(stratum, 0.0) - of_both[stratum] / size) for stratum in STRATA}
    return Variances(runs, of_texts, of_both, source)


def plan(of_grid, lines, variances, seeds, texts):
    """What a study of this grid will be able to tell, at one learning rate.

    Args:
        of_grid: ``settings.Grid``.
        lines: of ``grid.lines``.
        seeds, texts: how many; with fewer than ``scatter.SEEDS`` seeds the rows are about these runs.

    Returns:
        list of ``Row``, in the order of ``FAMILIES``.
    """
    table = planned(of_grid, seeds)
    positions, shared = _positions(table), _shared(table, variances, seeds, texts)
    families = {}
    for contrast in contrasts.build(table, lines, []):
        families.setdefault(contrast.family, []).append(contrast)
    rows = []
    for family, what in FAMILIES.items():
        members = families.get(family, [])
        found = [(*_expected(contrast, positions, variances, shared, seeds, texts), contrast) for contrast in members]
        if not found:
            continue
        found.sort(key=lambda one: one[0].half_width())
        estimate, test, contrast = found[len(found) // 2]
        tests = sum(other.group == contrast.group for other in members)
        units = f"{len(contrast.units)} pair{'s' * (len(contrast.units) > 1)}"
        rows.append(
            Row(
                what.format(units=units),
                test,
                tests,
                power.smallest_difference(estimate, power.LEVEL / tests),
                power.smallest_margin(estimate),
            )
        )
    return rows


def planned(of_grid, seeds):
    """The points of a grid (``contrasts.points``) as if all had finished with so many seeds."""
    cells = [
        {**cell.as_dict(), "scaling": cell.scaling, "learning_rate": 0.0, "status": "finished"} | {"seed": seed, "id": f"{cell.id}_s{seed}"}
        for cell in grid.cells(replace(of_grid, seeds=(0,), learning_rates=())).values()
        for seed in range(seeds)
    ]  # fmt: skip
    return contrasts.points(pd.DataFrame(cells))


def open_questions(rows, most=MOST):
    """The averages over the grid that are undecided, each with the seeds that would settle it.

    Args:
        rows: of ``comparisons.measure``, of the accuracy.
        most: seeds that are looked at.

    Returns:
        data frame with the columns of ``rows`` and ``needed``, NA where ``most`` seeds would not do.
    """
    asked = rows[rows.family.str.startswith("pooled_") & rows.test.isin(comparisons.AT_LARGE)]
    asked = asked[asked.answer.eq(equivalence.UNDECIDED)]
    estimates = [
        paired.Estimate(row.difference, row.se_texts, row.se_runs, row.se_fixed, int(row.n), row.df_runs)
        for row in asked.itertuples()
    ]
    needed = [
        power.seeds_to_settle(estimate, int(row.seeds), row.margin, most)
        for estimate, row in zip(estimates, asked.itertuples())
    ]
    return asked.assign(needed=needed).astype({"needed": "Int64"})


def of_study(summary, of_grid, statistics, study_directory="."):
    """What a study's own finished cells say: (``Variances`` or None, rows of ``comparisons.measure`` over the grid).

    Args:
        summary: of ``summary.build``.
        of_grid: ``settings.Grid``.
        statistics: the configuration's block of that name.
    """
    cells = tuning.views(summary)[tuning.CONFIGURED]
    table = contrasts.points(cells)
    wanted = [one for one in contrasts.build(table, grid.lines(of_grid), []) if one.family in MEASURED]
    scores = {"accuracy": comparisons.read(cells, study_directory)["accuracy"]}
    rows = comparisons.measure(wanted, table, scores, statistics)
    of_runs = scatter.fit(table, scores["accuracy"])
    count = int(cells.status.eq("finished").sum())
    return measured(table, of_runs, rows, wanted, f"this study's own {count} finished cells"), rows


def _positions(table):
    """Id of a run → (level of each factor, (r, alpha))."""
    return {
        run: (tuple(getattr(row, name) for name in scatter.FACTORS), (row.r, row.alpha))
        for row in table.itertuples()
        for run in row.runs.values()
    }


def _weights(units, positions):
    """What each cell weighs in the average of units."""
    weights = {}
    for unit in units:
        for weight, runs in unit:
            position = positions[next(iter(runs.values()))]
            weights[position] = weights.get(position, 0.0) + weight / len(units)
    return weights


def _uneven(weights):
    """By what each stratum's variance enters that of a contrast: the sum of its levels' squared weights."""
    sums = {stratum: {} for stratum in STRATA}
    for (levels, point), weight in weights.items():
        of = dict(zip(scatter.FACTORS, levels)) | {"set": levels, "point": point, "cell": (levels, point)}
        for stratum, level in of.items():
            sums[stratum][level] = sums[stratum].get(level, 0.0) + weight
    return {stratum: sum(weight**2 for weight in levels.values()) for stratum, levels in sums.items()}


def _shared(table, variances, seeds, texts):
    """The ``components.Components`` that this table's runs are expected to have."""
    factors = [name for name in scatter.FACTORS if table[name].nunique() > 1]
    levels = {name: table[name].nunique() for name in factors}
    sets, points = (len(table[columns].drop_duplicates()) for columns in (list(scatter.FACTORS), ["r", "alpha"]))
    of_run = {stratum: variances.runs[stratum] + variances.both[stratum] / texts for stratum in STRATA}
    return components.expected(of_run, levels, sets, points, seeds)


def _expected(contrast, positions, variances, shared, seeds, texts):
    """(``paired.Estimate`` with the errors that a contrast is expected to have, its test)."""
    units = contrast.members()
    amount = _uneven(_weights(units, positions))
    of_unit = [_uneven(_weights([unit], positions)) for unit in units]
    of_text = {stratum: variances.texts[stratum] + variances.both[stratum] / seeds for stratum in STRATA}
    single = {stratum: variances.texts[stratum] + variances.both[stratum] for stratum in STRATA}
    spread = _sum(of_text, amount) * texts
    alone = np.mean([_sum(single, of) for of in of_unit]) * texts
    # with the two texts more of paired.estimate
    fixed = (spread + (spread / alone if alone else 1.0)) / (texts + 1) / (texts + 2)
    if shared is not None and seeds >= scatter.SEEDS:
        varies = {(levels_of(levels, shared), point): w for (levels, point), w in _weights(units, positions).items()}
        variance, df = shared.variance(varies)
        left = max(0.0, fixed - _sum(variances.both, amount) / seeds / texts)
        errors = np.sqrt([left, variance / seeds, fixed])
        return paired.Estimate(0.0, *map(float, errors), texts, df), comparisons.TESTS["shared"]
    if len(units) < comparisons.PAIRS:
        return paired.Estimate(0.0, float(np.sqrt(fixed)), 0.0, float(np.sqrt(fixed)), texts, 0), comparisons.TESTS[
            "texts"
        ]
    of_run = {name: variances.runs[name] / seeds + of_text[name] / texts for name in STRATA}
    between, residual = (_between(of, of_unit, amount) for of in (of_run, of_text))
    left = max(0.0, fixed - residual / len(units) / texts)
    errors = np.sqrt([left, between / len(units), fixed])
    return paired.Estimate(0.0, *map(float, errors), texts, len(units) - 1), comparisons.TESTS["units"]


def levels_of(levels, shared):
    """The levels of the factors that vary, as ``components.Components`` names them."""
    return tuple(level for name, level in zip(scatter.FACTORS, levels) if name in shared.levels)


def _sum(variances, amount):
    return sum(variances[stratum] * amount[stratum] for stratum in STRATA)


def _between(variances, of_unit, amount):
    """Variance between units: what each has, less what all share."""
    of_each = np.mean([_sum(variances, of) for of in of_unit])
    return max(0.0, of_each - _sum(variances, amount)) * len(of_unit) / (len(of_unit) - 1)
