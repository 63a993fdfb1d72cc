"""What is compared with what: contrasts of a study's points and baselines, by family, and the runs that they use."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lorastudy.analysis import collapse, tuning
from lorastudy.statistics import paired
from lorastudy.study import grid

# the later one is a, so that differences read: QLoRA to LoRA, attention to all linear layers, small to large
ORDER = {
    "method": ("qlora", "lora"),
    "targets": ("attention", "all-linear"),
    "scaling": ("standard", "rank-stabilised"),
}


@dataclass(frozen=True)
class Contrast:
    """What is compared.

    Attributes:
        family: kind of comparison: ``method``, ``targets``, ``scaling`` (all else equal), ``r_step`` and
            ``alpha_step`` (neighbouring points of a line), ``r_pair`` and ``alpha_pair`` (any two of a line), ``set_pair`` (any
            two of method and target set at one r and alpha), ``baseline``, ``control``, ``r_trend`` and ``alpha_trend`` (change
            along the regression line on log2, from the lowest value to the highest); ``pooled_…`` is the average of
            one of these over all else.
        a, b: names of what is compared: points, baselines, or values of the axis.
        a_value, b_value: the values in which a and b differ.
        units: what is averaged: each a list of (weight, point).
        group: within it p values are corrected together; empty if the whole family is.
        line: name of the grid's line that both are on; empty if that is not what was asked.
        common: the columns of ``tuning.POINT`` that all of it has in common.
        offset: a number that is subtracted, where b is that number and no result.
    """

    family: str
    a: str
    b: str
    a_value: object
    b_value: object
    units: list
    group: str = ""
    line: str = ""
    common: dict = field(default_factory=dict)
    offset: float = 0.0

    def members(self):
        """The units as they are averaged: lists of (weight, seed → id). Those of trends are lines, set up here."""
        return trend_units(self.units) if self.family.endswith("_trend") else self.units


class Runs(dict):
    """Seed → id of the runs of a point that learned; ``collapsed`` has the same of those that ended at chance."""

    collapsed = {}


def points(cells):
    """The points of a view.

    Returns:
        data frame with ``tuning.POINT``, ``learning_rate``, ``point`` (the cells' id without the seed) and ``runs``
        (``Runs``), in the order of the grid.
    """
    rows = []
    for key, group in cells.groupby([*tuning.POINT, "learning_rate"], sort=False):
        rows.append(dict(zip([*tuning.POINT, "learning_rate"], key, strict=True)) | _point(group))
    return pd.DataFrame(rows, columns=[*tuning.POINT, "learning_rate", "point", "runs"])


def _point(group):
    """Name and runs of a point, or method and runs of a control, from its rows of the summary."""
    first = group.iloc[0]
    learned, lost = (group[group.status.eq(status)] for status in ("finished", collapse.COLLAPSED))
    runs = Runs(zip(learned.seed, learned.id))
    runs.collapsed = dict(zip(lost.seed, lost.id))
    return {"method": first.method, "point": first.id.removesuffix(f"_s{first.seed}"), "runs": runs}


def build(table, lines, baselines):
    """All contrasts of one view.

    Args:
        table: of ``points``.
        lines: of ``grid.lines``.
        baselines: ids of the baselines that have a result.
    """
    found = []
    for axis in ORDER:
        pairs = [pair for common, members in _alike(table, axis) for pair in _pairs(members, common)]
        found += [_pair(axis, axis, *pair) for pair in pairs]
        found += _pooled(axis, pairs, f"pooled_{axis}")
    for axis in grid.AXES:
        along = [part for line in lines for part in line.along(axis)]
        members = [found for line in along for found in _along(table, line)]
        pairs = [(line, pair) for line, common, points in members for pair in _pairs(points, common)]
        steps = [(line, common, b, a) for line, common, points in members for a, b in itertools.pairwise(points)]
        found += [_pair(f"{axis}_step", axis, common, a, b, line=line.name) for line, common, a, b in steps]
        found += [
            _pair(f"{axis}_pair", axis, *pair, group=_group(line, pair[0]), line=line.name) for line, pair in pairs
        ]
        found += _trends(axis, members)
        found += _pooled(axis, [pair for _, pair in pairs], f"pooled_{axis}_pair")
    for (r, alpha, scaling), group in table.groupby(["r", "alpha", "scaling"], sort=False):
        common = {"r": r, "alpha": alpha, "scaling": scaling}
        members = [row for _, row in group.iterrows()]
        found += [
            _pair("set_pair", "point", common, b, a, group=f"r={r} alpha={alpha:g} {scaling}")
            for a, b in itertools.combinations(members, 2)
        ]
    for baseline in baselines:
        of_baseline = as_baseline(baseline)
        for _, row in table.iterrows():
            common = {name: row[name] for name in tuning.POINT}
            found.append(_pair("baseline", "point", common, row, of_baseline))
        for method, group in table.groupby("method", sort=False):
            units = [[(1, row.runs), (-1, of_baseline.runs)] for _, row in group.iterrows()]
            found.append(
                Contrast("pooled_baseline", method, baseline, method, baseline, units, common={"method": method})
            )
    return found


def controls(rows):
    """Controls as ``points`` has the grid's, from their rows of the summary."""
    return [_point(group) for _, group in rows.groupby("method", sort=False)]


def against(table, found):
    """Contrasts of every point with every control, and of every method on average.

    Args:
        table: of ``points``.
        found: of ``controls``.
    """
    made = []
    for control in found:
        for _, row in table.iterrows():
            common = {name: row[name] for name in tuning.POINT}
            units = [[(1, row.runs), (-1, control["runs"])]]
            made.append(
                Contrast("control", row.point, control["method"], row.method, control["method"], units, common=common)
            )
        for method, group in table.groupby("method", sort=False):
            units = [[(1, row.runs), (-1, control["runs"])] for _, row in group.iterrows()]
            names = method, control["method"]
            made.append(Contrast("pooled_control", *names, *names, units, common={"method": method}))
    return made


def _alike(table, axis):
    """Points that differ in ``axis`` (a key of ``ORDER``) alone: what they have in common, and they in order."""
    others = [name for name in tuning.POINT if name != axis]
    for key, group in table.groupby(others, sort=False):
        if len(group) > 1:
            order = {name: index for index, name in enumerate(dict.fromkeys((*ORDER[axis], *group[axis])))}
            ordered = group.iloc[group[axis].map(order).argsort(kind="stable")]
            yield dict(zip(others, key, strict=True)), [row for _, row in ordered.iterrows()]


def _along(table, line):
    """The points on a line of each method, target set and scaling: line, what they have in common, and they in order."""
    sets = ["method", "targets", "scaling"]
    for key, group in table.loc[line.holds(table)].groupby(sets, sort=False):
        if len(group) > 1:
            common = dict(zip(sets, key, strict=True))
            common |= {name: group[name].iloc[0] for name in grid.AXES if group[name].nunique() == 1}
            ordered = group.iloc[group[line.varies].argsort(kind="stable")]
            yield line, common, [row for _, row in ordered.iterrows()]


def _pairs(members, common):
    return [(common, a, b) for b, a in itertools.combinations(members, 2)]


def _pair(family, axis, common, a, b, group="", line=""):
    units = [[(1, a.runs), (-1, b.runs)]]
    return Contrast(family, a.point, b.point, a[axis], b[axis], units, group, line, common)


def _pooled(axis, pairs, family):
    """The average of each pair of values of an axis over all else."""
    together = {}
    for _, a, b in pairs:
        together.setdefault((a[axis], b[axis]), []).append([(1, a.runs), (-1, b.runs)])
    return [
        Contrast(family, _value(axis, a), _value(axis, b), a, b, units) for (a, b), units in sorted(together.items())
    ]


def _trends(axis, members):
    """Change along the regression line on log2 of the axis: of each method and target set, and of all.

    With several lines of a method and target set (a full grid has one at each value of the other axis) it is their
    average.
    """
    together = {}
    for line, common, points in members:
        key = (common["method"], common["targets"], common["scaling"])
        together.setdefault(key, []).append((line, common, points))
    found = []
    for (method, targets, scaling), group in together.items():
        common = {"method": method, "targets": targets, "scaling": scaling}
        line = group[0][0].name if len(group) == 1 else ""
        if len(group) == 1:
            common = group[0][1]
        found.append(_trend(f"{axis}_trend", axis, [points for _, _, points in group], common, line))
    everything = [points for _, _, points in members]
    return found + ([_trend(f"pooled_{axis}_trend", axis, everything, {})] if everything else [])


def _trend(family, axis, lines, common, name=""):
    low, high = (side(row[axis] for line in lines for row in line) for side in (min, max))
    # The weights depend on which points have a result: they are set where the results are known.
    units = [[(float(np.log2(row[axis])), row.runs) for row in line] for line in lines]
    return Contrast(family, _value(axis, high), _value(axis, low), high, low, units, line=name, common=common)


def _value(axis, value):
    return str(value) if axis in ORDER else f"{axis}={value:g}"


def _group(line, common):
    return f"{common['method']} {common['targets']} {common['scaling']} {line.name}"


def as_baseline(name):
    return pd.Series({"point": name, "runs": {None: name}})


def trend_units(lines):
    """Lines of (log2 value, runs) as units of weighted points: of each line the largest complete block, if two or more."""
    units = []
    for line in lines:
        (kept, _) = complete([[member] for member in line])
        if len(kept) > 1:
            x = [member[0][0] for member in kept]
            units.append([(weight, member[0][1]) for weight, member in zip(paired.trend_weights(x), kept)])
    return units


def complete(units):
    """The units and seeds of the largest complete block: every unit has run with every seed.

    A hole costs either a unit or a seed, whichever leaves more runs. A baseline, which has no seed, goes with any.

    Args:
        units: each a list of (weight, seed → id).

    Returns:
        (units, seeds); both empty if no unit has run.
    """
    of_unit = [set.intersection(*(set(runs) for _, runs in unit if None not in runs)) for unit in units]
    seeds = sorted(set().union(*of_unit))
    best = ([], [])
    # the seeds that most units have come first; taking more of them leaves fewer units
    seeds.sort(key=lambda seed: -sum(seed in of for of in of_unit))
    for count in range(1, 1 + len(seeds)):
        chosen = set(seeds[:count])
        kept = [unit for unit, of in zip(units, of_unit) if chosen <= of]
        if len(kept) * count > len(best[0]) * len(best[1]):
            best = (kept, sorted(chosen))
    return best
