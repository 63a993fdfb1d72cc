"""Requests follow the model, the texts, the cell and the GPU."""

import yaml
from lorastudy.planning import resources
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY


def paper(gpu="a100", **training):
    configuration = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study = settings.load(configuration | {"training": configuration["training"] | training})
    return resources.Estimate(study, grid.cells(study.grid), gpu=gpu)


def test_requests_of_the_paper_s_study(tmp_path, monkeypatch):
    """By hand: 10,000 texts of at most 512 tokens, 7.5e9 weights in bfloat16, six FLOP a weight and token.

    5.12e6 x 6 x 7.5e9 = 2.3e17; at a quarter of 312 TFLOP/s 2954 s = 49 min; with 10 min to start and 2.4 to read
    14.3 GiB, doubled: 123 min. Evaluation: 6,000 texts, two FLOP: 10 min, 44 min in all.
    """
    monkeypatch.chdir(tmp_path)
    one = paper()
    assert 120 <= one.finetune_minutes("lora_attention_r8_a32_s0") <= 127
    assert 42 <= one.evaluate_minutes("lora_attention_r8_a32_s0") <= 47
    assert one.finetune_minutes("qlora_attention_r8_a32_s0") > 1.1 * one.finetune_minutes("lora_attention_r8_a32_s0")
    assert one.finetune_minutes("lora_all-linear_r512_a32_s0") > one.finetune_minutes("lora_all-linear_r8_a32_s0")
    # masters and moments of 1.34e9 parameters are 16 GB
    more = one.finetune_memory_mb("lora_all-linear_r512_a32_s0") - one.finetune_memory_mb("lora_all-linear_r8_a32_s0")
    assert 17_000 < more < 20_000
    assert (
        one.gpu_memory_mb("qlora_attention_r8_a32_s0", "finetune")
        < one.gpu_memory_mb("lora_attention_r8_a32_s0", "finetune")
        < 80 * 1024
    )
    assert paper("h100").finetune_minutes("lora_attention_r8_a32_s0") < one.finetune_minutes("lora_attention_r8_a32_s0")
    assert paper("a100_80gb").peak == one.peak
    assert paper("never heard of").peak < one.peak


def test_moments_in_8_bits_ask_for_less_of_the_gpu(tmp_path, monkeypatch):
    """Two moments of 1.34e9 parameters, one byte each and not four: 7,692 MiB, with 3% fragmentation."""
    monkeypatch.chdir(tmp_path)
    cell = "lora_all-linear_r512_a32_s0"
    less = paper().gpu_memory_mb(cell, "finetune") - paper(optimizer="adamw_8bit").gpu_memory_mb(cell, "finetune")
    assert 0.95 * 7692 * 1.03 < less < 7692 * 1.03


def test_the_prepared_data_s_tokens_count_once_they_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = paper().finetune_minutes("lora_attention_r8_a32_s0")
    card = tmp_path / "results" / "data" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"splits": {"train": {"tokens": 1500000}}}')
    assert paper().finetune_minutes("lora_attention_r8_a32_s0") < 0.5 * before
