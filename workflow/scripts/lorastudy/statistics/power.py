"""What a comparison will be able to tell, before it is made: chances of its interval, and what they need.

All goes by the interval that the comparison will have (``paired.Estimate``), whose width is itself a matter of chance: a
few runs happen to agree or not. Chances are means over ``STEPS`` equally likely values of the variance over runs, which
is distributed as chi-squared over its degrees of freedom, and exact over the difference, which is normal.
"""

from dataclasses import replace

import numpy as np

POWER = 0.8  # the usual one (Cohen 1988)
LEVEL = 0.05
STEPS = 201
LONGEST = 1.0  # of a difference of fractions


def shown(expected, difference, level=LEVEL):
    """Chance that the interval of a true ``difference`` leaves 0 out.

    Args:
        expected: ``paired.Estimate`` whose errors are the true ones; its value has no part.
        level: of the two-sided test; that of one of m tests is ``LEVEL`` / m in Holm's first step.
    """
    from scipy.special import ndtr

    width, error = _widths(expected, level), _error(expected)
    return float(np.mean(ndtr((difference - width) / error) + ndtr((-difference - width) / error)))


def equal(expected, margin, difference=0.0, level=LEVEL):
    """Chance that the interval of a true ``difference`` lies within ± ``margin``."""
    from scipy.special import ndtr

    room, error = margin - _widths(expected, level), _error(expected)
    inside = ndtr((room - difference) / error) - ndtr((-room - difference) / error)
    return float(np.mean(np.maximum(inside, 0.0)))


def beyond(expected, margin, difference, level=LEVEL):
    """Chance that the interval of a true ``difference`` lies beyond the margin, on either side."""
    from scipy.special import ndtr

    reach, error = margin + _widths(expected, level), _error(expected)
    return float(np.mean(ndtr((difference - reach) / error) + ndtr((-difference - reach) / error)))


def smallest_difference(expected, level=LEVEL, power=POWER):
    """The smallest difference that is shown with a chance of ``power``; infinite if that is beyond ``LONGEST``."""
    return _least(lambda difference: shown(expected, difference, level) - power)


def smallest_margin(expected, level=LEVEL, power=POWER):
    """The smallest margin within which no difference is shown to lie with a chance of ``power``; as above."""
    return _least(lambda margin: equal(expected, margin, level=level) - power)


def with_seeds(expected, now, seeds):
    """``expected`` with another number of seeds: errors over runs shrink with it, those over texts stay.

    Args:
        now: number of seeds that its errors are of, two or more.
    """
    left = max(expected.se_fixed**2 - expected.se_texts**2, 0.0) * now / seeds
    return replace(
        expected,
        se_runs=float(expected.se_runs * np.sqrt(now / seeds)),
        se_fixed=float(np.sqrt(expected.se_texts**2 + left)),
        df_runs=expected.df_runs * (seeds - 1) / (now - 1),
    )


def seeds_to_settle(found, now, margin, most, power=POWER):
    """How many seeds bring an answer (beyond or within the margin) with a chance of ``power``.

    Were the difference found the true one, and as many texts.

    Args:
        found: ``paired.Estimate`` of the comparison, with ``now`` seeds.
        most: the largest number looked at.

    Returns:
        the number of seeds; None if ``most`` are not enough.
    """
    for seeds in range(now, most + 1):
        expected = with_seeds(found, now, seeds)
        chance = equal(expected, margin, found.value) + beyond(expected, margin, found.value)
        if chance >= power:
            return seeds
    return None


def _error(expected):
    return max(np.hypot(expected.se_texts, expected.se_runs), 1e-12)


def _widths(expected, level):
    """Half-widths of the interval, equally likely."""
    from scipy.stats import chi2

    if not expected.se_runs or np.isinf(expected.df_runs):
        return np.array([expected.half_width(1 - level)])
    chances = (np.arange(STEPS) + 0.5) / STEPS
    factors = np.sqrt(chi2.ppf(chances, expected.df_runs) / expected.df_runs)
    return np.array([replace(expected, se_runs=expected.se_runs * factor).half_width(1 - level) for factor in factors])


def _least(excess):
    from scipy.optimize import brentq

    return float(brentq(excess, 0.0, LONGEST, xtol=1e-6)) if excess(LONGEST) > 0 else np.inf
