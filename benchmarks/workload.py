"""What the benchmarks run: review lengths, models of random weights, measurements. Weights' values change neither time
nor memory."""

import json
import time
from pathlib import Path

import numpy as np
from lorastudy.engine import attention, model
from lorastudy.study import grid, settings

CLASSES = 5
ARCHITECTURES = Path(__file__).resolve().parents[1] / "resources" / "architectures"


def review_lengths(count, seed, median=130, sigma=0.85, low=8, high=512):
    """Tokens of ``count`` reviews: log-normal, cut to low … high."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), sigma, count)
    return np.clip(np.round(drawn), low, high).astype(int)


def reviews(count, vocabulary, seed, **distribution):
    """Random token ids of ``review_lengths`` and random labels."""
    generator = np.random.default_rng([seed, 1])
    texts = [
        generator.integers(0, min(vocabulary, 128_000), length).tolist()
        for length in review_lengths(count, seed, **distribution)
    ]
    return texts, generator.integers(0, CLASSES, count)


def architecture(name):
    return json.loads((ARCHITECTURES / f"{name}.json").read_text(encoding="utf-8"))


def classifier(name, device, dtype, quantized=False, packed=True, layers=None):
    """A ``…ForSequenceClassification`` of random weights, frozen; linear layers in NF4 with double quantization if asked.

    Args:
        packed: in this pipeline's form; else as transformers has it, with its own attention.
        layers: decoder layers, where they are not to be the shape's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    attention.register()
    shape = architecture(name)
    config = AutoConfig.for_model(
        **shape | {"num_hidden_layers": layers or shape["num_hidden_layers"]}, num_labels=CLASSES
    )
    config.pad_token_id = 0
    config.use_cache = False
    torch.manual_seed(0)
    with torch.device(device):
        made = AutoModelForSequenceClassification.from_config(
            config, dtype=dtype, attn_implementation=attention.NAME if packed else "sdpa"
        )
    made.requires_grad_(False)
    if quantized:
        _quantize(made, dtype)
    if packed:
        made.score.float()
    model.set_training(made, False)
    return made


def _quantize(made, dtype):
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, module in list(made.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == model.HEAD:
            continue
        packed = Linear4bit(
            module.in_features, module.out_features, bias=False, compute_dtype=dtype, compress_statistics=True,
            quant_type="nf4", device="meta",
        )  # fmt: skip
        device = module.weight.device
        packed.weight = Params4bit(
            module.weight.data.cpu() if device.type == "cpu" else module.weight.data,
            requires_grad=False, quant_type="nf4", compress_statistics=True, module=packed,
        )  # fmt: skip
        packed.to(device)
        parent, _, child = name.rpartition(".")
        setattr(made.get_submodule(parent), child, packed)
        module.weight = None
    made.is_loaded_in_4bit = True


def cell(method, targets, r):
    return grid.Cell(method, targets, r, 2 * r, 0)


def hyper(batch_size, **changes):
    """Training settings of the measurements."""
    return settings.Training(
        **dict(
            epochs=1, batch_size=batch_size, learning_rate=2e-4, head_learning_rate=None, scheduler="linear",
            warmup_ratio=0.03, weight_decay=0.0, max_grad_norm=1.0,
        )
        | changes
    )  # fmt: skip


def synchronize():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fresh_peak():
    """Forget the peak so far and what the allocator keeps for nothing."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Watch:
    """Seconds between marks, the GPU's work done."""

    def __init__(self):
        synchronize()
        self.begun = time.perf_counter()

    def read(self):
        synchronize()
        return time.perf_counter() - self.begun
