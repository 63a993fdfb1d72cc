"""What a study can tell, against the comparisons that the same study then makes."""

import runpy

import numpy as np
import pytest
import synthetic
from lorastudy.analysis import comparisons, contrasts, scatter, sensitivity
from lorastudy.statistics import power
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY

STRATA = sensitivity.STRATA
TRUTH = sensitivity.Variances(
    runs=dict.fromkeys(STRATA, 0.0) | {"method": 4e-6, "set": 3e-6, "point": 2e-6, "cell": 1e-5},
    texts=dict.fromkeys(STRATA, 0.0) | {"method": 0.010, "targets": 0.004, "point": 0.002, "cell": 0.006},
    both=dict.fromkeys(STRATA, 0.0) | {"set": 0.010, "cell": 0.020},
    source="the truth",
)
STATISTICS = {"equivalence_margin": 0.01, "resamples": 100, "seed": 0}


@pytest.fixture(scope="module")
def study():
    return settings.load(synthetic.config(grid__seeds=[0, 1, 2], data__test_size=1600))


def drawn(generator, table, seeds, texts):
    """Scores of each text by id with the variances ``TRUTH``: normal, so that nothing but them matters."""
    scores = {}
    effects = {}

    def effect(stratum, level):
        if (stratum, level) not in effects:
            sizes = (
                ("runs", (seeds, 1)),
                ("texts", (1, texts)),
                ("both", (seeds, texts)),
            )
            effects[stratum, level] = sum(
                generator.normal(0, np.sqrt(getattr(TRUTH, name)[stratum]), size) for name, size in sizes
            )
        return effects[stratum, level]

    common = generator.normal(0, 0.4, (1, texts)) + generator.normal(0, 0.01, (seeds, 1))
    for row in table.itertuples():
        levels, point = (row.method, row.targets, row.scaling), (row.r, row.alpha)
        of = dict(zip(scatter.FACTORS, levels)) | {"set": levels, "point": point, "cell": (levels, point)}
        values = 0.5 + common + sum(effect(stratum, level) for stratum, level in of.items())
        scores |= {run: values[seed] for seed, run in row.runs.items()}
    return scores


def wanted(table, study):
    return [one for one in contrasts.build(table, grid.lines(study.grid), []) if one.family in sensitivity.MEASURED]


def test_a_stratum_counts_by_the_squares_of_its_levels_weights(study):
    """A difference of two cells, and the average over two target sets of it, by hand."""
    lora, qlora = (("lora", "attention", "standard"), ("qlora", "attention", "standard"))
    one = sensitivity._uneven({(lora, (8, 32)): 1.0, (qlora, (8, 32)): -1.0})
    assert one == {"method": 2, "targets": 0, "scaling": 0, "set": 2, "point": 0, "cell": 2}
    wide = {(lora, (8, 32)): 0.5, (qlora, (8, 32)): -0.5}
    wide |= {((name, "all-linear", "standard"), (8, 32)): weight for name, weight in (("lora", 0.5), ("qlora", -0.5))}
    assert sensitivity._uneven(wide) == {"method": 2, "targets": 0, "scaling": 0, "set": 1, "point": 0, "cell": 1}


def test_planned_errors_are_those_that_the_comparisons_then_have(study):
    """Forty simulated studies: the mean squared errors of every family against those planned from the same variances."""
    generator = np.random.default_rng(3)
    table = sensitivity.planned(study.grid, 3)
    asked = wanted(table, study)
    places, shared = sensitivity._positions(table), sensitivity._shared(table, TRUTH, 3, 1600)
    found = {}
    for _ in range(40):
        scores = drawn(generator, table, 3, 1600)
        of_runs = scatter.fit(table, scores)
        for contrast in asked:
            if contrast.family.startswith("pooled_") or contrast.common.get("targets") != "all-linear":
                units, seeds = contrasts.complete(contrast.members())
                estimate, _ = comparisons.estimated(
                    comparisons._differences(units, seeds, scores), units, seeds, of_runs, binary=True
                )
                expected, _ = sensitivity._expected(contrast, places, TRUTH, shared, 3, 1600)
                pair = [
                    (getattr(one, name) ** 2 for name in ("se_texts", "se_runs", "se_fixed"))
                    for one in (estimate, expected)
                ]
                found.setdefault(contrast.family, []).append([[*one] for one in pair])
    assert set(found) >= {"pooled_method", "method", "pooled_r_pair", "r_pair", "pooled_targets"}
    for family, pairs in found.items():
        measured, expected = np.mean(pairs, axis=0)
        assert measured == pytest.approx(expected, rel=0.25), family


def test_variances_are_found_in_the_cells_that_have_them(study):
    generator = np.random.default_rng(4)
    table = sensitivity.planned(study.grid, 3)
    asked = wanted(table, study)
    found = []
    for _ in range(12):
        scores = drawn(generator, table, 3, 1600)
        rows = comparisons.measure(asked, table, {"accuracy": scores}, STATISTICS)
        found.append(sensitivity.measured(table, scatter.fit(table, scores), rows, asked, "simulated"))
    for name, rel in (("texts", 0.35), ("both", 0.2)):
        means = {stratum: np.mean([getattr(one, name)[stratum] for one in found]) for stratum in STRATA}
        whole = sum(getattr(TRUTH, name).values())
        assert sum(means.values()) == pytest.approx(whole, rel=0.1)
        for stratum, value in getattr(TRUTH, name).items():
            assert means[stratum] == pytest.approx(value, abs=rel * whole), (name, stratum)
    cell = np.mean([one.runs["cell"] for one in found])
    assert cell == pytest.approx(TRUTH.runs["cell"], rel=0.3)


def test_what_is_planned_comes_true(study):
    """Sixty studies with a difference of LoRA and QLoRA that 80% should show: a share of 48 ± 3 standard errors of 3.1."""
    generator = np.random.default_rng(6)
    table = sensitivity.planned(study.grid, 3)
    row = sensitivity.plan(study.grid, grid.lines(study.grid), TRUTH, 3, 1600)[0]
    assert row.what == "LoRA and QLoRA, mean of 10 pairs"
    (contrast,) = (one for one in wanted(table, study) if one.family == "pooled_method")
    shown = equal = 0
    for _ in range(60):
        scores = drawn(generator, table, 3, 1600)
        of_runs = scatter.fit(table, scores)
        units, seeds = contrasts.complete(contrast.members())
        estimate, _ = comparisons.estimated(
            comparisons._differences(units, seeds, scores), units, seeds, of_runs, binary=True
        )
        low, high = estimate.interval()
        shown += not low <= -row.difference <= high
        equal += -row.margin < low and high < row.margin
    assert 38 <= shown <= 58
    assert 38 <= equal <= 58


def test_more_texts_and_seeds_tell_more(study):
    lines = grid.lines(study.grid)
    few, texts, seeds = (sensitivity.plan(study.grid, lines, TRUTH, *size) for size in ((3, 400), (3, 4000), (9, 400)))
    for one, two, three in zip(few, texts, seeds):
        assert one.what == two.what == three.what
        assert two.difference < one.difference and three.difference < one.difference
        assert two.margin < one.margin and three.margin < one.margin


def test_with_one_seed_it_is_about_these_runs(study):
    rows = sensitivity.plan(study.grid, grid.lines(study.grid), TRUTH, 1, 1600)
    tests = {row.what: row.test for row in rows}
    assert tests["LoRA and QLoRA, one pair"] == comparisons.TESTS["texts"]
    assert tests["LoRA and QLoRA, mean of 10 pairs"] == comparisons.TESTS["units"]
    single = next(row for row in rows if row.what == "LoRA and QLoRA, one pair")
    error = np.sqrt((2 * (0.010 + 0.006) + 2 * 0.030) / 1600)  # texts and both, of method, set and cell, twice
    quantile = 2.807 + 0.8416  # of 5% over ten tests, two-sided, and of 80%
    assert (single.tests, single.difference) == (10, pytest.approx(quantile * error, rel=0.01))


def test_the_least_grids_have_a_plan():
    small = {"grid__targets": ["attention"], "grid__lines": synthetic.full([8], [32])}
    one = synthetic.config(grid__methods=["lora"], **small)
    two = synthetic.config(grid__seeds=[0, 1, 2], **small)
    for config, rows in ((one, 0), (two, 2)):
        loaded = settings.load(config)
        plan = sensitivity.plan(loaded.grid, grid.lines(loaded.grid), TRUTH, len(loaded.grid.seeds), 300)
        assert len(plan) == rows
        assert all(0 < row.difference <= np.inf for row in plan)


def test_the_default_variances_are_those_of_the_records():
    script = runpy.run_path(str(REPOSITORY / "docs" / "variances.py"))
    assert sensitivity.DEFAULT.read_text(encoding="utf-8") == script["page"](), "run: python docs/variances.py"
    assert sensitivity.default().source.startswith("SmolLM2-135M on film-review sentences")


def test_own_cells_and_open_questions(tmp_path):
    """Of a study on disk: its own variances, and an undecided comparison with the seeds that would settle it."""
    config = synthetic.config(grid__seeds=[0, 1, 2], data__test_size=800)
    study = synthetic.write(tmp_path, config, lambda cell: 0.55 + 0.012 * (cell.method == "lora"), seed_spread=0.01, shared=0.9)  # fmt: skip
    summary = synthetic.gather(tmp_path).summary
    own, rows = sensitivity.of_study(summary, study.grid, study.block("statistics"), tmp_path)
    assert own.source == "this study's own 60 finished cells"
    assert own.runs["cell"] == pytest.approx(1e-4, rel=0.5)
    found = sensitivity.open_questions(rows)
    assert set(found.family) <= {"pooled_method", "pooled_targets", "pooled_r_pair", "pooled_alpha_pair"}
    assert (found.low.lt(found.margin) & found.high.gt(-found.margin)).all()
    assert found.needed.dropna().gt(3).all()


def test_one_seed_has_no_variances_of_its_own(tmp_path):
    study = synthetic.write(tmp_path)
    own, rows = sensitivity.of_study(
        synthetic.gather(tmp_path).summary, study.grid, study.block("statistics"), tmp_path
    )
    assert own is None
    assert sensitivity.open_questions(rows).empty
    assert power.POWER == 0.8
