"""The contrasts of the paper's claims on a study's cells: measured beside all other comparisons, read again for verdicts."""

import itertools

from lorastudy.analysis import contrasts
from lorastudy.analysis.claims import catalogue, checks
from lorastudy.study import grid, paper

FAMILY = "claim"
RATES = "alpha × learning rate"  # line of the comparisons that cross the two


def key(claim, index):
    """What the comparisons call the check at ``index`` of a claim: their ``group``."""
    return f"{claim.id} {index}"


def of_claim(claim, planned):
    """The checks of a claim that are contrasts of cells, part after part."""
    return [check for part in claim.parts if part.kind in checks.KINDS for check in checks.of(part, planned)]


def planned(table):
    """(method, targets, r, alpha) → runs, of the points with the standard scaling of ``contrasts.points``."""
    standard = table[table.scaling.eq(grid.STANDARD)]
    keys = zip(standard.method, standard.targets, standard.r.astype(int), standard.alpha.astype(float))
    return dict(zip(keys, standard.runs))


def build(table, baselines, directory=paper.DIRECTORY):
    """The ``contrasts.Contrast`` of every check whose cells the study has.

    Args:
        table: of ``contrasts.points``, at the configured learning rate.
        baselines: ids of the baselines that have a result.
    """
    runs = planned(table)
    return [
        contrast
        for claim in catalogue.load(directory)
        for index, check in enumerate(of_claim(claim, list(runs)))
        if (contrast := _contrast(check, key(claim, index), runs, baselines))
    ]


def _contrast(check, group, runs, baselines):
    if not check.cells or any(cell not in runs for cell in check.cells):
        return None
    if check.baseline and check.baseline not in baselines:
        return None
    units = [[(weight, runs[cell]) for weight, cell in unit] for unit in check.sides]
    if check.baseline:
        units = [[*unit, (-1.0, contrasts.as_baseline(check.baseline).runs)] for unit in units]
    return contrasts.Contrast(
        FAMILY, check.a, check.b, check.a, check.b, units, group=group, offset=check.number or 0.0,
        of_grid=check.of_grid,
    )  # fmt: skip


def crossing(table):
    """Contrasts of points that differ in alpha and have the same alpha times learning rate.

    Args:
        table: of ``contrasts.points``, of all cells of the study.
    """
    sets = ["method", "targets", "scaling", "r"]
    found = []
    for _, group in table.groupby(sets, sort=False):
        products = (group.alpha.astype(float) * group.learning_rate).map("{:.9g}".format)
        for _, same in group.groupby(products, sort=False):
            rows = [row for _, row in same.sort_values("alpha").iterrows()]
            found += [(a, b) for b, a in itertools.combinations(rows, 2)]
    claim = next(claim for claim in catalogue.load() if any(part.kind == "coincide" for part in claim.parts))
    return [
        contrasts.Contrast(
            FAMILY, a.point, b.point, a.alpha, b.alpha, [[(1.0, a.runs), (-1.0, b.runs)]], group=key(claim, index),
            line=RATES, common={name: a[name] for name in sets},
        )
        for index, (a, b) in enumerate(found)
    ]  # fmt: skip
