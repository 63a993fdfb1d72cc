"""What is compared with what: contrasts of a study's points and baselines, by family, and the runs that they use."""

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

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
        of_grid: whether it is about the grid as a whole, not about the points that it names: an average, or a trend.
            Then points that scatter far more than the others have no part in it (``scatter.Scatter.alike``).
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
    of_grid: bool = False

    def members(self, of_runs=None):
        """The units as they are averaged: lists of (weight, seed → id). Those of trends are lines, set up here.

        Args:
            of_runs: ``scatter.Scatter``; with it, only what an average or trend over the grid is made of.
        """
        keeps = of_runs is not None and self.of_grid
        if self.family.endswith("_trend"):
            lines = [[[member] for member in line] for line in self.units]
            lines = [of_runs.alike(line) for line in lines] if keeps else lines
            units = trend_units([[member for (member,) in line] for line in lines])
            return of_runs.alike(units) if keeps else units
        return of_runs.alike(self.units) if keeps else self.units

    def whole(self):
        """The units over all runs that there are, those at chance among them: lists of (weight, ids)."""
        units = [
            [(weight, [*runs.values(), *getattr(runs, "collapsed", {}).values()]) for weight, runs in unit]
            for unit in self.units
        ]
        if not self.family.endswith("_trend"):
            return [unit for unit in units if all(ids for _, ids in unit)]
        lines = [[(x, ids) for x, ids in line if ids] for line in units]
        return [
            [(weight, ids) for weight, (_, ids) in zip(paired.trend_weights([x for x, _ in line]), line)]
            for line in lines
            if len(line) > 1
        ]

    def ends(self, units):
        """Name and value of a and of b. A trend goes as far as its ``units`` do, whose lines may end apart: "r=64 to 512".

        Args:
            units: of ``members``.
        """
        if not self.family.endswith("_trend"):
            return (self.a, self.a_value), (self.b, self.b_value)
        axis = self.family.split("_")[-2]
        at = {id(runs): 2**x for line in self.units for x, runs in line}
        found = []
        for end in (max, min):
            values = sorted({end(at[id(runs)] for _, runs in unit) for unit in units})
            name = " to ".join(dict.fromkeys(f"{value:g}" for value in (values[0], values[-1])))
            value = float(f"{end(values):.9g}")  # a power of 2 of a logarithm
            found.append((f"{axis}={name}", int(value) if axis == "r" else value))
        return found


class Runs(dict):
    """Seed → id of the runs of a point that learned; ``collapsed`` has the same of those that ended at chance."""

    collapsed = {}


def points(cells):
    """The points of a view.

    Returns:
        data frame with ``tuning.POINT``, ``learning_rate``, ``point`` (the cells' id without the seed) and ``runs``
        (``Runs``), in the order of the grid.
    """
    names = [*tuning.POINT, "learning_rate"]
    together = _together(cells[[*names, "id", "seed", "status"]], names)
    rows = [dict(zip(names, key, strict=True)) | _point(group) for key, group in together]
    return pd.DataFrame(rows, columns=[*names, "point", "runs"])


def _point(group):
    """Name and runs of a point, or method and runs of a control, from its rows of the summary."""
    first = group[0]
    learned, lost = (
        {row.seed: row.id for row in group if row.status == status} for status in ("finished", collapse.COLLAPSED)
    )
    runs = Runs(learned)
    runs.collapsed = lost
    return {"method": first.method, "point": first.id.removesuffix(f"_s{first.seed}"), "runs": runs}


def _rows(table):
    return list(table.itertuples(index=False))


def _together(table, names):
    """The rows that agree in these columns: (their values, rows), in the order of the first of each."""
    found = {}
    for row in _rows(table):
        found.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return list(found.items())


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
    for (r, alpha, scaling), members in _together(table, ["r", "alpha", "scaling"]):
        common = {"r": r, "alpha": alpha, "scaling": scaling}
        found += [
            _pair("set_pair", "point", common, b, a, group=f"r={r} alpha={alpha:g} {scaling}")
            for a, b in itertools.combinations(members, 2)
        ]
    for baseline in baselines:
        of_baseline = as_baseline(baseline)
        for row in _rows(table):
            common = {name: getattr(row, name) for name in tuning.POINT}
            found.append(_pair("baseline", "point", common, row, of_baseline))
        for (method,), group in _together(table, ["method"]):
            units = [[(1, row.runs), (-1, of_baseline.runs)] for row in group]
            found.append(
                Contrast("pooled_baseline", method, baseline, method, baseline, units, common={"method": method})
            )
    return found


def controls(rows):
    """Controls as ``points`` has the grid's, from their rows of the summary."""
    return [_point(group) for _, group in _together(rows, ["method"])]


def against(table, found):
    """Contrasts of every point with every control, and of every method on average.

    Args:
        table: of ``points``.
        found: of ``controls``.
    """
    made = []
    for control in found:
        for row in _rows(table):
            common = {name: getattr(row, name) for name in tuning.POINT}
            units = [[(1, row.runs), (-1, control["runs"])]]
            made.append(
                Contrast("control", row.point, control["method"], row.method, control["method"], units, common=common)
            )
        for (method,), group in _together(table, ["method"]):
            units = [[(1, row.runs), (-1, control["runs"])] for row in group]
            names = method, control["method"]
            made.append(Contrast("pooled_control", *names, *names, units, common={"method": method}))
    return made


def _alike(table, axis):
    """Points that differ in ``axis`` (a key of ``ORDER``) alone: what they have in common, and they in order."""
    others = [name for name in tuning.POINT if name != axis]
    for key, group in _together(table, others):
        if len(group) > 1:
            order = list(dict.fromkeys((*ORDER[axis], *(getattr(row, axis) for row in group))))
            ordered = sorted(group, key=lambda row: order.index(getattr(row, axis)))
            yield dict(zip(others, key, strict=True)), ordered


def _along(table, line):
    """The points on a line of each method, target set and scaling: line, what they have in common, and they in order."""
    sets = ["method", "targets", "scaling"]
    for key, group in _together(table[line.holds(table)], sets):
        if len(group) > 1:
            common = dict(zip(sets, key, strict=True))
            held = {name: {getattr(row, name) for row in group} for name in grid.AXES}
            common |= {name: next(iter(values)) for name, values in held.items() if len(values) == 1}
            yield line, common, sorted(group, key=lambda row: getattr(row, line.varies))


def _pairs(members, common):
    return [(common, a, b) for b, a in itertools.combinations(members, 2)]


def _pair(family, axis, common, a, b, group="", line=""):
    units = [[(1, a.runs), (-1, b.runs)]]
    return Contrast(family, a.point, b.point, getattr(a, axis), getattr(b, axis), units, group, line, common)


def _pooled(axis, pairs, family):
    """The average of each pair of values of an axis over all else."""
    together = {}
    for _, a, b in pairs:
        together.setdefault((getattr(a, axis), getattr(b, axis)), []).append([(1, a.runs), (-1, b.runs)])
    return [
        Contrast(family, _value(axis, a), _value(axis, b), a, b, units, of_grid=True)
        for (a, b), units in sorted(together.items())
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
    low, high = (side(getattr(row, axis) for line in lines for row in line) for side in (min, max))
    # The weights depend on which points have a result: they are set where the results are known.
    units = [[(float(np.log2(getattr(row, axis))), row.runs) for row in line] for line in lines]
    ends = _value(axis, high), _value(axis, low), high, low
    return Contrast(family, *ends, units, line=name, common=common, of_grid=True)


def _value(axis, value):
    return str(value) if axis in ORDER else f"{axis}={value:g}"


def _group(line, common):
    return f"{common['method']} {common['targets']} {common['scaling']} {line.name}"


def as_baseline(name):
    """A baseline as the points have their rows."""
    return SimpleNamespace(point=name, runs={None: name})


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
