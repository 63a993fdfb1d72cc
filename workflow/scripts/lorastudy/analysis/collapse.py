"""Runs that finished and yet learned nothing: an outcome of its own, counted and kept out of averages of accuracy.

At a high alpha or learning rate a run can end at chance while others of the same cell learn. A mean over both tells of
neither. Such a run has the status ``COLLAPSED``; scores are then those of the runs that learned, and how many collapsed
stands beside them.
"""

from dataclasses import dataclass

import pandas as pd

from lorastudy.statistics import proportions

COLLAPSED = "collapsed"
RAN = ("finished", COLLAPSED)  # statuses of results with numbers


def find(summary):
    """Which runs collapsed, as a bool Series over the rows of a summary.

    A fine-tuned run has, whose accuracy is not above that of naming the most frequent class (``chance``) by its 95%
    Wilson interval, and below the median run of the study beyond what its texts explain. A study of which most runs end at
    chance has no collapse: it has not learned.
    """
    ran = summary.kind.eq("cell") & summary.status.isin(RAN) & summary.accuracy.notna()
    found = pd.Series(False, summary.index)
    middle = summary.accuracy[ran].astype(float).median()
    for row in summary[ran].itertuples():
        low, high = proportions.wilson(row.accuracy * row.n_test, row.n_test)
        found[row.Index] = low <= row.chance and high < middle
    return found


def describe(runs):
    """A point's collapse in words, from its runs (rows of a summary): "1 of 3 runs collapsed; the others 0.483, 0.538"."""
    ran = runs[runs.status.isin(RAN)]
    lost, others = (ran[ran.status.eq(COLLAPSED) == side] for side in (True, False))
    text = f"{len(lost)} of {len(ran)} runs collapsed"
    if len(others):
        text += f"; the other{'s' * (len(others) > 1)} {', '.join(f'{value:.3f}' for value in others.accuracy)}"
    return text


@dataclass(frozen=True)
class Share:
    """How many runs of one kind did not learn: at chance, or diverged.

    Attributes:
        value: what they have in common, as ``alpha = 512``.
        lost, runs: counts.
        low, high: 95% Wilson interval of the share.
        seeds: the seeds of the lost ones. Runs of a seed share their initial values and the order of their texts: several
            lost ones with one seed may be one event.
        p: of Fisher's exact test against all other runs, each taken as an event of its own.
        p_seeds: of the same test with each seed counted once on either side.
    """

    value: str
    lost: int
    runs: int
    low: float
    high: float
    seeds: tuple
    p: float
    p_seeds: float


def shares(cells, axis):
    """The ``Share`` of each value of a column of the summary (``alpha``, ``r``, ``method``, ``targets``)."""
    ran = cells[cells.status.isin([*RAN, "diverged"])]
    runs = list(zip(ran[axis], ran.seed, ran.status.ne("finished")))
    values = sorted({value for value, _, _ in runs})
    return [_share(f"{axis} = {value:g}" if axis in ("r", "alpha") else value, value, runs) for value in values]


def _share(name, value, runs):
    """The ``Share`` of a value, from (value, seed, whether it is lost) of all runs."""
    sides = [[run[1:] for run in runs if (run[0] == value) == here] for here in (True, False)]
    lost = [[seed for seed, gone in side if gone] for side in sides]
    counts = [count for gone, side in zip(lost, sides) for count in (len(gone), len(side))]
    of_seeds = [count for gone, side in zip(lost, sides) for count in (len(set(gone)), len({seed for seed, _ in side}))]
    low, high = proportions.wilson(*counts[:2])
    seeds = tuple(sorted(set(lost[0])))
    return Share(name, *counts[:2], low, high, seeds, proportions.fisher(*counts), proportions.fisher(*of_seeds))


def sentence(share):
    """A ``Share`` in words."""
    text = f"{share.lost} of {share.runs} runs did not learn at {share.value}"
    text += f" (share {share.low:.2f} to {share.high:.2f}, p = {share.p:.3g} against the others)"
    if share.lost > 1 and len(share.seeds) == 1:
        text += f", all with seed {share.seeds[0]}, which may be one event"
    return text
