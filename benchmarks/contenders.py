"""This project's engine and its peers, in turn, at the paper's setting and at two that fill a GPU.

    python benchmarks/contenders.py                 Llama-3-8B's shape with random weights, one GPU, some minutes
    python benchmarks/contenders.py --rehearse      a tiny shape on any machine: shows that the script works

All contenders of a setting are loaded together and train the same steps in turn, repeat by repeat, so that what changes on
a machine with time falls on all alike: medians and ranges over the repeats. Their first round, in which passes are recorded
and kernels compiled, is not timed: of the paper's 6,250 steps it is under 2%. Peers are run where they are installed; one
that fails is a row with its error. Writes ``contenders.json`` and ``.md``.
"""

import argparse
import copy
import statistics
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import workload
from lorastudy.engine import decoder, model, passes, training
from lorastudy.jobs import machine
from lorastudy.study import grid, records, settings

R, ALPHA, TARGETS = 8, 16, "all-linear"  # the point that both lines of the paper share
METHODS = {"lora": "LoRA", "qlora": "QLoRA"}
NO_LIMIT = 1e9


@dataclass(frozen=True)
class Setting:
    """What is trained: steps of so many texts, of at most so many tokens; a repeat does all of them so many times."""

    name: str
    texts: int
    longest: int
    dropouts: tuple
    steps: int
    rounds: int
    peers: bool = False

    @property
    def title(self):
        return f"{self.name}: {self.texts} texts of at most {self.longest} tokens"


SETTINGS = (
    Setting("The paper's", 8, 128, (0.05,), 8, 2, peers=True),
    Setting("16 texts", 16, 512, (0.0, 0.05), 6, 2),
    Setting("16 texts, peers beside", 16, 512, (0.0,), 6, 1, peers=True),
    # a peer's activations leave no room for it here: it would compute in smaller micro-batches
    Setting("8,192 tokens", 48, 512, (0.0,), 4, 1),
    Setting("8,192 tokens, dropout", 48, 512, (0.05,), 4, 1),
)


@dataclass(frozen=True)
class Contender:
    """Who trains. ``peer``: the package whose kernels are put under transformers' and PEFT's layers; None: this engine."""

    method: str
    dropout: float
    peer: str | None = None

    @property
    def name(self):
        who = "this engine" if self.peer is None else f"{self.peer} and PEFT, packed"
        return f"{METHODS[self.method]}, dropout {self.dropout:g}, {who}"


PEERS = {"Liger": "liger_kernel"}


def contenders(setting):
    """This engine, and the peers that are installed; these at the setting's first dropout alone."""
    found = [Contender(method, dropout) for dropout in setting.dropouts for method in METHODS]
    installed = [peer for peer, package in PEERS.items() if find_spec(package) and setting.peers]
    return found + [Contender(method, setting.dropouts[0], peer) for peer in installed for method in METHODS]


class InTurn(training.Training):
    """A training whose steps are done again and again, each round the same."""

    def round(self, stop):
        """Train all steps; seconds, the last update included."""
        watch = workload.Watch()
        for index in range(len(self.plan)):
            self.step(index, stop)
        self.settle()
        return watch.read()


class Bench:
    """What each contender took in each repeat.

    Args:
        shape: a file of ``resources/architectures``, without its ending.
        repeats: turns of each contender.
    """

    def __init__(self, shape, repeats):
        import torch

        self.shape, self.repeats = shape, repeats
        self.gpu = torch.cuda.is_available()
        self.device = "cuda" if self.gpu else "cpu"
        self.bases, self.rates, self.errors, self.facts = {}, {}, {}, {}

    def run(self, setting):
        """All repeats of a setting."""
        stop, trainings = training.StopSignal(), {}
        for contender in contenders(setting):
            self.attempt(setting, contender, lambda c=contender: trainings.update({c: self.prepare(setting, c, stop)}))
        for _ in range(self.repeats):
            for contender, prepared in trainings.items():
                self.attempt(setting, contender, lambda c=contender, p=prepared: self.turn(setting, c, p, stop))
        trainings.clear()
        workload.fresh_peak()

    def attempt(self, setting, contender, compute):
        pair = setting, contender
        if pair in self.errors:
            return
        try:
            compute()
        except Exception as fault:  # a row with its error is a result too
            traceback.print_exc(limit=8)
            self.errors[pair] = f"{type(fault).__name__}: {fault}".splitlines()[0][:200]

    def prepare(self, setting, contender, stop):
        """A contender in training, its first round done."""
        import torch

        base = self.base(contender.method)
        cell, lora = grid.Cell(contender.method, TARGETS, R, ALPHA, 0), settings.Lora(contender.dropout, "paper")
        with torch.device(self.device):  # drawn there, since their values do not matter here
            adapted = model.add_adapters(base, cell, lora)
        if contender.peer:
            decoder.use_plain(adapted)
            draw_masks(adapted, contender.dropout)
        vocabulary = workload.architecture(self.shape)["vocab_size"]
        texts, labels = workload.reviews(setting.texts * setting.steps, vocabulary, seed=1, high=setting.longest)
        how = settings.Execution(
            micro_batch_tokens=setting.texts * setting.longest, checkpointed_layers=0, gpus_per_cell=1,
            evaluation_tokens=16384, checkpoint_minutes=NO_LIMIT, log_every_steps=1,
        )  # fmt: skip
        with all_sizes_recorded():
            made = InTurn(adapted, texts, labels, workload.hyper(setting.texts), how, 0)
        made.round(stop)
        self.facts[setting, contender] = {
            "tokens_a_step": sum(map(len, texts)) / setting.steps, "fused": decoder.fused(adapted) is not None,
        }  # fmt: skip
        return made

    def turn(self, setting, contender, prepared, stop):
        seconds = sum(prepared.round(stop) for _ in range(setting.rounds))
        tokens = setting.rounds * setting.steps * self.facts[setting, contender]["tokens_a_step"]
        self.rates.setdefault((setting, contender), []).append(tokens / seconds)
        facts = self.facts[setting, contender]
        facts["loss_is_finite"] = prepared.progress.status == "running"
        facts["micro_batch_tokens"] = prepared.progress.micro_batch_tokens

    def base(self, method):
        """The model that a method trains, to be given adapters. All share its weights; this engine reads no layer's code."""
        import torch

        if method not in self.bases:
            made = workload.classifier(self.shape, self.device, torch.bfloat16, quantized=method == "qlora")
            if self.gpu and find_spec(PEERS["Liger"]):
                put_liger_under(made)
            self.bases[method] = made
        made = self.bases[method]
        return copy.deepcopy(made, {id(weight): weight for weight in made.model.parameters()})

    def rows(self):
        """A dictionary for each setting and contender."""
        for setting in SETTINGS:
            for contender in contenders(setting):
                pair = setting, contender
                row = {
                    "setting": setting.title, "contender": contender.name, "method": contender.method,
                    "peer": contender.peer, "texts": setting.texts, "longest": setting.longest,
                    "dropout": contender.dropout,
                }  # fmt: skip
                if pair not in self.rates or pair in self.errors:
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


@contextmanager
def all_sizes_recorded():
    """As in a training so long that recording a size costs nothing beside it."""
    before, passes.RECORDING = passes.RECORDING, 0
    try:
        yield
    finally:
        passes.RECORDING = before


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
        + ". Real tokens a second: medians and ranges over repeats, the contenders of a setting in turn.",
    ]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        lines += ["", f"## {setting}", "", "| | real tokens/s | range | repeats | of LoRA's time |"]
        lines.append("|---|---:|---|---:|---:|")
        there = [row for row in rows if row["setting"] == setting]
        lora = {(r["peer"], r["dropout"]): r.get("tokens_per_second") for r in there if r["method"] == "lora"}
        for row in there:
            if "error" in row:
                lines.append(f"| {row['contender']} | {row['error'].replace('|', '/')} | | | |")
                continue
            beside = lora[row["peer"], row["dropout"]]
            share = "" if beside is None else f"{beside / row['tokens_per_second']:.2f}"
            lines.append(
                f"| {row['contender']} | {row['tokens_per_second']:,.0f} | {row['lowest']:,.0f} to {row['highest']:,.0f} | "
                f"{row['repeats']} | {share} |"
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

    for setting in SETTINGS:
        bench.run(setting)
        write()
    print(stem.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
