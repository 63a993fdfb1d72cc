"""The result tables of sections 3.1 and 3.2: scores along r and along alpha, line by line of the grid."""

import numpy as np
import pandas as pd

from lorastudy.analysis import tuning
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import interval, number, signed
from lorastudy.presentation.tables.inputs import LEVEL, NAMES, SCORES
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import paper

OF_FRAME = [
    "line", "score", "view", *tuning.POINT, "learning_rate", "point", "status", "reason", "value", "low", "high", "paper",
    "paper_difference", "n", "seeds", "best_in_column", "best_in_row",
]  # fmt: skip


SECTIONS = {"alpha": "3.1", "r": "3.3"}  # in which the paper states an accuracy along r and alpha


def constant_r(inputs):
    return _trend(inputs, "alpha", "The paper's section 3.1: accuracy and F1 against alpha at constant r.")


def constant_alpha(inputs):
    return _trend(inputs, "r", "The paper's section 3.2: accuracy and F1 against r.")


def _trend(inputs, axis, caption):
    """Scores along an axis, a column per method and target set; marks where the best is distinguishable."""
    lines = [part for line in inputs.results.lines for part in line.along(axis)]
    stated = paper.accuracies(inputs.directory)
    stated = stated[stated.section.eq(SECTIONS[axis])].set_index(["method", "targets", "r", "alpha"]).accuracy
    every, rows, shown_rows, bold = [], [], [], set()
    for line in lines:
        points = inputs.results.points
        points = points.loc[line.holds(points)]
        points = points.assign(set=points.method + " " + points.targets)
        every.append(points)
        for score, title in SCORES.items():
            best = _best(inputs, points, axis, score)
            keys = ["view", "scaling", "r", "alpha"]
            ordered = points.sort_values(["scaling", axis], kind="stable").groupby(keys, sort=False)
            for key, group in ordered:
                view, scaling, r, alpha = key
                label = {"line": line.name, "score": title, "learning rate": view, "scaling": scaling}
                label |= (
                    {"r": f"{r:g}", "alpha": f"{alpha:g}"} if axis == "r" else {"alpha": f"{alpha:g}", "r": f"{r:g}"}
                )
                label["alpha/r"] = f"{alpha / r:g}" if scaling == "standard" else f"{alpha / np.sqrt(r):.3g} (/√r)"
                says = {}
                for point in group.itertuples():
                    mark = best.get((point.view, point.point), set())
                    if "column" in mark:
                        bold.add((len(shown_rows), _set_name(point.set)))
                    label[_set_name(point.set)] = _score(point, score) + ("*" if "row" in mark else "")
                    if score == "accuracy":
                        says[point.set] = stated.get((point.method, point.targets, r, alpha), np.nan)
                    rows.append(_row(line, score, point, mark, says.get(point.set, np.nan)))
                shown_rows.append(label | {"paper": _stated(says)})
    frame = pd.DataFrame(rows, columns=OF_FRAME)
    order = dict.fromkeys(_set_name(name) for points in every for name in points.set)
    shown = _shown(shown_rows, axis, order)
    bold_at = frozenset((row, list(shown).index(column)) for row, column in bold)
    together = pd.concat(every).drop_duplicates(["view", "point"]) if every else inputs.results.points.iloc[:0]
    notes = [
        *([f"Lines: {'; '.join(f'{line.name}, {line.words}' for line in lines)}."] if lines else []),
        "Fractions. Bold: best of its column; *: best of its row; both only where it is distinguishable from every other "
        "(paired on the same texts, p < 0.05 after Holm's correction within the column or row)."
        + ("" if frame.best_in_column.any() or frame.best_in_row.any() else " None is."),
        *_of_the_paper(frame, axis),
        *footnotes.basis(inputs),
        *footnotes.views(inputs, together),
        *footnotes.holes(together),
    ]
    if not lines:
        notes = [f"No line of this study's grid has {axis} vary."]
    return Table(caption, frame, shown, notes, ("line", "score", "learning rate", "scaling", "paper"), bold_at)


def _row(line, score, point, mark, stated):
    """A row of the CSV."""
    value = getattr(point, score)
    return {
        "line": line.name,
        "score": score,
        **{name: getattr(point, name) for name in OF_FRAME if hasattr(point, name)},
        "value": value,
        "low": getattr(point, f"{score}_low"),
        "high": getattr(point, f"{score}_high"),
        "paper": stated,
        "paper_difference": value - stated,
        "n": point.n_test,
        "best_in_column": "column" in mark,
        "best_in_row": "row" in mark,
    }


def _shown(rows, axis, order):
    """What people read: without columns that have one value only, which the caption or the notes give."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        return pd.DataFrame(columns=["score", *sorted(("r", "alpha"), key=lambda name: name != axis)])
    last = [name for name in ("paper",) if frame[name].ne("–").any()]
    names = [name for name in frame if name not in order and name != "paper"]
    single = [name for name in ("line", "learning rate", "scaling") if frame[name].nunique() == 1]
    return frame[[*(name for name in names if name not in single), *order, *last]].fillna("–")


def _stated(says):
    """What the paper states of a point of the grid, by method and target set: those for which it does if not for all."""
    known = {name: value for name, value in says.items() if not np.isnan(value)}
    if not known:
        return "–"
    values = set(known.values())
    text = number(values.pop(), 2) if len(values) == 1 else ", ".join(number(value, 2) for value in known.values())
    sets = dict.fromkeys(name.split(" ")[1] for name in known)
    return text if len(known) == len(says) else f"{text} ({', '.join(NAMES.get(name, name) for name in sets)})"


def _of_the_paper(frame, axis):
    """The two accuracies that the paper states, and how far this study's are from them."""
    beside = frame[frame.paper.notna() & frame.value.notna() & frame["view"].eq(tuning.CONFIGURED)]
    if beside.empty:
        return []
    if axis == "alpha":
        parts = [
            f"{_set_name(f'{row.method} {row.targets}')} {row.value:.3f} ({signed(row.paper_difference)})"
            for row in beside.itertuples()
        ]
        peak = f"{beside.paper.iloc[0]:.0%} at r = {beside.r.iloc[0]}, alpha = {beside.alpha.iloc[0]:g}"
        return [f"The paper states a peak of {peak} on all linear layers (section 3.1); here {', '.join(parts)}."]
    least, most = beside.paper_difference.min(), beside.paper_difference.max()
    return [
        f"The paper states about {beside.paper.iloc[0]:.0%} for all four variants along r, for attention up to r = 256 "
        f"(section 3.3); the accuracies here differ from that by {signed(least)} to {signed(most)}."
    ]


def _set_name(name):
    return " ".join(NAMES.get(part, part) for part in name.split(" "))


def _score(point, score):
    """A point's score with its interval, or why there is none; † where seeds are missing."""
    if not point.seeds:
        return point.status
    text = interval(getattr(point, score), getattr(point, f"{score}_low"), getattr(point, f"{score}_high"))
    return text if point.status == "finished" else f"{text}†"


def _best(inputs, points, axis, score):
    """(view, point) → ``column``, ``row`` where a point is ahead of every other of it, each shown after correction."""
    comparisons = inputs.results.comparisons
    comparisons = comparisons[comparisons.metric.eq(score)]
    found = {}
    for family, side, others in (
        (f"{axis}_pair", "column", ["method", "targets"]),
        ("set_pair", "row", [axis]),
    ):
        pairs = comparisons[comparisons.family.eq(family)]
        for _, group in points.groupby(["view", "scaling", *others], sort=False):
            # what has not run may be better still; what has diverged is not
            if (group.seeds.eq(0) & group.status.ne("diverged")).any() or group.seeds.eq(0).all():
                continue
            finished = group[group.seeds.gt(0)]
            best = finished.loc[finished[score].astype(float).idxmax()]
            rest = set(finished.point) - {best.point}
            of_view = pairs[pairs.view.eq(best.view)]
            beaten = {
                *of_view.b[of_view.a.eq(best.point) & of_view.difference.gt(0) & of_view.p_holm.lt(LEVEL)],
                *of_view.a[of_view.b.eq(best.point) & of_view.difference.lt(0) & of_view.p_holm.lt(LEVEL)],
            }
            if rest and rest <= beaten:
                found.setdefault((best.view, best.point), set()).add(side)
    return found
