"""The shape of a study's base model, before and after it has been fetched."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lorastudy.study import layout, records
from lorastudy.study.settings import ARCHITECTURES

PAPER = "llama-3-8b"  # the paper's model


@dataclass(frozen=True)
class Architecture:
    """Attributes:
    config: the model's configuration, as its ``config.json`` has it.
    origin: where it is from, in words.
    assumed: it is a guess, because nothing tells yet.
    """

    config: dict
    origin: str
    assumed: bool = False


def named(name):
    """Configuration of a shape that comes with the pipeline (``resources/architectures``)."""
    return records.read_json(ARCHITECTURES / f"{name}.json")


def of_study(model, study_directory="."):
    """The ``Architecture`` of a study's base model: its own, else that of a shape known by name, else the paper's.

    The paper's is the largest that is known, so that what is computed from a guess errs on the large side. The guess
    is replaced as soon as the model is there, before a job of it is submitted.

    Args:
        model: ``settings.Model``.
    """
    own = Path(study_directory, "results", "model", "base", "config.json")
    if model.source == "directory":
        own = layout.named(model.name, study_directory) / "config.json"
    if own.exists():
        return Architecture(_read(own.absolute(), own.stat().st_mtime_ns), str(own))
    shape = ARCHITECTURES / f"{model.name}.json"
    if "/" not in model.name and shape.exists():
        return Architecture(named(model.name), f"resources/architectures/{shape.name}")
    return Architecture(named(PAPER), f"resources/architectures/{PAPER}.json", "Meta-Llama-3-8B" not in model.name)


@cache
def _read(path, time):
    """Asked for once a job and attempt; ``time`` makes a changed file a new one."""
    return records.read_json(path)
