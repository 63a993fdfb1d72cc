"""Views of a study's cells: each point at the configured learning rate, or at the best one.

A point is a cell but for its seed and its learning rate: one place of the grid. The best rate of a point is chosen on
the validation texts alone; the test texts have no part in it.
"""

import pandas as pd

from lorastudy.analysis import collapse

POINT = ["method", "targets", "r", "alpha", "scaling"]
CONFIGURED, TUNED = "configured", "tuned"


def views(summary):
    """The cells of a summary at one learning rate a point.

    Returns:
        name → rows of the summary: ``configured``, and ``tuned`` if the study has further learning rates.
    """
    return _views(summary[summary.kind.eq("cell")])


def controls(summary):
    """The controls of a summary, likewise; with the views that its cells have."""
    found = _views(summary[summary.kind.eq("control")])
    return {view: found.get(view, found[CONFIGURED]) for view in views(summary)}


def _views(cells):
    if cells.empty:
        return {CONFIGURED: cells}
    # the grid puts the cells at training.learning_rate first
    found = {CONFIGURED: cells[cells.learning_rate.eq(cells.learning_rate.iloc[0])]}
    if cells.learning_rate.nunique() > 1:
        best = cells.merge(selected(cells), on=[*POINT, "learning_rate"], how="left", indicator="_chosen")
        found[TUNED] = cells[(best["_chosen"] == "both").to_numpy()]
    return found


def selected(cells):
    """The learning rate of each point with the highest validation accuracy, a mean over seeds.

    A rate counts only if as many seeds finished at it as at any other: one that diverges for some seeds is not chosen
    for the luck of the rest. Between equal accuracies the lower nll decides, then the lower rate.

    Returns:
        data frame with the columns ``POINT`` and ``learning_rate``; a point without a finished cell is at its
        lowest rate.
    """
    # one that collapsed counts too: that it did is known from the test texts, which have no part in the choice
    finished = cells.assign(finished=cells.status.isin(collapse.RAN) & cells.validation_accuracy.notna())
    rates = finished.groupby([*POINT, "learning_rate"], sort=False, as_index=False, dropna=False).agg(
        seeds=("finished", "sum"), accuracy=("validation_accuracy", "mean"), nll=("validation_nll", "mean")
    )
    # pandas puts what has no accuracy last, so that points without a finished cell keep their lowest rate
    best = rates.sort_values(
        ["seeds", "accuracy", "nll", "learning_rate"], ascending=[False, False, True, True], kind="stable"
    )
    return best.drop_duplicates(POINT)[[*POINT, "learning_rate"]]


def at_edge(summary):
    """The points whose best learning rate is the lowest or highest that they were tried at: a better one may lie beyond.

    Returns:
        data frame with the columns ``POINT``, ``learning_rate`` (chosen), ``side`` (``lowest`` or ``highest``) and
        ``beyond``, the next rate of a geometric series: as far from the last as that from the one before.
    """
    cells = summary[summary.kind.eq("cell")]
    tried = cells.groupby(POINT, sort=False, dropna=False).learning_rate.unique().map(sorted)
    with_result = cells[cells.status.eq("finished") & cells.validation_accuracy.notna()]
    judged = with_result.groupby(POINT, sort=False, dropna=False).learning_rate.nunique()
    rows = []
    for point in selected(cells).to_dict("records"):
        key = tuple(point[name] for name in POINT)
        rates, rate = tried[key], point["learning_rate"]
        if judged.get(key, 0) < 2 or rate not in (rates[0], rates[-1]):
            continue
        last, before = (rates[0], rates[1]) if rate == rates[0] else (rates[-1], rates[-2])
        side = "lowest" if rate == rates[0] else "highest"
        rows.append(point | {"side": side, "beyond": float(f"{last * last / before:.3g}")})
    return pd.DataFrame(rows, columns=[*POINT, "learning_rate", "side", "beyond"])


def edge_notes(summary):
    """A sentence for each side of the grid of learning rates that best rates are at, with the rate to try next."""
    for (side, rate, beyond), group in at_edge(summary).groupby(["side", "learning_rate", "beyond"], sort=True):
        further = "lower" if side == "lowest" else "higher"
        verb = "is" if len(group) == 1 else "are"
        yield (
            f"{len(group)} of {len(summary[summary.kind.eq('cell')].drop_duplicates(POINT))} points {verb} best at the "
            f"{side} learning rate tried, {rate:g}; a {further} one may be better still: add {beyond:g} to "
            "`grid.learning_rates`, finished cells stay."
        )
