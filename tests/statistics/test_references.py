"""Statistics against numbers that other programs gave for the same input, recorded: statsmodels, R's documents, limma's port."""

import numpy as np
import pytest
from lorastudy.statistics import components, corrections, moderated, proportions

METHODS, TARGETS = ["lora", "lora", "qlora", "qlora"], ["attention", "all-linear"] * 2
SEED = {
    "all": (0, 25, -25),
    "method": (0, 3, -3),
    "targets": (2, -2, 0),
    "set": (1, 0, -1),
    "point": ((1, -1, 0), (0, 1, -1), (-1, 2, -1), (1, -2, 1), (-1, 0, 1)),
}


def run(of, point, seed):
    """One run of a layout of 4 sets, 5 points and 3 seeds: what its seed does, and a rest that looks like chance."""
    rest = ((7 * of * of + 5 * point * point * (of + 1) + 11 * seed * (of + 2) * (point + 3) + 3 * seed**2 * point) % 29) / 10  # fmt: skip
    signs = {"all": 1, "method": 1 if of < 2 else -1, "targets": 1 if of % 2 else -1, "set": 1 if of in (0, 3) else -1}
    return rest + sum(sign * SEED[name][seed] for name, sign in signs.items()) + SEED["point"][point][seed]


@pytest.fixture(scope="module")
def layout():
    values = [[[run(of, point, seed) for seed in range(3)] for point in range(5)] for of in range(4)]
    return components.fit(values, {"method": METHODS, "targets": TARGETS}, range(5))


def test_mean_squares_are_those_of_an_analysis_of_variance(layout):
    """statsmodels 0.15: anova_lm(ols("y ~ method * targets * point + seed * (method * targets + point)")), sum_sq / df."""
    assert layout.squares == {
        "method": (pytest.approx(162.4515), 2),
        "targets": (pytest.approx(80.3261666667), 2),
        "set": (pytest.approx(12.2811666667), 2),
        "point": (pytest.approx(10.3806666667), 8),
        "residual": (pytest.approx(0.8479444444), 24),
    }


def test_variances_are_those_of_a_mixed_model(layout):
    """statsmodels 0.15: mixedlm by REML, a mean for each cell, random seed, seed:method, :targets, :set and :point.

    As lmer has it: of a complete layout without a variance at 0 REML is the analysis of variance. Five digits are what its
    search for the maximum gives.
    """
    expected = {"cell": 0.84794, "point": 2.38343, "set": 2.28623, "method": 15.01582, "targets": 6.80418}
    assert components.variances(layout) == pytest.approx(expected, rel=3e-4)


@pytest.mark.parametrize(
    ("variances", "df", "prior", "drawn"),
    # inmoose 0.9.1, a port of limma: squeezeVar(variances, df)["var_prior"], ["df_prior"], ["var_post"]
    [
        (
            [0.1, 1.0, 8.0, 60.0],
            4,
            (0.7038955843394585, 0.824140791498631),
            [0.2031675912, 0.9494144682, 6.753556845, 49.87004307],
        ),
        (  # one of them 0
            [2.1e-05, 3.4e-05, 0.0, 9.8e-05, 0.0005, 1.2e-05],
            2,
            (3.564046133148109e-07, 0.4124288055816344),
            [1.747077113e-05, 2.824829125e-05, 6.093092929e-08, 8.130685186e-05, 0.0004145809357, 1.000941104e-05],
        ),
    ],
)
def test_variances_are_squeezed_as_limma_does(variances, df, prior, drawn):
    of = moderated.prior(np.array(variances), df)
    assert (of.s2, of.df) == pytest.approx(prior, rel=1e-8)
    squeezed, total = moderated.squeeze(variances, df, of)
    assert squeezed == pytest.approx(drawn, rel=1e-8)
    assert total == pytest.approx(of.df + df)


def test_holms_correction():
    """statsmodels 0.15: multipletests(p, method="holm"), with ties and out of order."""
    p = [0.001, 0.04, 0.012, 0.2, 0.03, 0.0005, 0.9, 0.012]
    assert corrections.holm(p) == pytest.approx([0.007, 0.12, 0.072, 0.4, 0.12, 0.004, 0.9, 0.072])


def test_fishers_exact_test():
    """The example of R's fisher.test, "Convictions of like-sex twins": 2 of 17 and 10 of 13, two-sided p = 0.0005367."""
    assert proportions.fisher(2, 17, 10, 13) == pytest.approx(0.0005367, abs=5e-8)
