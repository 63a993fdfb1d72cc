"""Variances that borrow from each other: empirical Bayes (Smyth 2004), as in limma's ``squeezeVar``.

Of many things alike, each with a variance of few degrees of freedom, the true variances are taken as a sample of a
scaled inverse chi-squared distribution with ``s2`` and ``df``. Both are estimated from the observed variances; each
is then drawn towards ``s2`` as far as they are alike: not at all where they differ widely (``df`` near 0), wholly
where they differ no more than chance makes them (``df`` infinite).
"""

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-5  # of the median: variances below, 0 among them, count as this (limma's fitFDist)


@dataclass(frozen=True)
class Prior:
    """What variances have in common: their typical value, and how many degrees of freedom it is worth to each."""

    s2: float
    df: float


def prior(variances, df):
    """The prior of independent variances, by the moments of their logarithms (Smyth 2004, section 6.2).

    Args:
        variances: shape (n,), at least two.
        df: degrees of freedom of each.
    """
    from scipy.special import digamma, polygamma

    x = np.maximum(variances, 0.0)
    x = np.maximum(x, SMALLEST * (np.median(x) or 1.0))
    e = np.log(x) - digamma(df / 2) + np.log(df / 2)
    beyond_chance = e.var(ddof=1) - polygamma(1, df / 2)
    if beyond_chance <= 0:
        return Prior(float(x.mean()), np.inf)
    prior_df = 2 * trigamma_inverse(beyond_chance)
    return Prior(float(np.exp(e.mean() + digamma(prior_df / 2) - np.log(prior_df / 2))), float(prior_df))


def squeeze(variances, df, of):
    """Variances drawn towards a ``Prior``, and their degrees of freedom: no more than all variances have together."""
    variances = np.asarray(variances, dtype=float)
    total = min(of.df + df, len(variances) * df)
    if np.isinf(of.df):
        return np.full(len(variances), of.s2), total
    return (of.df * of.s2 + df * variances) / (of.df + df), total


def trigamma_inverse(value):
    """The x at which the trigamma function is ``value``, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / polygamma(2, x)
        x += step
        if -step / x < 1e-10:
            break
    return float(x)
