"""What a training predicted before it ended.

A job that has trained a cell has model and adapters at hand: it predicts the texts at once and keeps the probabilities
beside the cell's files, so that the evaluation need not load them again. A fresh process that loads the adapter gives
the same ones, bit for bit; so it does wherever nothing was kept, for instance after a kill between training and
prediction.
"""

import filecmp
import json
from pathlib import Path

import numpy as np

from lorastudy.study import records

KEPT = "predicted.npz"
SPLITS = ("test", "validation")


def keep(directory, probabilities, tokens, cost, provenance):
    """Keep what was predicted beside the files of a trained cell.

    Args:
        directory: ``outputs.Finished.kept``.
        probabilities: of ``SPLITS`` that have texts → float64 array, shape (texts, classes).
        tokens: tokens of a forward pass.
        cost: dictionary of numbers, what predicting the test texts took.
        provenance: of ``records.provenance``.
    """
    about = json.dumps({"tokens": tokens, "cost": cost, "provenance": provenance})
    with records.replacing(Path(directory, KEPT)) as own, open(own, "wb") as file:
        np.savez(file, about=about, **probabilities)


def kept(directory, adapter, tokens):
    """What the cell's own training predicted, as ``keep`` was given it: probabilities, cost and provenance.

    Args:
        directory: ``outputs.Finished.kept``.
        adapter: directory of the adapter that is evaluated.
        tokens: tokens of a forward pass, which decide the last bits.

    Returns:
        None if nothing was kept, or of another adapter, or with other passes.
    """
    file, trained = Path(directory, KEPT), Path(directory, "adapter")
    if not file.exists() or not _same(trained, Path(adapter)):
        return None
    with np.load(file) as arrays:
        about = json.loads(str(arrays["about"]))
        found = {name: arrays[name] for name in SPLITS if name in arrays}
    return (found, about["cost"], about["provenance"]) if about["tokens"] == tokens else None


def _same(one, other):
    """Whether two directories hold the same files."""
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    same, _, _ = filecmp.cmpfiles(one, other, names, shallow=False)
    return bool(names) and same == names
