"""Chances of intervals, against statsmodels, closed forms and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from lorastudy.statistics import paired, power
from scipy import stats


def of_runs(seeds, spread=0.01):
    """Errors of a mean over seeds alone; the texts are without end."""
    return paired.Estimate(0.0, 0.0, spread / np.sqrt(seeds), 0.0, 10**7, seeds - 1)


def of_texts(error=0.01):
    return paired.Estimate(0.0, error, 0.0, error, 10**7, 0)


@pytest.mark.parametrize(
    ("seeds", "level", "smallest", "chance"),
    # statsmodels 0.15: TTestPower().solve_power(None, seeds, level, 0.8) and .power(2, seeds, level)
    [(3, 0.05, 3.2640436, 0.4707494), (4, 0.05, 2.1279493, 0.7549839), (10, 0.05, 0.9960020, 0.9998418), (10, 0.05 / 21, 1.6545061, 0.9451688)],
)  # fmt: skip
def test_of_seeds_alone_it_is_the_power_of_the_t_test(seeds, level, smallest, chance):
    expected = of_runs(seeds)
    assert power.smallest_difference(expected, level) == pytest.approx(0.01 * smallest, rel=2e-3)
    assert power.shown(expected, 0.02, level) == pytest.approx(chance, abs=1e-3)


def test_of_texts_alone_it_is_the_power_of_the_normal():
    """0.8 quantile of the normal 0.8416, 0.975 quantile 1.9600; equality: 0.9 quantile 1.2816, for both sides."""
    assert power.smallest_difference(of_texts()) == pytest.approx(0.01 * (1.959964 + 0.841621), rel=1e-4)
    assert power.smallest_margin(of_texts()) == pytest.approx(0.01 * (1.959964 + 1.281552), rel=1e-4)
    assert power.beyond(of_texts(), 0.02, 0.05) == pytest.approx(stats.norm.cdf(3 - 1.959964), abs=1e-6)


@pytest.mark.parametrize(("df", "part"), [(2, 0.5), (6, 0.5), (50, 0.9)])
def test_both_parts_together_by_simulation(df, part):
    """40,000 intervals as ``paired`` makes them; ``part`` of the variance is that of the runs."""
    generator = np.random.default_rng(5)
    se_runs, se_texts = 0.01 * np.sqrt(part), 0.01 * np.sqrt(1 - part)
    expected = paired.Estimate(0.0, se_texts, se_runs, se_texts, 2000, df)
    value = generator.normal(0.0, 0.01, 40_000)
    factors = np.sqrt(generator.chisquare(df, 400) / df)
    widths = np.repeat([replace(expected, se_runs=se_runs * factor).half_width() for factor in factors], 100)
    for difference in (0.0, 0.015, 0.04):
        low, high = difference + value - widths, difference + value + widths
        assert power.shown(expected, difference) == pytest.approx(((low > 0) | (high < 0)).mean(), abs=0.02)
        within = ((low > -0.03) & (high < 0.03)).mean()
        assert power.equal(expected, 0.03, difference) == pytest.approx(within, abs=0.02)
        beyond = ((low > 0.01) | (high < -0.01)).mean()
        assert power.beyond(expected, 0.01, difference) == pytest.approx(beyond, abs=0.02)


def test_what_is_found_has_the_chance_asked_for():
    expected = paired.Estimate(0.0, 0.004, 0.003, 0.004, 1600, 12.5)
    for chance in (0.5, 0.8, 0.9):
        assert power.shown(expected, power.smallest_difference(expected, 0.01, chance), 0.01) == pytest.approx(chance, abs=1e-3)  # fmt: skip
        assert power.equal(expected, power.smallest_margin(expected, power=chance)) == pytest.approx(chance, abs=1e-3)


def test_beyond_what_fractions_can_differ_by_there_is_none():
    assert power.smallest_difference(of_runs(2, 0.5)) == np.inf
    assert power.smallest_margin(of_runs(2, 0.5)) == np.inf


def test_more_seeds_shrink_what_comes_from_the_runs_alone():
    """From 3 seeds to 12: the variance over runs and the residual of the texts a fourth, degrees of freedom 11/2 as many."""
    found = power.with_seeds(paired.Estimate(0.01, 0.003, 0.004, 0.005, 1600, 5.0), 3, 12)
    assert (found.se_texts, found.se_runs) == pytest.approx((0.003, 0.002))
    assert found.se_fixed == pytest.approx(np.sqrt(0.003**2 + 0.004**2 / 4))
    assert found.df_runs == pytest.approx(5 * 11 / 2)


def test_seeds_that_settle_an_equality():
    """1 point of scatter a seed and none from texts: the least number whose two one-sided t tests have 80% at 1 point."""
    needed = power.seeds_to_settle(of_runs(3), 3, 0.01, 50)
    generator = np.random.default_rng(1)
    chances = {}
    for seeds in (needed - 2, needed + 2):
        draws = generator.normal(0.0, 0.01, (20_000, seeds))
        reach = stats.t.ppf(0.975, seeds - 1) * draws.std(axis=1, ddof=1) / np.sqrt(seeds)
        chances[seeds] = (np.abs(draws.mean(axis=1)) + reach < 0.01).mean()
    assert chances[needed - 2] < 0.8 < chances[needed + 2]


def test_seeds_do_not_settle_what_the_texts_leave_open():
    texts = replace(of_texts(0.008), se_runs=0.004, df_runs=2)
    assert power.seeds_to_settle(texts, 3, 0.01, 100) is None
    assert power.seeds_to_settle(replace(texts, value=0.01), 3, 0.01, 100) is None  # at the margin itself
    assert power.seeds_to_settle(replace(texts, value=0.06), 3, 0.01, 100) == 3  # far beyond it
