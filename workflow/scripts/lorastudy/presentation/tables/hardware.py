"""The paper's Table 1: hardware, fine-tuning time and memory."""

from itertools import product

import numpy as np
import pandas as pd

from lorastudy.analysis import cost, ratios
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import significant, whole
from lorastudy.presentation.tables.inputs import NAMES, PAPER_MODEL, STATED
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper, reconstruction

# what is measured of a cell: name, unit, column of the records, factor, column of the paper's table
QUANTITIES = (
    ("fine-tuning time per cell", "min", "seconds", 1 / 60, "finetune_time_min"),
    ("peak memory per cell", "GiB", "peak_memory_gib", 1, "memory_gb"),
    ("energy per cell", "kWh", "energy_kwh", 1, None),
)
RATIOS = (
    ("time, QLoRA / LoRA", "seconds", "finetune_time_min"),
    ("peak memory, QLoRA / LoRA", "peak_memory_gib", "memory_gb"),
)


def hardware(inputs):
    """Time, memory and hardware from the cells' own records: a row per quantity, method and target set."""
    stated = paper.table(1, inputs.directory).set_index("method")
    cells = inputs.results.cells
    cells = cells[cells.learning_rate.eq(cells.learning_rate.iloc[0])] if len(cells) else cells
    finished = cells[cells.status.eq("finished")]
    grid = inputs.results.settings["grid"]
    frame = pd.DataFrame(
        [*_per_cell(finished, grid, stated), *_ratios(finished, grid, stated), _whole_study(inputs.results.summary)]
    )
    frame["difference"] = frame.reproduced - frame.paper
    frame = frame[
        ["quantity", "unit", "method", "targets", *STATED, "lowest", "highest", "runs", "paper_hardware", "hardware"]
    ]
    notes = [
        *_what_is_measured(finished),
        *(_of_the_paper(inputs, stated) if inputs.with_paper else ()),
        footnotes.study(inputs),
        *_what_is_not(cells, finished),
    ]
    return Table(
        "The paper's Table 1: hardware, fine-tuning time and memory.",
        frame,
        _shown(frame[frame.reproduced.notna() | frame.paper.notna()]),
        notes,
        ("quantity", "unit", "method", "targets"),
    )


def _per_cell(finished, grid, stated):
    """Rows of what a cell takes, over the finished cells of each method and target set."""
    for (quantity, unit, column, factor, says), method, targets in product(
        QUANTITIES, grid["methods"], grid["targets"]
    ):
        runs = finished[finished.method.eq(method) & finished.targets.eq(targets)]
        values = runs[column].astype(float) * factor
        yield {
            "quantity": quantity,
            "unit": unit,
            "method": method,
            "targets": targets,
            "paper": float(stated[says].get(method, np.nan)) if says else np.nan,
            "reproduced": values.mean(),
            "lowest": values.min(),
            "highest": values.max(),
            "runs": int(values.notna().sum()),
            "paper_hardware": stated.hardware.get(method),
            "hardware": _devices(runs),
        }


def _ratios(finished, grid, stated):
    """Rows of QLoRA over LoRA, for each target set and, where there are several, for all."""
    sets = [*grid["targets"], "all"] if len(grid["targets"]) > 1 else grid["targets"]
    for (quantity, column, says), targets in product(RATIOS, sets):
        ratio = ratios.ratio(finished if targets == "all" else finished[finished.targets.eq(targets)], column)
        yield {
            "quantity": quantity,
            "unit": "ratio",
            "method": "both",
            "targets": targets,
            "paper": stated[says].get("qlora", np.nan) / stated[says].get("lora", np.nan),
            "reproduced": ratio.value,
            "lowest": ratio.low,
            "highest": ratio.high,
            "runs": ratio.pairs,
            "paper_hardware": stated.hardware.get("qlora"),
            "hardware": _devices(finished),
        }


def _whole_study(summary):
    """The row of all device hours, those of baselines and evaluation included."""
    return {
        "quantity": "device hours, whole study",
        "unit": "h",
        "method": "both",
        "targets": "all",
        "paper": np.nan,
        "reproduced": cost.hours(summary).sum(),
        "lowest": np.nan,
        "highest": np.nan,
        "runs": int(summary.seconds.notna().sum()),
        "paper_hardware": None,
        "hardware": _devices(summary),
    }


def _devices(runs):
    return ", ".join(sorted(set(runs.device.dropna())))


def _shown(frame):
    return pd.DataFrame(
        {
            "quantity": frame.quantity,
            "unit": frame.unit,
            "method": frame.method.map(lambda name: NAMES.get(name, name)),
            "targets": frame.targets.map(lambda name: NAMES.get(name, name)),
            "paper": frame.paper.map(significant),
            "reproduced": frame.reproduced.map(significant),
            "difference": [significant(value, sign=True) for value in frame.difference],
            "range": [
                "–" if np.isnan(low) else f"{significant(low)} to {significant(high)}"
                for low, high in zip(frame.lowest, frame.highest)
            ],
            "runs": frame.runs.map(whole),
        }
    )


def _what_is_measured(finished):
    meters = sorted(set(finished.memory_meter.dropna()))
    shared = any("process" in meter for meter in meters)
    return [
        "Reproduced: mean over finished runs; range: lowest and highest run, of a ratio its 95% interval (geometric mean "
        "over pairs that differ in the method alone, each the mean over its seeds; t on logarithms). Runs: of a ratio, pairs.",
        f"Time is that of the training loop; memory the peak of the {' or '.join(meters) or 'device'}."
        + (" Jobs that ran on the same CPU at once slowed each other down." if shared else ""),
        *footnotes.shared(finished),
    ]


def _of_the_paper(inputs, stated):
    """What its values are of, and why they may differ."""
    yield (
        f"Paper: {stated.hardware.iloc[0]}; it gives one value for both target sets and does not say for how many "
        "texts or which r and alpha, so that differences of time also hold those of the work done."
    )
    yield reconstruction.Reconstruction.committed().sentence()
    if inputs.model != PAPER_MODEL:
        yield "This study's model is not the paper's: its differences compare unlike work."


def _what_is_not(cells, finished):
    """What could not be measured, and the cells without a result."""
    if finished.energy_kwh.isna().all():
        yield "Energy: not measured, since no device had a meter."
    counts = cells.status[~cells.status.eq("finished")].value_counts()
    if len(counts):
        left_out = ", ".join(f"{count} {status}" for status, count in counts.items())
        yield f"Left out: {left_out} of {len(cells)} cells."
