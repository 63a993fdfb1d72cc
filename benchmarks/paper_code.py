"""Why QLoRA took ten times as long: the paper's own code, reconstructed and timed beside this project's engine.

    python benchmarks/paper_code.py                 Llama-3-8B's shape with random weights, one GPU, a few minutes
    python benchmarks/paper_code.py --rehearse      a tiny shape on any machine: shows that the script works

The paper (sections 2.1 and 2.2) names transformers' Trainer, texts padded to 128 tokens, batches of 8, Adam at 1e-4, a LoRA
dropout of 0.05, and ``load_in_4bit`` with NF4. It names no compute format, and bitsandbytes' default is float32. So QLoRA
is timed as that configuration loads it, as PEFT's guide prepares it, with TF32 products allowed, and with bfloat16; beside
them LoRA in bfloat16 and both methods on this project's engine. Writes ``paper_code.json`` and ``.md``.
"""

import argparse
import gc
import math
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import workload
from lorastudy.engine import decoder, model, training
from lorastudy.jobs import machine
from lorastudy.study import grid, reconstruction, records, settings

MAX_LENGTH, BATCH, LEARNING_RATE, DROPOUT = 128, 8, 1e-4, 0.05  # section 2.2
R, ALPHA, TARGETS = 8, 16, "all-linear"  # the point that both lines of the paper share
WARM = 2  # steps of each repeat that are not timed
ROOM_GIB = 70  # GPU memory that holds all variants at once, so that their repeats can take turns


@dataclass(frozen=True)
class Variant:
    """One way to fine-tune. ``base`` names the model, which variants may share; see ``BASES``."""

    key: str
    name: str
    method: str
    base: str
    tf32: bool = False
    autocast: bool = False


VARIANTS = (
    Variant("lora_bfloat16", "LoRA, bfloat16", "lora", "bfloat16"),
    Variant("qlora_as_loaded", "QLoRA as loaded: float32 compute, float16 elsewhere", "qlora", "as loaded"),
    Variant("qlora_prepared", "QLoRA prepared for training: float32, checkpointing", "qlora", "prepared"),
    Variant("qlora_tf32", "the same, TF32 products allowed", "qlora", "prepared", tf32=True),
    Variant(
        "qlora_bfloat16", "QLoRA prepared, bfloat16 compute, autocast", "qlora", "prepared bfloat16", autocast=True
    ),
    Variant("engine_lora", "LoRA, this project's engine", "lora", "engine lora"),
    Variant("engine_qlora", "QLoRA, this project's engine", "qlora", "engine qlora"),
)


class Bench:
    """Texts, models and measurements of one run.

    Args:
        shape: a file of ``resources/architectures``, without its ending.
        steps: timed steps of a repeat.
        repeats: of every variant.
    """

    def __init__(self, shape, steps, repeats):
        import torch

        self.shape, self.steps, self.repeats = shape, steps, repeats
        self.gpu = torch.cuda.is_available()
        self.device = "cuda" if self.gpu else "cpu"
        self.vocabulary = workload.architecture(shape)["vocab_size"]
        self.texts, self.labels = workload.reviews(BATCH * (WARM + steps), self.vocabulary, seed=1, high=MAX_LENGTH)
        self.models, self.held = {}, {}
        self.seconds = {variant.key: [] for variant in VARIANTS}
        self.peak, self.loss, self.facts, self.errors = {}, {}, {}, {}

    def measure(self):
        """All variants: in turn, repeat by repeat, where the memory holds all of their models; else one after another."""
        for group in [VARIANTS] if self.together else [[variant] for variant in VARIANTS]:
            for _ in range(self.repeats):
                for variant in group:
                    if variant.key not in self.errors:
                        self._try(variant)
            self.models.clear()
            self.held.clear()
            workload.fresh_peak()

    @property
    def together(self):
        import torch

        return not self.gpu or torch.cuda.mem_get_info()[1] / 2**30 >= ROOM_GIB

    def _try(self, variant):
        try:
            self._repeat(variant)
        except Exception as fault:  # a row with its error is a result too
            self.errors[variant.key] = f"{type(fault).__name__}: {fault}".splitlines()[0][:200]
            print(variant.key, self.errors[variant.key], file=sys.stderr, flush=True)

    def _repeat(self, variant):
        """Train for some steps, and note their seconds and the peak of memory that is this variant's own."""
        if variant.base not in self.models:
            before = self._allocated()
            self.models[variant.base] = BASES[variant.base](self)
            self.held[variant.base] = self._allocated() - before
        workload.fresh_peak()
        before = self._allocated()
        others = before - self.held[variant.base]
        run = engine_steps if variant.base.startswith("engine") else trainer_steps
        with tf32_products(variant.tf32):
            seconds, self.loss[variant.key] = run(self, self.models[variant.base], variant)
        self.seconds[variant.key].append(seconds)
        if self.gpu:
            import torch

            own = (torch.cuda.max_memory_allocated() - others) / 2**30
            self.peak[variant.key] = max(own, self.peak.get(variant.key, 0.0))
        self.facts[variant.key] = {"compute": compute_format(self.models[variant.base], variant)}
        if run is engine_steps:
            self.facts[variant.key]["fused"] = decoder.fused(self.models[variant.base]) is not None
        self.held[variant.base] += self._allocated() - before

    def _allocated(self):
        import torch

        gc.collect()
        return torch.cuda.memory_allocated() if self.gpu else 0

    def rows(self):
        """A dictionary a variant. Seconds a step: median over repeats of each repeat's median, lowest and highest."""
        for variant in VARIANTS:
            row = {"key": variant.key, "name": variant.name, "method": variant.method}
            if variant.key in self.errors or not self.seconds[variant.key]:
                yield row | {"error": self.errors.get(variant.key, "not run")}
                continue
            medians = [statistics.median(steps) for steps in self.seconds[variant.key]]
            loss = self.loss[variant.key]
            yield row | {
                "seconds_a_step": statistics.median(medians),
                "lowest": min(medians),
                "highest": max(medians),
                "repeats": len(medians),
                "peak_gib": self.peak.get(variant.key),
                "loss_is_finite": math.isfinite(loss),
                **self.facts[variant.key],
            }


@contextmanager
def tf32_products(allowed):
    """float32 products in TF32 (10 bits of mantissa) on the tensor cores, or in full on the others: torch's default."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compute_format(peft_model, variant):
    """Number format that the products of the first projection were in, as the layer says after a run."""
    layer = next(m for name, m in peft_model.named_modules() if name.endswith("q_proj.base_layer"))
    compute = getattr(layer, "compute_dtype", None) or layer.weight.dtype
    return "tf32" if variant.tf32 else str(compute).removeprefix("torch.")


# --- the paper's code


def lora_base(bench):
    return adapted(workload.classifier(bench.shape, bench.device, _torch().bfloat16, packed=False))


def as_loaded(bench):
    """As ``from_pretrained`` of the paper's time gave it: with a quantization and no ``dtype``, transformers 4 took float16."""
    return adapted(quantized(bench, "float16"))


def prepared(bench, **how):
    from peft import prepare_model_for_kbit_training

    return adapted(prepare_model_for_kbit_training(quantized(bench, "float16", **how)))


def prepared_bfloat16(bench):
    return prepared(bench, bnb_4bit_compute_dtype=_torch().bfloat16)


def quantized(bench, dtype, **how):
    """Random weights through transformers' own quantization, ``BitsAndBytesConfig`` as the paper states it."""
    from transformers import BitsAndBytesConfig

    source = workload.classifier(bench.shape, bench.device, _torch().bfloat16, packed=False)
    return type(source).from_pretrained(  # from weights in memory, which spares writing and reading 16 GB
        None,
        config=source.config,
        state_dict=source.state_dict(),
        dtype=getattr(_torch(), dtype),
        device_map={"": 0 if bench.gpu else "cpu"},
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **how),
    )


def adapted(base):
    from peft import LoraConfig, get_peft_model

    _torch().manual_seed(0)
    config = LoraConfig(task_type="SEQ_CLS", r=R, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=TARGETS)
    return get_peft_model(base, config)


def trainer_steps(bench, peft_model, variant):
    """Seconds of each timed step of the Trainer, and its mean loss."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            workload.synchronize()
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=peft_model,
            args=TrainingArguments(
                output_dir=scratch, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=LEARNING_RATE,
                bf16=variant.autocast, use_cpu=not bench.gpu, report_to="none", save_strategy="no",
                logging_strategy="no", logging_nan_inf_filter=False, disable_tqdm=True,
            ),
            train_dataset=padded(bench.texts, bench.labels),
            callbacks=[Clock()],
        )  # fmt: skip
        loss = trainer.train().training_loss
    return [after - before for before, after in zip(marks[WARM - 1 :], marks[WARM:])], loss


def padded(texts, labels):
    """Texts as ``tokenizer(…, padding="max_length", truncation=True, max_length=128)`` returns them."""
    rows = []
    for text, label in zip(texts, labels):
        empty = MAX_LENGTH - len(text)
        rows.append(
            {
                "input_ids": [*text, *[0] * empty],
                "attention_mask": [1] * len(text) + [0] * empty,
                "labels": int(label),
            }
        )
    return rows


# --- this project's engine, at the same setting


def engine_base(method):
    def build(bench):
        base = workload.classifier(bench.shape, bench.device, _torch().bfloat16, quantized=method == "qlora")
        with _torch().device(bench.device):
            return model.add_adapters(base, grid.Cell(method, TARGETS, R, ALPHA, 0), settings.Lora(DROPOUT, "plain"))

    return build


def engine_steps(bench, peft_model, variant):
    """Seconds of each timed step of ``training.train`` on the same texts, packed; and the last loss."""
    how = settings.Execution(
        micro_batch_tokens=BATCH * MAX_LENGTH, checkpointed_layers=0, gpus_per_cell=1, evaluation_tokens=16384,
        checkpoint_minutes=1e9, log_every_steps=1,
    )  # fmt: skip
    hyper = workload.hyper(BATCH, learning_rate=LEARNING_RATE, warmup_ratio=0.0)
    rows = training.train(peft_model, bench.texts, bench.labels, hyper, how, 0).rows
    times = [row["seconds"] for row in rows]
    return [after - before for before, after in zip(times[WARM - 1 :], times[WARM:])], rows[-1]["loss"]


BASES = {
    "bfloat16": lora_base,
    "as loaded": as_loaded,
    "prepared": prepared,
    "prepared bfloat16": prepared_bfloat16,
    "engine lora": engine_base("lora"),
    "engine qlora": engine_base("qlora"),
}


def _torch():
    import torch

    return torch


def record(bench):
    """Everything that ``paper_code.json`` says."""
    here = machine.hardware() | {"packages": records.packages()}
    here.pop("node")
    tokens = sum(map(len, bench.texts)) / len(bench.texts)
    return {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "shape": bench.shape,
        "setting": {
            "batch": BATCH, "max_length": MAX_LENGTH, "mean_tokens": tokens, "r": R, "alpha": ALPHA,
            "targets": TARGETS, "dropout": DROPOUT, "learning_rate": LEARNING_RATE, "steps": bench.steps,
            "warm_steps": WARM, "in_turn": bench.together,
        },
        "machine": here,
        "rows": list(bench.rows()),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape and few steps; the times mean nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    bench = Bench("tiny" if arguments.rehearse else "llama-3-8b", arguments.steps, arguments.repeats)
    if not (bench.gpu or arguments.rehearse):
        parser.error("there is no GPU here: eight billion parameters need one. To try the script, add --rehearse.")
    bench.measure()
    content = record(bench)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / ("paper_code_rehearsal" if arguments.rehearse else "paper_code")
    records.write_json(stem.with_suffix(".json"), content)
    page = reconstruction.Reconstruction(content).page()
    stem.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
