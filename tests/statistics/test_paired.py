"""Paired comparisons against published examples, scipy and hand arithmetic."""

import numpy as np
import pytest
from lorastudy.statistics import corrections, paired
from scipy import stats


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (1, 7, 0.0391),  # Fagerland et al. 2013, airway hyper-responsiveness: exact 0.0703, mid-p 0.039
        (7, 1, 0.0391),
        (0, 5, 2 * 0.5**5 - 0.5**5),
        (6, 6, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_mid_p(only_a, only_b, expected):
    assert paired.mcnemar(only_a, only_b) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # R: p.adjust(p, "holm")
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(p_values, expected):
    assert corrections.holm(p_values) == pytest.approx(expected)


@pytest.fixture(scope="module")
def differences():
    return np.random.default_rng(2).choice([-1, 0, 1], size=400, p=[0.05, 0.85, 0.1])


def test_one_seed_is_the_t_test(differences):
    result = paired.estimate(differences[None])
    reference = stats.ttest_1samp(differences, 0)
    assert result.p_value() == pytest.approx(reference.pvalue)
    assert result.interval() == pytest.approx(tuple(reference.confidence_interval()))


def test_equivalence_is_two_one_sided_t_tests(differences):
    result = paired.estimate(differences[None])
    margin = 0.1
    lower = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert result.p_equivalent(margin) == pytest.approx(max(lower, upper))
    assert result.p_equivalent(0.01) > 0.5


def test_no_difference_on_few_texts_is_not_yet_equivalence():
    few, many = np.zeros((1, 50)), np.zeros((1, 5000))
    assert paired.estimate(few, few).p_equivalent(0.02) > 0.05
    assert paired.estimate(many, many).p_equivalent(0.02) < 0.01


def test_two_more_texts_count_in_averages_as_in_single_differences(differences):
    """Of a single one they add 1 to the sum of squares, of ten that have nothing in common a tenth of it."""
    alone = paired.estimate(differences[None], differences)
    spread = len(differences) * differences.var()
    assert alone.se_fixed**2 == pytest.approx((spread + 1) / 401 / 402)
    ten = np.random.default_rng(3).permuted(np.tile(differences, (10, 1)), axis=1)
    averaged = ten.mean(axis=0)
    part = averaged.var() / differences.var()
    assert 0.07 < part < 0.13
    found = paired.estimate(averaged[None], ten)
    assert found.se_fixed**2 == pytest.approx((spread + 1) * part / 401 / 402)
    copies = paired.estimate(differences[None], np.tile(differences, (10, 1)))
    assert copies.se_fixed == pytest.approx(alone.se_fixed)


def test_texts_that_belong_together_are_one():
    """statsmodels 0.15: OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": g, "use_correction": False}), bse with 4 / 3."""
    y = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0], dtype=float)
    groups = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3])
    found = paired.estimate(paired.of_groups(y, groups)[None])
    assert (found.value, found.se_fixed, found.texts) == pytest.approx((7 / 12, 0.04280843 * np.sqrt(4 / 3), 4))
    copies = np.repeat(y, 5)  # five copies of each text tell what one does
    alone = paired.estimate(y[None])
    assert paired.estimate(paired.of_groups(copies, np.repeat(np.arange(12), 5))[None]).se_fixed == pytest.approx(
        alone.se_fixed
    )
    single = paired.of_groups(y, np.arange(12))  # each a group of its own
    assert single == pytest.approx(y)


def test_intervals_over_groups_cover():
    """400 samples of 40 groups of 1 to 19 texts that have much in common; at 95% the count of misses is 20 ± 3 x 4.4."""
    generator = np.random.default_rng(8)
    missed = {"groups": 0, "texts": 0}
    for _ in range(400):
        groups = np.repeat(np.arange(40), generator.integers(1, 20, 40))
        right = generator.random(len(groups)) < generator.beta(1.2, 0.8, 40)[groups]
        for name, values in (("groups", paired.of_groups(right, groups)), ("texts", right)):
            low, high = paired.estimate(np.asarray(values, dtype=float)[None]).interval()
            missed[name] += not low <= 0.6 <= high
    assert 7 <= missed["groups"] <= 34
    assert missed["texts"] > 80  # as if each text stood for itself


def test_seeds_add_their_variance_by_hand():
    """Texts all alike: the texts carry no variance, the seeds 0.01 over 4 of them (s = 0.1, standard error 0.05)."""
    of_seed = np.array([0.4, 0.5, 0.6, 0.5])
    result = paired.estimate(np.repeat(of_seed[:, None], 30, axis=1))
    assert (result.value, result.se_texts) == pytest.approx((0.5, 0.0))
    assert result.se_runs == pytest.approx(np.std(of_seed, ddof=1) / 2)
    assert result.half_width() == pytest.approx(stats.t.ppf(0.975, 3) * result.se_runs)


def test_runs_that_agree_by_chance_do_not_make_the_texts_certain():
    """Two runs with answers of their own and the same mean: no spread between runs, none left with the texts."""
    values = np.array([[1, 0, 1, 0] * 25, [0, 1, 1, 0] * 25])
    result = paired.estimate(values)
    assert result.se_runs == 0
    fixed = np.std([0.5, 0.5, 1.0, 0.0] * 25, ddof=1) / 10
    assert result.se_fixed == pytest.approx(fixed)
    assert result.se_texts < 0.75 * fixed
    lucky = paired.Estimate(0.0, se_texts=0.0, se_runs=1e-9, se_fixed=0.01, texts=100, df_runs=2)
    assert lucky.half_width() == pytest.approx(stats.t.ppf(0.975, 99) * 0.01)


@pytest.mark.parametrize(
    ("runs", "coverage", "lowest", "highest"),
    [
        (2, 0.95, 0.948, 0.988),
        (3, 0.95, 0.947, 0.968),
        (4, 0.95, 0.948, 0.959),
        (6, 0.95, 0.949, 0.954),
        (11, 0.95, 0.949, 0.951),
        (3, 0.9, 0.897, 0.919),  # of two one-sided tests at 5%
        (3, 1 - 0.05 / 8, 0.993, 0.9991),  # of the smallest of eight p values in Holm's correction
        (10, 1 - 0.05 / 8, 0.993, 0.9945),
    ],
)
def test_coverage_of_the_two_parts_together(runs, coverage, lowest, highest):
    """By integration over the runs' sample variance: normal values, many texts, any ratio of the three variances.

    In units of the residual variance of the mean, which the spread of the runs holds at least. Where runs hardly scatter
    beyond that, the floor (what the texts alone would give these runs) makes intervals wider than they need be: the highest
    coverage is that of the others.
    """
    freedom = runs - 1
    edges = np.linspace(0, 1, 401) ** 3  # fine where the runs agree by chance
    steps = stats.chi2.ppf((edges[1:] + edges[:-1]) / 2, freedom) / freedom
    found = {}
    for of_texts in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0):
        for of_runs in (1.0, 1.3, 2.0, 5.0, 30.0, 300.0):
            parts = [(of_texts, of_runs * step, 1 + of_texts) for step in steps]
            widths = [paired.Estimate(0.0, *np.sqrt(part), 10**6, runs - 1).half_width(coverage) for part in parts]
            held = 2 * stats.norm.cdf(np.array(widths) / (of_texts + of_runs) ** 0.5) - 1
            found[of_texts, of_runs] = (held * np.diff(edges)).sum()
    assert lowest <= min(found.values())
    assert max(share for (_, of_runs), share in found.items() if of_runs >= 5) <= highest


def test_seeds_that_agree_add_nothing(differences):
    one, three = paired.estimate(differences[None]), paired.estimate(np.tile(differences, (3, 1)))
    assert three.se_runs == 0
    assert three.half_width() == pytest.approx(one.half_width())


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.06])
def test_interval_over_seeds_covers(spread):
    """400 studies of 3 seeds and 300 texts of varying difficulty; at 95% the count of misses is 20 ± 3 x 4.4.

    Fewer where runs do not scatter: an interval over all runs is never narrower than that of these runs.
    """
    generator = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        difficulty = generator.beta(4, 3, 300)
        chance = np.clip(difficulty + generator.normal(0, spread, (3, 1)), 0, 1)
        low, high = paired.estimate(generator.random((3, 300)) < chance).interval()
        missed += not low <= 4 / 7 <= high
    assert (7 if spread else 1) <= missed <= 34


def test_bootstrap_of_the_difference_agrees_with_the_normal():
    low, high = paired.bootstrap(60, 30, 1000, 20000, 0)
    error = np.sqrt((60 + 30) / 1000 - 0.03**2) / np.sqrt(1000)
    assert (low, high) == pytest.approx((0.03 - 1.96 * error, 0.03 + 1.96 * error), abs=0.002)
    assert (low, high) == paired.bootstrap(60, 30, 1000, 20000, 0)


def test_trend_is_the_regression_line():
    x, y = np.log2([8, 16, 32, 128]), np.array([0.4, 0.5, 0.45, 0.6])
    slope = stats.linregress(x, y).slope
    assert paired.trend_weights(x) @ y == pytest.approx(slope * (x.max() - x.min()))
