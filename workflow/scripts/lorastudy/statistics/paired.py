"""Comparisons of classifiers on the same test texts: differences with intervals, tests, corrections.

A comparison is a contrast: for each run and each test text a weighted sum of what the classifiers scored on that
text (1 for a right prediction, 0 for a wrong one). A difference of two cells has the weights +1 and -1, a trend over
cells the weights of a regression line. Runs (seeds, as a rule) and texts are both a sample, crossed: every run meets
every text.
"""

import math
from dataclasses import dataclass

import numpy as np

COVERAGE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean of a contrast, with the parts of its uncertainty.

    Attributes:
        value: mean over runs and texts, in the unit of the contrast.
        se_texts: standard error that comes from the choice of the texts.
        se_runs: standard error that comes from the choice of the runs; 0 for one run, whose variance is unknown.
        se_fixed: standard error over the texts were these runs the only ones.
        texts: number of texts.
        df_runs: degrees of freedom of ``se_runs``; need not be whole.
    """

    value: float
    se_texts: float
    se_runs: float
    se_fixed: float
    texts: int
    df_runs: float

    def half_width(self, coverage=COVERAGE):
        """Half the width of the interval of ``coverage``.

        The quantile lies between that of the texts (the normal's, nearly) and that of the runs' t, at a power of the
        runs' part of the variance. The power is 2 in Welch's expansion (1947), which holds where the two are close,
        and 1/2 where that of t is far larger, as it is of few runs and for small p: the width is then t times the
        standard error of the runs. Between, it is taken as linear in the ratio of the two. So the error of intervals
        is about as stated at every level, for p values as Holm's correction needs them. A few runs may agree by chance:
        an interval over all runs is never narrower than that over the texts for these runs.
        """
        from scipy.special import stdtrit  # the quantile of t; scipy.stats.t.ppf is a hundred times slower

        tail = (1 + coverage) / 2
        of_texts = stdtrit(self.texts - 1, tail) if self.texts > 1 else 0.0
        least = of_texts * self.se_fixed
        if not self.se_runs:
            return float(max(of_texts * self.se_texts, least))
        of_runs, total = stdtrit(self.df_runs, tail), self.se_texts**2 + self.se_runs**2
        part = (self.se_runs**2 / total) ** ((1 + 3 * of_texts / of_runs) / 2)
        quantile = of_texts + part * (of_runs - of_texts)
        return float(max(quantile * math.sqrt(total), least))

    def interval(self, coverage=COVERAGE):
        width = self.half_width(coverage)
        return self.value - width, self.value + width

    def p_value(self, null=0.0):
        """Two-sided p of the value being ``null``: the interval that just reaches it has coverage 1 - p."""
        from scipy.optimize import brentq
        from scipy.special import stdtr

        distance, smallest = abs(self.value - null), 1e-12
        nothing = 1e-6  # coverage below which quantiles of t lose their digits (stdtrit)
        if not self.se_runs and self.texts > 1 and (error := max(self.se_texts, self.se_fixed)):
            return float(max(smallest, 2 * stdtr(self.texts - 1, -distance / error)))
        if distance <= self.half_width(nothing):
            return 1.0
        if distance >= self.half_width(1 - smallest):
            return smallest
        return brentq(lambda p: self.half_width(1 - p) - distance, smallest, 1 - nothing)

    def p_above(self, bound):
        """One-sided p of the value being at most ``bound``: small when it is above."""
        half = self.p_value(bound) / 2
        return half if self.value > bound else 1 - half

    def p_below(self, bound):
        """One-sided p of the value being at least ``bound``: small when it is below."""
        return 1 - self.p_above(bound)

    def p_equivalent(self, margin):
        """p of two one-sided tests (Schuirmann 1987): small when the value lies within ± ``margin``.

        It is the larger of the two, that against the nearer end.
        """
        half = self.p_value(math.copysign(margin, self.value)) / 2
        return half if abs(self.value) < margin else 1 - half


def estimate(values, single=None):
    """Mean over runs and texts, with both sources of variance.

    The variance of the mean of a two-way layout without replication is var(texts) + var(runs), each variance of
    means with the residual taken out of one of them, so that it is not counted twice. It is taken out of the texts:
    left with the runs it gets their wide t quantile, and the interval does not fall short of its coverage.

    Args:
        values: shape (runs, texts).
        single: the differences of right and wrong whose averages the values are, shape (..., texts). Then each has
            two more texts, with a half each on either side (Agresti and Min 2005): without them, two classifiers that
            never differ on a small test set would be certain to be equal. Averaging makes as much less of these texts
            as of the others.
    """
    values = np.asarray(values, dtype=float)
    runs, texts = values.shape
    of_text, of_run = values.mean(axis=0), values.mean(axis=1)
    mean = values.mean()
    spread = ((of_text - mean) ** 2).sum()
    if single is None:
        variance = spread / max(texts - 1, 1) / texts
    else:
        alone = np.var(single, axis=-1, dtype=float).mean() * texts
        variance = (spread + (spread / alone if alone else 1.0)) / (texts + 1) / (texts + 2)
    fixed, between = variance, 0.0
    if runs > 1:
        between = of_run.var(ddof=1) / runs
        residual = ((values - of_text - of_run[:, None] + mean) ** 2).sum() / ((runs - 1) * max(texts - 1, 1))
        variance = max(0.0, variance - residual / runs / texts)
    errors = (float(np.sqrt(part)) for part in (variance, between, fixed))
    return Estimate(float(mean), *errors, texts, runs - 1)


def of_groups(values, groups):
    """Values of texts as values of groups of texts that belong together: what has their mean, and its standard error.

    The mean over all texts is a ratio of sums over groups; each group stands for its part of it, linearised (the
    cluster-robust variance: Liang and Zeger 1986; Cochran 1977, chapter 9). All that treats texts as a sample then
    treats groups as one. Being linear in the values, it goes through differences and averages of classifiers.

    Args:
        values: shape (texts,).
        groups: number of each text's group, from 0, shape (texts,).

    Returns:
        float array, shape (groups,), whose mean is that of the values.
    """
    mean, number = np.mean(values, dtype=float), groups.max() + 1
    return mean + np.bincount(groups, np.asarray(values, dtype=float) - mean) * number / len(groups)


def mcnemar(only_a, only_b):
    """Two-sided mid-p of McNemar's test (Fagerland, Lydersen and Laake 2013).

    Args:
        only_a: texts that only the first classifier got right.
        only_b: texts that only the second got right.
    """
    from scipy.stats import binom

    total, fewer = only_a + only_b, min(only_a, only_b)
    if total == 0 or only_a == only_b:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5)))


def bootstrap(only_a, only_b, texts, resamples, seed):
    """95% percentile interval of the difference in accuracy under resampling of the texts, both classifiers alike.

    Resampling texts resamples a multinomial of three outcomes (only a right, only b right, no difference), which is
    drawn here directly.
    """
    outcomes = np.array([only_a, only_b, texts - only_a - only_b])
    drawn = np.random.default_rng(seed).multinomial(texts, outcomes / texts, size=resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / texts, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def trend_weights(x):
    """Weights whose sum with the values at ``x`` is the change along the fitted line from lowest to highest ``x``."""
    x = np.asarray(x, dtype=float)
    centred = x - x.mean()
    return centred / (centred**2).sum() * np.ptp(x)
