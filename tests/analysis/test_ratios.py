"""Ratios of time and memory: their unit is the condition, and a time counts where the GPU was not shared."""

import math

import numpy as np
import pandas as pd
import pytest
import synthetic
from lorastudy.analysis import ratios
from lorastudy.analysis.claims import judging, questions
from scipy import stats


def table(rows):
    """Finished runs from (method, r, seed, seconds, processes on the GPU)."""
    cells = pd.DataFrame(rows, columns=["method", "r", "seed", "seconds", "gpu_processes"])
    return cells.assign(
        targets="attention", alpha=32.0, scaling="standard", learning_rate=1e-3, device="GPU", memory_meter="CUDA allocator",
        gpus=1.0, status="finished", kind="cell",
    )  # fmt: skip


def runs(of_condition, seeds=3, processes=(1.0, 1.0)):
    """Runs whose ratio scatters by the condition alone: LoRA takes 100 s, QLoRA what ``of_condition`` says of each r."""
    return table(
        [
            ("lora" if side == 0 else "qlora", r, seed, 100.0 * (ratio if side else 1.0), processes[side])
            for r, ratio in of_condition.items()
            for seed in range(seeds)
            for side in (0, 1)
        ]
    )


def test_seeds_of_a_condition_are_averaged_before_conditions_are_counted():
    """More seeds of the same four conditions are no more evidence: t with three degrees of freedom either way."""
    of_condition = {4: 1.1, 8: 1.3, 16: 1.2, 32: 1.6}
    logs = np.log(list(of_condition.values()))
    low, high = np.exp(stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs)))
    for seeds in (1, 3, 10):
        found = ratios.ratio(runs(of_condition, seeds), "seconds")
        assert (found.value, found.low, found.high) == pytest.approx((np.exp(logs.mean()), low, high))
        assert (found.pairs, found.seeds) == (4, seeds)
        assert found.p == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)


def test_a_condition_with_fewer_seeds_weighs_as_much():
    cells = runs({4: 2.0, 8: 8.0})
    found = ratios.ratio(cells[~(cells.r.eq(8) & cells.seed.gt(0))], "seconds")
    assert found.value == pytest.approx(4.0)
    assert (found.pairs, found.seeds) == (2, 3)


def test_runs_on_another_number_of_gpus_are_no_pair():
    cells = runs({4: 1.5, 8: 1.2})
    cells.loc[cells.method.eq("qlora") & cells.r.eq(8), "gpus"] = 2.0
    assert ratios.ratio(cells, "seconds").pairs == 1


def test_times_of_runs_side_by_side_are_no_evidence():
    cells = runs({4: 1.5, 8: 1.4, 16: 1.6}, processes=(4.0, 12.0))
    found = ratios.ratio(cells, "seconds")
    assert found.shared == "4 to 12"
    assert found.value == pytest.approx((1.5 * 1.4 * 1.6) ** (1 / 3))
    assert all(math.isnan(value) for value in (found.low, found.high, found.p))
    of_memory = ratios.ratio(cells.rename(columns={"seconds": "peak_memory_gib"}), "peak_memory_gib")
    assert of_memory.shared is None
    assert of_memory.low > 1


def test_pairs_timed_alone_count_without_the_others():
    """One side beside others is enough to spoil a pair: r = 16 has a ratio of 9 and no part in the mean."""
    alone, beside = runs({4: 1.5, 8: 1.5}), runs({16: 9.0}, processes=(1.0, 2.0))
    found = ratios.ratio(pd.concat([alone, beside], ignore_index=True), "seconds")
    assert (found.value, found.pairs, found.shared) == (pytest.approx(1.5), 2, None)


def test_the_claim_about_time_is_open_where_no_pair_was_timed_alone(tmp_path):
    synthetic.write(tmp_path, processes=lambda cell: 2.0)
    results = synthetic.gather(tmp_path)
    for table in (questions.table(results), judging.table(results)):
        rows = table.set_index("claim")
        assert rows.verdict["time"] == "undecided"
        assert "2 processes at a time on one GPU; times of runs side by side decide nothing" in rows.found["time"]
        assert "nan" not in rows.found["time"]
    assert questions.table(results).set_index("claim").verdict["memory"] == "supported"
