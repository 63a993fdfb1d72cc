"""The claims read with one seed: on numbers made for it, by hand, and on a study on disk, from its predictions."""

import pandas as pd
import pytest
import synthetic
from lorastudy.analysis.claims import one_seed
from lorastudy.study import layout

MARGIN = 0.01
R = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
POINTS = [*((r, 2 * r) for r in R), (8, 8), (8, 32), (8, 64)]


def summary(accuracy, seeds=(0, 1), **more):
    """The rows that a study of the paper's grid has; ``accuracy``: (method, targets, r, alpha, seed) → its number."""
    cells = [
        {
            "id": f"{method}_{targets}_r{r}_a{alpha}_s{seed}", "kind": "cell", "status": "finished", "method": method,
            "targets": targets, "r": r, "alpha": float(alpha), "scaling": "standard", "learning_rate": 1e-3, "seed": seed,
            "accuracy": accuracy(method, targets, r, alpha, seed), "device": "a GPU", "memory_meter": "its own", "gpus": 1,
            "validation_accuracy": 0.5, "validation_nll": 1.0, "seconds": 600.0, "peak_memory_gib": 16.0 if method == "lora" else 6.0, "gpu_processes": 1,
        } | {name: of(seed) for name, of in more.items()}
        for seed in seeds for method in ("lora", "qlora") for targets in ("attention", "all-linear") for r, alpha in POINTS
    ]  # fmt: skip
    base = {"id": "head", "kind": "baseline", "status": "finished", "accuracy": 0.2}
    return pd.DataFrame([*cells, base])


def flat(method, targets, r, alpha, seed):
    return 0.6


def test_a_number_is_read_as_a_number():
    """All at 67%, and α = 32 at 68% and ahead of the others on all linear layers."""

    def accuracy(method, targets, r, alpha, seed):
        return 0.68 if (targets, r, alpha) == ("all-linear", 8, 32) else 0.67 - 0.05 * (seed == 1)

    found = one_seed.readings(summary(accuracy), MARGIN)
    assert found.loc["peak"].tolist() == [True, True]
    assert found.loc["plateau"].tolist() == [True, False]


def test_where_all_cells_have_one_number_what_is_the_same_comes_out_and_no_lead_does():
    found = one_seed.readings(summary(flat), MARGIN)
    same = {
        "gain", "qlora_equals_lora_peak", "qlora_equals_lora_attention", "qlora_equals_lora", "r_all_linear_steady",
        "r_attention_steady", "attention_reaches_all_linear", "qlora_4_8", "lora_steady", "memory", "recommended",
    }  # fmt: skip
    assert set(found.index[found[0].eq(True)]) == set(found.index[found[1].eq(True)]) == same
    # the base model has no seeds, and no two cells have one alpha times learning rate
    assert set(found.index[found[0].isna()]) == {"base", "alpha_is_learning_rate"}


@pytest.mark.parametrize(
    ("lead", "out"),  # of seed 1 on both methods, in which seed 0 has none
    [(0.001, True), (-0.001, False)],
)
def test_a_lead_is_one_above_zero_however_small(lead, out):
    found = one_seed.readings(
        summary(lambda method, targets, r, alpha, seed: 0.6 + lead * (targets == "all-linear") * (r == 2) * seed),
        MARGIN,
    )
    assert found.loc["targets_r2"].tolist() == [False, out]
    assert found.loc["targets_r1"].tolist() == [False, False]


@pytest.mark.parametrize(("apart", "out"), [(0.009, True), (0.011, False), (-0.011, False)])
def test_two_are_the_same_within_the_margin(apart, out):
    def accuracy(method, targets, r, alpha, seed):
        return 0.6 + apart * (method == "qlora" and (targets, r, seed) == ("all-linear", 8, 1))

    assert one_seed.readings(summary(accuracy), MARGIN).loc["qlora_4_8"].tolist() == [True, out]


def test_a_claim_of_several_comparisons_comes_out_if_every_one_does():
    """α = 32 ahead of 64 for LoRA with both seeds, for QLoRA with the first."""

    def accuracy(method, targets, r, alpha, seed):
        return 0.6 + 0.02 * (alpha == 32 and r == 8) * (1 if method == "lora" or seed == 0 else -1)

    assert one_seed.readings(summary(accuracy), MARGIN).loc["alpha_all_linear"].tolist() == [True, False]


def test_a_run_at_chance_is_a_number_like_others():
    """One of four: r = 512 is below 256 for LoRA on attention, as the claim says of both methods."""

    def accuracy(method, targets, r, alpha, seed):
        return {512: 0.5, 256: 0.55}.get(r, 0.6)

    table = summary(accuracy)
    lost = table.id.eq("lora_attention_r512_a1024_s0")
    table.loc[lost, ["status", "accuracy"]] = ["collapsed", 0.2]
    assert one_seed.readings(table, MARGIN).loc["r_attention_falls"].tolist() == [True, True]
    table.loc[lost, "status"] = "missing"
    assert one_seed.readings(table, MARGIN).loc["r_attention_falls"].tolist() == [None, True]


def test_cost_is_read_as_a_ratio_and_not_from_times_side_by_side():
    """The paper's are 10 and 0.375; the times here are equal."""
    found = one_seed.readings(summary(flat), MARGIN)
    assert found.loc["memory"].tolist() == [True, True]
    assert found.loc["time"].tolist() == [False, False]
    shared = one_seed.readings(summary(flat, gpu_processes=lambda seed: 4), MARGIN)
    assert shared.loc["time"].tolist() == [None, None]


def test_alpha_against_the_learning_rate_is_read_across_rates():
    """α = 16 at 0.004 and α = 64 at 0.001 have the same product."""
    table = summary(flat)
    faster = table[table.kind.eq("cell")].assign(learning_rate=4e-3)
    faster["id"] += "_lr0.004"
    faster.loc[faster.seed.eq(1), "accuracy"] = 0.62
    found = one_seed.readings(pd.concat([table, faster], ignore_index=True), MARGIN)
    assert found.loc["alpha_is_learning_rate"].tolist() == [True, False]


def test_counts_and_words():
    table = pd.DataFrame({0: [True, False, None], 1: [True, True, None]}, index=["a", "b", "c"], dtype=object)
    assert one_seed.counts(table).to_dict("list") == {"seeds": [2, 2, 0], "came_out": [2, 1, 0]}
    assert one_seed.shares(table) == ["2 of 2", "1 of 2", "–"]
    assert one_seed.sentence(table, {"a": "supported", "b": "undecided", "c": "not covered"}) == (
        "A reader of one seed alone would have found 1 to 2 of 2 claims confirmed; on 1 of them seeds disagree. Of the 2 that "
        "one seed or more confirms, all seeds together support 1."
    )


def test_a_study_on_disk_is_read_as_its_predictions_say(tmp_path):
    """Eight seeds without any difference between cells: a lead comes out with those seeds whose texts say so."""
    seeds = list(range(8))
    study = synthetic.config(grid__seeds=seeds, grid__lines={"r": {"r": [4, 8], "alpha_ratio": 2}})
    synthetic.write(tmp_path, study)
    found = one_seed.readings(synthetic.gather(tmp_path).summary, MARGIN)

    def right(method, targets, r, seed):
        of = pd.read_parquet(layout.cell(f"{method}_{targets}_r{r}_a{2 * r}_s{seed}", tmp_path) / "predictions.parquet")
        return int(of.prediction.eq(of.label).sum())

    for name, ahead in {
        "targets_r8": [(("lora", "all-linear", 8), ("lora", "attention", 8)), (("qlora", "all-linear", 8), ("qlora", "attention", 8))],
        "qlora_attention_r4": [(("qlora", "attention", 4), ("lora", "attention", 4))],
        "lora_4_8": [(("lora", "attention", 8), ("lora", "attention", 4)), (("lora", "all-linear", 8), ("lora", "all-linear", 4))],
    }.items():  # fmt: skip
        expected = [all(right(*a, seed) > right(*b, seed) for a, b in ahead) for seed in seeds]
        assert found.loc[name].tolist() == expected
        assert set(expected) == {True, False}  # chance says both
    assert found.loc["peak"].tolist() == [None] * 8  # the grid has no α = 32
