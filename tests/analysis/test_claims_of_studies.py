"""The paper's 33 claims on whole studies whose truth is known, from predictions on disk to the verdict.

Four worlds on the paper's grid, and two for the claim about learning rates. Each claim is true in one of them, false in
another and undecidable in a third, and gets that verdict; which it is follows from the world's accuracies by hand.
"""

import zlib

import numpy as np
import pytest
import synthetic
from lorastudy.analysis.claims import catalogue, judging, questions
from lorastudy.study import grid, settings

R = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
LINES = {"r": {"r": R, "alpha_ratio": 2}, "alpha": {"r": 8, "alpha": [8, 16, 32, 64]}}
MARGIN = 0.03
ALL = {claim.id for claim in catalogue.load()}
RATES = "alpha_is_learning_rate"  # no two cells of the paper's own grid decide it

# (method, targets) → accuracy along the paper's r line, and at r = 8 along alpha = 8, 32, 64
LIVELY = {
    ("lora", "all-linear"): ([0.40, 0.44, 0.48, 0.58, 0.58, 0.50, 0.46, 0.40, 0.37, 0.33], [0.55, 0.68, 0.50]),
    ("qlora", "all-linear"): ([0.58, 0.58, 0.58, 0.58, 0.50, 0.42, 0.42, 0.42, 0.36, 0.30], [0.55, 0.68, 0.50]),
    ("lora", "attention"): ([0.30, 0.33, 0.37, 0.45, 0.45, 0.45, 0.45, 0.45, 0.39, 0.33], [0.45, 0.52, 0.60]),
    ("qlora", "attention"): ([0.50, 0.50, 0.50, 0.50, 0.60, 0.60, 0.60, 0.60, 0.54, 0.46], [0.50, 0.60, 0.70]),
}
HIGH = {
    ("lora", "all-linear"): ([0.50] * 10, [0.50] * 3),
    ("qlora", "all-linear"): ([0.50, 0.50, 0.40, 0.50, 0.50, 0.50, 0.62, 0.62, 0.62, 0.62], [0.50, 0.60, 0.50]),
    ("lora", "attention"): ([0.50] * 10, [0.50] * 3),
    ("qlora", "attention"): ([0.50] * 6 + [0.62] * 4, [0.50] * 3),
}
EQUALITIES = {
    "qlora_equals_lora_peak", "qlora_equals_lora_attention", "qlora_equals_lora", "r_all_linear_steady",
    "r_attention_steady", "qlora_4_8", "lora_steady",
}  # fmt: skip
NUMBERS = {"plateau", "time", "memory", "base"}
BESTS = {"attention_reaches_all_linear", "recommended"}  # that nothing is ahead of some cells


def of_table(table):
    """cell → its expected accuracy, from a table like ``LIVELY``."""

    def accuracy(cell):
        along_r, along_alpha = table[cell.method, cell.targets]
        point = {(r, 2 * r): value for r, value in zip(R, along_r)} | {
            (8, alpha): value for alpha, value in zip((8, 32, 64), along_alpha)
        }
        return point[cell.r, cell.alpha]

    return accuracy


def scattered(cell):
    """Seconds or GiB that differ from run to run by a factor of e and more."""
    return (
        600.0
        * (10 if cell.method == "qlora" else 1)
        * np.exp(np.random.default_rng(zlib.crc32(cell.id.encode())).normal(0, 2))
    )


def times(lora, qlora):
    return lambda cell: qlora if cell.method == "qlora" else lora


# name → what the study is written with, number of texts, and the claims that are true and that are false in it
WORLDS = {
    "nothing matters": (
        {"accuracy": lambda cell: 0.67, "baselines": (("head", 0.21), ("prompt", 0.45)),
         "seconds": times(1800.0, 18000.0), "memory": times(16.0, 6.0)},
        4000,
        EQUALITIES | NUMBERS | BESTS | {"gain"},
        ALL - EQUALITIES - NUMBERS - BESTS - {"gain", RATES},
    ),
    "as the paper tells it where it tells of differences": (
        {"accuracy": of_table(LIVELY), "baselines": (("head", 0.6), ("prompt", 0.45)),
         "seconds": times(600.0, 840.0), "memory": times(10.0, 9.0)},
        4000,
        {"alpha_all_linear", "alpha_attention", "peak", "qlora_equals_lora_peak", "r_lora_all_linear_falls",
         "r_qlora_all_linear_falls", "r_low_best", "r_attention_falls", "targets_r1", "targets_r2", "targets_r8",
         "qlora_4_8", "lora_4_8", "lora_rises", "qlora_all_linear_beyond_8", "qlora_attention_ahead",
         "lora_all_linear_beyond_32", "high_r", "qlora_attention_r4"},
        {"base", "gain", "plateau", "time", "memory", "qlora_equals_lora_attention", "qlora_equals_lora",
         "r_all_linear_steady", "r_attention_steady", "attention_reaches_all_linear", "lora_steady", "qlora_beyond_32",
         "recommended"},
    ),
    "high ranks help QLoRA": (
        {"accuracy": of_table(HIGH)},
        4000,
        {"qlora_beyond_32", "lora_steady"},
        {"qlora_4_8", "qlora_equals_lora_peak", "alpha_all_linear", "r_all_linear_steady", "r_attention_steady"},
    ),
    "noise": (
        {"accuracy": lambda cell: 0.64, "baselines": (("head", 0.62), ("prompt", 0.45)), "seed_spread": 0.06,
         "seconds": scattered, "memory": lambda cell: scattered(cell) / (1 if cell.method == "lora" else 26)},
        60,
        set(),
        set(),
    ),
}  # fmt: skip


def verdicts(directory, study, **written):
    synthetic.write(directory, study, shared=0.97, **written)
    return judging.table(synthetic.gather(directory)).set_index("claim").verdict


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """World → verdict of each claim."""
    found = {}
    for name, (written, texts, _, _) in WORLDS.items():
        study = synthetic.config(
            grid__lines=LINES, grid__seeds=[0, 1, 2], data__test_size=texts, statistics__equivalence_margin=MARGIN
        )
        found[name] = verdicts(tmp_path_factory.mktemp("world"), study, **written)
    return found


def test_each_world_has_a_verdict_on_every_claim(judged):
    for verdict in judged.values():
        assert set(verdict.index) == ALL
        assert verdict[RATES] == "not covered"


@pytest.mark.parametrize("world", [name for name in WORLDS if name != "noise"])
def test_claims_that_are_true_are_supported_and_false_ones_contradicted(judged, world):
    _, _, true, false = WORLDS[world]
    expected = dict.fromkeys(true, "supported") | dict.fromkeys(false, "contradicted")
    assert {name: judged[world][name] for name in expected} == expected


def test_what_noise_hides_is_undecided(judged):
    """But for the base model's distance from chance, which is no matter of cells (``test_claims``)."""
    assert set(judged["noise"][sorted(ALL - {RATES, "base"})]) == {"undecided"}


def test_every_claim_is_true_in_a_world_and_false_in_another():
    assert set.union(*(true for _, _, true, _ in WORLDS.values())) == ALL - {RATES}
    assert set.union(*(false for _, _, _, false in WORLDS.values())) == ALL - {RATES}


@pytest.mark.parametrize(
    ("accuracy", "texts", "spread", "verdict"),
    [
        # what alpha times the learning rate makes: 0.4 at 8e-3, 0.5 at 16e-3, 0.6 at 32e-3, 0.7 at 64e-3
        (lambda alpha, rate: 0.1 * np.log2(alpha * rate / 5e-4), 4000, 0.0, "supported"),
        (lambda alpha, rate: 0.1 * np.log2(alpha / 0.5), 4000, 0.0, "contradicted"),  # alpha alone
        (lambda alpha, rate: 0.6, 60, 0.06, "undecided"),
    ],
)
def test_whether_alpha_is_a_learning_rate(tmp_path, accuracy, texts, spread, verdict):
    study = synthetic.config(
        grid__lines={"alpha": {"r": 8, "alpha": [8, 16, 32]}},
        grid__seeds=[0, 1, 2],
        grid__learning_rates=[2e-3],
        data__test_size=texts,
        statistics__equivalence_margin=MARGIN,
    )
    default = settings.load(study).training.learning_rate
    assert default == 1e-3

    def of_cell(cell: grid.Cell):
        return accuracy(cell.alpha, cell.learning_rate or default)

    assert verdicts(tmp_path, study, accuracy=of_cell, seed_spread=spread)[RATES] == verdict


def test_runs_that_did_not_learn_are_told_where_they_lie(tmp_path):
    """At r = 16 on the line of r, whose alpha of 64 is none of the line of alpha."""
    lines = {"r": {"r": [4, 8, 16], "alpha_ratio": 4}, "alpha": {"r": 8, "alpha": [16, 32]}}
    study = synthetic.config(grid__lines=lines, grid__seeds=[0, 1, 2], data__test_size=1000)
    synthetic.write(tmp_path, study, accuracy=lambda cell: 0.2 if cell.r == 16 else 0.6)
    found = questions.table(synthetic.gather(tmp_path)).set_index("claim").found
    assert "12 of 12 runs did not learn at r = 16" in found["r"]
    assert "did not learn" not in found["alpha"]
