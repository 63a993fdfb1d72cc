"""Kill the training of a study's cell again and again, at random moments, and see whether anything is lost.

    python benchmarks/kills.py [--kills 20] [--study .test] [--output benchmarks/results/kills_cpu.json]

Each process is ended by SIGKILL, which it cannot answer, and the next one goes on from the last checkpoint. In the end
the predictions on the test texts and the adapters must be those of a training that nobody disturbed, bit for bit.
On a GPU passes are recorded as CUDA graphs where the study computes in bfloat16.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import evaluate_cell
import yaml
from lorastudy.inputs import base_model, data
from lorastudy.jobs import machine, nvidia
from lorastudy.study import grid, records, settings

REPOSITORY = Path(__file__).resolve().parents[1]
# a fork trains at once, but CUDA does not survive it
CONTEXT = multiprocessing.get_context("spawn" if nvidia.gpus() else "fork")
MICRO_BATCH_TOKENS = 256  # several micro-batches a step, so that a kill falls between them too


def prepare(study, place, epochs):
    """Model and data of a study in ``place``; returns its settings and a cell's specification, as the workflow's."""
    config = yaml.safe_load((study / "config.yaml").read_text(encoding="utf-8"))
    config.setdefault("training", {})["epochs"] = epochs
    chosen = settings.load(config)
    for name in ("base", "data"):
        (place / name).mkdir(parents=True)
    base_model.fetch(chosen.model, place / "base", study)
    before = Path.cwd()
    os.chdir(study)
    data.fetch(data.Source.of(chosen.data), place / "data" / "source.parquet")
    os.chdir(before)
    data.prepare(chosen.data, place / "data" / "source.parquet", place / "base", place / "data")
    cell = next(cell for cell in grid.cells(chosen.grid).values() if cell.targets == "all-linear")
    return chosen, chosen.cell_spec(cell)


def arguments(place, directory, chosen, spec, minutes):
    """What the rule would hand to the script."""
    execution = chosen.block("execution") | {
        "micro_batch_tokens": MICRO_BATCH_TOKENS,
        "checkpoint_minutes": minutes,
        "log_every_steps": 1,
    }
    return {
        "base": str(place / "base"), "card": str(place / "data/card.json"), "train": str(place / "data/train.parquet"),
        "adapter": str(directory / "adapter"), "log": str(directory / "log.csv"),
        "record": str(directory / "training.json"), "spec": spec, "execution": execution, "threads": 1,
    }  # fmt: skip


def start(work, place, directory, *rest):
    """Run ``work(place, directory, *rest)`` in a process of its own, which writes to ``directory/log``."""
    directory.mkdir(exist_ok=True)
    child = CONTEXT.Process(target=_inside, args=(work, place, directory, *rest))
    child.start()
    return child


def _inside(work, place, directory, *rest):
    os.chdir(directory)
    sink = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    logging.basicConfig(level=logging.INFO, force=True)
    work(place, directory, *rest)


def finished(child, directory):
    child.join()
    if child.exitcode:
        last = (directory / "log").read_text(encoding="utf-8").splitlines()[-20:]
        raise SystemExit("\n".join(["a training that was not killed failed:", *last]))


def size(log):
    return log.stat().st_size if log.exists() else 0


def until_a_step(child, log, read):
    """Wait until a training enters a step into its log, of which the first ``read`` bytes are older."""
    while child.is_alive() and not (size(log) > read and b" loss " in log.read_bytes()[read:]):
        time.sleep(0.05)


def train(place, directory, chosen, spec, minutes):
    from lorastudy.engine import finetuning

    finetuning.main(**arguments(place, directory, chosen, spec, minutes))


def predict(place, directory, chosen, spec):
    with_files = arguments(place, directory, chosen, spec, 1)
    evaluate_cell.main(
        base=with_files["base"], card=with_files["card"], validation=str(place / "data/validation.parquet"),
        test=str(place / "data/test.parquet"), adapter=with_files["adapter"], record=with_files["record"],
        predictions=str(directory / "predictions.parquet"),
        metrics=str(directory / "metrics.json"), spec=spec, statistics=chosen.block("statistics"),
        execution=with_files["execution"], threads=1,
    )  # fmt: skip


def outcome(directory):
    files = ("adapter/adapter_model.safetensors", "predictions.parquet")
    return {name: records.file_fingerprint(directory / name) for name in files}


def trial(study, kills, epochs, seed=0):
    """Returns a dictionary of what happened."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        chosen, spec = prepare(study.resolve(), place, epochs)
        whole, killed = place / "whole", place / "killed"
        begun = time.monotonic()
        finished(start(train, place, whole, chosen, spec, 1e9), whole)
        undisturbed = time.monotonic() - begun
        seconds = records.read_json(whole / "training.json")["seconds"]
        minutes = seconds / 60 / (2 * kills)
        generator, moments = random.Random(seed), []
        while len(moments) < kills:
            begun, read = time.monotonic(), size(killed / "log")
            child = start(train, place, killed, chosen, spec, minutes)
            # in turn while it trains and while it loads; on average not so long that the training is over too early
            if len(moments) % 2:
                time.sleep(generator.uniform(0.3, 1) * (undisturbed - seconds))
            else:
                until_a_step(child, killed / "log", read)
                time.sleep(generator.uniform(0, 2 * seconds / kills))
            waited = time.monotonic() - begun
            child.kill()
            child.join()
            if child.exitcode != -signal.SIGKILL:
                finished(child, killed)
                break  # it was over before it could be killed as often as asked
            kept = sorted((killed / "results/checkpoints").glob("*/step*.safetensors"))
            moments.append({"seconds": waited, "checkpoint": kept[-1].stem if kept else None})
        if len(moments) == kills:
            finished(start(train, place, killed, chosen, spec, minutes), killed)
        for directory in (whole, killed):
            finished(start(predict, place, directory, chosen, spec), directory)
        record = records.read_json(killed / "training.json")
        left = [str(path) for path in killed.glob("results/checkpoints/*")]
        return {
            "kills": moments, "cell": spec["cell"], "steps": record["steps"], "resumes": record["resumes"],
            "checkpoint_every_seconds": 60 * minutes, "seconds_undisturbed": seconds,
            "undisturbed": outcome(whole), "killed": outcome(killed), "identical": outcome(whole) == outcome(killed),
            "checkpoints_left": left, "recorded_passes": (whole / "log").read_text(encoding="utf-8").count("recorded a pass"),
        }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--study", type=Path, default=REPOSITORY / ".test")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results" / "kills_cpu.json")
    arguments = parser.parse_args()
    result = trial(arguments.study, arguments.kills, arguments.epochs)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    here = {"cpu": machine.cpu_name(), "gpus": [name for (name,) in nvidia.query("name")]}
    records.write_json(arguments.output, result | {"machine": here})
    print(json.dumps({key: value for key, value in result.items() if key != "kills"}, indent=2))
    if len(result["kills"]) < arguments.kills:
        sys.exit(f"the training was over after {len(result['kills'])} kills; take more --epochs")
    sys.exit(not result["identical"])


if __name__ == "__main__":
    if not nvidia.gpus():
        import lorastudy.engine.finetuning  # noqa: F401, so that a process need not
    main()
