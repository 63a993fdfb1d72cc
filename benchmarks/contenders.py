"""This project's engine and its peers, in turn, at the paper's setting and at two that fill a GPU.

    python benchmarks/contenders.py                 Llama-3-8B's shape with random weights, one GPU, some ten minutes
    python benchmarks/contenders.py --rehearse      a tiny shape on any machine: shows that the script works

Every contender trains the same texts for two epochs, of which the second is timed; then the next contender, and all of that
again, so that what changes on a machine with time falls on all alike. Medians and the range over the repeats. Peers are run
where they are installed; one that fails is a row with its error. Writes ``contenders.json`` and ``.md``.
"""

import argparse
import gc
import statistics
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import workload
from lorastudy.engine import decoder, model, training
from lorastudy.jobs import machine
from lorastudy.study import grid, records, settings

R, ALPHA, TARGETS = 8, 16, "all-linear"  # the point that both lines of the paper share
METHODS = {"lora": "LoRA", "qlora": "QLoRA"}
NO_LIMIT = 1e9


@dataclass(frozen=True)
class Setting:
    """What is trained: steps of so many texts, of at most so many tokens."""

    name: str
    texts: int
    longest: int
    dropout: float
    steps: int  # an epoch

    @property
    def title(self):
        return f"{self.name}: {self.texts} texts of at most {self.longest} tokens, dropout {self.dropout:g}"


SETTINGS = (
    Setting("the paper's", 8, 128, 0.05, 24),
    Setting("16 texts", 16, 512, 0.0, 12),
    Setting("16 texts, dropout", 16, 512, 0.05, 12),
    Setting("8,192 tokens", 48, 512, 0.0, 6),
    Setting("8,192 tokens, dropout", 48, 512, 0.05, 6),
)


@dataclass(frozen=True)
class Contender:
    """Who trains. ``peer``: the package whose kernels are put under transformers' and PEFT's layers; None: this engine."""

    method: str
    peer: str | None = None

    @property
    def name(self):
        return f"{METHODS[self.method]}, " + ("this engine" if self.peer is None else f"{self.peer} and PEFT, packed")


PEERS = {"Liger": "liger_kernel"}


def contenders():
    """This engine, and the peers that are installed."""
    found = [Contender(method) for method in METHODS]
    return found + [Contender(m, peer) for peer, package in PEERS.items() if find_spec(package) for m in METHODS]


class Bench:
    """Models, kept from turn to turn, and what each turn took.

    Args:
        shape: a file of ``resources/architectures``, without its ending.
        repeats: turns of each contender at each setting.
    """

    def __init__(self, shape, repeats):
        import torch

        self.shape, self.repeats = shape, repeats
        self.gpu = torch.cuda.is_available()
        self.device = "cuda" if self.gpu else "cpu"
        self.bases, self.rates, self.errors, self.facts = {}, {}, {}, {}

    def run(self, after_turn):
        for _ in range(self.repeats):
            for setting in SETTINGS:
                for contender in contenders():
                    self.turn(setting, contender)
                    after_turn()

    def turn(self, setting, contender):
        pair = setting, contender
        if pair in self.errors:
            return
        try:
            rate, facts = self.train(setting, contender)
        except Exception as fault:  # a row with its error is a result too
            traceback.print_exc(limit=8)
            self.errors[pair] = f"{type(fault).__name__}: {fault}".splitlines()[0][:200]
        else:
            self.rates.setdefault(pair, []).append(rate)
            self.facts[pair] = facts

    def train(self, setting, contender):
        """Real tokens a second of the second epoch, and what else is to be told of this turn."""
        import torch

        base = self.base(contender.method)
        vars(base.model).pop(decoder.ATTRIBUTE, None)
        workload.fresh_peak()
        head = getattr(base, model.HEAD)
        cell, lora = grid.Cell(contender.method, TARGETS, R, ALPHA, 0), settings.Lora(setting.dropout, "paper")
        with torch.device(self.device):  # drawn there, since their values do not matter here
            adapted = model.add_adapters(base, cell, lora)
        try:
            if contender.peer:
                decoder.use_plain(adapted)
                draw_masks(adapted, setting.dropout)
            count, vocabulary = setting.texts * setting.steps, workload.architecture(self.shape)["vocab_size"]
            texts, labels = workload.reviews(count, vocabulary, seed=1, high=setting.longest)
            how = settings.Execution(
                micro_batch_tokens=setting.texts * setting.longest, checkpointed_layers=0, gpus_per_cell=1,
                evaluation_tokens=16384, checkpoint_minutes=NO_LIMIT, log_every_steps=1,
            )  # fmt: skip
            progress = training.train(adapted, texts, labels, workload.hyper(setting.texts, epochs=2), how, 0)
            rows = progress.rows
            begun, ended = rows[setting.steps - 1], rows[-1]
            tokens = ended["tokens"] - begun["tokens"]
            fused = decoder.fused(adapted) is not None
        finally:
            adapted.unload()
            setattr(base, model.HEAD, head)  # which stays wrapped
            del adapted
            gc.collect()
        peak = training.peak_memory()[0]
        return tokens / (ended["seconds"] - begun["seconds"]), {
            "tokens_a_step": tokens / setting.steps, "peak_allocated_gib": peak, "fused": fused,
            "loss_is_finite": progress.status == "finished",
        }  # fmt: skip

    def base(self, method):
        """The model that a method trains, which all contenders share: this engine reads no layer's code, a peer no other."""
        import torch

        if method not in self.bases:
            base = workload.classifier(self.shape, self.device, torch.bfloat16, quantized=method == "qlora")
            if self.gpu and find_spec(PEERS["Liger"]):
                put_liger_under(base)
            self.bases[method] = base
        return self.bases[method]

    def rows(self):
        """A dictionary for each setting and contender."""
        for setting in SETTINGS:
            for contender in contenders():
                pair = setting, contender
                row = {
                    "setting": setting.title, "contender": contender.name, "method": contender.method,
                    "peer": contender.peer, "texts": setting.texts, "longest": setting.longest,
                    "dropout": setting.dropout,
                }  # fmt: skip
                if pair not in self.rates:
                    yield row | {"error": self.errors.get(pair, "not run")}
                    continue
                rates = self.rates[pair]
                yield row | self.facts[pair] | {
                    "tokens_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates),
                    "repeats": len(rates),
                }  # fmt: skip

    def record(self):
        here = machine.hardware() | {"packages": records.packages()}
        here.pop("node")
        return {
            "time_utc": datetime.now(UTC).isoformat(timespec="seconds"), "shape": self.shape, "r": R, "alpha": ALPHA,
            "targets": TARGETS, "machine": here, "rows": list(self.rows()),
        }  # fmt: skip


def put_liger_under(base):
    """Liger's norms, rotation and SwiGLU in place of transformers'."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(
        rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False, model=base.model
    )


def draw_masks(adapted, p):
    """PEFT's own dropout in place of the computed masks."""
    import torch

    for module in adapted.modules():
        for name in getattr(module, "lora_dropout", {}):
            module.lora_dropout[name] = torch.nn.Dropout(p) if p else torch.nn.Identity()


def page(content):
    """The results as Markdown: a table for each setting."""
    here, rows = content["machine"], content["rows"]
    lines = [
        "# This engine and its peers, in turn",
        "",
        f"Written by `python benchmarks/contenders.py`. Shape {content['shape']} with random weights, r = {content['r']}, "
        f"alpha = {content['alpha']}, {content['targets']}; {here['device'] or here['cpu']}, "
        + ", ".join(f"{name} {version}" for name, version in here["packages"].items() if version)
        + ". Real tokens a second of an epoch: medians and ranges over repeats, all contenders in turn.",
    ]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        lines += ["", f"## {setting}", "", "| | real tokens/s | range | repeats | of LoRA's time | peak GiB |"]
        lines.append("|---|---:|---|---:|---:|---:|")
        here = [row for row in rows if row["setting"] == setting]
        lora = {row["peer"]: row.get("tokens_per_second") for row in here if row["method"] == "lora"}
        for row in here:
            if "error" in row:
                lines.append(f"| {row['contender']} | {row['error'].replace('|', '/')} | | | | |")
                continue
            share = lora[row["peer"]] / row["tokens_per_second"] if lora[row["peer"]] else None
            lines.append(
                f"| {row['contender']} | {row['tokens_per_second']:,.0f} | {row['lowest']:,.0f} to {row['highest']:,.0f} | "
                f"{row['repeats']} | {'' if share is None else format(share, '.2f')} | {row['peak_allocated_gib']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape; the times mean nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    bench = Bench("tiny" if arguments.rehearse else "llama-3-8b", arguments.repeats)
    if not (bench.gpu or arguments.rehearse):
        parser.error("there is no GPU here: eight billion parameters need one. To try the script, add --rehearse.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / ("contenders_rehearsal" if arguments.rehearse else "contenders")

    def write():
        content = bench.record()
        records.write_json(stem.with_suffix(".json"), content)
        stem.with_suffix(".md").write_text(page(content), encoding="utf-8")

    bench.run(write)
    print(stem.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
