"""Claims of studies in which each is supported, contradicted and open, checked by hand; and costs."""

import math

import numpy as np
import pandas as pd
import pytest
import synthetic
from lorastudy.analysis import claims, ratios
from lorastudy.statistics import paired
from scipy import stats

TEXTS = 4000


def rising(cell):
    """r, alpha and all linear layers help; QLoRA is as good as LoRA."""
    return 0.5 + 0.03 * math.log2(cell.r / 4) + 0.03 * math.log2(cell.alpha / 16) + 0.06 * (cell.targets != "attention")


def flat(cell):
    """r and alpha do nothing; all linear layers are no better; QLoRA is much worse; the base model is better."""
    return 0.40 - 0.08 * (cell.method == "qlora")


def ratio(cell):
    """QLoRA against LoRA: now more, now less."""
    return {4: 2.0, 16: 0.5}.get(cell.r, cell.alpha / 32) if cell.method == "qlora" else 1.0


STUDIES = {
    "supported": {"accuracy": rising},
    "contradicted": {
        "accuracy": flat,
        "baselines": (("head", 0.5), ("prompt", 0.6)),
        "seconds": lambda cell: 300.0 if cell.method == "qlora" else 600.0 + cell.r,
        "memory": lambda cell: 25.0 if cell.method == "qlora" else 20.0 + cell.r / 10,
    },
    "open": {
        "accuracy": lambda cell: 0.5 + 0.02 * (cell.targets != "attention") - 0.02 * (cell.method == "qlora"),
        "baselines": (("head", 0.49), ("prompt", 0.5)),
        "shared": 0.0,
        "seconds": lambda cell: 600.0 * ratio(cell),
        "memory": lambda cell: 12.0 / ratio(cell),
    },
}
CLAIMS = [
    "gain_lora_head", "gain_qlora_head", "gain_lora_prompt", "gain_qlora_prompt", "r", "alpha", "targets",
    "method_accuracy", "memory", "time",
]  # fmt: skip


@pytest.fixture(scope="module", params=STUDIES)
def study(request, tmp_path_factory):
    """(verdict that every claim should have, results)."""
    directory = tmp_path_factory.mktemp(request.param)
    texts = 60 if request.param == "open" else TEXTS
    synthetic.write(
        directory,
        synthetic.config(data__test_size=texts),
        **{"shared": 0.97, "seed": 1} | STUDIES[request.param],
    )
    return request.param, synthetic.gather(directory)


def test_every_claim_has_its_verdict(study):
    expected, results = study
    table = claims.build(results)
    assert list(table.claim) == CLAIMS
    assert table.set_index("claim").verdict.to_dict() == dict.fromkeys(CLAIMS, expected)


def test_values_are_those_of_the_summary(study):
    """By hand from the accuracies in the summary, without the comparisons."""
    _, results = study
    table = claims.build(results).set_index("claim")
    cells = results.cells
    by = cells.set_index(["method", "targets", "r", "alpha"]).accuracy.unstack("method")
    assert table.value["method_accuracy"] == pytest.approx((by.lora - by.qlora).mean(), abs=1e-6)
    by = cells.set_index(["targets", "method", "r", "alpha"]).accuracy.unstack("targets")
    assert table.value["targets"] == pytest.approx((by["all-linear"] - by.attention).mean(), abs=1e-6)
    for method in ("lora", "qlora"):
        mean = cells[cells.method.eq(method)].accuracy.mean()
        for baseline in ("head", "prompt"):
            gain = mean - results.baselines.accuracy[baseline]
            assert table.value[f"gain_{method}_{baseline}"] == pytest.approx(gain, abs=1e-6)
    for axis, other, at in (("r", "alpha", 32), ("alpha", "r", 8)):
        means = cells[cells[other].eq(at)].groupby(axis).accuracy.mean()
        assert abs(table.value[axis]) == pytest.approx(means.max() - means.min(), abs=1e-6)
        assert f"Highest at {axis} = {means.idxmax():g}" in table.found[axis]
        pairs = len(means) * (len(means) - 1) // 2
        assert f"(interval for all {pairs} pairs at once)" in table.found[axis]
        alike = table.p_contradicted[axis] < 0.05
        assert ("every two values are equal within 2 points" in table.found[axis]) == alike
    for claim, column in (("memory", "peak_memory_gib"), ("time", "seconds")):
        by = cells.set_index(["method", "targets", "r", "alpha"])[column].unstack("method")
        logs = np.log(by.qlora / by.lora)
        assert table.value[claim] == pytest.approx(np.exp(logs.mean()))
        if np.ptp(logs):
            low, high = np.exp(stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs)))
            assert (table.low[claim], table.high[claim]) == pytest.approx((low, high))


def test_verdicts_follow_their_p_values(study):
    expected, results = study
    table = claims.build(results)
    if expected == "supported":
        assert table.p_supported.lt(0.05).all()
    elif expected == "contradicted":
        assert (table.p_contradicted.lt(0.05) & table.p_supported.ge(0.05)).all()
    else:
        assert (table.p_contradicted.ge(0.05) & table.p_supported.ge(0.05)).all()


def test_texts_and_seeds_are_counted(study):
    expected, results = study
    table = claims.build(results).set_index("claim")
    of_accuracy = table[table.unit.eq("accuracy")]
    assert of_accuracy.n.eq(60 if expected == "open" else TEXTS).all()
    assert table.seeds.eq(1).all()
    assert table.units[["gain_lora_head", "r", "targets", "memory"]].tolist() == [10, 4, 10, 10]


# The rules themselves, on numbers that can be worked out by hand: one run, so many texts that t is the normal


def row(difference, se, runs=1, **more):
    estimate = paired.Estimate(difference, se, 0.0, se, 10**7, runs)
    return pd.Series(
        {"difference": difference, "se_texts": se, "se_runs": 0.0, "se_fixed": se, "n": 10**7, "runs": runs, "p": estimate.p_value(),
         "p_equivalent": estimate.p_equivalent(0.02), **more}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "se", "verdict"),
    [
        (0.030, 0.010, "supported"),  # z = 3
        (0.005, 0.002, "supported"),  # shown to be above 0, though below the margin
        (0.000, 0.010, "contradicted"),  # 0.02 is 2 standard errors away: p = 0.046
        (0.001, 0.010, "open"),  # 1.9 standard errors: p = 0.057
        (0.019, 0.010, "open"),  # z = 1.9
        (-0.010, 0.010, "contradicted"),
        (-0.030, 0.010, "contradicted"),  # a difference is shown, and it is the other way
        (-0.010, 0.030, "open"),  # the margin is one standard error away
    ],
)
def test_better(difference, se, verdict):
    found, ahead, not_ahead = claims.greater(row(difference, se), 0.02)
    assert found == verdict
    z = difference / se
    assert ahead == pytest.approx(2 * stats.norm.sf(z) if z > 0 else 1 - stats.norm.sf(-z), abs=1e-5)
    assert not_ahead == pytest.approx(min(1, 2 * stats.norm.cdf((difference - 0.02) / se)), abs=1e-5)


@pytest.mark.parametrize(
    ("difference", "se", "verdict"),
    [
        (0.000, 0.010, "supported"),  # 2 standard errors to either bound
        (0.008, 0.004, "supported"),  # different from 0, and within the margin
        (0.004, 0.010, "open"),
        (0.035, 0.010, "open"),  # 1.5 standard errors beyond: two-sided p = 0.13
        (0.041, 0.010, "contradicted"),  # 2.1: p = 0.036
        (-0.041, 0.010, "contradicted"),
    ],
)
def test_as_good_as(difference, se, verdict):
    assert claims.equal(row(difference, se), 0.02)[0] == verdict


@pytest.mark.parametrize(
    ("pairs", "trend", "complete", "verdict"),
    [
        ([(0.030, 0.010), (0.0, 0.010), (0.0, 0.010)], (0.0, 0.010), True, "supported"),  # p = 0.0027 x 4
        ([(0.024, 0.010), (0.0, 0.010), (0.0, 0.010)], (0.0, 0.010), True, "open"),  # p = 0.016 x 4
        ([(0.0, 0.010)] * 3, (0.030, 0.010), True, "supported"),  # the trend alone
        ([(0.0, 0.010)] * 3, (0.0, 0.010), True, "contradicted"),
        ([(0.0, 0.010)] * 3, (0.0, 0.010), False, "open"),  # values that have not run may differ
        ([(0.0, 0.010), (0.0, 0.010), (0.004, 0.010)], (0.0, 0.010), True, "open"),  # one pair not equivalent
    ],
)
def test_depends(pairs, trend, complete, verdict):
    frame = pd.DataFrame([row(*pair) for pair in pairs])
    assert claims.depends(frame, pd.DataFrame([row(*trend)]), complete)[0] == verdict


def test_a_missing_value_leaves_no_effect_open(tmp_path):
    cells = [f"{m}_{t}_r16_a32_s0" for m in ("lora", "qlora") for t in ("attention", "all-linear")]
    synthetic.write(tmp_path, synthetic.config(data__test_size=TEXTS), lambda cell: 0.6, shared=0.97, missing=cells)
    table = claims.build(synthetic.gather(tmp_path)).set_index("claim")
    assert table.verdict["r"] == "open"
    assert "not all values have run: 16" in table.found["r"]
    assert table.verdict["alpha"] == "contradicted"


def test_nothing_to_compare_is_open_with_its_reason(tmp_path):
    study = synthetic.config(grid__methods=["lora"], grid__targets=["attention"], line__alpha=[32])
    synthetic.write(tmp_path, study)
    table = claims.build(synthetic.gather(tmp_path)).set_index("claim")
    for claim in ("alpha", "targets", "method_accuracy", "memory", "time"):
        assert table.verdict[claim] == "open"
        assert table.found[claim].startswith("Nothing to compare: ")
    assert "gain_qlora_head" not in table.index


def test_too_few_pairs_leave_open_with_their_reason(tmp_path):
    """One r, two alpha at most: two matched pairs of the methods in one seed. Their difference is shown, no interval."""
    study = synthetic.config(grid__targets=["attention"], line__r=[8], line__alpha=[16, 32], data__test_size=TEXTS)
    synthetic.write(tmp_path, study, lambda cell: 0.8 if cell.method == "lora" else 0.4)
    results = synthetic.gather(tmp_path)
    table = claims.build(results).set_index("claim")
    reason = "too few pairs: 2 with one seed, an interval needs 3"
    for claim in ("alpha", "method_accuracy", "gain_lora_head"):
        row = table.loc[claim]
        assert (row.verdict, row.test) == ("open", "")
        assert f"points ({reason})" in row.found
        assert row[["low", "high", "p_supported", "p_contradicted"]].isna().all()
        assert abs(row.value) < 1
    assert table.value["method_accuracy"] == pytest.approx(0.4, abs=0.05)
    assert "nan" not in " ".join(table.found)


def test_values_with_too_few_pairs_leave_the_others_tested(tmp_path):
    """r = 16 has run in two of four sets: its pairs with r = 4 and 8 have no test; that of 4 and 8 has."""
    missing = [f"{method}_all-linear_r16_a32_s0" for method in ("lora", "qlora")]
    study = synthetic.config(data__test_size=TEXTS)
    synthetic.write(tmp_path, study, rising, shared=0.97, missing=missing)
    results = synthetic.gather(tmp_path)
    pairs = results.comparisons[
        results.comparisons.family.eq("pooled_r_pair") & results.comparisons.metric.eq("accuracy")
    ]
    assert pairs.p.notna().sum() == 1
    assert pairs.p_holm.dropna().tolist() == pairs.p.dropna().tolist()
    row = claims.build(results).set_index("claim").loc["r"]
    assert row.verdict == "supported"
    assert "Holm over 2 tests" in row.test
    assert "not distinguishable from r = 4, 8" in row.found
    alike = pairs.assign(
        p=pairs.p.where(pairs.p.isna(), 0.9), p_equivalent=pairs.p_equivalent.where(pairs.p.isna(), 0.001)
    )
    assert claims.depends(alike, alike.iloc[:0], all_values=True)[0] == "open"


def test_without_the_paper_nothing_of_it_is_said(tmp_path):
    synthetic.write(tmp_path, synthetic.config(study__paper=False))
    assert "paper" not in claims.build(synthetic.gather(tmp_path))


def test_what_the_paper_states_comes_from_its_values(tmp_path):
    import shutil

    from lorastudy.study import paper

    synthetic.write(tmp_path / "study")
    results = synthetic.gather(tmp_path / "study")
    shutil.copytree(paper.DIRECTORY, tmp_path / "paper")
    path = tmp_path / "paper" / "table1_hardware.csv"
    path.write_text(path.read_text().replace(",300,6", ",120,8"))
    table = claims.build(results, tmp_path / "paper").set_index("claim")
    assert table.paper["time"] == "LoRA 30 min, QLoRA 120 min: ratio 4 (Table 1)."
    assert table.paper["memory"] == "LoRA 16 GB, QLoRA 8 GB: ratio 0.5 (Table 1)."


def test_both_views_are_judged(tmp_path):
    study = synthetic.config(grid__learning_rates=[3e-3], line__r=[8, 16], line__alpha=[32])
    synthetic.write(tmp_path, study, validation=lambda cell: 0.6 + (cell.learning_rate or 0))
    table = claims.build(synthetic.gather(tmp_path))
    assert table[table.claim.eq("targets")]["view"].tolist() == ["configured", "tuned"]
    assert table[table.claim.eq("time")]["view"].tolist() == ["configured"]


# Costs


def test_times_side_by_side_on_one_gpu_are_said_to_be_so(tmp_path):
    synthetic.write(tmp_path, processes=lambda cell: 4.0 if cell.method == "lora" else 12.4)
    found = claims.build(synthetic.gather(tmp_path)).set_index("claim").found
    assert "(time of the training loop, 4 to 12 processes at a time on one GPU, Synthetic GPU)" in found["time"]
    assert "at a time" not in found["memory"]


def test_runs_on_other_devices_are_not_compared(tmp_path):
    synthetic.write(tmp_path)
    cells = synthetic.gather(tmp_path).cells.copy()
    cells.loc[cells.method.eq("qlora"), "device"] = "Another GPU"
    assert ratios.ratio(cells, "seconds").pairs == 0
    assert math.isnan(ratios.ratio(cells, "seconds").value)


def test_a_diverged_run_has_no_part_in_ratios(tmp_path):
    synthetic.write(tmp_path, diverged=["lora_attention_r8_a32_s0"])
    cells = synthetic.gather(tmp_path).cells
    assert ratios.ratio(cells, "seconds").pairs == 9
    assert ratios.ratio(cells, "seconds").value == pytest.approx(2.0)


def test_a_single_pair_has_no_interval(tmp_path):
    study = synthetic.config(grid__targets=["attention"], line__r=[8], line__alpha=[32])
    synthetic.write(tmp_path, study)
    found = ratios.ratio(synthetic.gather(tmp_path).cells, "peak_memory_gib")
    assert (found.value, found.pairs) == (pytest.approx(0.4), 1)
    assert math.isnan(found.low)


def test_no_difference_is_said_to_exceed_a_hundred_points(tmp_path):
    """Of two seeds far apart, corrected for three pairs: t with one degree of freedom would reach beyond."""
    synthetic.write(tmp_path, synthetic.config(grid__seeds=[0, 1]), rising, seed_spread=0.2)
    found = claims.build(synthetic.gather(tmp_path)).set_index("claim").loc[["r", "alpha"]]
    assert found.low.ge(-1).all() and found.high.le(1).all()
    assert (found.low.eq(-1) & found.high.eq(1)).any()
