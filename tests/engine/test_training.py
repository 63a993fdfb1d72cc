"""The packed engine against a plain padded loop, and what happens when a run is disturbed."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lorastudy.engine import batching, checkpoints, energy, finetuning, methods, model, training
from lorastudy.inputs import base_model, linear_layers
from lorastudy.jobs import logs
from lorastudy.study import grid, settings
from lorastudy.study.settings import Lora
from safetensors.torch import load_file

HYPER = settings.Training(
    epochs=2, batch_size=6, learning_rate=1e-2, head_learning_rate=None, scheduler="linear", warmup_ratio=0.1,
    weight_decay=0.01, max_grad_norm=1.0, initial_seed=None, order_seed=None,
)  # fmt: skip
EXECUTION = settings.Execution(
    micro_batch_tokens=64,
    checkpointed_layers=0,
    gpus_per_cell=1,
    evaluation_tokens=256,
    checkpoint_minutes=10,
    log_every_steps=1,
)
CELL = grid.Cell("lora", "all-linear", 4, 8, 1)
STEPS = 20


@pytest.fixture(scope="module")
def texts():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, generator.integers(3, 30)).tolist() for _ in range(60)]


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 5, 60)


def fresh(base, cell=CELL, dtype="float32", dropout=0.0, fused=True):
    return model.add_adapters(
        model.load_classifier(base, 5, dtype, cell.seed), cell, Lora(dropout, "paper"), fused=fused
    )


def trained(peft_model):
    return {name: p.detach().clone() for name, p in peft_model.named_parameters() if p.requires_grad}


def run(base, texts, labels, store=None, cell=CELL, dropout=0.0, optimizer="adamw", **execution):
    peft_model = fresh(base, cell, dropout=dropout)
    how = settings.Execution(**(vars(EXECUTION) | execution))
    hyper = settings.Training(**(vars(HYPER) | {"optimizer": optimizer}))
    progress = training.train(peft_model, texts, labels, hyper, how, cell.seed, store)
    return peft_model, progress


def padded_reference(base, texts, labels):
    """What a user would write: padded batches with a mask, the model's own forward, torch's AdamW; 20 steps."""
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

    ours = fresh(base)
    plain = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=5, dtype=torch.float32, pad_token_id=258
    )
    plain.requires_grad_(False)
    config = methods.peft_config(CELL, Lora(0.0, "paper"), linear_layers.read(plain))
    peft_model = get_peft_model(plain, config)
    peft_model.load_state_dict(ours.state_dict())
    peft_model.train()
    parameters = [p for p in peft_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, 2, STEPS)
    losses = []
    for chosen in batching.steps(60, 6, 2, CELL.seed):
        longest = max(len(texts[i]) for i in chosen)
        ids = torch.tensor([texts[i] + [258] * (longest - len(texts[i])) for i in chosen])
        mask = torch.tensor([[1] * len(texts[i]) + [0] * (longest - len(texts[i])) for i in chosen])
        logits = peft_model(input_ids=ids, attention_mask=mask).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[chosen]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, trained(peft_model)


def test_packed_training_follows_the_padded_reference(tiny_base, texts, labels):
    losses, weights = padded_reference(tiny_base, texts, labels)
    peft_model, progress = run(tiny_base, texts, labels)
    assert progress.step == STEPS
    np.testing.assert_allclose([row["loss"] for row in progress.rows], losses, rtol=1e-5)
    for name, value in trained(peft_model).items():
        torch.testing.assert_close(value, weights[name], atol=1e-4, rtol=1e-4)


def test_the_result_does_not_depend_on_the_micro_batches(tiny_base, texts, labels):
    one, _ = run(tiny_base, texts, labels, micro_batch_tokens=10_000)
    many, _ = run(tiny_base, texts, labels, micro_batch_tokens=30)
    for name, value in trained(one).items():
        torch.testing.assert_close(value, trained(many)[name], atol=1e-4, rtol=1e-4)


def test_the_result_does_not_depend_on_the_checkpointed_layers(tiny_base, texts, labels):
    none, _ = run(tiny_base, texts, labels)
    one, progress = run(tiny_base, texts, labels, checkpointed_layers=1)
    assert progress.checkpointed_layers == 1
    for name, value in trained(none).items():
        torch.testing.assert_close(value, trained(one)[name], atol=1e-4, rtol=1e-4)


def test_the_same_run_twice_is_bit_identical(tiny_base, texts, labels):
    first, second = (trained(run(tiny_base, texts, labels, dropout=0.1)[0]) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_log_counts_what_was_seen(tiny_base, texts, labels):
    _, progress = run(tiny_base, texts, labels, log_every_steps=7)
    assert [row["step"] for row in progress.rows] == [7, 14, 20]
    assert progress.samples == 120
    assert progress.tokens == 2 * sum(map(len, texts))
    assert progress.rows[-1]["epoch"] == 2
    assert progress.status == "finished"


def test_a_cell_that_shares_its_gpu_is_recorded_with_an_equal_part_of_the_energy(tiny_base, texts, labels, monkeypatch):
    readings = iter([1, 2, 3, 6])  # after steps 7, 14 and 20 of 20, and at the end: 3 on average
    meter = SimpleNamespace(reason=None, joules=lambda: 7.2e6, processes=lambda: next(readings))
    monkeypatch.setattr(energy, "Meter", lambda: meter)
    adapted, progress = run(tiny_base, texts, labels, log_every_steps=7)
    record = finetuning.measured(adapted, progress, 1)
    assert record.gpu_processes == pytest.approx(3)
    assert record.energy_kwh == pytest.approx(2 / 3)
    assert record.energy_reason == energy.PART


def test_a_cell_that_has_its_gpu_alone_is_recorded_with_all_of_the_energy(tiny_base, texts, labels, monkeypatch):
    monkeypatch.setattr(
        energy, "Meter", lambda: SimpleNamespace(reason=None, joules=lambda: 7.2e6, processes=lambda: 1)
    )
    record = finetuning.measured(*run(tiny_base, texts, labels), 1)
    assert (record.gpu_processes, record.energy_kwh, record.energy_reason) == (1, 2, None)


def test_small_updates_reach_bfloat16_adapters(tiny_base):
    """Steps of 1/10 of a bfloat16 rounding unit must add up, not vanish one by one."""
    peft_model = fresh(tiny_base, dtype="bfloat16", fused=False)
    slow = settings.Training(
        **(vars(HYPER) | {"learning_rate": 1e-4, "scheduler": "constant", "warmup_ratio": 0.0, "weight_decay": 0.0})
    )
    optimizer = training.Optimizer(peft_model, slow, 100)
    name = next(name for name, p in optimizer.parameters.items() if p.dtype == torch.bfloat16 and "lora_A" in name)
    parameter = optimizer.parameters[name]
    parameter.data.fill_(0.25)
    optimizer.masters[name].data.fill_(0.25)
    for index in range(50):
        parameter.grad = torch.ones_like(parameter)
        optimizer.collect()
        optimizer.step(index, torch.tensor(1.0))
    assert parameter.float().mean().item() == pytest.approx(0.25 - 50 * 1e-4, abs=1e-3)


def interrupted(base, texts, labels, store, monkeypatch, signum, after):
    """A run that gets ``signum`` during the step after ``after``."""
    classify, calls = model.classify, iter(range(10_000))

    def classify_and_signal(*arguments):
        if next(calls) == after:
            os.kill(os.getpid(), signum)
        return classify(*arguments)

    monkeypatch.setattr(model, "classify", classify_and_signal)
    with pytest.raises(logs.Interrupted, match="kept a checkpoint after step") as stop:
        run(base, texts, labels, store, dropout=0.1, micro_batch_tokens=10_000)
    monkeypatch.setattr(model, "classify", classify)
    assert stop.value.code == 128 + signum


def test_moments_in_8_bits_change_little_and_resume_exactly(tiny_base, texts, labels, tmp_path):
    exact, whole = run(tiny_base, texts, labels)
    rounded, progress = run(tiny_base, texts, labels, optimizer="adamw_8bit")
    losses = [[row["loss"] for row in each.rows] for each in (whole, progress)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert not all(torch.equal(value, trained(rounded)[name]) for name, value in trained(exact).items())
    store = checkpoints.Checkpoints(tmp_path, {})
    run(tiny_base, texts, labels, store, optimizer="adamw_8bit", checkpoint_minutes=1e-9)
    resumed, again = run(tiny_base, texts, labels, store, optimizer="adamw_8bit")
    assert again.resumes == 1
    assert all(torch.equal(value, trained(resumed)[name]) for name, value in trained(rounded).items())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_keeps_a_checkpoint_and_the_resumed_run_is_bit_identical(
    tiny_base, texts, labels, tmp_path, monkeypatch, signum
):
    expected, whole = run(tiny_base, texts, labels, dropout=0.1, micro_batch_tokens=10_000)
    store = checkpoints.Checkpoints(tmp_path, {"cell": CELL.id})
    interrupted(tiny_base, texts, labels, store, monkeypatch, signum, after=7)
    resumed, progress = run(tiny_base, texts, labels, store, dropout=0.1, micro_batch_tokens=10_000)
    assert progress.resumes == 1
    assert progress.samples == whole.samples
    assert [row["loss"] for row in progress.rows] == [row["loss"] for row in whole.rows]
    assert all(torch.equal(value, trained(resumed)[name]) for name, value in trained(expected).items())


def test_checkpoints_come_by_time_and_the_last_two_are_kept(tiny_base, texts, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", 1e9)
    store = checkpoints.Checkpoints(tmp_path, {})
    run(tiny_base, texts, labels, store, checkpoint_minutes=1e-9)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step00000018.safetensors",
        "step00000019.safetensors",
    ]
    store.remove()
    assert not tmp_path.exists()


def test_checkpoints_that_take_long_are_rare(tiny_base, texts, labels, tmp_path, monkeypatch):
    """After one that took a tenth of a second none is due for five seconds; the training takes less than one."""
    store, clock, calls = checkpoints.Checkpoints(tmp_path, {}), iter(range(10**6)), []
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock) / 1000)
    monkeypatch.setattr(store, "save", lambda *_: calls.append([next(clock) for _ in range(100)]))
    run(tiny_base, texts, labels, store, checkpoint_minutes=1e-9)
    assert len(calls) == 1


def broken(kind, path):
    content = path.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "altered":
            path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])


@pytest.mark.parametrize("kind", ["truncated", "empty", "altered"])
def test_a_broken_checkpoint_is_refused_by_name_and_the_one_before_used(tmp_path, caplog, kind):
    store = checkpoints.Checkpoints(tmp_path, {"a": 1})
    for step in (3, 5):
        store.save(step, {"x": torch.full((4,), float(step))}, {"seconds": 1.5})
    broken(kind, tmp_path / "step00000005.safetensors")
    tensors, state = store.load()
    assert state == {"seconds": 1.5, "step": 3}
    assert tensors["x"].tolist() == [3.0] * 4
    assert "step00000005.safetensors refused" in caplog.text


def test_a_foreign_checkpoint_is_refused_by_name(tmp_path, caplog):
    checkpoints.Checkpoints(tmp_path, {"learning_rate": 1e-4}).save(3, {"x": torch.zeros(1)}, {})
    assert checkpoints.Checkpoints(tmp_path, {"learning_rate": 2e-4}).load() is None
    assert "step00000003.safetensors refused: of another cell" in caplog.text


def test_a_failed_save_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = checkpoints.Checkpoints(tmp_path, {})
    store.save(1, {"x": torch.zeros(1)}, {})
    monkeypatch.setattr(
        checkpoints.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        store.save(2, {"x": torch.zeros(1)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step00000001.safetensors"]


def test_the_disk_needs_room_for_two_checkpoints_in_all(tmp_path):
    """A resumed cell has the first already; one of 15 GiB must not ask for 45 once more."""
    store = checkpoints.Checkpoints(tmp_path, {})
    assert store.room(10**9) == 2 * 10**9
    store.save(1, {"x": torch.zeros(1000)}, {})
    assert store.room(10**9) == 2 * 10**9 - (tmp_path / "step00000001.safetensors").stat().st_size
    assert store.room(100) == 0


@pytest.mark.parametrize(("free", "beside"), [(4000, [2, 1]), (3999, [2])])
def test_without_room_for_a_third_checkpoint_the_oldest_makes_way(tmp_path, monkeypatch, free, beside):
    store, seen = checkpoints.Checkpoints(tmp_path, {}), []
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _: seen.append([path.stem for path in store._paths()]))
    for step in (1, 2, 3):
        monkeypatch.setattr(
            checkpoints.shutil, "disk_usage", lambda _, at=step: SimpleNamespace(free=free if at == 3 else 10**9)
        )
        store.save(step, {"x": torch.zeros(1000)}, {})
    assert seen[-1] == [f"step{step:08d}" for step in beside]
    assert store.load()[1]["step"] == 3


def test_out_of_memory_halves_the_micro_batches_and_keeps_the_trajectory(tiny_base, texts, labels, monkeypatch):
    expected, _ = run(tiny_base, texts, labels, micro_batch_tokens=128)
    classify = model.classify

    def small_memory(peft_model, pack):
        if pack.tokens > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return classify(peft_model, pack)

    monkeypatch.setattr(model, "classify", small_memory)
    peft_model, progress = run(tiny_base, texts, labels, micro_batch_tokens=128)
    assert progress.micro_batch_tokens == 64
    assert progress.step == STEPS
    for name, value in trained(expected).items():
        torch.testing.assert_close(trained(peft_model)[name], value, atol=1e-4, rtol=1e-4)


def test_a_text_that_never_fits_ends_with_a_remedy(tiny_base, texts, labels, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    levels = []
    monkeypatch.setattr(model, "classify", no_memory)
    monkeypatch.setattr(model, "checkpoint_layers", lambda _, count: levels.append(count))
    with pytest.raises(training.TrainingError, match="out of memory with a single text .*data.max_length"):
        run(tiny_base, texts, labels)
    assert levels == [0, 2]  # before giving up, every layer is computed again


def test_other_errors_are_not_taken_for_lack_of_memory(tiny_base, texts, labels, monkeypatch):
    def fault(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(model, "classify", fault)
    with pytest.raises(RuntimeError, match="something else"):
        run(tiny_base, texts, labels)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_a_loss_that_is_not_finite_ends_the_cell_as_diverged(tiny_base, texts, labels, monkeypatch, optimizer):
    classify, calls = model.classify, iter(range(10_000))

    def nan_at_the_fifth_step(*arguments):
        return classify(*arguments) * (float("nan") if next(calls) == 4 else 1.0)

    monkeypatch.setattr(model, "classify", nan_at_the_fifth_step)
    peft_model, progress = run(tiny_base, texts, labels, micro_batch_tokens=10_000, optimizer=optimizer)
    assert (progress.status, progress.step, progress.diverged_step) == ("diverged", 4, 5)
    assert progress.diverged_learning_rate == pytest.approx(1e-2 * (20 - 4) / (20 - 2))
    assert all(torch.isfinite(value).all() for value in trained(peft_model).values())


def test_gradient_clipping_is_optional(tiny_base):
    peft_model = fresh(tiny_base)
    for limit, expected in ((None, 3.0), (1.0, 1.0)):
        optimizer = training.Optimizer(peft_model, SimpleNamespace(**(vars(HYPER) | {"max_grad_norm": limit})), 10)
        next(iter(optimizer.masters.values())).grad.view(-1)[0] = 3.0
        _, norm = optimizer.step(0, torch.tensor(1.0)).tolist()
        assert norm == pytest.approx(3.0)
        first_moment = optimizer.adamw.state[optimizer.flat["adapters"]]["exp_avg"]  # a tenth of the gradient by now
        assert first_moment.norm().item() == pytest.approx(0.1 * expected, rel=1e-4)


def test_adapters_learn(tiny_base):
    """A rule that a linear head on random features cannot miss: the class is the last byte."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 200)
    texts = [[*generator.integers(5, 250, 6).tolist(), int(label)] for label in labels]
    peft_model = fresh(tiny_base)
    training.train(peft_model, texts, labels, HYPER, EXECUTION, seed=0)
    model.set_training(peft_model, False)
    with torch.inference_mode():
        guess = model.classify(peft_model, batching.pack(texts)).argmax(1)
    assert (guess.numpy() == labels).mean() > 0.9


def test_saved_adapters_are_what_the_model_computed_with(tiny_base, texts, labels, tmp_path):
    peft_model, _ = run(tiny_base, texts, labels)
    model.save_adapters(peft_model, tmp_path, base_model.fingerprint(tiny_base))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == len(trained(peft_model))
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


@pytest.fixture
def gpu_with(monkeypatch):
    """Pretend that there is a GPU with so many bytes free."""

    def pretend(free):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80 * 2**30))

    return pretend


def fitted(peft_model, **execution):
    empty = {"micro_batch_tokens": None, "checkpointed_layers": None} | execution
    how = settings.Execution(**(vars(EXECUTION) | empty))
    three = settings.Training(**(vars(HYPER) | {"batch_size": 3}))
    return training.fitted(how, peft_model, CELL, 5, "paper", [30, 20, 10, 5], three)


def test_empty_keys_are_fitted_to_the_gpu(tiny_base, gpu_with, caplog):
    peft_model = fresh(tiny_base)
    gpu_with(40 * 2**30)
    how = fitted(peft_model)
    assert (how.micro_batch_tokens, how.checkpointed_layers) == (60, 0)  # no step has more tokens
    assert fitted(peft_model, micro_batch_tokens=40).micro_batch_tokens == 40
    assert fitted(peft_model, checkpointed_layers=1).checkpointed_layers == 1
    gpu_with(2**18)
    how = fitted(peft_model)
    assert (how.micro_batch_tokens, how.checkpointed_layers) == (30, 2)  # the least: one text, every layer again
    assert "not expected to fit" in caplog.text


def test_empty_keys_on_a_cpu(tiny_base):
    how = fitted(fresh(tiny_base))
    assert (how.micro_batch_tokens, how.checkpointed_layers) == (8192, 0)
