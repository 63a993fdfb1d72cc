"""Studies that were never trained: predictions and records on disk for any grid, with a truth that is known.

A text is right for a classifier when its difficulty, shared by all classifiers, and a part of its own stay below the
classifier's ability (a Gaussian copula): expected accuracies are exact, and right and wrong go together over cells.
"""

import copy

import aggregate_results
import numpy as np
import pandas as pd
import yaml
from lorastudy.analysis import summary
from lorastudy.statistics import metrics
from lorastudy.study import grid, records, settings

CLASSES = 5
CONFIG = {
    "study": {"name": "Synthetic study"},
    "model": {"source": "random", "name": "tiny"},
    "data": {
        "source": "files",
        "train_file": "reviews.csv",
        "labels": [1, 2, 3, 4, 5],
        "class_names": ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"],
        "train_size": 100,
        "validation_size": 50,
        "test_size": 300,
    },
    "grid": {
        "lines": {"r": {"r": [4, 8, 16], "alpha": 32}, "alpha": {"r": 8, "alpha": [16, 32, 64]}},
    },
    "training": {"batch_size": 10, "learning_rate": 1e-3},
    "statistics": {"resamples": 200},
}
HARDWARE = {"device": "Synthetic GPU", "device_memory_gib": 40.0, "cuda": "13.0", "driver": "580.1", "node": "node01"}


def config(**changes):
    """A study's configuration; ``block__key=value`` changes one key, ``line__r`` and ``line__alpha`` the values of a line."""
    study = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        block, key = name.split("__")
        if block == "line":
            study["grid"]["lines"][key][key] = value
        else:
            study.setdefault(block, {})[key] = value
    return study


def full(r, alpha):
    """A grid's lines that have every r with every alpha."""
    return {"full": {"r": r, "alpha": alpha}}


def specs(study):
    """What defines the result of each cell and baseline by id, as the workflow says it."""
    found = {name: study.cell_spec(cell) for name, cell in grid.cells(study.grid).items()}
    return found | {name: study.baseline_spec() for name in summary.BASELINES}


def write(
    directory,
    study=None,
    accuracy=lambda cell: 0.6,
    baselines=(("head", 0.2), ("prompt", 0.45)),
    *,
    seed=0,
    seed_spread=0.0,
    shared=0.6,
    validation=None,
    seconds=lambda cell: 1200.0 if cell.method == "qlora" else 600.0,
    memory=lambda cell: 8.0 if cell.method == "qlora" else 20.0,
    energy=lambda cell: None,
    processes=lambda cell: None,
    diverged=(),
    missing=(),
    stale=(),
):
    """Write ``config.yaml`` and the results of a study into ``directory``.

    Args:
        study: nested dictionary, as of ``config``.
        accuracy: cell → its expected accuracy over all seeds and texts.
        baselines: (name, expected accuracy, or None for one that is not possible) of each baseline.
        seed: seed of everything drawn.
        seed_spread: standard deviation of a run around its cell's accuracy, as a fraction.
        shared: correlation of two classifiers over the texts.
        validation: cell → validation accuracy; by default ``accuracy``.
        seconds, memory, energy, processes: cell → training time, peak memory (GiB), energy (kWh or None), processes on
            its GPU (or None).
        diverged, missing, stale: ids of cells that are to be so.

    Returns:
        ``settings.Settings`` of the study.
    """
    directory.mkdir(parents=True, exist_ok=True)
    study = study or config()
    (directory / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    loaded = settings.load(study)
    generator = np.random.default_rng(seed)
    texts = loaded.data.test_size
    label = np.arange(texts) % CLASSES
    difficulty = generator.normal(size=texts)
    of_all = specs(loaded)

    def predicted(chance):
        return _predictions(generator, label, difficulty, chance, shared)

    for name, chance in baselines:
        identity = {"baseline": name, "cell": None} | ({} if chance else {"status": "refused", "reason": "no head"})
        place = directory / "results" / "zero_shot" / name
        scores = _write_scores(place, predicted(chance) if chance else None, loaded, identity)
        _write_metrics(directory / "results" / "zero_shot" / name, scores, of_all[name])
    for cell in grid.cells(loaded.grid).values():
        chance = accuracy(cell) + generator.normal(0, 1) * seed_spread
        drawn = predicted(float(np.clip(chance, 0, 1)))
        if cell.id in missing:
            continue
        place, spec, status = directory / "results" / "cells" / cell.id, of_all[cell.id], "finished"
        if cell.id in diverged:
            drawn, status = None, "diverged"
        if cell.id in stale:
            spec = spec | {"training": spec["training"] | {"batch_size": 1 + spec["training"]["batch_size"]}}
        scores = _write_scores(place, drawn, loaded, {"cell": cell.as_dict(), "status": status})
        if drawn is not None and loaded.data.validation_size:
            value = (validation or accuracy)(cell)
            scores["validation"] = {"n": loaded.data.validation_size, "accuracy": value, "nll": 2 - value}
        _write_metrics(place, scores, spec)
        _write_training(place, cell, status, spec, seconds(cell), memory(cell), energy(cell), processes(cell))
    return loaded


def gather(directory, study=None):
    """``summary.Results`` of a study on disk, through the same files as in the workflow."""
    study = study or settings.load(yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8")))
    files = {name: directory / "results" / f"{name}.csv" for name in ("summary", "points", "comparisons", "curves")}
    files["confusion"] = directory / "results" / "confusion.json"
    details = {"details": directory / "results" / "details.json"}
    cells = {name: cell.as_dict() for name, cell in grid.cells(study.grid).items()}
    aggregate_results.main(
        files | details,
        cells,
        specs(study),
        study.block("grid"),
        study.block("statistics"),
        study.study.paper,
        directory,
    )
    blocks = ("study", "model", "data", "prompt", "lora", "grid", "training", "statistics", "cost")
    return summary.load(**files, settings={name: study.block(name) for name in blocks})


def _predictions(generator, label, difficulty, chance, shared):
    """Probabilities of each class, shape (texts, classes); the prediction is right with probability ``chance``."""
    from scipy.stats import norm

    texts = len(label)
    own = generator.normal(size=texts)
    right = np.sqrt(shared) * difficulty + np.sqrt(1 - shared) * own < norm.ppf(chance)
    # a wrong prediction lies next to the true class, on either side
    step = np.where(generator.random(texts) < 0.5, -1, 1)
    beside = np.where((label + step < 0) | (label + step >= CLASSES), label - step, label + step)
    top = np.where(right, label, beside)
    score = -np.abs(np.arange(CLASSES) - top[:, None]) * generator.uniform(0.8, 2.5, (texts, 1))
    weight = np.exp(score)
    return weight / weight.sum(axis=1, keepdims=True)


def _write_scores(place, probability, study, identity):
    place.mkdir(parents=True, exist_ok=True)
    texts = study.data.test_size
    label = np.arange(texts) % CLASSES
    scores = {"status": "finished", **identity, "metrics": None, "n_test": texts, "confusion": None, "evaluation": None}
    table = pd.DataFrame({"id": [], "label": []})
    if probability is not None:
        prediction = probability.argmax(axis=1)
        table = pd.DataFrame({"id": [f"test-{i:06d}" for i in range(texts)], "label": label, "prediction": prediction})
        for index in range(CLASSES):
            table[f"probability_{index}"] = probability[:, index]
        scores["metrics"] = metrics.evaluate(label, probability, study.statistics.resamples, study.statistics.seed)
        scores["confusion"] = metrics.confusion(label, prediction, CLASSES)
        scores["evaluation"] = {"seconds": 10.0, "tokens_per_second": 5000.0, "peak_memory_gib": 6.0}
    table.to_parquet(place / "predictions.parquet", index=False)
    return scores


def _write_metrics(place, scores, spec):
    records.write_json(place / "metrics.json", scores | {"provenance": _provenance(spec)})


def _write_training(place, cell, status, spec, seconds, memory, energy, processes):
    hidden = 64 if cell.targets == "attention" else 160
    trainable = cell.r * hidden + 80
    losses = np.linspace(1.6, 1.0, 5)
    pd.DataFrame(
        {
            "step": np.arange(2, 12, 2),
            "epoch": np.arange(2, 12, 2) / 10,
            "loss": losses,
            "learning_rate": spec["training"]["learning_rate"] * np.linspace(1, 0.1, 5),
            "grad_norm": 1.0,
            "samples": np.arange(20, 120, 20),
            "tokens": np.arange(1000, 6000, 1000),
            "seconds": seconds * np.arange(1, 6) / 5,
            "samples_per_second": 100 / seconds,
            "tokens_per_second": 5000 / seconds,
        }
    ).to_csv(place / "training_log.csv", index=False)
    records.write_json(
        place / "training.json",
        {
            "cell": cell.as_dict(),
            "status": status,
            "diverged_step": 4 if status == "diverged" else None,
            "diverged_learning_rate": 1e-3 if status == "diverged" else None,
            "trainable_parameters": trainable,
            "all_parameters": trainable + 91_000,
            "trainable_percent": 100 * trainable / (trainable + 91_000),
            "steps": 10,
            "samples": 100,
            "tokens": 5000,
            "seconds": seconds,
            "samples_per_second": 100 / seconds,
            "tokens_per_second": 5000 / seconds,
            "peak_memory_gib": memory,
            "peak_reserved_gib": memory * 1.1,
            "memory_meter": "CUDA allocator",
            "resumes": 0,
            "micro_batch_tokens": 8192,
            "gpu_processes": processes,
            "energy_kwh": energy,
            "final_loss": 1.0,
            "provenance": _provenance(spec),
        },
    )


def _provenance(spec):
    return {
        "git_commit": "0" * 40,
        "git_dirty": False,
        "config": spec,
        "seed": spec.get("cell", {}).get("seed", 0),
        "inputs": {"model": {"source": "random", "name": "tiny"}, "data": {"source": "files", "revision": None}},
        "code": "0" * 16,
        "packages": {"torch": "2.13.0"},
        "python": "3.11.7",
        "hardware": HARDWARE,
        "time_utc": "2026-01-01T00:00:00+00:00",
    }
