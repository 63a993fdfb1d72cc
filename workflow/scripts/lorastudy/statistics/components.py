r"""How runs scatter by their seeds, shared over a grid: variance components of sets × points × seeds.

A set is what a method, a target set and a scaling make together, a point is an (r, alpha). A run is taken as

    mean of its cell + seed + seed × method + seed × targets + seed × scaling + seed × set + seed × point + residual,

the effects that hold a seed random: the runs of a seed share their initial values and the order of their texts, and
what that does to one method it may not do to another. A difference of cells is free of what the seed does to all of
them. Its variance over seeds is a sum of the others, each times how unevenly the difference weighs the runs that share
it; each is estimated by the mean squares of the layout (Searle, Casella and McCulloch 1992, chapter 4), which all
differences share. So a difference along r has not the 2 degrees of freedom of its own three seeds but those of all
points, and the average difference of two methods, which nothing else in the grid tells of, keeps its 2.

Points may scatter unequally: each has a factor of its own, drawn towards 1 as far as they are alike (``moderated``).
"""

from dataclasses import dataclass, field

import numpy as np

from lorastudy.statistics import moderated


@dataclass(frozen=True)
class Components:
    """Mean squares of a layout of sets × points × seeds.

    Attributes:
        squares: name of a stratum → (mean square, degrees of freedom), in the unit of a run's variance: ``residual``,
            ``point``, ``set``, and one a factor of the sets. Only those that the layout tells of.
        levels: factor of the sets → how many levels.
        sets, points: size of the layout.
        factor: of each point, by which the variance of its runs differs from the average.
        factor_df: degrees of freedom of these factors; infinite if all are 1.
    """

    squares: dict
    levels: dict
    sets: int
    points: int
    factor: dict = field(default_factory=dict)
    factor_df: float = np.inf

    def variance(self, weights):
        """Variance of a contrast of the runs of one seed, and its degrees of freedom (Satterthwaite 1946).

        Args:
            weights: (levels of the set by factor, point) → weight; they add up to 0. Levels are a tuple in the order of
                ``levels``. Sets and points need not be of the layout.
        """
        squared, of_point, of_set = 0.0, {}, {}
        for (levels, point), weight in weights.items():
            squared += self.factor.get(point, 1.0) * weight**2
            of_point[point] = of_point.get(point, 0.0) + weight
            of_set[levels] = of_set.get(levels, 0.0) + weight
        lowest = next(iter(self.squares))
        share = {lowest: squared}

        def add(stratum, amount, below):
            if stratum in self.squares and stratum != lowest:
                share[stratum] = share.get(stratum, 0.0) + amount
                share[below] = share.get(below, 0.0) - amount

        points = sum(self.factor.get(point, 1.0) * weight**2 for point, weight in of_point.items())
        add("point", points / self.sets, lowest)
        add("set", sum(weight**2 for weight in of_set.values()) / self.points, lowest)
        for column, name in enumerate(self.levels):
            of_level = {}
            for levels, weight in of_set.items():
                of_level[levels[column]] = of_level.get(levels[column], 0.0) + weight
            runs = self.points * self.sets / self.levels[name]
            add(name, sum(weight**2 for weight in of_level.values()) / runs, "set" if "set" in self.squares else lowest)
        share = {name: amount for name, amount in share.items() if abs(amount) > 1e-9 * squared}
        parts = [(amount * self.squares[name][0], self.squares[name][1]) for name, amount in share.items()]
        total, (least, least_df) = sum(part for part, _ in parts), min(self.squares[name] for name in share)
        if total <= squared * least:  # differences of mean squares can come out below each of them
            return squared * least, least_df
        df = total**2 / sum(part**2 / df for part, df in parts)
        return total, 1 / (1 / df + self._unequal(weights))

    def _unequal(self, weights):
        """What not knowing the points' factors adds to 1 / degrees of freedom: that of their weighted mean."""
        if np.isinf(self.factor_df):
            return 0.0
        of_point = {}
        for (_, point), weight in weights.items():
            of_point[point] = of_point.get(point, 0.0) + self.factor.get(point, 1.0) * weight**2
        parts = np.array(list(of_point.values()))
        return float((parts**2).sum() / parts.sum() ** 2 / self.factor_df)


def fit(values, factors, points):
    """``Components`` of a complete layout; None if it has no differences or fewer than two seeds.

    Args:
        values: shape (sets, points, seeds).
        factors: name → level of each set. If the sets are not all combinations of them they are taken as they are.
        points: name of each point.
    """
    values = np.asarray(values, dtype=float)
    sets, number, seeds = values.shape
    if seeds < 2 or sets * number < 2:
        return None
    free = values - values.mean(axis=2, keepdims=True)
    free -= free.mean(axis=(0, 1))  # what a seed does to all
    of_set, of_point = free.mean(axis=1), free.mean(axis=0)
    residual = free - of_set[:, None] - of_point
    squares = {
        "residual": ((residual**2).sum(), (sets - 1) * (number - 1)),
        "point": (sets * (of_point**2).sum(), number - 1),
    }
    levels = {name: len(set(level)) for name, level in factors.items()}
    rest, left, above = of_set, sets - 1, {}
    for name, level in factors.items() if np.prod(list(levels.values())) == sets else ():
        means = np.array([of_set[[other == one for other in level]].mean(axis=0) for one in level])
        rest = rest - means
        left -= levels[name] - 1
        above[name] = (number * (means**2).sum(), levels[name] - 1)
    squares |= {"set": (number * (rest**2).sum(), left)} | above
    squares = {name: (total / df / (seeds - 1), df * (seeds - 1)) for name, (total, df) in squares.items() if df > 0}
    found = Components(squares, levels, sets, number)
    return found if number < 3 else _with_factors(found, free - of_set[:, None], points, seeds)


def _with_factors(found, free, points, seeds):
    """``found`` with the factors of its points, from what their runs differ by once the seed's effect on a set is out."""
    sets, number, _ = free.shape
    df = sets * (seeds - 1) * (number - 1) / number
    variances = (free**2).sum(axis=(0, 2)) / df
    if not variances.any():
        return found
    of = moderated.prior(variances, df)
    if np.isinf(of.df):
        return found
    drawn, total = moderated.squeeze(variances, df, of)
    factor = dict(zip(points, drawn / drawn.mean()))
    return Components(found.squares, found.levels, sets, number, factor, total)


def variances(found):
    """Variance of the effects of one run's seed, by stratum, from the mean squares of ``found``; at least 0.

    Strata are those of ``found.squares``, the residual as ``cell``. Mean squares are inverted by what they are expected
    to be (``expected``).
    """
    squares = {name: square for name, (square, _) in found.squares.items()}
    lowest = next(iter(squares))
    below = squares[lowest]
    of = {"cell": below}
    for name, square in squares.items():
        if name != lowest:
            least = squares.get("set", below) if name in found.levels else below
            of[name] = max(0.0, (square - least) / _runs_of_a_level(name, found.levels, found.sets, found.points))
    return of


def expected(of, levels, sets, points, seeds):
    """``Components`` with the mean squares that effects of these variances make; None without degrees of freedom.

    Args:
        of: stratum (``cell``, ``point``, ``set`` and factors) → variance of its effects.
        levels: factor of the sets → how many levels.
    """
    above = levels if np.prod(list(levels.values())) == sets else {}
    df = {"residual": (sets - 1) * (points - 1), "point": points - 1}
    df |= {"set": sets - 1 - sum(number - 1 for number in above.values())} | {name: above[name] - 1 for name in above}
    squares = {"residual": of["cell"]}
    squares["point"] = of["cell"] + sets * of["point"]
    squares["set"] = of["cell"] + points * of["set"]
    for name in above:
        squares[name] = squares["set"] + _runs_of_a_level(name, levels, sets, points) * of[name]
    kept = {name: (squares[name], number * (seeds - 1)) for name, number in df.items() if number * (seeds - 1) > 0}
    return Components(kept, levels, sets, points) if kept else None


def _runs_of_a_level(stratum, levels, sets, points):
    """How many cells share the effect of a level."""
    return {"point": sets, "set": points}.get(stratum) or points * sets // levels[stratum]
