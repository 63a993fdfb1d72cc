"""The timing of the paper's own code: arithmetic by hand, and that texts carry the record's numbers."""

import copy

import pytest
from lorastudy.study.reconstruction import AS_LOADED, ENGINE_LORA, ENGINE_QLORA, LORA, PREPARED, TF32, Reconstruction

SECONDS = {
    LORA: 0.3,
    AS_LOADED: 0.75,
    PREPARED: 1.2,
    TF32: 0.45,
    "qlora_bfloat16": 0.6,
    ENGINE_LORA: 0.1,
    ENGINE_QLORA: 0.11,
}
RECORD = {
    "shape": "llama-3-8b",
    "setting": {
        "batch": 8, "max_length": 128, "mean_tokens": 104.0, "r": 8, "alpha": 16, "targets": "all-linear", "dropout": 0.05,
        "learning_rate": 1e-4, "steps": 6, "warm_steps": 2, "in_turn": True,
    },
    "machine": {"device": "NVIDIA H100", "packages": {"torch": "2.11.0", "snakemake": None}},
    "rows": [
        {
            "key": key, "name": key, "method": "qlora" if "qlora" in key else "lora", "seconds_a_step": seconds,
            "lowest": 0.9 * seconds, "highest": 1.1 * seconds, "repeats": 4, "peak_gib": 7.0, "loss_is_finite": True,
        }
        for key, seconds in SECONDS.items()
    ],
}  # fmt: skip


def test_ratios_and_hours_by_hand():
    done = Reconstruction(RECORD)
    assert done.ratio(PREPARED) == pytest.approx(4)
    assert done.ratio(ENGINE_QLORA, ENGINE_LORA) == pytest.approx(1.1)
    assert done.minutes(LORA) == pytest.approx(6250 * 0.3 / 60)
    assert done.hours_on_a100(PREPARED) == pytest.approx(6250 * 1.2 / 3600 * 67 / 19.5)


def test_another_card_is_not_scaled_by_the_h100s_peak():
    other = copy.deepcopy(RECORD)
    other["machine"]["device"] = "NVIDIA A100-SXM4-40GB"
    assert Reconstruction(other).hours_on_a100(PREPARED) is None


def test_a_variant_that_failed_is_a_line_and_no_ratio():
    broken = copy.deepcopy(RECORD)
    broken["rows"][-1] = {"key": ENGINE_QLORA, "name": "QLoRA", "method": "qlora", "error": "OutOfMemoryError: a | b"}
    done = Reconstruction(broken)
    assert done.ratio(ENGINE_QLORA, ENGINE_LORA) is None
    assert "engine" not in done.sentence()
    assert done.table()[-1] == "| QLoRA | – | OutOfMemoryError: a / b | – | – | – | – |"


def test_the_sentence_and_the_page_carry_the_records_numbers():
    done = Reconstruction(RECORD)
    assert done.sentence() == (
        "The paper's code, reconstructed and timed on one NVIDIA H100: in float32, bitsandbytes' default, a step of QLoRA "
        "took 4.0 times as long as one of LoRA, with bfloat16 2.0 times, on this project's engine 1.1 times (docs/paper.md)."
    )
    assert "| qlora_prepared | 1.200 | 1.080 to 1.320 | 125 | 4.00 | 7.0 | finite |" in done.page()
    assert "104 tokens a text" in done.page()


def test_the_committed_record_has_every_variant_of_the_papers_code():
    done = Reconstruction.committed()
    assert {LORA, AS_LOADED, PREPARED, TF32, "qlora_bfloat16"} <= done.rows.keys()
    assert done.content["shape"] == "llama-3-8b"
    assert {key: done.rows[key]["compute"] for key in (LORA, AS_LOADED, PREPARED, "qlora_bfloat16")} == {
        LORA: "bfloat16", AS_LOADED: "float32", PREPARED: "float32", "qlora_bfloat16": "bfloat16",
    }  # fmt: skip
