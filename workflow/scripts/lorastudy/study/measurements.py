"""What is measured of a run: the fields of its record, declared once.

The record (``training.json``), the summary's columns and their types, and the report all follow these declarations.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Training:
    """What fine-tuning a cell took and how it ended.

    Attributes:
        status: ``finished`` or ``diverged``.
        diverged_step, diverged_learning_rate: where the loss ceased to be finite; None if it did not.
        trainable_parameters, all_parameters, trainable_percent: as PEFT counts, both copies of the head among all.
        steps, samples, tokens: optimizer steps, texts and real tokens seen.
        seconds: of training alone, summed over resumed runs; samples_per_second, tokens_per_second: by them.
        peak_memory_gib, peak_reserved_gib: allocated, and taken from the device; memory_meter: what measured them.
        gpus: that the cell was spread over.
        resumes: times that it went on from a checkpoint.
        micro_batch_tokens, checkpointed_layers: how it was executed in the end.
        gpu_processes: processes on its GPU, mean of several readings; None without a GPU that tells.
        energy_kwh: this cell's part of it; None without a meter, energy_reason says why.
        final_loss: of the last logged step.
    """

    status: str
    diverged_step: int | None
    diverged_learning_rate: float | None
    trainable_parameters: int
    all_parameters: int
    trainable_percent: float
    steps: int
    samples: int
    tokens: int
    seconds: float
    samples_per_second: float
    tokens_per_second: float
    peak_memory_gib: float | None
    peak_reserved_gib: float | None
    memory_meter: str | None
    gpus: int
    resumes: int
    micro_batch_tokens: int | None
    checkpointed_layers: int | None
    gpu_processes: float | None
    energy_kwh: float | None
    energy_reason: str | None
    final_loss: float | None


@dataclass(frozen=True)
class Evaluation:
    """What classifying the test texts took."""

    seconds: float
    tokens_per_second: float
    peak_memory_gib: float | None


def names(record):
    """Names of the fields of one of the classes above, in their order."""
    return [field.name for field in fields(record)]


def of_type(record, kind):
    """Names of the fields that hold a ``kind`` (``int``, ``str``) or None."""
    return [field.name for field in fields(record) if field.type in (kind, kind | None)]
