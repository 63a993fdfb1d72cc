"""Loss curves of the engine's forms against each other and against transformers' and PEFT's own layers.

    python benchmarks/trajectory.py [--steps 100] [--output benchmarks/results]

All runs start from the same weights and see the same texts in the same order; they differ in rounding alone. The
measure is the difference of two curves, step by step. The spread that rounding itself makes is that between two runs
of the reference whose steps are cut into different micro-batches. On a GPU in bfloat16, with eight layers of
Llama-3-8B's shape; on a CPU with the tiny shape.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import workload
from lorastudy import model, records, settings, training

BATCH = 16
WORDS = 500  # token ids that occur; the class of a text is that of its last one, so there is something to learn
REFERENCE, REFERENCE_AGAIN = "transformers and PEFT, one micro-batch", "transformers and PEFT, smaller micro-batches"


def texts(steps):
    made, _ = workload.reviews(BATCH * steps, 260, seed=3)
    made = [[token % WORDS for token in text] for text in made]
    return made, np.array([text[-1] % workload.CLASSES for text in made])


def curve(shape, device, method, steps, fused, tokens, checkpointed):
    """Loss of each step."""
    import torch

    workload.fresh_peak()
    base = workload.classifier(
        shape, device, torch.bfloat16, quantized=method == "qlora", layers=8 if shape == "llama-3-8b" else None
    )
    adapted = model.add_adapters(base, workload.cell(method, "all-linear", 8), settings.Lora(0.0, "paper"), fused)
    how = settings.Execution(
        micro_batch_tokens=tokens, checkpointed_layers=checkpointed, gpus_per_cell=1, evaluation_tokens=1, checkpoint_minutes=1e9,
        log_every_steps=1,
    )  # fmt: skip
    progress = training.train(adapted, *texts(steps), workload.hyper(BATCH), how, 0)
    return [row["loss"] for row in progress.rows]


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    shape, device = ("llama-3-8b", "cuda") if gpu else ("tiny", "cpu")
    machine = records.hardware()
    machine.pop("node")
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / f"trajectory_{machine['device'].lower().replace(' ', '-') if gpu else 'cpu'}.json"
    result = {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"), "shape": shape, "layers": 8 if gpu else 2,
        "steps": arguments.steps, "machine": machine, "curves": {}, "differences": {},
    }  # fmt: skip
    variants = {
        REFERENCE: (False, 16384, 0),
        REFERENCE_AGAIN: (False, 1024, 0),
        "engine, one micro-batch": (True, 16384, 0),
        "engine, smaller micro-batches": (True, 1024, 0),
        "engine, every layer checkpointed": (True, 16384, 32),
    }
    for method in ("lora", "qlora"):
        for name, (fused, tokens, checkpointed) in variants.items():
            result["curves"][f"{method}: {name}"] = curve(
                shape, device, method, arguments.steps, fused, tokens, checkpointed
            )
        reference = np.array(result["curves"][f"{method}: {REFERENCE}"])
        for name, losses in result["curves"].items():
            if name.startswith(f"{method}:") and REFERENCE not in name:
                apart = np.abs(np.array(losses) - reference)
                result["differences"][name] = {
                    "mean": apart.mean(), "largest": apart.max(), "final": apart[-10:].mean(),
                    "mean_loss": float(np.mean(losses[-10:])), "reference_mean_loss": float(reference[-10:].mean()),
                }  # fmt: skip
                print(name, json.dumps(result["differences"][name]), flush=True)
        records.write_json(file, json.loads(json.dumps(result, default=float)))


if __name__ == "__main__":
    main()
