"""Views of a study's cells: each point at the configured learning rate, or at the best one.

A point is a cell but for its seed and its learning rate: one place of the grid. The best rate of a point is chosen on
the validation texts alone; the test texts have no part in it.
"""

from lorastudy.analysis import collapse

POINT = ["method", "targets", "r", "alpha", "scaling"]
CONFIGURED, TUNED = "configured", "tuned"


def views(summary):
    """The cells of a summary at one learning rate a point.

    Returns:
        name → rows of the summary: ``configured``, and ``tuned`` if the study has further learning rates.
    """
    cells = summary[summary.kind.eq("cell")]
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
