"""The result tables of sections 3.1 and 3.2: scores along r and along alpha."""

import numpy as np

from lorastudy.analysis import tuning
from lorastudy.presentation.tables import footnotes
from lorastudy.presentation.tables.formatting import interval
from lorastudy.presentation.tables.inputs import LEVEL, NAMES, SCORES
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import grid


def constant_r(inputs):
    return _trend(inputs, "alpha", "The paper's section 3.1: accuracy and F1 against alpha at constant r.")


def constant_alpha(inputs):
    return _trend(inputs, "r", "The paper's section 3.2: accuracy and F1 against r at constant alpha.")


def _trend(inputs, axis, caption):
    """Scores along an axis, a column a method and target set; marks where the best is distinguishable."""
    import pandas as pd

    line = grid.trend(inputs.results.lines, axis)
    points = inputs.results.points
    points = points[[line is not None and point in line.points for point in zip(points.r, points.alpha)]]
    points = points.assign(set=points.method + " " + points.targets)
    order = list(dict.fromkeys(points.set))
    constant = "alpha" if axis == "r" else "r"
    keys = ["view", "scaling", constant, axis]
    frame_rows, shown_rows, bold = [], [], set()
    best = {score: _best(inputs, points, axis, score) for score in SCORES}
    for score, title in SCORES.items():
        for key, group in points.sort_values(["scaling", axis], kind="stable").groupby(keys, sort=False, dropna=False):
            row = dict(zip(keys, key))
            alpha, r = float(row["alpha"]), int(row["r"])
            label = {
                "score": title,
                "learning rate": row["view"],
                "scaling": row["scaling"],
                constant: f"{row[constant]:g}",
                axis: f"{row[axis]:g}",
                "alpha/r": f"{alpha / r:g}" if row["scaling"] == "standard" else f"{alpha / np.sqrt(r):.3g} (/√r)",
            }
            for name in order:
                label[_set_name(name)] = "–"
            for point in group.itertuples():
                mark = best[score].get((point.view, point.point), set())
                label[_set_name(point.set)] = _score(point, score) + ("*" if "row" in mark else "")
                frame_rows.append(
                    {
                        "score": score,
                        **{
                            name: getattr(point, name)
                            for name in ("view", *tuning.POINT, "learning_rate", "point", "status", "reason")
                        },
                        "value": getattr(point, score),
                        "low": getattr(point, f"{score}_low"),
                        "high": getattr(point, f"{score}_high"),
                        "n": point.n_test,
                        "seeds": point.seeds,
                        "best_in_column": "column" in mark,
                        "best_in_row": "row" in mark,
                    }
                )
                if "column" in mark:
                    bold.add((len(shown_rows), _set_name(point.set)))
            shown_rows.append(label)
    shown = pd.DataFrame(shown_rows)
    if shown.empty:
        shown = pd.DataFrame(columns=["score", constant, axis])
    # what has one value only goes into the notes
    single = [name for name in ("learning rate", "scaling") if name in shown and shown[name].nunique() == 1]
    shown = shown.drop(columns=single)
    bold = frozenset((row, list(shown).index(column)) for row, column in bold)
    frame = pd.DataFrame(frame_rows)
    notes = [
        "Fractions. Bold: best of its column; *: best of its row; both only where it is distinguishable from every other "
        "(paired on the same texts, p < 0.05 after Holm's correction within the column or row). "
        + ("None is." if not any(best[score] for score in SCORES) else ""),
        *footnotes.basis(inputs),
        *footnotes.views(inputs, points),
        *footnotes.holes(points),
    ]
    return Table(caption, frame, shown, [note.strip() for note in notes], ("score", "learning rate", "scaling"), bold)


def _set_name(name):
    method, targets = name.split(" ")
    return f"{NAMES[method]} {NAMES[targets]}"


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
