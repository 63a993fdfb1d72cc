"""Requests follow the model, the texts, the cell and the GPU."""

import numpy as np
import pytest
import yaml
from lorastudy.planning import resources
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY


def paper(gpu="a100", data=None, **training):
    configuration = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    configuration["data"] |= data or {}
    configuration["training"] |= training
    study = settings.load(configuration)
    return resources.Estimate(study, grid.cells(study.grid), gpu=gpu)


def test_requests_of_the_paper_s_study(tmp_path, monkeypatch):
    """By hand: 50,000 texts of 100.9 tokens on average, 7.5e9 weights in bfloat16, six FLOP a weight and token.

    5.05e6 x 6 x 7.5e9 = 2.3e17; at a quarter of 312 TFLOP/s 2911 s = 49 min; evaluation: 10,000 texts, two FLOP: 3.2 min.
    With 10 min to start and 2.4 to read 14.3 GiB, doubled: 128 min to train and predict, 31 min to evaluate alone.
    """
    monkeypatch.chdir(tmp_path)
    one = paper()
    assert 126 <= one.finetune_minutes("lora_attention_r8_a16_s0") <= 133
    assert 30 <= one.evaluate_minutes("lora_attention_r8_a16_s0") <= 33
    assert one.finetune_minutes("qlora_attention_r8_a16_s0") > 1.1 * one.finetune_minutes("lora_attention_r8_a16_s0")
    assert one.finetune_minutes("lora_all-linear_r512_a1024_s0") > one.finetune_minutes("lora_all-linear_r8_a16_s0")
    # masters and moments of 1.34e9 parameters are 16 GB
    more = one.finetune_memory_mb("lora_all-linear_r512_a1024_s0") - one.finetune_memory_mb("lora_all-linear_r8_a16_s0")
    assert 17_000 < more < 20_000
    assert (
        one.gpu_memory_mb("qlora_attention_r8_a16_s0", "finetune")
        < one.gpu_memory_mb("lora_attention_r8_a16_s0", "finetune")
        < 80 * 1024
    )
    assert paper("h100").finetune_minutes("lora_attention_r8_a16_s0") < one.finetune_minutes("lora_attention_r8_a16_s0")
    assert paper("a100_80gb").peak == one.peak
    assert paper("never heard of").peak < one.peak


def test_moments_in_8_bits_ask_for_less_of_the_gpu(tmp_path, monkeypatch):
    """Two moments of 1.34e9 parameters, one byte each and not four: 7,692 MiB, with 3% fragmentation."""
    monkeypatch.chdir(tmp_path)
    cell = "lora_all-linear_r512_a1024_s0"
    less = paper().gpu_memory_mb(cell, "finetune") - paper(optimizer="adamw_8bit").gpu_memory_mb(cell, "finetune")
    assert 0.95 * 7692 * 1.03 < less < 7692 * 1.03


def test_reviews_have_their_length_before_they_are_counted(tmp_path, monkeypatch):
    """The paper's texts, and random ones of their lengths; of others nothing is known but the most that is kept."""
    monkeypatch.chdir(tmp_path)
    random = {"source": "random", "name": "review-lengths", "revision": None}
    assert paper().text_tokens == pytest.approx(mean_of_drawn(128), rel=2e-3)
    assert paper(data={"max_length": 1000}).text_tokens == pytest.approx(mean_of_drawn(1000), rel=2e-3)
    assert paper(data=random | {"max_length": 1000}).text_tokens == pytest.approx(mean_of_drawn(512), rel=2e-3)
    assert paper(data={"name": "some/other"}).text_tokens == 128


def mean_of_drawn(most):
    drawn = np.random.default_rng(0).lognormal(np.log(130), 0.85, 400_000)
    return np.clip(drawn, 8, most).mean()


def test_the_prepared_data_s_tokens_count_once_they_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = paper().finetune_minutes("lora_attention_r8_a16_s0")
    card = tmp_path / "results" / "data" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"splits": {"train": {"tokens": 1500000}}}', encoding="utf-8")
    assert paper().finetune_minutes("lora_attention_r8_a16_s0") < 0.5 * before
