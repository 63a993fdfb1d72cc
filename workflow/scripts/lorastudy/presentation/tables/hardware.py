"""The paper's Table 1: hardware, fine-tuning time and memory."""

import numpy as np

from lorastudy.analysis import cost, ratios
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import significant, whole
from lorastudy.presentation.tables.inputs import NAMES, PAPER_MODEL, STATED
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper, reconstruction


def hardware(inputs):
    """Time, memory and hardware from the cells' own records, a row a quantity, method and target set."""
    import pandas as pd

    stated = paper.table(1, inputs.directory).set_index("method")
    cells = inputs.results.cells
    cells = cells[cells.learning_rate.eq(cells.learning_rate.iloc[0])] if len(cells) else cells
    finished = cells[cells.status.eq("finished")]
    grid = inputs.results.settings["grid"]
    rows = []
    for quantity, unit, column, scale, says in (
        ("fine-tuning time", "min", "seconds", 1 / 60, "finetune_time_min"),
        ("peak memory", "GiB", "peak_memory_gib", 1, "memory_gb"),
        ("energy", "kWh", "energy_kwh", 1, None),
    ):
        for method in grid["methods"]:
            for targets in grid["targets"]:
                runs = finished[finished.method.eq(method) & finished.targets.eq(targets)]
                values = runs[column].astype(float) * scale
                rows.append(
                    {
                        "quantity": f"{quantity} a cell",
                        "unit": unit,
                        "method": method,
                        "targets": targets,
                        "paper": float(stated[says].get(method, np.nan)) if says else np.nan,
                        "reproduced": values.mean(),
                        "lowest": values.min(),
                        "highest": values.max(),
                        "runs": int(values.notna().sum()),
                        "paper_hardware": stated.hardware.get(method),
                        "hardware": ", ".join(sorted(set(runs.device.dropna()))),
                    }
                )
    for quantity, column, says in (
        ("time, QLoRA / LoRA", "seconds", "finetune_time_min"),
        ("peak memory, QLoRA / LoRA", "peak_memory_gib", "memory_gb"),
    ):
        for targets in [*grid["targets"], "all"] if len(grid["targets"]) > 1 else grid["targets"]:
            ratio = ratios.ratio(finished if targets == "all" else finished[finished.targets.eq(targets)], column)
            rows.append(
                {
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
                    "hardware": ", ".join(sorted(set(finished.device.dropna()))),
                }
            )
    every = inputs.results.summary
    rows.append(
        {
            "quantity": "device hours, whole study",
            "unit": "h",
            "method": "both",
            "targets": "all",
            "paper": np.nan,
            "reproduced": cost.hours(every).sum(),
            "lowest": np.nan,
            "highest": np.nan,
            "runs": int(every.seconds.notna().sum()),
            "paper_hardware": None,
            "hardware": ", ".join(sorted(set(every.device.dropna()))),
        }
    )
    frame = pd.DataFrame(rows)
    frame["difference"] = frame.reproduced - frame.paper
    frame = frame[
        ["quantity", "unit", "method", "targets", *STATED, "lowest", "highest", "runs", "paper_hardware", "hardware"]
    ]
    kept = frame[frame.reproduced.notna() | frame.paper.notna()]
    shown = pd.DataFrame(
        {
            "quantity": kept.quantity,
            "unit": kept.unit,
            "method": kept.method.map(lambda name: NAMES.get(name, name)),
            "targets": kept.targets.map(lambda name: NAMES.get(name, name)),
            "paper": kept.paper.map(significant),
            "reproduced": kept.reproduced.map(significant),
            "difference": [significant(value, sign=True) for value in kept.difference],
            "range": [
                "–" if np.isnan(low) else f"{significant(low)} to {significant(high)}"
                for low, high in zip(kept.lowest, kept.highest)
            ],
            "runs": kept.runs.map(whole),
        }
    )
    meters = sorted(set(finished.memory_meter.dropna()))
    notes = [
        "Reproduced: mean over finished runs; range: lowest and highest run, of a ratio its 95% interval (geometric mean "
        "over pairs that differ in the method alone, each the mean over its seeds; t on logarithms). Runs: of a ratio, pairs.",
        f"Time is that of the training loop; memory the peak of the {' or '.join(meters) or 'device'}."
        + (
            " Jobs that ran on the same CPU at once slowed each other down."
            if any("process" in m for m in meters)
            else ""
        ),
        *footnotes.shared(finished),
    ]
    if inputs.with_paper:
        notes.append(
            f"Paper: {stated.hardware.iloc[0]}; it gives one value for both target sets and does not say for how many "
            "texts or which r and alpha, so that differences of time also hold those of the work done."
        )
        notes.append(reconstruction.Reconstruction.committed().sentence())
        if inputs.model != PAPER_MODEL:
            notes.append("This study's model is not the paper's: its differences compare unlike work.")
    notes.append(footnotes.study(inputs))
    if finished.energy_kwh.isna().all():
        notes.append("Energy: not measured, since no device had a meter.")
    hidden = cells[~cells.status.eq("finished")]
    if len(hidden):
        counts = hidden.status.value_counts()
        notes.append(
            f"Left out: {', '.join(f'{count} {status}' for status, count in counts.items())} of {len(cells)} cells."
        )
    return Table(
        "The paper's Table 1: hardware, fine-tuning time and memory.",
        frame,
        shown,
        notes,
        ("quantity", "unit", "method", "targets"),
    )
