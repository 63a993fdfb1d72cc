"""What training without adapters gives, beside the adapters: the head alone and full fine-tuning."""

import pandas as pd

from lorastudy.analysis import collapse, tuning
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import interval, number, p_value, signed, significant, whole
from lorastudy.presentation.tables.inputs import NAMES
from lorastudy.presentation.tables.layout import Table
from lorastudy.study.grid import METHODS

COLUMNS = [
    "view", "control", "learning_rate", "runs", "runs_planned", "status", "accuracy", "accuracy_low", "accuracy_high", "f1",
    "trainable_parameters", "minutes", "peak_memory_gib", "method", "difference", "low", "high", "p", "p_equivalent", "points",
]  # fmt: skip


def controls(inputs):
    """A row for each control and method with adapters: the control's scores, and how far the method's points are ahead."""
    views = tuning.controls(inputs.results.summary)
    rows = [
        _row(view, control, group) | beside
        for view, found in views.items()
        for control, group in found.groupby("method", sort=False)
        for beside in _against(inputs, view, control)
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    shown = pd.DataFrame(
        {
            "learning rate": frame["view"],
            "control": frame.control.map(METHODS),
            "accuracy": [_score(row) for row in frame.itertuples()],
            "F1": frame.f1.map(number),
            "trainable": frame.trainable_parameters.map(whole),
            "min": frame.minutes.map(significant),
            "GiB": frame.peak_memory_gib.map(significant),
            "adapters": frame.method.map(lambda name: NAMES.get(name, name)),
            "adapters − control": [
                interval(row.difference, row.low, row.high, form=signed) for row in frame.itertuples()
            ],
            "p": frame.p.map(p_value),
            "p (equal)": frame.p_equivalent.map(p_value),
        }
    )
    if frame["view"].nunique() < 2:
        shown = shown.drop(columns="learning rate")
    notes = [
        "Accuracy: of one run with its 95% interval over the test texts, of several their mean, lowest and highest. Adapters − "
        "control: mean over all points of the method, paired on the same texts and seeds. Time and memory of training.",
        *footnotes.basis(inputs),
        *(
            f"{METHODS[row.method]}: {row.id} {row.status}, {row.reason}."
            for row in inputs.results.controls.itertuples()
            if row.status != "finished"
        ),
        footnotes.study(inputs),
    ]
    return Table("Training without adapters, beside the adapters.", frame, shown, notes, ("learning rate", "control"))


def _row(view, control, group):
    """Means over the runs of a control; low and high are of its interval, or its runs where there are several."""
    ran = group[group.status.isin(collapse.RAN)]
    accuracy, alone = ran.accuracy.astype(float), len(ran) == 1
    return {
        "view": view,
        "control": control,
        "learning_rate": group.learning_rate.iloc[0],
        "runs": len(ran),
        "runs_planned": len(group),
        "status": "finished" if len(ran) == len(group) else group[~group.index.isin(ran.index)].status.iloc[0],
        "accuracy": accuracy.mean(),
        "accuracy_low": ran.accuracy_low.iloc[0] if alone else accuracy.min(),
        "accuracy_high": ran.accuracy_high.iloc[0] if alone else accuracy.max(),
        "f1": ran.f1.astype(float).mean(),
        "trainable_parameters": ran.trainable_parameters.astype(float).mean(),
        "minutes": ran.seconds.astype(float).mean() / 60,
        "peak_memory_gib": ran.peak_memory_gib.astype(float).mean(),
    }


def _against(inputs, view, control):
    """The comparisons of a control with the methods that have adapters; one empty row where there is none yet."""
    rows = inputs.results.comparisons
    rows = rows[
        rows.family.eq("pooled_control") & rows.metric.eq("accuracy") & rows["view"].eq(view) & rows.b.eq(control)
    ]
    kept = ["difference", "low", "high", "p", "p_equivalent"]
    return [
        {"method": row["a"], "points": row["units"]} | {name: row[name] for name in kept} for _, row in rows.iterrows()
    ] or [{}]


def _score(row):
    return interval(row.accuracy, row.accuracy_low, row.accuracy_high) if row.runs else row.status
