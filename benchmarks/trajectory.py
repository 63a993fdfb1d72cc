"""Loss curves in bfloat16, of the engine and of transformers' and PEFT's own layers, against one in float32.

    python benchmarks/trajectory.py [--steps 100] [--output benchmarks/results]

All runs start from the same weights and see the same texts in the same order; they differ in rounding alone. What
bfloat16 does to a curve is its distance, step by step, from the float32 run of transformers' and PEFT's layers on the
same bfloat16 weights (on a GPU in TF32, whose products have eight times bfloat16's precision). The engine's distance is
to be no larger than theirs. On a GPU with eight layers of Llama-3-8B's shape; on a CPU with the tiny shape.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import workload
from lorastudy.engine import decoder, model, training
from lorastudy.jobs import machine
from lorastudy.study import records, settings

BATCH = 16
WORDS = 500  # token ids that occur; the class of a text is that of its last one, so there is something to learn
EXACT = "transformers and PEFT, float32"
TOKENS = (16384, 2048, 1024)  # of a micro-batch: a batch has about 2,900
FORMS = {EXACT: (False, 4096)} | {
    f"{name}, micro-batches of {tokens:,}": (fused, tokens)
    for name, fused in (("transformers and PEFT", False), ("engine", True))
    for tokens in TOKENS
}


def texts(steps):
    made, _ = workload.reviews(BATCH * steps, 260, seed=3)
    made = [[token % WORDS for token in text] for text in made]
    return made, np.array([text[-1] % workload.CLASSES for text in made])


def curve(shape, device, method, steps, form):
    """Loss of each step."""
    import torch

    fused, tokens = FORMS[form]
    workload.fresh_peak()
    base = workload.classifier(
        shape, device, torch.bfloat16, quantized=method == "qlora", layers=8 if shape == "llama-3-8b" else None
    )
    adapted = model.add_adapters(base, workload.cell(method, "all-linear", 8), settings.Lora(0.0, "paper"), fused=fused)
    assert (decoder.fused(adapted) is not None) == fused
    if form == EXACT:
        adapted.float()  # the values stay those of bfloat16 at first
        for module in adapted.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = torch.float32
    how = settings.Execution(
        micro_batch_tokens=tokens, checkpointed_layers=0, gpus_per_cell=1, evaluation_tokens=1, checkpoint_minutes=1e9,
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
    here = machine.hardware()
    here.pop("node")
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / f"trajectory_{here['device'].lower().replace(' ', '-') if gpu else 'cpu'}.json"
    result = {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"), "shape": shape, "layers": 8 if gpu else 2,
        "steps": arguments.steps, "machine": here, "curves": {}, "distances": {},
    }  # fmt: skip
    torch.set_float32_matmul_precision("high")
    for method in ("lora", "qlora"):
        for form in FORMS:
            losses = result["curves"][f"{method}: {form}"] = curve(shape, device, method, arguments.steps, form)
            apart = np.array(losses) - result["curves"][f"{method}: {EXACT}"]
            result["distances"][f"{method}: {form}"] = {
                "mean": np.abs(apart).mean(), "largest": np.abs(apart).max(), "last_ten": np.abs(apart[-10:]).mean(),
                "signed": apart.mean(), "signed_error": apart.std(ddof=1) / len(apart) ** 0.5,
                "loss_of_last_ten": np.mean(losses[-10:]),
            }  # fmt: skip
            print(
                method,
                form,
                {key: round(float(value), 5) for key, value in result["distances"][f"{method}: {form}"].items()},
                flush=True,
            )
        records.write_json(file, json.loads(json.dumps(result, default=float)))


if __name__ == "__main__":
    main()
