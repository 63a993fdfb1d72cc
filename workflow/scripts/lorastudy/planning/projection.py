"""What a study will take on a GPU, projected from a rehearsal: some cells of its model's shape, measured.

Training time of a cell is its tokens times the time of a token, and the time of a token is linear in the trainable
parameters: frozen weights are passed the same way in every cell, and what adapters add is proportional to their size.
"""

import pandas as pd

from lorastudy.planning import memory
from lorastudy.study.errors import StudyError


class ProjectionError(StudyError):
    """A rehearsal that does not have the cells to project from."""


def token_seconds(measured):
    """Time of a token in training as a line over trainable parameters.

    Args:
        measured: finished cells of the rehearsal: rows of a summary, of one device.

    Returns:
        (method, targets) → (trainable parameters, seconds a token) of the smallest cell measured, and method → seconds
        a token and parameter, from a target set with cells of different size. A method without such a set has the
        slope of the other: adapters compute alike on either base.

    Raises:
        ProjectionError: no target set has cells of two sizes.
    """
    measured = measured.assign(each=measured.seconds / measured.tokens).sort_values("trainable_parameters")
    base, slopes = {}, {}
    for (method, targets), part in measured.groupby(["method", "targets"]):
        small, large = part.iloc[0], part.iloc[-1]
        base[method, targets] = (small.trainable_parameters, small.each)
        if more := large.trainable_parameters - small.trainable_parameters:
            slopes[method] = max(slopes.get(method, 0.0), (large.each - small.each) / more)
    if not slopes:
        raise ProjectionError(
            "the rehearsal has no target set with finished cells of two ranks; run one of r = 512, say"
        )
    return base, {method: slopes.get(method, max(slopes.values())) for method in set(measured.method)}


def hours(measured, starts, parameters, architecture, devices, *, trained, evaluated, batch_size):
    """Hours of every cell of a study.

    Args:
        measured: finished cells of the rehearsal, rows of a summary, all of the first of ``devices``.
        starts: method → seconds of a cell's two jobs besides training and evaluation (imports, loading, writing).
        parameters: ``grid.Cell`` → its trainable parameters, the cells of the study.
        architecture: configuration of the model.
        devices: ``check.Device``. Times on another than the first are longer by the ratio of dense bfloat16 peaks
            (NVIDIA's data sheets), and by what is computed a second time to fit the memory.
        trained: tokens of a text on average, and texts that a cell trains on, all epochs.
        evaluated: tokens of its test and validation texts.
        batch_size: texts of an optimizer step.

    Returns:
        data frame, one row per device and cell: device, method, targets, r, hours (starts included), checkpointed_layers;
        the last two empty where not even one text fits.
    """
    base, slopes = token_seconds(measured)
    speed = measured.groupby("method").evaluation_tokens_per_second.mean()
    layers, (mean, texts) = memory.Shape.of(architecture).layers, trained
    rows = []
    for device in devices:
        slower = devices[0].flops / device.flops
        for cell, size in parameters.items():
            row = {"device": device.name, "method": cell.method, "targets": cell.targets, "r": cell.r}
            fit = memory.fit(architecture, 5, cell, device.gib, most_tokens=max(512, round(batch_size * mean)))
            if fit:
                smallest, each = base[cell.method, cell.targets]
                each += slopes[cell.method] * (size - smallest)
                again = 1 + fit.checkpointed_layers / layers / memory.PASSES
                busy = mean * texts * each * again + evaluated / speed[cell.method]
                row |= {"hours": (slower * busy + starts[cell.method]) / 3600}
                row |= {"checkpointed_layers": fit.checkpointed_layers}
            rows.append(row)
    return pd.DataFrame(rows, columns=["device", "method", "targets", "r", "hours", "checkpointed_layers"])
