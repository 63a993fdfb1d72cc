"""Variances that are shared, permutations, equivalence and proportions, by hand and against scipy."""

import itertools

import numpy as np
import pytest
from lorastudy.statistics import components, equivalence, moderated, permutation, proportions
from scipy import special, stats


def test_variances_that_differ_no_more_than_chance_are_pooled():
    """limma's fitFDist: where the logarithms scatter less than trigamma(d / 2), the prior has infinitely many df."""
    of = moderated.prior(np.array([1.0, 1.1, 0.9, 1.05]), 2)
    assert (of.s2, of.df) == (pytest.approx(1.0125), np.inf)
    drawn, df = moderated.squeeze([1.0, 1.1, 0.9, 1.05], 2, of)
    assert drawn == pytest.approx([1.0125] * 4)
    assert df == 8  # no more than they have together


def test_variances_that_differ_are_drawn_by_smyths_formulas():
    """Smyth 2004, section 6.2, written out: moments of log s2, then (d0 s0 + d s) / (d0 + d)."""
    s2, d = np.array([0.1, 1.0, 8.0, 60.0]), 4
    z = np.log(s2) - special.digamma(d / 2) + np.log(d / 2)
    of = moderated.prior(s2, d)
    assert special.polygamma(1, of.df / 2) == pytest.approx(z.var(ddof=1) - special.polygamma(1, d / 2))
    assert np.log(of.s2) == pytest.approx(z.mean() + special.digamma(of.df / 2) - np.log(of.df / 2))
    drawn, df = moderated.squeeze(s2, d, of)
    assert drawn == pytest.approx((of.df * of.s2 + d * s2) / (of.df + d))
    assert df == pytest.approx(of.df + d)


@pytest.mark.parametrize("value", [0.01, 0.5, 1.6449340668482264, 20.0])
def test_trigamma_is_inverted(value):
    assert special.polygamma(1, moderated.trigamma_inverse(value)) == pytest.approx(value)


def layout(seed, sets=4, points=6, seeds=3):
    return np.random.default_rng(seed).normal(size=(sets, points, seeds))


FACTORS = {"method": ["lora", "lora", "qlora", "qlora"], "targets": ["a", "l", "a", "l"]}
SETS = list(zip(FACTORS["method"], FACTORS["targets"]))


def test_an_average_of_methods_keeps_the_variance_of_its_own_seeds():
    values = layout(0)
    found = components.fit(values, FACTORS, range(6))
    weights = {(of, point): (1 if of[0] == "lora" else -1) / 12 for of in SETS for point in range(6)}
    difference = values[:2].mean(axis=(0, 1)) - values[2:].mean(axis=(0, 1))
    variance, df = found.variance(weights)
    assert variance == pytest.approx(difference.var(ddof=1))
    assert df == pytest.approx(2, abs=0.2)


def test_an_average_along_a_line_shares_the_variance_of_all_points():
    """The mean square of points x seeds, by the two-way analysis of variance of their means over the sets."""
    values = layout(3)
    found = components.fit(values, FACTORS, range(6))
    means = values.mean(axis=0)
    free = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    square = (free**2).sum() / 10
    weights = {(of, point): sign / 4 for of in SETS for point, sign in ((0, 1), (5, -1))}
    variance, df = found.variance(weights)
    if not found.factor:
        assert (variance, df) == (pytest.approx(2 * square), pytest.approx(10))
    assert found.squares["point"] == (pytest.approx(4 * square), 10)


def test_permutations_of_pairs_by_hand():
    """Three differences of one sign: 2 of 8 arrangements reach their sum."""
    assert permutation.contrast([[1, 0], [2, 0], [3, 1]], [1, -1]) == 2 / 8
    differences = np.array([0.3, -0.1, 0.4, 0.2])
    reached = sum(abs(np.dot(signs, differences)) >= 0.8 - 1e-9 for signs in itertools.product((1, -1), repeat=4))
    blocks = np.column_stack([differences, np.zeros(4)])
    assert permutation.contrast(blocks, [1, -1]) == reached / 16


def test_permutations_of_lines():
    """Of 3 values the same order in 6 blocks comes about once in 6^5; no order at all is nothing."""
    ordered = np.tile([1.0, 2.0, 3.0], (6, 1))
    assert permutation.spread(ordered) < 0.002
    assert permutation.contrast(ordered, [-1, 0, 1]) < 0.002
    assert permutation.spread(np.ones((6, 3))) == 1


@pytest.mark.parametrize(
    ("low", "high", "answer", "margin"),
    [
        (0.012, 0.03, equivalence.BEYOND, 0.03),
        (-0.03, -0.012, equivalence.BEYOND, 0.03),
        (0.002, 0.008, equivalence.WITHIN, 0.008),
        (-0.004, 0.008, equivalence.EQUIVALENT, 0.008),
        (0.002, 0.012, equivalence.UNDECIDED, 0.012),
        (-0.02, 0.02, equivalence.UNDECIDED, 0.02),
        (np.nan, np.nan, equivalence.UNDECIDED, np.nan),
    ],
)
def test_four_answers(low, high, answer, margin):
    assert equivalence.answer(low, high, 0.01) == answer
    assert equivalence.smallest_margin(low, high) == pytest.approx(margin, nan_ok=True)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (1, 3), (3, 156), (10, 10)])
def test_wilson(count, total):
    expected = stats.binomtest(count, total).proportion_ci(0.95, "wilson")
    assert proportions.wilson(count, total) == pytest.approx((expected.low, expected.high))


def test_fisher():
    """The lady tasting tea: 3 of 4 against 1 of 4, two-sided p = 34/70 (Agresti 1990)."""
    assert proportions.fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert proportions.fisher(0, 0, 1, 4) == 1
