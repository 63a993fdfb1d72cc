"""The points of the grid with their scores over all seeds: what result tables and trend figures show."""

from dataclasses import replace

import numpy as np
import pandas as pd

from lorastudy.analysis import collapse, comparisons, scatter, tuning
from lorastudy.statistics import metrics, paired
from lorastudy.study import layout

SCORES = [f"{name}{end}" for name in metrics.NAMES for end in ("", "_low", "_high")]
# training records that a table or figure shows for a point, as means over its finished runs
MEASURED = [
    "trainable_parameters", "all_parameters", "seconds", "samples_per_second", "tokens_per_second", "peak_memory_gib",
    "peak_reserved_gib", "energy_kwh", "final_loss", "validation_accuracy",
]  # fmt: skip
COLUMNS = [
    "view", "point", *tuning.POINT, "learning_rate", "status", "reason", "seeds", "seeds_planned", "collapsed",
    "accuracy_all", "n_test", *SCORES, *MEASURED,
]  # fmt: skip
WHOLE = ["r", "seeds", "seeds_planned", "collapsed", "n_test"]


def build(summary, study_directory="."):
    """One row per point and view (``tuning.views``), in the order of the grid.

    Scores are means over the seeds whose runs learned. Of one seed, the interval is the bootstrap's over the test texts;
    of two, it is over the texts for these runs; of more, it covers seeds and texts (``paired.estimate``) within what
    the score can be. ``ece`` of several has none. ``status`` is ``finished`` when all planned seeds have; else it is
    that of the first that has not, with the reason, and the scores are those of the seeds that have. ``collapsed``
    counts the runs at chance (``collapse``), ``accuracy_all`` is the mean over them too.

    Returns:
        data frame with the columns ``COLUMNS``.
    """
    rows = []
    for view, cells in tuning.views(summary).items():
        for key, group in cells.groupby([*tuning.POINT, "learning_rate"], sort=False):
            first, finished = group.iloc[0], group[group.status.eq("finished")]
            unfinished = group[~group.status.eq("finished")]
            row = {"view": view, "point": first.id.removesuffix(f"_s{first.seed}")}
            row |= dict(zip([*tuning.POINT, "learning_rate"], key, strict=True))
            row |= {"status": "finished", "seeds": len(finished), "seeds_planned": len(group)}
            row |= {"collapsed": int(group.status.eq(collapse.COLLAPSED).sum())}
            row |= {"accuracy_all": group.accuracy[group.status.isin(collapse.RAN)].astype(float).mean()}
            if len(unfinished):
                first_lost = unfinished.iloc[0]
                reason = collapse.describe(group) if first_lost.status == collapse.COLLAPSED else first_lost.reason
                row |= {"status": first_lost.status, "reason": reason}
            if len(finished):
                row |= {"n_test": finished.iloc[0].n_test} | _scores(finished, study_directory)
                row |= finished[MEASURED].astype(float).mean().to_dict()
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))


def _scores(runs, study_directory):
    if len(runs) == 1:
        return runs.iloc[0][SCORES].to_dict()

    values = []
    for name in runs.id:
        table = pd.read_parquet(layout.cell(name, study_directory) / "predictions.parquet")
        values.append(metrics.per_text(table.label.to_numpy(), table.filter(like="probability_").to_numpy()))
    scores, classes = {"ece": runs.ece.mean()}, table.filter(like="probability_").shape[1]
    right = np.mean([of_run["accuracy"] for of_run in values], axis=0)
    groups = comparisons.groups_of(table)
    for name in values[0]:
        drawn = [of_run[name] if groups is None else paired.of_groups(of_run[name], groups) for of_run in values]
        estimate = paired.estimate(np.array(drawn))
        if len(runs) < scatter.SEEDS:
            estimate = replace(estimate, se_runs=0.0)
        low, high = np.clip(estimate.interval(), *metrics.bounds(name, classes)).tolist()
        low, high = metrics.widened(
            name, estimate.value, low, high, table.label.to_numpy(), right, classes, estimate.texts
        )
        scores |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return scores
