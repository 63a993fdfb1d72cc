"""The result table of section 3.3: LoRA against QLoRA, pair by pair."""

import numpy as np

from lorastudy.analysis import ratios, tuning
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import interval, number, p_value, signed
from lorastudy.presentation.tables.inputs import NAMES, SCORES
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper


def lora_against_qlora(inputs):
    """Section 3.3: every matched pair of LoRA and QLoRA, and their average."""
    import pandas as pd

    points, pairs = inputs.results.points, inputs.results.comparisons
    pairs = pairs[pairs.metric.eq("accuracy") & pairs.family.isin(["method", "pooled_method"])]
    keys = ["view", "targets", "r", "alpha", "scaling"]
    sides = {name: points[points.method.eq(name)].set_index(keys) for name in ("lora", "qlora")}
    stated = paper.accuracies(inputs.directory).set_index(["method", "targets", "r", "alpha"]).accuracy
    rows = []
    for key in dict.fromkeys([*sides["lora"].index, *sides["qlora"].index]):
        row = dict(zip(keys, key))
        row["line"] = ", ".join(line.name for line in inputs.results.lines if (row["r"], row["alpha"]) in line.points)
        row["paper"] = stated.get(("lora", row["targets"], row["r"], row["alpha"]), np.nan)  # of either method
        lora, qlora = (side.loc[key] if key in side.index else None for side in sides.values())
        for name, point in (("lora", lora), ("qlora", qlora)):
            row |= {
                f"{name}_{score}{end}": np.nan if point is None else point[f"{score}{end}"]
                for score in SCORES
                for end in ("", "_low", "_high")
            }
            row[f"{name}_status"] = "not in the grid" if point is None else point.status
            row[f"{name}_reason"] = None if point is None else point.reason
            row[f"{name}_seeds"] = 0 if point is None else point.seeds
        if lora is not None and qlora is not None:
            found = pairs[pairs.view.eq(row["view"]) & pairs.a.eq(lora.point) & pairs.b.eq(qlora.point)]
            if len(found):
                row |= found.iloc[0][PAIR].to_dict()
            row["time_ratio"] = qlora.seconds / lora.seconds
            row["memory_ratio"] = qlora.peak_memory_gib / lora.peak_memory_gib
        rows.append(row)
    for pooled in pairs[pairs.family.eq("pooled_method")].to_dict("records"):
        cells = tuning.views(inputs.results.summary)[pooled["view"]]
        rows.append(
            {"view": pooled["view"], "targets": f"average of {int(pooled['units'])} pairs"}
            | {name: pooled[name] for name in PAIR}
            | {"time_ratio": ratios.ratio(cells, "seconds").value}
            | {"memory_ratio": ratios.ratio(cells, "peak_memory_gib").value}
        )
    columns = [
        "line", *keys, "paper",
        *(f"{name}_{what}" for name in sides for what in ("accuracy", "accuracy_low", "accuracy_high", "f1", "f1_low", "f1_high", "status", "reason", "seeds")),
        *PAIR, "time_ratio", "memory_ratio",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns).astype({"r": "Int64"})
    shown = pd.DataFrame(
        {
            "learning rate": frame["view"],
            "line": frame.line.fillna("–"),
            "targets": frame.targets.map(lambda name: NAMES.get(name, name)),
            "scaling": frame.scaling.fillna("–"),
            "r": ["–" if pd.isna(r) else f"{r}" for r in frame.r],
            "alpha": ["–" if pd.isna(alpha) else f"{alpha:g}" for alpha in frame.alpha],
            "LoRA": [_side(row, "lora") for row in rows],
            "QLoRA": [_side(row, "qlora") for row in rows],
            "paper": frame.paper.map(lambda value: number(value, 2)),
            "LoRA − QLoRA": [
                interval(row.difference, row.low, row.high, form=signed)
                + ("" if pd.isna(row.reason) else f" ({row.reason.partition(':')[0]})")
                for row in frame.itertuples()
            ],
            "p (Holm)": frame.p_holm.map(p_value),
            "p (equal)": frame.p_equivalent.map(p_value),
            "only one right": [
                "–" if pd.isna(a) else f"{a:.0f} : {b:.0f}" for a, b in zip(frame.only_a, frame.only_b, strict=True)
            ],
            "time": frame.time_ratio.map(lambda value: number(value, 2)),
            "memory": frame.memory_ratio.map(lambda value: number(value, 2)),
        }
    )
    single = ["learning rate"] if frame["view"].nunique() < 2 else []
    single += ["line"] if len(inputs.results.lines) < 2 else []
    single += ["paper"] if frame.paper.isna().all() else []
    single += ["scaling"] if frame.scaling.nunique() < 2 else []
    single += ["only one right"] if frame.only_a.isna().all() else []
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    tests = sorted(set(pairs[pairs.family.eq("method")].test))
    notes = [
        "Accuracies (fractions), paired on the same texts. Time, memory: QLoRA / LoRA of training time and peak memory.",
        f"p (Holm): {' or '.join(tests) or 'no pair yet'}, corrected for the number of pairs; p (equal): two one-sided "
        f"tests, small where the difference is within ± {margin:g}."
        + ("" if frame.only_a.isna().all() else " Only one right: texts that LoRA alone : QLoRA alone got right."),
        *(f"Line: {line.name}, {line.words}." for line in inputs.results.lines if len(inputs.results.lines) > 1),
        *(
            ["The paper states these accuracies of both methods, to whole percent (sections 3.1 and 3.3)."]
            if frame.paper.notna().any()
            else []
        ),
        *(f"Average: {reason}." for reason in frame.reason.dropna().unique()),
        *footnotes.basis(inputs),
        *footnotes.views(inputs, points),
        *footnotes.holes(points),
        *footnotes.shared(inputs.results.cells),
    ]
    return Table(
        "The paper's section 3.3: LoRA against QLoRA, pair by pair.",
        frame,
        shown.drop(columns=single),
        notes,
        ("learning rate", "line", "targets", "scaling"),
    )


PAIR = [
    "difference", "low", "high", "p", "p_holm", "p_equivalent", "reason", "only_a", "only_b", "bootstrap_low", "bootstrap_high",
    "n", "seeds",
]  # fmt: skip


def _side(row, name):
    if f"{name}_status" not in row:
        return "–"
    if not row[f"{name}_seeds"]:
        return row[f"{name}_status"]
    return number(row[f"{name}_accuracy"]) + ("" if row[f"{name}_status"] == "finished" else "†")
