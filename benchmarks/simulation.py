"""Studies with a known truth, drawn: who is right on which text, run by run, and what the pipeline makes of it.

A text is right for a run when a normal number stays below the quantile of the run's accuracy. The number is a sum of parts
that runs share: the text's difficulty, what it has against a method or a cell, what it has against the runs of a seed of a
method or set, and the rest. A run's accuracy is its cell's and what its seed does to all runs, to a method, a target set,
a set, a point and to it alone. At points that say so some seeds fail: wholly (collapse: the run names one class) or in part.
"""

from dataclasses import dataclass, field, replace
from unittest import mock

import numpy as np
import pandas as pd
from lorastudy.analysis import collapse, comparisons, scatter, summary
from lorastudy.study import grid, settings
from scipy.special import ndtri

# shares of a text's variance, as the variances of SmolLM2's records have them (resources/variances.yaml)
TEXT = {
    "all": 0.80,
    "method": 0.045,
    "targets": 0.012,
    "cell": 0.003,
    "seed method": 0.05,
    "seed set": 0.045,
    "run": 0.045,
}
NO_SCATTER = {"all": 0.0, "method": 0.0, "targets": 0.0, "set": 0.0, "point": 0.0, "run": 0.0}
# standard deviations over seeds of those records, what seeds do to all runs besides
USUAL = {"all": 0.010, "method": 0.002, "targets": 0.001, "set": 0.001, "point": 0.0016, "run": 0.002}
INTERACTING = {"all": 0.010, "method": 0.006, "targets": 0.006, "set": 0.004, "point": 0.003, "run": 0.004}
CLASSES, PROMPT, HEAD = 5, 0.45, 0.2
REACHED, LOSS = 0.7, 0.2


@dataclass(frozen=True)
class World:
    """The truth that studies are drawn from.

    Attributes:
        title: in words.
        accuracy: ``grid.Cell`` → accuracy of its runs that learn.
        lines: as the configuration's ``grid.lines``.
        seeds, texts: how many.
        scatter: standard deviations over seeds of a run's accuracy, by what they are of.
        collapses: ``grid.Cell`` → chance that a run of it ends at chance. A seed is bad or not, for all cells together, and a
            run with a bad seed collapses with a chance of ``REACHED``.
        loses: ``grid.Cell`` → most that a run of it may lose; each loses up to it, evenly spread.
        fails: ``grid.Cell`` → chance that a seed fails in part, in all of its runs there, which then lose up to ``LOSS``.
        margin: of equivalence.
        head: accuracy of the untrained head.
        rates: further learning rates, as multiples of the configured one.
        ratios: (time, memory) of QLoRA over LoRA.
        claims: whether the paper's claims are judged.
    """

    title: str
    accuracy: object
    lines: dict
    seeds: int = 3
    texts: int = 1600
    scatter: dict = field(default_factory=lambda: USUAL)
    collapses: object = lambda cell: 0.0
    loses: object = lambda cell: 0.0
    fails: object = lambda cell: 0.0
    margin: float = 0.01
    head: float = HEAD
    rates: tuple = ()
    ratios: tuple = (1.4, 0.87)
    claims: bool = False

    def settings(self):
        """The ``settings.Settings`` of its studies."""
        rate = 1e-3
        return settings.load(
            {
                "study": {"name": self.title, "paper": self.claims},
                "model": {"source": "random", "name": "tiny"},
                "data": {"source": "files", "train_file": "reviews.csv", "labels": [*range(CLASSES)], "train_size": 100,
                         "validation_size": 100, "test_size": self.texts},
                "grid": {
                    "methods": ["lora", "qlora"], "targets": ["attention", "all-linear"], "lines": self.lines,
                    "seeds": [*range(self.seeds)], "learning_rates": [rate * factor for factor in self.rates],
                },
                "training": {"learning_rate": rate, "batch_size": 10},
                "statistics": {"equivalence_margin": self.margin, "resamples": 100},
            }
        )  # fmt: skip

    def mean(self, cell, failing=True):
        """Mean accuracy of the runs of a cell that learn, those that fail in part among them if ``failing``."""
        return self.accuracy(cell) - self.loses(cell) / 2 - failing * self.fails(cell) * LOSS / 2


@dataclass
class Study:
    """A drawn study.

    Attributes:
        world: ``World``.
        summary: as of ``summary.build``, what verdicts need of it.
        scores: id → right (1) or wrong (0) for each text.
        truth: level (``cells``, ``seen``, ``seeds``, ``runs``) → id → accuracy: over all runs of the cell, the same had
            what no seed of this study showed not been possible (that a seed fails in part), over all runs with this seed, of
            this run, each over all texts.
    """

    world: World
    summary: "pd.DataFrame"
    scores: dict
    truth: dict

    def results(self):
        """What the pipeline makes of it; permutation tests, which decide nothing, are left out.

        Returns:
            (``summary.Results`` with the comparisons, their contrasts at the configured learning rate, the
            ``scatter.Scatter`` behind them).
        """
        of = self.world.settings()
        with (
            mock.patch.object(comparisons, "read", lambda *_: {"accuracy": self.scores}),
            mock.patch.object(comparisons, "_permutation", lambda *_: np.nan),
            mock.patch.object(comparisons, "measure", wraps=comparisons.measure) as measure,
        ):
            made = comparisons.build(
                self.summary, grid.lines(of.grid), of.block("statistics"), claims=self.world.claims
            )
        blocks = {name: of.block(name) for name in ("study", "grid", "statistics", "training", "data")}
        found = summary.Results(self.summary, None, made, None, {}, (), blocks)
        wanted, table, *_ = measure.call_args_list[0].args
        return found, wanted, scatter.fit(table, self.scores)

    def with_seeds(self, seeds):
        """The same study as it was when only these seeds had run."""
        kept = self.summary[self.summary.seed.isna() | self.summary.seed.lt(seeds)]
        return Study(replace(self.world, seeds=seeds), kept.reset_index(drop=True), self.scores, self.truth)


def draw(generator, world):
    """A ``Study`` of a ``World``."""
    of = world.settings()
    cells = [*grid.cells(of.grid).values()]
    scores, rows, truth = {}, [], {"cells": {}, "seen": {}, "seeds": {}, "runs": {}}
    texts, effects = _Drawn(generator, world.texts), _Drawn(generator, None)
    luck = {seed: generator.random(2) for seed in range(world.seeds)}
    for cell in cells:
        names = _names(cell)
        moved = sum(
            world.scatter[what] * effects[what, names[what], cell.seed] for what in world.scatter if what != "run"
        )
        accuracy = world.accuracy(cell) + moved + world.scatter["run"] * generator.normal()
        accuracy -= generator.uniform(0, world.loses(cell) or LOSS * (luck[cell.seed][0] < world.fails(cell)))
        collapsed = luck[cell.seed][1] < world.collapses(cell) / REACHED and generator.random() < REACHED
        right = generator.random(world.texts) < 1 / CLASSES if collapsed else _right(texts, cell, names, accuracy)
        scores[cell.id] = right.astype(np.float32)
        truth["cells"][cell.id] = world.mean(cell)
        truth["seen"][cell.id] = world.mean(cell, any(drawn[0] < world.fails(cell) for drawn in luck.values()))
        truth["seeds"][cell.id] = world.accuracy(cell) + moved
        truth["runs"][cell.id] = 1 / CLASSES if collapsed else accuracy
        rows.append(_row(generator, world, of, cell, right))
    for name, accuracy in (("head", world.head), ("prompt", PROMPT)):
        right = generator.random(world.texts) < accuracy
        scores[name] = right.astype(np.float32)
        for level in truth.values():
            level[name] = accuracy
        rows.append({"id": name, "kind": "baseline", "status": "finished", "accuracy": right.mean(), "n_test": world.texts,
                     "chance": 1 / CLASSES})  # fmt: skip
    table = pd.DataFrame(rows).astype({"seed": "Int64", "r": "Int64"})
    table.loc[collapse.find(table), "status"] = collapse.COLLAPSED
    return Study(world, table, scores, truth)


class _Drawn(dict):
    """Standard normal numbers by name, each drawn when it is first asked for."""

    def __init__(self, generator, size):
        super().__init__()
        self.generator, self.size = generator, size

    def __missing__(self, key):
        self[key] = self.generator.normal(size=self.size)
        return self[key]


def _names(cell):
    of_set = (cell.method, cell.targets)
    return {
        "all": "",
        "method": cell.method,
        "targets": cell.targets,
        "set": of_set,
        "point": (cell.r, cell.alpha, cell.learning_rate),
    }


def _right(texts, cell, names, accuracy):
    place = (*names["set"], *names["point"])
    parts = {
        "all": "all", "method": ("method", cell.method), "targets": ("targets", cell.targets), "cell": ("cell", place),
        "seed method": ("seed method", cell.method, cell.seed), "seed set": ("seed set", names["set"], cell.seed),
        "run": ("run", place, cell.seed),
    }  # fmt: skip
    return sum(np.sqrt(TEXT[part]) * texts[key] for part, key in parts.items()) < ndtri(np.clip(accuracy, 0.01, 0.99))


def _row(generator, world, of, cell, right):
    side = cell.method == "qlora"
    time, memory = (ratio if side else 1.0 for ratio in world.ratios)
    return {
        **cell.as_dict(), "id": cell.id, "kind": "cell", "scaling": cell.scaling, "status": "finished",
        "learning_rate": cell.learning_rate or of.training.learning_rate, "accuracy": right.mean(), "n_test": world.texts,
        "chance": 1 / CLASSES, "validation_accuracy": right.mean(), "validation_nll": 1.0,
        "seconds": 1800 * time * np.exp(0.02 * generator.normal()),
        "peak_memory_gib": 16 * memory * np.exp(0.01 * generator.normal()), "gpu_processes": 1.0, "gpus": 1.0, "device": "GPU",
        "memory_meter": "CUDA allocator",
    }  # fmt: skip
