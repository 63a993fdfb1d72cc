"""What each of two processes runs for ``test_parallel``: some steps on the tiny model; the first writes the outcome.

``main`` does so for each of ``runs``, which hold the other arguments of ``train``.
"""

import os
import signal

import numpy as np
import torch
from lorastudy.engine import model, parallel, training
from lorastudy.engine.checkpoints import Checkpoints
from lorastudy.jobs import logs
from lorastudy.study import grid, settings
from safetensors.torch import save_file


def main(base, runs):
    for run in runs:
        train(base, **run)


def train(base, output, checkpoints=None, stop_after=None, no_memory_above=None):
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, 256, generator.integers(3, 30)).tolist() for _ in range(60)]
    labels = np.random.default_rng(1).integers(0, 5, 60)
    cell = grid.Cell("lora", "all-linear", 4, 8, 1)
    peft_model = model.add_adapters(model.load_classifier(base, 5, "float32", 1), cell, settings.Lora(0.0, "paper"))
    hyper = settings.Training(
        epochs=1, batch_size=6, learning_rate=1e-2, head_learning_rate=None, scheduler="linear", warmup_ratio=0.1,
        weight_decay=0.01, max_grad_norm=1.0,
    )  # fmt: skip
    how = settings.Execution(
        micro_batch_tokens=1000, checkpointed_layers=0, gpus_per_cell=2, evaluation_tokens=256, checkpoint_minutes=10,
        log_every_steps=1,
    )  # fmt: skip
    rank, _ = parallel.rank_and_size()
    classify, calls = model.classify, iter(range(10_000))

    def disturbed(peft_model, pack):
        if next(calls) == stop_after and rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        if no_memory_above and rank == 1 and pack.tokens > no_memory_above:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return classify(peft_model, pack)

    model.classify = disturbed
    store = Checkpoints(checkpoints, {}) if checkpoints else None
    try:
        progress = training.train(peft_model, texts, labels, hyper, how, cell.seed, store)
    except logs.Interrupted:
        raise
    finally:
        model.classify = classify
    if rank == 0:
        kept = {name: p.detach().clone() for name, p in peft_model.named_parameters() if p.requires_grad}
        losses = torch.tensor([row["loss"] for row in progress.rows], dtype=torch.float64)
        save_file(kept | {"losses": losses, "micro_batch_tokens": torch.tensor(progress.micro_batch_tokens)}, output)
