"""Speed and memory of this pipeline against the code that users write, in one run with one distribution of lengths.

    python benchmarks/throughput.py [--shape llama-3-8b] [--only users ours …] [--output benchmarks/results]

On a GPU with Llama-3-8B's shape, on a CPU with a tiny one (which only shows that the script works). Writes
``throughput_<device>.json`` and ``.md``; what fails is a row with its error.
"""

import argparse
import json
import traceback
from datetime import UTC, datetime
from pathlib import Path

import workload
from lorastudy.engine import energy, evaluation, model, training
from lorastudy.jobs import machine
from lorastudy.planning import memory
from lorastudy.study import records, settings

PADDED = 512  # tokens that users pad to
WARM = 3  # steps that are not timed
SECTIONS = ("ceilings", "users", "ours", "profile", "lean", "table", "memory", "evaluation")
KINDS = {  # of kernels, by parts of their names; the first that fits
    "attention": ("flash",),
    "products": ("nvjet", "gemm", "splitK", "cutlass"),
    "elementwise": ("_norm", "_rotate", "_swiglu", "elementwise"),
    "expansion of NF4": ("_expand", "dequantize"),
}


class Bench:
    """Rows of results, written out after each."""

    def __init__(self, shape, output):
        import torch

        self.gpu = torch.cuda.is_available()
        self.device = "cuda" if self.gpu else "cpu"
        self.shape = shape or ("llama-3-8b" if self.gpu else "tiny")
        self.architecture = workload.architecture(self.shape)
        self.machine = machine.hardware() | {"packages": records.packages()}
        self.machine.pop("node")
        self.rows, self.square = [], None
        name = self.machine["device"].lower().replace(" ", "-") if self.gpu else "cpu"
        output.mkdir(parents=True, exist_ok=True)
        self.file = output / f"throughput_{name}.json"

    def add(self, section, name, compute, **facts):
        """Run ``compute`` and keep what it returns (a dictionary), or its error."""
        workload.fresh_peak()
        try:
            row = {"section": section, "name": name, **facts, **compute()}
        except Exception as fault:
            traceback.print_exc(limit=8)
            row = {"section": section, "name": name, **facts, "error": f"{type(fault).__name__}: {fault}"[:300]}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        content = {"time_utc": datetime.now(UTC).isoformat(timespec="seconds"), "shape": self.shape}
        records.write_json(self.file, content | {"machine": self.machine, "rows": self.rows})
        self.file.with_suffix(".md").write_text(
            markdown(content | {"machine": self.machine, "rows": self.rows}), encoding="utf-8"
        )

    def predicted(self, row, need):
        """Add the memory model's prediction, which is of a GPU's allocator."""
        if self.gpu:
            row["predicted_gib"] = need.total / memory.GIB
            row["prediction_error"] = row["predicted_gib"] / row["peak_allocated_gib"] - 1
        return row

    def rate(self, row, trainable, checkpointed=0):
        """Add FLOP/s and their share of the matrix product's: 4 N a token, 2 N more a checkpointed layer's share, 6 P."""
        shape = memory.Shape.of(self.architecture)
        linear = shape.layers * shape.linear
        flops = 4 * linear + 2 * linear * min(1, checkpointed / shape.layers) + 6 * trainable
        row["tflops"] = row["tokens_per_second"] * flops / 1e12
        row["mfu"] = row["tflops"] * 1e12 / self.square if self.square else None
        return row


def median_seconds(compute, repeats=20):
    import statistics

    times = []
    for _ in range(repeats + 3):
        watch = workload.Watch()
        compute()
        times.append(watch.read())
    return statistics.median(times[3:])


def ceilings(bench):
    """Rate of a square product, and of the decoder's own products alone at 8,192 tokens."""
    import torch

    size, tokens = (8192, 8192) if bench.gpu else (512, 512)
    shape = memory.Shape.of(bench.architecture)

    def draw(*shape):
        return torch.randn(*shape, device=bench.device, dtype=torch.bfloat16)

    def square():
        a, b = draw(size, size), draw(size, size)
        bench.square = 2 * size**3 / median_seconds(lambda: a @ b)
        return {"tflops": bench.square / 1e12}

    def products():
        forward = backward = 0.0
        widths = [(shape.queries, shape.hidden), (shape.keys, shape.hidden), (shape.keys, shape.hidden)]
        widths += [(shape.hidden, shape.queries), *[(shape.inner, shape.hidden)] * 2, (shape.hidden, shape.inner)]
        for outputs, inputs in widths:
            w, x, y = draw(outputs, inputs), draw(tokens, inputs), draw(tokens, outputs)
            forward += shape.layers * median_seconds(lambda x=x, w=w: x @ w.T, 10)
            backward += shape.layers * median_seconds(lambda y=y, w=w: y @ w, 10)
        return {
            "training_tokens_per_second": tokens / (forward + backward),
            "evaluation_tokens_per_second": tokens / forward,
        }

    bench.add("ceilings", f"square product of {size}", square)
    bench.add("ceilings", f"the decoder's products, {tokens} tokens", products)


def users(bench, steps):
    """transformers' Trainer on PEFT, as its guides have it."""
    for method in ("lora", "qlora"):
        for padding in ("padded to 512", "padded to the longest"):
            bench.add(
                "users", f"{method}, {padding}",
                lambda method=method, padding=padding: user_code(bench, method, padding, steps),
                method=method,
            )  # fmt: skip


def user_code(bench, method, padding, steps):
    import tempfile
    import time

    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import Trainer, TrainerCallback, TrainingArguments

    texts, labels = workload.reviews(8 * steps, bench.architecture["vocab_size"], seed=1)
    lengths = [len(text) for text in texts]

    def collate(examples):
        width = PADDED if padding == "padded to 512" else max(len(e["input_ids"]) for e in examples)
        ids = torch.zeros(len(examples), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, : len(example["input_ids"])] = torch.tensor(example["input_ids"])
            mask[row, : len(example["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([e["labels"] for e in examples])}

    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            workload.synchronize()
            marks.append((time.perf_counter(), meter.joules()))

    base = workload.classifier(bench.shape, bench.device, torch.bfloat16, quantized=method == "qlora", packed=False)
    if method == "qlora":
        base = prepare_model_for_kbit_training(base)
    workload.fresh_peak()
    adapted = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules="all-linear"))
    meter = energy.Meter()
    with tempfile.TemporaryDirectory() as scratch:
        Trainer(
            model=adapted,
            args=TrainingArguments(
                output_dir=scratch, per_device_train_batch_size=8, max_steps=steps, bf16=True, report_to="none",
                save_strategy="no", logging_strategy="no", gradient_checkpointing=method == "qlora",
                remove_unused_columns=False, disable_tqdm=True, learning_rate=2e-4, use_cpu=not bench.gpu,
            ),
            train_dataset=[{"input_ids": t, "labels": int(y)} for t, y in zip(texts, labels)],
            data_collator=collate,
            callbacks=[Clock()],
        ).train()  # fmt: skip
    (begun, before), (ended, after) = marks[WARM - 1], marks[-1]
    samples = 8 * (len(marks) - WARM)
    joules = None if before is None else after - before
    return measured(samples, samples * sum(lengths) / len(lengths), ended - begun, joules)


def measured(samples, tokens, seconds, joules):
    allocated, reserved, _ = training.peak_memory()
    return {
        "samples_per_second": samples / seconds,
        "tokens_per_second": tokens / seconds,
        "peak_allocated_gib": allocated,
        "peak_reserved_gib": reserved,
        "kilojoules_per_1000_samples": None if joules is None else joules / samples,
    }


def our_code(bench, cell, tokens, checkpointed, batch, steps, head="paper"):
    """``training.train`` on packed texts, with the prediction of its peak."""
    import torch

    watch = workload.Watch()
    base = workload.classifier(bench.shape, bench.device, torch.bfloat16, quantized=cell.method == "qlora")
    workload.fresh_peak()
    with torch.device(bench.device):  # drawn there, since their values do not matter here
        adapted = model.add_adapters(base, cell, settings.Lora(0.0, head))
    built = watch.read()
    texts, labels = workload.reviews(batch * steps, bench.architecture["vocab_size"], seed=1)
    how = settings.Execution(
        micro_batch_tokens=tokens, checkpointed_layers=checkpointed, gpus_per_cell=1, evaluation_tokens=16384, checkpoint_minutes=1e9,
        log_every_steps=1,
    )  # fmt: skip
    progress = training.train(adapted, texts, labels, workload.hyper(batch), how, 0)
    first, last = progress.rows[WARM - 1], progress.rows[-1]
    seconds, samples = last["seconds"] - first["seconds"], last["samples"] - first["samples"]
    # the mean power of the whole run, untimed steps included, over the time of the timed ones
    joules = None if progress.joules is None else progress.joules / progress.seconds * seconds
    row = measured(samples, last["tokens"] - first["tokens"], seconds, joules)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    pack = largest_pack(texts, batch, tokens)
    row |= {
        "micro_batch_tokens": tokens, "largest_pack": pack, "checkpointed_layers": checkpointed, "batch": batch,
        "seconds_to_build": built, "final_loss": last["loss"],
    }  # fmt: skip
    bench.predicted(
        row,
        memory.training(bench.architecture, workload.CLASSES, cell, pack, checkpointed, head=head),
    )
    return bench.rate(row, trainable, checkpointed)


def largest_pack(texts, batch, tokens):
    from lorastudy.engine import batching

    lengths, most = [len(text) for text in texts], 0
    for chosen in batching.steps(len(texts), batch, 1, 0):
        part = [lengths[i] for i in chosen]
        most = max(most, *(sum(part[i] for i in group) for group in batching.micro_batches(part, tokens)))
    return most


def ours(bench, steps):
    for method in ("lora", "qlora"):
        for tokens, batch in ((8192, 140), (16384, 190), (8192, 16)):
            name = f"{method}, {tokens} tokens, {batch} texts a step"
            count = 3 * steps if batch == 16 else steps
            bench.add(
                "ours", name,
                lambda m=method, t=tokens, b=batch, n=count: our_code(bench, workload.cell(m, "all-linear", 8), t, 0, b, n),
                method=method,
            )  # fmt: skip


def profiles(bench):
    """Where the time of a forward and backward pass goes: milliseconds of the GPU by kind of kernel, and the host's."""
    for method in ("lora", "qlora"):
        for count in (16, 48):
            name = f"{method}, {count} texts"
            bench.add("profile", name, lambda m=method, c=count: profile(bench, m, c), method=method)


def profile(bench, method, count):
    import time

    import torch
    from lorastudy.engine import batching
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch_kernels

    base = workload.classifier(bench.shape, bench.device, torch.bfloat16, quantized=method == "qlora")
    adapted = model.add_adapters(base, workload.cell(method, "all-linear", 8), settings.Lora(0.0, "paper"))
    model.set_training(adapted, True)
    texts, labels = workload.reviews(count, bench.architecture["vocab_size"], seed=1)
    pack, target = batching.pack(texts, bench.device), torch.tensor(labels, device=bench.device)

    def compute():
        begun = time.perf_counter()
        torch.nn.functional.cross_entropy(model.classify(adapted, pack), target).backward()
        host = time.perf_counter() - begun
        workload.synchronize()
        return 1000 * host, 1000 * (time.perf_counter() - begun)

    for _ in range(3):
        host, total = compute()
    row = {"tokens": pack.tokens, "host_ms": host, "pass_ms": total}
    if not bench.gpu:
        return row
    with watch_kernels(activities=[ProfilerActivity.CUDA]) as seen:
        compute()
    kernels = [e for e in seen.key_averages() if e.device_type != torch.autograd.DeviceType.CPU]
    spent = dict.fromkeys([*KINDS, "other"], 0.0)
    for kernel in kernels:
        kind = next((kind for kind, parts in KINDS.items() if any(part in kernel.key for part in parts)), "other")
        spent[kind] += kernel.self_device_time_total / 1000
    most = sorted(kernels, key=lambda e: -e.self_device_time_total)[:25]
    return row | {
        "gpu_ms": sum(spent.values()), "kinds_ms": spent, "kernels": sum(e.count for e in kernels),
        "largest": [[e.key[:90], e.self_device_time_total / 1000, e.count] for e in most],
    }  # fmt: skip


def lean(bench, steps):
    layers = bench.architecture["num_hidden_layers"]
    for name, method, r, tokens in (
        ("LoRA r = 8 within 16 GiB", "lora", 8, 3072),
        ("QLoRA r = 8 within 6 GB", "qlora", 8, 1024),
        ("LoRA r = 512 within 40 GB", "lora", 512, 2048),
    ):
        bench.add(
            "lean", name,
            lambda m=method, r=r, t=tokens: our_code(
                bench, workload.cell(m, "all-linear", r), t, layers - 1, 72, steps
            ),
            method=method,
        )  # fmt: skip


def table(bench, steps):
    for method in ("lora", "qlora"):
        for targets in ("attention", "all-linear"):
            for r in (8, 64, 512):
                bench.add(
                    "table", f"{method}, {targets}, r = {r}",
                    lambda m=method, t=targets, r=r: our_code(bench, workload.cell(m, t, r), 8192, 0, 90, steps),
                    method=method, targets=targets, r=r,
                )  # fmt: skip


def more_memory(bench, steps):
    layers = bench.architecture["num_hidden_layers"]
    for method, targets, r, tokens, checkpointed in (
        ("lora", "all-linear", 8, 2048, layers // 2),
        ("lora", "attention", 64, 4096, layers - 1),
        ("qlora", "all-linear", 8, 4096, layers // 4),
        ("qlora", "all-linear", 128, 2048, layers - 1),
        ("qlora", "attention", 16, 16384, layers - 1),
        ("lora", "all-linear", 16, 512, 0),
    ):
        bench.add(
            "memory", f"{method}, {targets}, r = {r}, {tokens} tokens, {checkpointed} layers checkpointed",
            lambda m=method, a=targets, r=r, t=tokens, c=checkpointed: our_code(
                bench, workload.cell(m, a, r), t, c, 64, steps
            ),
            method=method,
        )  # fmt: skip


def evaluations(bench, count):
    import torch

    for method in ("lora", "qlora"):

        def compute(method=method):
            cell = workload.cell(method, "all-linear", 8)
            base = workload.classifier(bench.shape, bench.device, torch.bfloat16, quantized=method == "qlora")
            adapted = model.add_adapters(base, cell, settings.Lora(0.0, "paper"))
            texts, _ = workload.reviews(count, bench.architecture["vocab_size"], seed=2)
            evaluation.probabilities(adapted, texts[: count // 8], 16384)
            workload.fresh_peak()
            _, cost = evaluation.probabilities(adapted, texts, 16384)
            allocated, reserved, _ = training.peak_memory()
            row = {
                "tokens_per_second": cost["tokens_per_second"], "samples_per_second": count / cost["seconds"],
                "peak_allocated_gib": allocated, "peak_reserved_gib": reserved,
            }  # fmt: skip
            return bench.predicted(row, memory.evaluation(bench.architecture, workload.CLASSES, cell, 16384))

        bench.add("evaluation", f"{method}, adapters not merged, 16384 tokens a pass", compute, method=method)


def markdown(content):
    """The results as a page: machine, then a table per section."""
    here = content["machine"]
    lines = [
        f"# Throughput on {here['device']}",
        "",
        f"Shape {content['shape']}, random weights, review lengths log-normal (median 130, sigma 0.85, 8 to 512 tokens). "
        f"{content['time_utc']}, CUDA {here['cuda']}, driver {here['driver']}, "
        + ", ".join(f"{name} {version}" for name, version in here["packages"].items() if version)
        + f". The first {WARM} steps are not timed. Ratios are to users' code padded to 512, of the same method.",
    ]
    padded = {
        row["method"]: row["samples_per_second"]
        for row in content["rows"]
        if row["section"] == "users" and "padded to 512" in row["name"] and "error" not in row
    }
    columns = {
        "samples_per_second": ("samples/s", "{:.1f}"), "tokens_per_second": ("real tokens/s", "{:,.0f}"),
        "ratio": ("ratio", "{:.2f}"), "mfu": ("MFU", "{:.2f}"), "peak_allocated_gib": ("allocated GiB", "{:.2f}"),
        "peak_reserved_gib": ("reserved GiB", "{:.2f}"), "predicted_gib": ("predicted GiB", "{:.2f}"),
        "prediction_error": ("error", "{:+.1%}"), "kilojoules_per_1000_samples": ("kJ / 1,000 samples", "{:.1f}"),
        "tokens": ("tokens", "{:,}"), "pass_ms": ("pass ms", "{:.1f}"), "host_ms": ("host ms", "{:.1f}"),
        "gpu_ms": ("GPU busy ms", "{:.1f}"), **{kind: (f"{kind} ms", "{:.1f}") for kind in (*KINDS, "other")},
        "tflops": ("TFLOP/s", "{:.0f}"), "training_tokens_per_second": ("training tokens/s", "{:,.0f}"),
        "evaluation_tokens_per_second": ("evaluation tokens/s", "{:,.0f}"),
    }  # fmt: skip
    for section in dict.fromkeys(row["section"] for row in content["rows"]):
        rows = [row | row.get("kinds_ms", {}) for row in content["rows"] if row["section"] == section]
        for row in rows:
            if (
                section in {"users", "ours", "lean", "table"}
                and row.get("samples_per_second")
                and row["method"] in padded
            ):
                row["ratio"] = row["samples_per_second"] / padded[row["method"]]
        shown = [key for key in columns if any(row.get(key) is not None for row in rows)]
        lines += ["", f"## {section}", "", "| | " + " | ".join(columns[key][0] for key in shown) + " |"]
        lines.append("|---" * (len(shown) + 1) + "|")
        for row in rows:
            cells = ["" if row.get(key) is None else columns[key][1].format(row[key]) for key in shown]
            if "error" in row:
                cells = [row["error"].replace("|", "/"), *[""] * (len(shown) - 1)]
            lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", help="a file of resources/architectures, without its ending")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of a measurement, the untimed included")
    arguments = parser.parse_args()
    bench = Bench(arguments.shape, arguments.output)
    sections = {
        "ceilings": lambda: ceilings(bench),
        "users": lambda: users(bench, arguments.steps + 4),
        "ours": lambda: ours(bench, arguments.steps),
        "profile": lambda: profiles(bench),
        "lean": lambda: lean(bench, arguments.steps),
        "table": lambda: table(bench, max(WARM + 3, arguments.steps // 2)),
        "memory": lambda: more_memory(bench, WARM + 2),
        "evaluation": lambda: evaluations(bench, 2000 if bench.gpu else 100),
    }
    for name in arguments.only:
        sections[name]()
    print(bench.file.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
