"""The result table of section 3.3: LoRA against QLoRA, pair by pair."""

import numpy as np
import pandas as pd

from lorastudy.analysis import ratios, tuning
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import interval, number, p_value, signed
from lorastudy.presentation.tables.inputs import NAMES, SCORES
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper

KEYS = ["view", "targets", "r", "alpha", "scaling"]  # what the two of a pair have in common
METHODS = ("lora", "qlora")
OF_METHOD = ("accuracy", "accuracy_low", "accuracy_high", "f1", "f1_low", "f1_high", "status", "reason", "seeds")
OF_PAIR = [
    "difference", "low", "high", "p", "p_holm", "p_equivalent", "reason", "only_a", "only_b", "bootstrap_low", "bootstrap_high",
    "n", "seeds",
]  # fmt: skip
COLUMNS = [
    "line", *KEYS, "paper",
    *(f"{method}_{what}" for method in METHODS for what in OF_METHOD),
    *OF_PAIR, "time_ratio", "memory_ratio",
]  # fmt: skip


def lora_against_qlora(inputs):
    """Section 3.3: every matched pair of LoRA and QLoRA, and their average."""
    points, pairs = inputs.results.points, inputs.results.comparisons
    pairs = pairs[pairs.metric.eq("accuracy") & pairs.family.isin(["method", "pooled_method"])]
    rows = [*_matched(inputs, pairs), *_averages(inputs, pairs)]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"r": "Int64"})
    notes = [
        *_what_is_compared(inputs, frame, pairs),
        *footnotes.basis(inputs),
        *footnotes.views(inputs, points),
        *footnotes.holes(points),
        *footnotes.shared(inputs.results.cells),
    ]
    return Table(
        "The paper's section 3.3: LoRA against QLoRA, pair by pair.",
        frame,
        _shown(frame, rows).drop(columns=_saying_nothing(inputs, frame)),
        notes,
        ("learning rate", "line", "targets", "scaling"),
    )


def _matched(inputs, pairs):
    """A row for each setting that either method has in the grid."""
    points = inputs.results.points
    sides = {method: points[points.method.eq(method)].set_index(KEYS) for method in METHODS}
    stated = paper.accuracies(inputs.directory).set_index(["method", "targets", "r", "alpha"]).accuracy
    for key in dict.fromkeys([*sides["lora"].index, *sides["qlora"].index]):
        row = dict(zip(KEYS, key))
        row["line"] = ", ".join(line.name for line in inputs.results.lines if (row["r"], row["alpha"]) in line.points)
        row["paper"] = stated.get(("lora", row["targets"], row["r"], row["alpha"]), np.nan)  # of either method
        lora, qlora = (side.loc[key] if key in side.index else None for side in sides.values())
        row |= _of_method("lora", lora) | _of_method("qlora", qlora)
        if lora is not None and qlora is not None:
            found = pairs[pairs.view.eq(row["view"]) & pairs.a.eq(lora.point) & pairs.b.eq(qlora.point)]
            if len(found):
                row |= found.iloc[0][OF_PAIR].to_dict()
            row["time_ratio"] = qlora.seconds / lora.seconds
            row["memory_ratio"] = qlora.peak_memory_gib / lora.peak_memory_gib
        yield row


def _of_method(method, point):
    """One side of a pair; ``point`` is None where the grid does not have it."""
    scores = [f"{score}{end}" for score in SCORES for end in ("", "_low", "_high")]
    return {f"{method}_{score}": np.nan if point is None else point[score] for score in scores} | {
        f"{method}_status": "not in the grid" if point is None else point.status,
        f"{method}_reason": None if point is None else point.reason,
        f"{method}_seeds": 0 if point is None else point.seeds,
    }


def _averages(inputs, pairs):
    """A row for the average over all pairs of each view."""
    for pooled in pairs[pairs.family.eq("pooled_method")].to_dict("records"):
        cells = tuning.views(inputs.results.summary)[pooled["view"]]
        yield {name: pooled[name] for name in OF_PAIR} | {
            "view": pooled["view"],
            "targets": f"average of {int(pooled['units'])} pairs",
            "time_ratio": ratios.ratio(cells, "seconds").value,
            "memory_ratio": ratios.ratio(cells, "peak_memory_gib").value,
        }


def _shown(frame, rows):
    return pd.DataFrame(
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


def _side(row, method):
    if f"{method}_status" not in row:
        return "–"
    if not row[f"{method}_seeds"]:
        return row[f"{method}_status"]
    return number(row[f"{method}_accuracy"]) + ("" if row[f"{method}_status"] == "finished" else "†")


def _saying_nothing(inputs, frame):
    """Columns that people need not read: the same in every row, or empty."""
    needless = {
        "learning rate": frame["view"].nunique() < 2,
        "line": len(inputs.results.lines) < 2,
        "paper": frame.paper.isna().all(),
        "scaling": frame.scaling.nunique() < 2,
        "only one right": frame.only_a.isna().all(),
    }
    return [column for column, is_so in needless.items() if is_so]


def _what_is_compared(inputs, frame, pairs):
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    tests = sorted(set(pairs[pairs.family.eq("method")].test.dropna()))
    yield "Accuracies (fractions), paired on the same texts. Time, memory: QLoRA / LoRA of training time and peak memory."
    yield (
        f"p (Holm): {' or '.join(tests) or 'no pair yet'}, corrected for the number of pairs; p (equal): two one-sided "
        f"tests, below 0.025 where the 95% interval lies within ± {margin:g}."
        + ("" if frame.only_a.isna().all() else " Only one right: texts that LoRA alone : QLoRA alone got right.")
    )
    if len(inputs.results.lines) > 1:
        yield from (f"Line: {line.name}, {line.words}." for line in inputs.results.lines)
    if frame.paper.notna().any():
        yield "The paper states these accuracies of both methods, to whole percent (sections 3.1 and 3.3)."
    yield from (f"Average: {reason}." for reason in frame.reason.dropna().unique())
