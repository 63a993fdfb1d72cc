"""Where a study's files are. The rules spell the same paths out, since they read like a table of contents."""

import os
from pathlib import Path

CARD, TEST = "results/data/card.json", "results/data/test.parquet"
BASE, NF4 = "results/model/base", "results/model/nf4"
PARAMETERS = "results/parameters.csv"
BUNDLE = "bundle.json"  # only where a bundle was unpacked (``presentation.bundle``)


def named(path, study_directory="."):
    """Where a path of the configuration leads: relative to the study, ``~`` is the home directory."""
    return Path(study_directory, os.path.expanduser(path))


def cell(name, study_directory="."):
    """Directory of a cell's records, predictions and adapter."""
    return Path(study_directory, "results", "cells", name)


def baseline(name, study_directory="."):
    """Directory of a baseline, ``head`` or ``prompt``."""
    return Path(study_directory, "results", "zero_shot", name)


def result(name, kind, study_directory="."):
    """Directory of a row of the summary; ``kind`` is ``cell``, ``control`` or ``baseline``."""
    return (baseline if kind == "baseline" else cell)(name, study_directory)
