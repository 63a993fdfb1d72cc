"""Methods beside LoRA and QLoRA: what they train, that they follow a plain padded loop, and that they come back."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from lorastudy.engine import batching, checkpoints, decoder, methods, model, training
from lorastudy.inputs import base_model, linear_layers
from lorastudy.jobs import logs
from lorastudy.study import grid, settings
from lorastudy.study.settings import Lora

STEPS, BATCH = 10, 4
HYPER = settings.Training(
    epochs=1, batch_size=BATCH, learning_rate=1e-2, head_learning_rate=None, scheduler="linear", warmup_ratio=0.0,
    weight_decay=0.0, max_grad_norm=1.0,
)  # fmt: skip
EXECUTION = settings.Execution(
    micro_batch_tokens=1000, checkpointed_layers=0, gpus_per_cell=1, evaluation_tokens=256, checkpoint_minutes=10,
    log_every_steps=1,
)  # fmt: skip
HEAD = 5 * 64
CELLS = {
    "dora": grid.Cell("dora", "attention", 4, 8, 1),
    "adalora": grid.Cell("adalora", "attention", 4, 8, 1),
    "head": grid.Cell("head", None, None, None, 1),
    "full": grid.Cell("full", None, None, None, 1),
    "mlp": grid.Cell("lora", "mlp", 4, 8, 1),
    "q-v": grid.Cell("lora", "q-v", 4, 8, 1, modules=["q_proj", "v_proj"]),
}
# by hand: width 64, feed-forward 128, key/value 32, two layers, r = 4; AdaLoRA begins at 6
ATTENTION = (64 + 64) + (64 + 32) + (64 + 32) + (64 + 64)
COUNTS = {
    "dora": 2 * (4 * ATTENTION + 64 + 32 + 32 + 64) + HEAD,
    "adalora": 2 * (6 * ATTENTION + 4 * 6) + HEAD,
    "head": HEAD,
    "full": 260 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64 + HEAD,
    "mlp": 2 * 4 * 3 * (64 + 128) + HEAD,
    "q-v": 2 * 4 * ((64 + 64) + (64 + 32)) + HEAD,
}


@pytest.fixture(scope="module")
def texts():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, generator.integers(3, 20)).tolist() for _ in range(STEPS * BATCH)]


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 5, STEPS * BATCH)


def fresh(base, name, dtype="float32"):
    return model.add_adapters(model.load_classifier(base, 5, dtype, 1), CELLS[name], Lora(0.0, "paper"))


def train(peft_model, texts, labels, store=None, **hyper):
    return training.train(peft_model, texts, labels, dataclasses.replace(HYPER, **hyper), EXECUTION, 1, store)


def logits(peft_model, texts):
    model.set_training(peft_model, False)
    with torch.inference_mode():
        return model.classify(peft_model, batching.pack(texts[:6]))


@pytest.mark.parametrize("name", CELLS)
def test_what_is_trained(name, tiny_base):
    peft_model = fresh(tiny_base, name)
    trained, everything = model.trainable(peft_model)
    assert trained == COUNTS[name]
    architecture = base_model.architecture_of(tiny_base)
    assert linear_layers.trainable_parameters(architecture, 5, CELLS[name], "paper") == COUNTS[name]
    assert model.count_parameters(architecture, 5, CELLS[name], Lora(0.0, "paper")) == (trained, everything)


@pytest.mark.parametrize("name", CELLS)
def test_a_model_that_comes_back_from_disk_gives_the_same_logits(name, tiny_base, tmp_path, texts, labels):
    peft_model = fresh(tiny_base, name)
    before = {name: p.detach().clone() for name, p in peft_model.named_parameters()}
    train(peft_model, texts, labels)
    still = [name for name, p in peft_model.named_parameters() if p.requires_grad == torch.equal(before[name], p)]
    assert not still
    model.save_adapters(peft_model, tmp_path / "adapter", base_model.fingerprint(tiny_base))
    again = model.load_adapters(model.load_classifier(tiny_base, 5, "float32", 7), tmp_path / "adapter")
    torch.testing.assert_close(logits(again, texts), logits(peft_model, texts), rtol=1e-5, atol=1e-6)
    assert not any(str(tiny_base) in file.read_text(encoding="utf-8") for file in (tmp_path / "adapter").glob("*.json"))


def padded(base, name):
    """transformers' and PEFT's own layers, nothing of this engine."""
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=5, dtype=torch.float32, pad_token_id=258
    )
    ours = fresh(base, name)
    if name == "full":
        plain.load_state_dict(ours.state_dict())
        return plain.train()
    plain.requires_grad_(False)
    config = methods.peft_config(CELLS[name], Lora(0.0, "paper"), linear_layers.read(plain))
    if name == "adalora":  # a tenth and a half of ten steps, ranks shared out at every step between
        config.total_step, config.tinit, config.tfinal, config.deltaT = STEPS, 1, 5, 1
    peft_model = get_peft_model(plain, config)
    peft_model.load_state_dict(ours.state_dict())
    return peft_model.train()


@pytest.mark.parametrize("name", CELLS)
def test_training_follows_a_plain_padded_loop(name, tiny_base, texts, labels):
    reference = padded(tiny_base, name)
    parameters = [p for p in reference.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    penalty = []
    for index, chosen in enumerate(batching.steps(STEPS * BATCH, BATCH, 1, 1)):
        longest = max(len(texts[i]) for i in chosen)
        ids = torch.tensor([texts[i] + [258] * (longest - len(texts[i])) for i in chosen])
        mask = torch.tensor([[1] * len(texts[i]) + [0] * (longest - len(texts[i])) for i in chosen])
        output = reference(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels[chosen]))
        penalty.append(output.loss.item())
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - index / STEPS)
        optimizer.step()
        if name == "adalora":
            reference.base_model.update_and_allocate(index + 1)
        optimizer.zero_grad()
    peft_model = fresh(tiny_base, name)
    progress = train(peft_model, texts, labels)
    if name != "adalora":  # whose penalty is part of PEFT's loss
        np.testing.assert_allclose([row["loss"] for row in progress.rows], penalty, rtol=1e-4)
    expected = dict(reference.named_parameters())
    for key, p in peft_model.named_parameters():
        # of all weights, some have gradients as small as rounding, which Adam turns into steps of the learning rate's size
        torch.testing.assert_close(p, expected[key], rtol=2e-3, atol=1e-3 if name == "full" else 2e-5, msg=key)
    if name == "adalora":
        ranks = peft_model.peft_config["default"].rank_pattern
        assert ranks == reference.peft_config["default"].rank_pattern
        assert sum(map(sum, ranks.values())) == 2 * 4 * 4  # of 48 ranks, four a projection on average are left


# AdaLoRA while ranks are scored, when the last are taken away (after half of the steps), and with what is left
@pytest.mark.parametrize(
    ("name", "step"),
    [("dora", 4), ("adalora", 2), ("adalora", 4), ("adalora", 5), ("adalora", 8), ("head", 4), ("full", 4)],
)
def test_a_resumed_cell_ends_bit_for_bit_as_an_undisturbed_one(
    name, step, tiny_base, tmp_path, texts, labels, monkeypatch
):
    undisturbed = fresh(tiny_base, name)
    train(undisturbed, texts, labels)
    store = checkpoints.Checkpoints(tmp_path / "checkpoints", {"cell": name})
    classify, calls = model.classify, iter(range(100))

    def classify_and_signal(*arguments):
        if next(calls) == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return classify(*arguments)

    monkeypatch.setattr(model, "classify", classify_and_signal)
    with pytest.raises(logs.Interrupted, match=f"after step {step}"):
        train(fresh(tiny_base, name), texts, labels, store)
    monkeypatch.setattr(model, "classify", classify)
    resumed = fresh(tiny_base, name)
    progress = train(resumed, texts, labels, store)
    assert progress.resumes == 1
    for (key, p), q in zip(undisturbed.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), key


def test_what_the_fused_decoder_does_not_know_is_left_to_pefts_layers(tiny_base, tmp_path, texts, labels):
    for name, fast in (("q-v", True), ("head", True), ("dora", False), ("adalora", False), ("full", False)):
        peft_model = fresh(tiny_base, name)
        assert (decoder.fused(peft_model) is not None) is fast, name
    peft_model = fresh(tiny_base, "dora")
    train(peft_model, texts, labels)
    model.save_adapters(peft_model, tmp_path / "adapter", base_model.fingerprint(tiny_base))
    again = model.load_adapters(model.load_classifier(tiny_base, 5, "float32", 1), tmp_path / "adapter")
    assert decoder.fused(again) is None


@pytest.mark.parametrize("name", CELLS)
def test_in_bfloat16_as_well(name, tiny_base, tmp_path, texts, labels):
    peft_model = fresh(tiny_base, name, "bfloat16")
    progress = train(peft_model, texts, labels)
    assert progress.status == "finished" and all(np.isfinite(row["loss"]) for row in progress.rows)
    model.save_adapters(peft_model, tmp_path / "adapter", base_model.fingerprint(tiny_base))
    again = model.load_adapters(model.load_classifier(tiny_base, 5, "bfloat16", 7), tmp_path / "adapter")
    torch.testing.assert_close(logits(again, texts), logits(peft_model, texts), rtol=2e-2, atol=2e-2)


def test_the_head_alone_learns_at_the_heads_own_rate(tiny_base, texts, labels):
    progress = train(fresh(tiny_base, "head"), texts, labels, head_learning_rate=5e-3)
    assert progress.rows[0]["learning_rate"] == 5e-3
