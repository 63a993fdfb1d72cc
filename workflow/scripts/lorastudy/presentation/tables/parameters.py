"""The paper's Table 4: trainable parameters."""

import numpy as np

from lorastudy.presentation.tables.formatting import number, signed, whole
from lorastudy.presentation.tables.inputs import PAPER_MODEL, STATED
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper
from lorastudy.study.grid import ADAPTERS


def trainable_parameters(inputs):
    """Counts and percentages of the paper's model, and the counts of the study's own cells."""
    import pandas as pd

    stated = paper.table(4, inputs.directory).set_index("r")
    counts = inputs.parameters
    # the head of Table 4 is the paper's; attention has one construction only
    counts = counts[counts["head"].eq("paper") | counts.targets.eq("attention")]
    own = _by_what_is_counted(inputs.results.points[inputs.results.points.trainable_parameters.notna()])
    rows = []
    for quantity, says, column in (
        ("trainable parameters", "", "trainable_parameters"),
        ("percent of all", "_percent", "paper_percent"),
    ):
        for row in counts.sort_values(["targets", "r"], ascending=[False, True]).to_dict("records"):
            name = row["targets"].replace("-", "_") + says
            rows.append(
                {
                    "model": PAPER_MODEL,
                    "targets": row["targets"],
                    "r": row["r"],
                    "quantity": quantity,
                    "paper": float(stated[name].get(row["r"], np.nan)),
                    "reproduced": row[column] if says == "" else round(row[column], 4),
                    "all_parameters": row["paper_all_parameters"],
                }
            )
        for (targets, r), group in own.sort_values(["targets", "r"], ascending=[False, True]).groupby(
            ["targets", "r"], sort=False
        ):
            trainable, everything = group.trainable_parameters.iloc[0], group.all_parameters.iloc[0]
            rows.append(
                {
                    "model": inputs.model,
                    "targets": targets,
                    "r": int(r),
                    "quantity": quantity,
                    "paper": np.nan,
                    "reproduced": trainable if says == "" else round(100 * trainable / everything, 4),
                    "all_parameters": everything,
                }
            )
    frame = pd.DataFrame(rows)
    frame["difference"] = (frame.reproduced - frame.paper).round(6)
    frame = frame[["model", "targets", "r", "quantity", *STATED, "all_parameters"]]
    wide = frame.pivot_table(
        index=["model", "targets", "r"], columns="quantity", values=STATED, sort=False, dropna=False
    ).dropna(how="all")
    count, percent = wide.xs("trainable parameters", axis=1, level=1), wide.xs("percent of all", axis=1, level=1)
    # of the paper's model, but not in its table
    left_out = [model == PAPER_MODEL and r not in stated.index for model, _, r in wide.index]
    shown = pd.DataFrame(
        {
            "model": [model.split("/")[-1] for model in wide.index.get_level_values("model")],
            "targets": wide.index.get_level_values("targets"),
            "r": [f"{r}" for r in wide.index.get_level_values("r")],
            **{name if name != "reproduced" else "trainable": count[name].map(whole).to_list() for name in STATED},
            **{
                f"{name}, %" if name != "reproduced" else "trainable, %": [
                    number(value, 4) if name != "difference" else signed(value, 4) for value in percent[name]
                ]
                for name in STATED
            },
        }
    )
    shown.loc[left_out, ["paper", "paper, %", "difference", "difference, %"]] = "—"
    notes = [
        f"{PAPER_MODEL}: counted on the real architecture, built with PEFT without weights; the head of the all-linear set "
        "has a LoRA pair and a trainable base.",
        "Percent: of all parameters as the paper's PEFT (0.8 to 0.10) counts them: base without a language-model head, "
        "adapters, and the head twice (original and trained copy; in the all-linear set each with a LoRA pair).",
    ]
    if any(left_out):
        ranks = ", ".join(map(str, dict.fromkeys(wide.index.get_level_values("r")[left_out])))
        notes.append(f"—: the paper trains r = {ranks} too (section 2.7), but its table does not have them.")
    if len(own):
        notes.append(
            f"{inputs.model.split('/')[-1]}: the study's own cells, as their records say (percent of what the built model "
            "holds); the paper states nothing for it."
        )
    return Table("The paper's Table 4: trainable parameters.", frame, shown, notes, ("model", "targets"))


def _by_what_is_counted(points):
    """LoRA and QLoRA train the same parameters; other methods' are theirs and named with them."""
    others = ~points.method.isin(["lora", "qlora"])
    named = points.targets + ", " + points.method.map(ADAPTERS)
    return points.assign(targets=points.targets.where(~others, named))
