"""The paper's Table 4: trainable parameters."""

import numpy as np
import pandas as pd

from lorastudy.presentation.tables.formatting import number, signed, whole
from lorastudy.presentation.tables.inputs import PAPER_MODEL, STATED
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper
from lorastudy.study.grid import ADAPTERS

# name, ending of the paper's columns, of ``count_parameters`` which column
QUANTITIES = (("trainable parameters", "", "trainable_parameters"), ("percent of all", "_percent", "paper_percent"))


def trainable_parameters(inputs):
    """Counts and percentages of the paper's model, and the counts of the study's own cells."""
    stated = paper.table(4, inputs.directory).set_index("r")
    own = _by_what_is_counted(inputs.results.points[inputs.results.points.trainable_parameters.notna()])
    rows = [
        row
        for quantity, ending, column in QUANTITIES
        for row in (
            *_of_the_paper(inputs.parameters, stated, quantity, ending, column),
            *_of_the_study(own, inputs.model, quantity),
        )
    ]
    frame = pd.DataFrame(rows)
    frame["difference"] = (frame.reproduced - frame.paper).round(6)
    frame = frame[["model", "targets", "r", "quantity", *STATED, "all_parameters"]]
    wide = frame.pivot_table(
        index=["model", "targets", "r"], columns="quantity", values=STATED, sort=False, dropna=False
    ).dropna(how="all")
    # of the paper's model, but not in its table
    left_out = [model == PAPER_MODEL and r not in stated.index for model, _, r in wide.index]
    notes = [*_how_it_is_counted(), *_what_is_beside_the_paper(inputs, wide.index[left_out], own)]
    return Table(
        "The paper's Table 4: trainable parameters.", frame, _shown(wide, left_out), notes, ("model", "targets")
    )


def _of_the_paper(counts, stated, quantity, ending, column):
    """Rows of the paper's model, beside what its table says."""
    # the head of Table 4 is the paper's; attention has one construction only
    counts = counts[counts["head"].eq("paper") | counts.targets.eq("attention")]
    for row in counts.sort_values(["targets", "r"], ascending=[False, True]).to_dict("records"):
        yield {
            "model": PAPER_MODEL,
            "targets": row["targets"],
            "r": row["r"],
            "quantity": quantity,
            "paper": float(stated[row["targets"].replace("-", "_") + ending].get(row["r"], np.nan)),
            "reproduced": round(row[column], 4) if ending else row[column],
            "all_parameters": row["paper_all_parameters"],
        }


def _of_the_study(own, model, quantity):
    """Rows of the study's own model, as its records say."""
    points = own.sort_values(["targets", "r"], ascending=[False, True])
    for (targets, r), group in points.groupby(["targets", "r"], sort=False):
        trainable, everything = group.trainable_parameters.iloc[0], group.all_parameters.iloc[0]
        percent = quantity == "percent of all"
        yield {
            "model": model,
            "targets": targets,
            "r": int(r),
            "quantity": quantity,
            "paper": np.nan,
            "reproduced": round(100 * trainable / everything, 4) if percent else trainable,
            "all_parameters": everything,
        }


def _shown(wide, left_out):
    """A row per model, target set and r; ``left_out`` are those that the paper's table does not have."""
    count, percent = wide.xs("trainable parameters", axis=1, level=1), wide.xs("percent of all", axis=1, level=1)
    names = {"paper": "paper", "reproduced": "trainable", "difference": "difference"}
    shown = pd.DataFrame(
        {
            "model": [model.split("/")[-1] for model in wide.index.get_level_values("model")],
            "targets": wide.index.get_level_values("targets"),
            "r": [f"{r}" for r in wide.index.get_level_values("r")],
            **{name: count[column].map(whole).to_list() for column, name in names.items()},
            **{
                f"{name}, %": [(signed if column == "difference" else number)(value, 4) for value in percent[column]]
                for column, name in names.items()
            },
        }
    )
    shown.loc[left_out, ["paper", "paper, %", "difference", "difference, %"]] = "—"
    return shown


def _how_it_is_counted():
    return [
        f"{PAPER_MODEL}: counted on the real architecture, built with PEFT without weights; the head of the all-linear set "
        "has a LoRA pair and a trainable base.",
        "Percent: of all parameters as the paper's PEFT (0.8 to 0.10) counts them: base without a language-model head, "
        "adapters, and the head twice (original and trained copy; in the all-linear set each with a LoRA pair).",
    ]


def _what_is_beside_the_paper(inputs, left_out, own):
    """Rows that its table does not have: of its own model, and of the study's."""
    if len(left_out):
        ranks = ", ".join(map(str, dict.fromkeys(left_out.get_level_values("r"))))
        yield f"—: the paper trains r = {ranks} too (section 2.7), but its table does not have them."
    if len(own):
        yield (
            f"{inputs.model.split('/')[-1]}: the study's own cells, as their records say (percent of what the built model "
            "holds); the paper states nothing for it."
        )


def _by_what_is_counted(points):
    """LoRA and QLoRA train the same parameters; other methods' are theirs and named with them."""
    others = ~points.method.isin(["lora", "qlora"])
    named = points.targets + ", " + points.method.map(ADAPTERS)
    return points.assign(targets=points.targets.where(~others, named))
