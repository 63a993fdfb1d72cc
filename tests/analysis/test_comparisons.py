"""Comparisons of a study with a known truth, against scikit-learn, scipy and hand arithmetic."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from lorastudy.analysis import comparisons, contrasts, points, tuning
from lorastudy.statistics import paired
from scipy import stats
from sklearn import metrics as reference

HOLES = {
    "diverged": ["lora_attention_r4_a32_s1"],
    "missing": ["lora_attention_r16_a32_s2"],
    "stale": ["qlora_attention_r16_a32_s2"],
}


def accuracy(cell):
    return 0.55 + 0.02 * np.log2(cell.r) + 0.03 * (cell.targets == "all-linear")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """(directory, results) of a study of one seed."""
    directory = tmp_path_factory.mktemp("single")
    synthetic.write(directory, accuracy=accuracy, seed_spread=0.01)
    return directory, synthetic.gather(directory)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The same of three seeds, with a diverged, a missing and a stale cell."""
    directory = tmp_path_factory.mktemp("several")
    synthetic.write(directory, synthetic.config(grid__seeds=[0, 1, 2]), accuracy, seed_spread=0.01, **HOLES)
    return directory, synthetic.gather(directory)


def predictions(directory, name):
    kind = "zero_shot" if name in ("head", "prompt") else "cells"
    return pd.read_parquet(directory / "results" / kind / name / "predictions.parquet")


def test_differences_are_those_of_scikit_learn(several):
    """Every comparison of two points or of a point and a baseline, averaged over the seeds that both have."""
    directory, results = several
    finished = set(results.cells.id[results.cells.status.eq("finished")])
    score = {
        "accuracy": reference.accuracy_score,
        "f1": lambda true, predicted: reference.f1_score(true, predicted, average="weighted", zero_division=0),
    }
    checked = 0
    for row in results.comparisons.itertuples():
        if row.family.endswith("_trend") or row.family.startswith(("pooled", "claim")) or row.metric == "nll":
            continue
        names = [(f"{row.a}_s{seed}", row.b if row.family == "baseline" else f"{row.b}_s{seed}") for seed in (0, 1, 2)]
        names = [(a, b) for a, b in names if a in finished and (b in finished or row.family == "baseline")]
        values = []
        for pair in names:
            tables = [predictions(directory, name) for name in pair]
            a, b = (score[row.metric](table.label, table.prediction) for table in tables)
            values.append(a - b)
        assert row.difference == pytest.approx(np.mean(values), abs=1e-6), (row.family, row.a, row.b)
        assert (row.seeds, row.n, row.units) == (len(values), 300, 1)
        checked += 1
    assert checked == 2 * 130


def test_two_single_runs_are_compared_by_mcnemar(single):
    directory, results = single
    rows = results.comparisons
    row = rows[rows.family.eq("method") & rows.metric.eq("accuracy") & rows.a.eq("lora_attention_r8_a32")].iloc[0]
    a, b = (predictions(directory, f"{name}_attention_r8_a32_s0") for name in ("lora", "qlora"))
    right_a, right_b = (table.label.eq(table.prediction) for table in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    assert (row.only_a, row.only_b) == (only_a, only_b)
    total = only_a + only_b
    exact = stats.binomtest(only_a, total, 0.5).pvalue
    assert row.mcnemar == pytest.approx(min(1.0, exact - stats.binom.pmf(only_a, total, 0.5)), rel=1e-6)
    assert row.difference == pytest.approx((only_a - only_b) / 300, abs=1e-7)
    assert row.bootstrap_low <= row.difference <= row.bootstrap_high
    assert row.test == comparisons.TESTS["texts"]
    assert (row.p < 0.05) == (row.low > 0 or row.high < 0)


def test_interval_over_seeds_and_texts_by_hand(several):
    directory, results = several
    rows = results.comparisons
    row = rows[rows.family.eq("targets") & rows.metric.eq("accuracy") & rows.a.eq("qlora_all-linear_r8_a16")].iloc[0]
    values = []
    for seed in (0, 1, 2):
        a, b = (predictions(directory, f"qlora_{name}_r8_a16_s{seed}") for name in ("all-linear", "attention"))
        values.append(a.label.eq(a.prediction).astype(float) - b.label.eq(b.prediction).astype(float))
    expected = paired.estimate(np.array(values), np.array(values))
    assert row.difference == pytest.approx(expected.value, abs=1e-7)
    # what the texts make of it is its own; what the seeds make of it is shared over the grid
    assert (row.se_texts, row.se_fixed) == pytest.approx((expected.se_texts, expected.se_fixed), abs=1e-7)
    assert row.test == comparisons.TESTS["shared"]
    assert row.df_runs > 2
    whole = paired.Estimate(row.difference, row.se_texts, row.se_runs, row.se_fixed, 300, row.df_runs)
    assert (row.low, row.high) == pytest.approx(whole.interval(), abs=1e-6)
    assert row.p_equivalent == pytest.approx(whole.p_equivalent(row.margin), abs=1e-5)
    assert pd.isna(row.only_a)


@pytest.mark.parametrize(
    ("family", "size"),
    # 10 points a method; two lines of 3 values for each of 4 sets; 20 points, 2 baselines; 5 (r, alpha) of 4 sets
    [
        ("method", 10), ("targets", 10), ("r_step", 8), ("alpha_step", 8), ("r_pair", 12), ("alpha_pair", 12),
        ("set_pair", 30), ("baseline", 40), ("r_trend", 4), ("alpha_trend", 4), ("pooled_method", 1),
        ("pooled_targets", 1), ("pooled_r_pair", 3), ("pooled_alpha_pair", 3), ("pooled_baseline", 4),
        ("pooled_r_trend", 1), ("pooled_alpha_trend", 1),
    ],
)  # fmt: skip
def test_families_and_their_correction(single, family, size):
    rows = single[1].comparisons
    rows = rows[rows.family.eq(family) & rows.metric.eq("accuracy")]
    assert len(rows) == size
    for _, together in rows.groupby("group", dropna=False):
        ordered = together.sort_values("p")
        steps = [min(1.0, p * (len(ordered) - i)) for i, p in enumerate(ordered.p)]
        assert ordered.p_holm.to_numpy() == pytest.approx(np.maximum.accumulate(steps))


def test_trend_is_the_regression_on_log2(single):
    _, results = single
    cells = results.cells
    for axis, other, at in (("r", "alpha", 32), ("alpha", "r", 8)):
        rows = results.comparisons
        rows = rows[rows.family.eq(f"{axis}_trend") & rows.metric.eq("accuracy")]
        for row in rows.itertuples():
            line = cells[cells.method.eq(row.method) & cells.targets.eq(row.targets) & cells[other].eq(at)]
            x = np.log2(line[axis].astype(float))
            expected = stats.linregress(x, line.accuracy).slope * (x.max() - x.min())
            assert row.difference == pytest.approx(expected, abs=1e-6)
            assert getattr(row, other) == at


def test_a_hole_leaves_its_seed_out_of_a_line(several):
    """Attention at r = 4 lacks seed 1, r = 16 lacks seed 2: the lines are those of all points with one seed, or two of
    three points with two: two points x two seeds is more than three x one."""
    rows = several[1].comparisons
    row = rows[rows.family.eq("r_trend") & rows.metric.eq("accuracy") & rows.method.eq("lora")]
    row = row[row.targets.eq("attention")].iloc[0]
    assert row.seeds == 2


def test_averages_are_averages(single):
    _, results = single
    rows = results.comparisons[results.comparisons.metric.eq("accuracy")]
    for family in ("method", "targets"):
        pairs, pooled = rows[rows.family.eq(family)], rows[rows.family.eq(f"pooled_{family}")].iloc[0]
        assert pooled.difference == pytest.approx(pairs.difference.mean(), abs=1e-7)
        assert (pooled.units, pooled.df_runs, pooled.test) == (10, 9, comparisons.TESTS["units"])
    pooled = rows[rows.family.eq("pooled_r_pair") & rows.a_value.astype(str).isin(["16", "16.0"])]
    pooled = pooled[pooled.b_value.astype(float).eq(4)].iloc[0]
    cells = results.cells[results.cells.alpha.eq(32)].set_index(["method", "targets", "r"]).accuracy
    by_hand = np.mean(
        [cells[m, t, 16] - cells[m, t, 4] for m in ("lora", "qlora") for t in ("attention", "all-linear")]
    )
    assert pooled.difference == pytest.approx(by_hand, abs=1e-7)
    assert (pooled.a, pooled.b, pooled.units) == ("r=16", "r=4", 4)


def test_with_one_seed_the_spread_between_pairs_widens_the_average(single):
    """Pairs that differ by different amounts are not ten copies of one experiment."""
    _, results = single
    rows = results.comparisons[results.comparisons.metric.eq("accuracy")]
    pairs, pooled = rows[rows.family.eq("method")], rows[rows.family.eq("pooled_method")].iloc[0]
    between = pairs.difference.std(ddof=1) / np.sqrt(len(pairs))
    assert pooled.se_runs == pytest.approx(between, rel=1e-3)
    assert pooled.high - pooled.low >= 2 * stats.t.ppf(0.975, 9) * between * 0.999


def test_an_average_of_few_pairs_is_about_these_runs(tmp_path):
    """One target set, one seed: pairs of values of r are averaged over two methods, which is no sample."""
    synthetic.write(tmp_path, synthetic.config(grid__targets=["attention"]), seed_spread=0.01)
    rows = synthetic.gather(tmp_path).comparisons
    few = rows[rows.family.isin(["pooled_r_pair", "pooled_alpha_pair"])]
    assert few.units.eq(2).all()
    assert few.test.eq(comparisons.TESTS["texts"]).all()
    assert few[["low", "high", "p"]].notna().all(axis=None)


def test_a_full_grid_has_a_line_at_every_value(tmp_path):
    synthetic.write(
        tmp_path, synthetic.config(grid__lines=synthetic.full([4, 8, 16], [16, 32, 64]), grid__methods=["lora"])
    )
    rows = synthetic.gather(tmp_path).comparisons
    rows = rows[rows.metric.eq("accuracy")]
    counts = rows.family.value_counts()
    # two target sets, three lines of three values each way
    assert (counts["r_step"], counts["r_pair"], counts["r_trend"]) == (12, 18, 2)
    assert rows[rows.family.eq("r_pair")].groupby("group").size().eq(3).all()
    assert rows[rows.family.eq("r_trend")].units.eq(3).all()
    assert "method" not in counts


@pytest.mark.parametrize(
    ("runs", "units", "seeds"),
    [
        ([{0, 1, 2}, {0, 1, 2}], 2, [0, 1, 2]),
        ([{0, 1, 2}, {0, 1}], 2, [0, 1]),  # 4 runs beat 3
        ([{0, 1, 2}, {0}], 1, [0, 1, 2]),  # 3 runs beat 2
        ([set(), {1}], 1, [1]),
        ([set(), set()], 0, []),
        ([], 0, []),
    ],
)
def test_largest_complete_block(runs, units, seeds):
    of = [[(1, {seed: f"run{i}_{seed}" for seed in have})] for i, have in enumerate(runs)]
    kept, chosen = contrasts.complete(of)
    assert (len(kept), chosen) == (units, seeds)


def test_other_texts_are_refused(single, tmp_path):
    import shutil

    directory = tmp_path / "study"
    shutil.copytree(single[0], directory)
    path = directory / "results" / "cells" / "lora_attention_r8_a32_s0" / "predictions.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)
    with pytest.raises(comparisons.ComparisonError, match="lora_attention_r8_a32_s0.*not on the same texts"):
        synthetic.gather(directory)


def test_nothing_finished_is_no_fault(tmp_path):
    study = synthetic.config()
    loaded = synthetic.write(tmp_path, study)
    cells = list(synthetic.grid.cells(loaded.grid))
    for name in cells:
        (tmp_path / "results" / "cells" / name / "metrics.json").unlink()
    results = synthetic.gather(tmp_path)
    assert results.comparisons.empty
    assert results.points.seeds.eq(0).all()
    assert results.points.reason.eq("not run yet").all()


def test_texts_that_belong_together_are_compared_by_their_groups(several, tmp_path):
    """Sixty groups of five: the differences stay, their standard errors are those of sums over groups, by hand."""
    import shutil

    directory = tmp_path / "study"
    shutil.copytree(several[0], directory)
    for path in (directory / "results").glob("*/*/predictions.parquet"):
        table = pd.read_parquet(path)
        table.assign(group=[f"author {place // 5}" for place in range(len(table))]).to_parquet(path, index=False)
    grouped, alone = synthetic.gather(directory), several[1]
    assert grouped.comparisons.difference.to_numpy() == pytest.approx(alone.comparisons.difference.to_numpy(), abs=1e-6)
    rows = grouped.comparisons
    row = rows[rows.family.eq("targets") & rows.metric.eq("nll") & rows.a.eq("qlora_all-linear_r8_a16")].iloc[0]
    assert row.n == 60
    assert row.test == "t over seeds and groups of texts, variance over seeds shared over the grid"
    assert rows.test.dropna().str.contains("groups of texts").all()
    assert not alone.comparisons.test.dropna().str.contains("groups").any()
    values = []
    for seed in (0, 1, 2):
        tables = [predictions(directory, f"qlora_{name}_r8_a16_s{seed}") for name in ("all-linear", "attention")]
        nll = [
            -np.log([table[f"probability_{label}"][place] for place, label in enumerate(table.label)])
            for table in tables
        ]
        values.append(nll[0] - nll[1])
    of_groups = np.mean(values, axis=0).reshape(60, 5).mean(axis=1)  # of equal sizes a group is its mean
    assert row.se_fixed == pytest.approx(of_groups.std(ddof=1) / np.sqrt(60), rel=1e-4)
    assert grouped.points.accuracy.to_numpy() == pytest.approx(alone.points.accuracy.to_numpy())
    assert not np.allclose(grouped.points.nll_low, alone.points.nll_low)


# Points


def test_points_of_one_seed_are_the_cells(single):
    _, results = single
    merged = results.points.merge(results.cells.assign(point=results.cells.id.str.removesuffix("_s0")), on="point")
    assert len(merged) == len(results.points) == 20
    for column in points.SCORES:
        assert merged[f"{column}_x"].to_numpy() == pytest.approx(merged[f"{column}_y"].to_numpy())


def test_points_of_several_seeds_are_means_with_wider_intervals(several):
    _, results = several
    table = results.points.set_index("point")
    cells = results.cells[results.cells.status.eq("finished")]
    for name in ("accuracy", "macro_f1", "nll", "ece"):
        expected = cells.groupby(cells.id.str[:-3])[name].mean()
        assert table[name].to_dict() == pytest.approx(expected.to_dict())
    row = table.loc["lora_attention_r4_a32"]
    assert (row.status, row.seeds, row.seeds_planned) == ("diverged", 2, 3)
    assert row.reason == "diverged at step 4, learning rate 0.001"
    row = table.loc["lora_all-linear_r8_a32"]
    of_point = cells[cells.id.str.startswith("lora_all-linear_r8_a32_")].accuracy
    assert row.accuracy_high - row.accuracy_low >= 2 * stats.t.ppf(0.975, 2) * of_point.std(ddof=1) / np.sqrt(3) * 0.999


# Learning rates

RATES = {"grid__learning_rates": [3e-3, 1e-2], "grid__methods": ["lora"], "grid__targets": ["attention"]}


def tuned(tmp_path, validation, **holes):
    synthetic.write(tmp_path, synthetic.config(**RATES), validation=validation, **holes)
    return tuning.views(synthetic.gather(tmp_path).summary)


def test_the_best_rate_is_chosen_on_validation_texts(tmp_path):
    """Every point does best at 3e-3 by validation, r = 16 at 1e-2; the accuracy on the test texts is the other way."""
    best = {None: 0.5, 3e-3: 0.6, 1e-2: 0.55}
    found = tuned(
        tmp_path, lambda cell: 0.9 if cell.r == 16 and cell.learning_rate == 1e-2 else best[cell.learning_rate]
    )
    rates = found["tuned"].set_index(["r", "alpha"]).learning_rate.to_dict()
    assert rates == {(4, 32): 3e-3, (8, 32): 3e-3, (16, 32): 1e-2, (8, 16): 3e-3, (8, 64): 3e-3}
    assert found["configured"].learning_rate.eq(1e-3).all()
    assert len(found["configured"]) == 5


def test_a_rate_that_diverges_is_not_chosen(tmp_path):
    found = tuned(
        tmp_path,
        lambda cell: 0.9 if cell.learning_rate == 1e-2 else 0.5,
        diverged=["lora_attention_r8_a32_lr0.01_s0"],
    )
    rates = found["tuned"].set_index(["r", "alpha"]).learning_rate.to_dict()
    # between equal accuracies and nll the lower rate
    assert rates[8, 32] == 1e-3
    assert rates[4, 32] == 1e-2


def test_without_further_rates_there_is_one_view(single):
    assert list(tuning.views(single[1].summary)) == ["configured"]
    assert set(single[1].comparisons["view"]) == {"configured"}


def test_both_views_are_compared(tmp_path):
    synthetic.write(tmp_path, synthetic.config(**RATES), validation=lambda cell: 0.6 + (cell.learning_rate or 0))
    results = synthetic.gather(tmp_path)
    of_accuracy = results.comparisons[results.comparisons.metric.eq("accuracy")]
    counts = of_accuracy[of_accuracy.family.eq("r_step")]["view"].value_counts()
    assert counts.to_dict() == {"configured": 2, "tuned": 2}
    tuned_steps = results.comparisons[results.comparisons["view"].eq("tuned") & results.comparisons.family.eq("r_step")]
    assert tuned_steps.a.str.contains("_lr0.01").all()
    assert results.points.groupby("view").size().to_dict() == {"configured": 5, "tuned": 5}
