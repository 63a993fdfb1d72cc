"""How the runs of a study scatter by their seeds: what all comparisons share, and which points keep to themselves.

Cells that scatter alike share their variance over the grid (``components``). One whose runs scatter far more than the
others' (at a high alpha some runs half fail) is unstable: its (r, alpha) has no part in what the others share, and a
comparison with it has the variance of its own seeds.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from lorastudy.statistics import components, corrections

SEEDS = 3  # the least for a statement about runs at large
POINTS = 5  # the least of a set to tell what a seed does to it apart from what it does to a point
LEVEL = 0.05
FACTORS = ("method", "targets", "scaling")


@dataclass(frozen=True)
class Scatter:
    """Variances over seeds of one metric.

    Attributes:
        mean: id of a run → its score.
        position: id of a run → (levels of its set, its point: (r, alpha) as a rule).
        unstable: the unstable points.
        shared: ``components.Components``; None where there is nothing to share.
        axes: names of what makes a point.
    """

    mean: dict
    position: dict
    unstable: frozenset
    shared: "components.Components | None"
    axes: tuple = ("r", "alpha")

    def variance(self, units, seeds):
        """Variance over seeds of the mean of a contrast, and its degrees of freedom; None if it cannot be known.

        Args:
            units: each a list of (weight, seed → id), averaged.
            seeds: those that all units have.
        """
        alone = [unit for unit in units if self.is_alone([unit])]
        parts = [self._own(alone, seeds, len(units))] if alone else []
        if len(alone) < len(units):
            weights = {}
            for unit in units:
                if unit not in alone:
                    for weight, runs in unit:
                        position = self.position[runs[seeds[0]]]
                        weights[position] = weights.get(position, 0.0) + weight / len(units)
            total, df = self.shared.variance(weights)
            parts.append((total / len(seeds), df))
        if None in parts:
            return None
        total = sum(variance for variance, _ in parts)
        spread = sum(variance**2 / df for variance, df in parts)
        return total, total**2 / spread if spread else min(df for _, df in parts)

    def alike(self, units):
        """What an average over the grid is made of: the units without an unstable point, if they are most; else all.

        Few wide ones would make the average as wide, and as uncertain of its own width, as they are.
        """
        ran = [unit for unit in units if all(len(runs) for _, runs in unit)]
        stable = [unit for unit in ran if not self._unstable_points(unit)]
        return stable if 2 * len(stable) > len(ran) else units

    def left_out(self, units, kept):
        """Names of the unstable points that are among ``units`` and not among those ``kept``, in order."""
        every, left = (set().union(*map(self._unstable_points, of)) for of in (units, kept))
        return [" ".join(f"{name}={value:g}" for name, value in zip(self.axes, at)) for at in sorted(every - left)]

    def _unstable_points(self, unit):
        of_unit = {self.position[run][1] for _, runs in unit for run in runs.values() if run in self.position}
        return of_unit & self.unstable

    def mixes(self, units):
        """Whether any of these units keeps to its own seeds."""
        return any(self.is_alone([unit]) for unit in units)

    def is_alone(self, units):
        """Whether all of these units keep to their own seeds.

        So does one with an unstable point, one with a baseline, which has no seed, or a control, which is of no set, and
        one whose weights do not add up to 0: what a seed does to all stays in it.
        """
        return self.shared is None or all(
            any(run not in self.position for _, runs in unit for run in runs.values())
            or self._unstable_points(unit)
            or abs(sum(weight for weight, _ in unit)) > 1e-6
            for unit in units
        )

    def _own(self, units, seeds, number):
        if len(seeds) < SEEDS:
            return None
        of_seed = [
            sum(weight * self.mean[runs.get(seed, runs.get(None))] for unit in units for weight, runs in unit) / number
            for seed in seeds
        ]
        return float(np.var(of_seed, ddof=1)) / len(seeds), len(seeds) - 1


def fit(table, scores, point=("r", "alpha")):
    """The ``Scatter`` of a view; None with fewer than ``SEEDS`` seeds.

    Args:
        table: of ``contrasts.points``.
        scores: id → score of each text, float array of shape (texts,), of one metric.
        point: the columns whose values make a point of the layout.
    """
    seeds = sorted({seed for runs in table.runs for seed in runs})
    if len(seeds) < SEEDS:
        return None
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    factors = [name for name in FACTORS if table[name].nunique() > 1]
    sets = list(table[factors].itertuples(index=False, name=None))
    where = list(zip(sets, table[list(point)].itertuples(index=False, name=None), table.runs))
    position = {run: (levels, at) for levels, at, runs in where for run in runs.values()}
    rows, columns = list(dict.fromkeys(sets)), list(dict.fromkeys(at for _, at, _ in where))
    values = np.full((len(rows), len(columns), len(seeds)), np.nan)
    for levels, at, runs in where:
        for seed, run in runs.items():
            values[rows.index(levels), columns.index(at), seeds.index(seed)] = mean[run]
    loose = unstable(values)
    values[:, loose] = np.nan
    kept = _complete(np.isfinite(values))
    levels = {name: [rows[row][index] for row in kept[0]] for index, name in enumerate(factors)}
    part, names = values[np.ix_(*kept)], [columns[column] for column in kept[1]]
    shared = components.fit(part, levels, names) if len(kept[2]) >= SEEDS else None
    return Scatter(mean, position, frozenset(columns[i] for i in np.flatnonzero(loose)), shared, tuple(point))


def unstable(values):
    """Which points scatter far more than the others, in one set or in all together.

    The variance of a cell's runs, once the median of what each seed does to its set is out, is compared with the median
    of all such variances by an F test; so is, of the points left, that of all sets together about their mean (what a
    seed does to a point in all sets, it does to any). Each goes at half of ``LEVEL`` after Holm's correction. A point that
    has lost more than half of what the fullest has to tell of its scatter (runs that collapsed, diverged or are not
    there) counts as unstable: no test would see that it is.

    Args:
        values: shape (sets, points, seeds), NaN where there is no run.

    Returns:
        bool array, shape (points,).
    """
    free = values - _mean(values, 2)
    free = free - _median(free, 1 if values.shape[1] >= POINTS else (0, 1))
    free = free - _mean(free, 2)
    has = np.isfinite(free)
    squares, df = np.nansum(free**2, axis=2), np.maximum(has.sum(axis=2) - 1, 0)
    left = df.sum(axis=0)
    found = _beyond(squares, df).any(axis=0) | (2 * left < left.max())
    apart = np.nansum((free - _mean(free, 0)) ** 2, axis=(0, 2))
    apart_df = left - np.maximum(has.any(axis=0).sum(axis=1) - 1, 0)
    return found | _beyond(np.where(found, 0, apart), np.where(found, 0, apart_df))


def _beyond(squares, df):
    """Which of these sums of squares are beyond what their median explains."""
    from scipy.stats import chi2, f

    found, known = np.zeros(df.shape, dtype=bool), df > 0
    if known.sum() < POINTS:
        return found
    typical = np.median(squares[known] / chi2.median(df[known]))
    if typical:
        # a median tells about half of what a mean square does
        p = f.sf(squares[known] / df[known] / typical, df[known], df[known].sum() / 2)
        found[known] = corrections.holm(p) < LEVEL / 2
    return found


def _complete(has):
    """Sets, points and seeds of a layout without holes, found by leaving out what has the most of them."""
    kept = [np.arange(size) for size in has.shape]
    while all(map(len, kept)) and not (part := has[np.ix_(*kept)]).all():
        holes = [1 - part.mean(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
        axis = max(range(3), key=lambda axis: (holes[axis].max(), axis == 1))
        kept[axis] = np.delete(kept[axis], holes[axis].argmax())
    return kept


def _mean(values, axis):
    count = np.isfinite(values).sum(axis=axis, keepdims=True)
    return np.nansum(values, axis=axis, keepdims=True) / np.where(count, count, 1)


def _median(values, axis):
    with warnings.catch_warnings():  # where nothing has run there is no median, and nothing to take it from
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(np.nanmedian(values, axis=axis, keepdims=True))
