"""Paired comparisons on the same test texts: of neighbours in the grid, of cells and baselines, trends, averages.

Every comparison is one of ``contrasts``: a minus b, over the seeds that both have. Its family says what was compared;
p values are corrected for their number within a family (and within its groups, where it has some).
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet

from lorastudy.analysis import collapse, contrasts, scatter, tuning
from lorastudy.analysis.claims import measuring
from lorastudy.statistics import corrections, equivalence, metrics, paired, permutation
from lorastudy.study import layout
from lorastudy.study.errors import StudyError

METRICS = ("accuracy", "f1", "nll")
IN_POINTS = ("accuracy", "f1")  # fractions, which the margin of equivalence is about
# what an interval is about, by how it was made
TESTS = {
    "shared": "t over seeds and texts, variance over seeds shared over the grid",
    "own": "t over seeds and texts, variance over its own seeds",
    "units": "t over matched pairs and texts, of these seeds",
    "texts": "t over texts, of these runs",
}
# the same where groups of texts that belong together are the sample
OF_GROUPS = {test: test.replace("texts", "groups of texts") for test in TESTS.values()}
AT_LARGE = tuple(
    form for name in ("shared", "own") for form in (TESTS[name], OF_GROUPS[TESTS[name]])
)  # runs with any seed
# of two, the quantile of t is 12.7 and the spread itself is known to within a factor of 30: no interval worth a number
PAIRS = 3
COLUMNS = [
    "view", "family", "group", "line", "metric", "a", "b", "a_value", "b_value", *tuning.POINT, "difference", "low", "high",
    "se_texts", "se_runs", "se_fixed", "df_runs", "p", "test", "p_holm", "p_permutation", "mcnemar", "margin",
    "p_equivalent", "answer", "smallest_margin", "reason", "collapsed", "left_out",
    "difference_all", "only_a", "only_b", "bootstrap_low", "bootstrap_high", "n",
    "seeds", "units",
]  # fmt: skip


WHOLE = ["r", "only_a", "only_b", "collapsed"]


class ComparisonError(StudyError):
    """Results that cannot be compared."""


def build(summary, lines, statistics, study_directory=".", claims=True):
    """All comparisons of a study.

    Args:
        summary: of ``summary.build``.
        lines: of ``grid.lines``; comparisons of r and of alpha follow them.
        statistics: the configuration's block of that name.
        claims: whether the study is about the paper, so that the comparisons of its claims are made too.

    Returns:
        data frame with the columns ``COLUMNS``, a row a comparison and metric. ``difference`` is a minus b as a
        fraction (nats for ``nll``, of which less is better); ``low`` and ``high`` its 95% interval, over what ``test``
        says; ``p`` is two-sided for no difference, ``p_equivalent`` that of two one-sided tests against ``margin``,
        both of that interval. ``answer`` is what the interval says of the margin (``equivalence``), ``smallest_margin``
        the smallest within which it shows equivalence. ``p_permutation`` is that of exchanging a and b among runs of one
        seed with all else equal (``permutation``). Of two single runs, ``only_a`` and ``only_b`` count the texts that
        one of them alone got right, ``mcnemar`` is McNemar's mid-p, and ``bootstrap_low`` and ``bootstrap_high`` are
        the paired bootstrap's interval. ``units`` is the number of differences (or lines) that a pooled comparison
        averages. ``reason`` says why a row has a difference alone. All are over the runs that learned; ``collapsed``
        counts those at chance, ``left_out`` names the points whose runs scatter far more than the others' and that an
        average or trend over the grid goes without, and ``difference_all`` is the difference with both.
    """
    scores = read(summary, study_directory)
    baselines = list(summary.id[summary.kind.eq("baseline") & summary.status.eq("finished")])
    parts = []
    for view, cells in tuning.views(summary).items():
        table = contrasts.points(cells)
        controls = contrasts.controls(tuning.controls(summary)[view])
        wanted = contrasts.build(table, lines, baselines) + contrasts.against(table, controls)
        if claims and view == tuning.CONFIGURED:
            wanted += measuring.build(table, baselines)
        parts.append(measure(wanted, table, scores, statistics).assign(view=view))
    if claims and len(parts) > 1:
        table = contrasts.points(summary[summary.kind.eq("cell")])
        crossed = measure(measuring.crossing(table), table, scores, statistics, ("r", "alpha", "learning_rate"))
        parts.append(crossed.assign(view=tuning.CONFIGURED))
    made = pd.concat(parts, ignore_index=True)[COLUMNS]
    texts = summary.n_test.max()  # as predicted; fewer make a sample where they are in groups
    return made.assign(test=made.test.where(made.n.eq(texts) | made.test.isna(), made.test.map(OF_GROUPS)))


def measure(wanted, table, scores, statistics, point=("r", "alpha")):
    """Comparisons of one view, with the columns ``COLUMNS`` but for the view.

    Args:
        wanted: of ``contrasts.build``.
        table: of ``contrasts.points``, of that view.
        scores: of ``read``.
        statistics: the configuration's block of that name.
        point: the columns whose values make a point of the layout that shares its variance.
    """
    of_runs = {metric: scatter.fit(table, values, point) for metric, values in scores.items()}
    rows = [
        row
        for contrast in wanted
        for metric in scores
        if (contrast.family, metric) != (measuring.FAMILY, "f1")  # claims are about accuracy, and nll stands beside
        if (row := compare(contrast, metric, scores[metric], of_runs[metric], statistics))
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS[1:])
    tested = frame[frame.p.notna()]
    together = tested.groupby(["family", "group", "metric"], sort=False).p
    frame["p_holm"] = together.transform(corrections.holm) if len(tested) else np.nan
    return frame.astype(dict.fromkeys(WHOLE, "Int64"))


def read(summary, study_directory="."):
    """What each text contributes to each metric, or each group of texts that belong together (``data.group_column``).

    Returns:
        metric → id → float array, shape (texts,) or (groups,); its mean is the metric in the summary.

    Raises:
        ComparisonError: two results are not on the same texts.
    """
    first, scores = None, {name: {} for name in METRICS}
    for row in summary[summary.status.isin(collapse.RAN)].itertuples():
        directory = layout.result(row.id, row.kind, study_directory)
        table = pyarrow.parquet.read_table(directory / "predictions.parquet")
        first = first or (row.id, table)
        if not all(table[name].equals(first[1][name]) for name in ("id", "label")):
            raise ComparisonError(
                f"{directory}/predictions.parquet is not on the same texts as that of {first[0]}; delete one of the two "
                "and run it again."
            )
        probabilities = [name for name in table.column_names if name.startswith("probability_")]
        values = metrics.per_text(
            table["label"].to_numpy(), np.column_stack([table[name].to_numpy() for name in probabilities])
        )
        groups = groups_of(table)
        for name in METRICS:
            of_text = values[name] if groups is None else paired.of_groups(values[name], groups)
            scores[name][row.id] = of_text.astype(np.float32)
    return scores


def groups_of(table):
    """Number of each text's group, from 0, of a ``predictions.parquet``; None where each text stands for itself."""
    names = table.column_names if hasattr(table, "column_names") else table.columns
    return np.unique(np.asarray(table["group"]), return_inverse=True)[1] if "group" in names else None


def compare(contrast, metric, scores, of_runs, statistics):
    """The row of a contrast and metric, a dictionary with keys of ``COLUMNS``; None if nothing of it has run.

    Args:
        contrast: ``contrasts.Contrast``.
        metric: one of ``METRICS``.
        scores: id → score of each text, of that metric.
        of_runs: ``scatter.Scatter`` of that metric, None with few seeds.
        statistics: the configuration's block of that name.
    """
    units, seeds = contrasts.complete(contrast.members(of_runs))
    if not units:
        return None
    differences = _differences(units, seeds, scores) - np.float32(contrast.offset)
    (a, a_value), (b, b_value) = contrast.ends(units)
    row = {
        "family": contrast.family,
        "group": contrast.group,
        "line": contrast.line,
        "metric": metric,
        "a": a,
        "b": b,
        "a_value": a_value,
        "b_value": b_value,
        **contrast.common,
        "difference": float(differences.mean(dtype=float)),
        "n": differences.shape[2],
        "seeds": len(seeds),
        "units": len(units),
        **_with_all(contrast, units, of_runs, scores),
    }
    estimate, test = estimated(differences, units, seeds, of_runs, binary=metric in IN_POINTS)
    if estimate is None:
        return row | {"reason": test}
    row |= described(estimate, statistics["equivalence_margin"] if metric in IN_POINTS else None)
    row |= {"test": test, "p_permutation": _permutation(units, seeds, scores)}
    of_texts = np.array_equal(differences, np.rint(differences))  # a group of texts is not right or wrong
    if metric == "accuracy" and len(seeds) == len(units) == 1 and len(units[0]) == 2 and of_texts:
        row |= _two_runs(differences[0, 0], statistics)
    return row


def estimated(differences, units, seeds, of_runs, binary):
    """``paired.Estimate`` of a contrast and the test it stands for; or None and the reason.

    With ``scatter.SEEDS`` seeds or more, seeds and texts are the sample. With fewer, what several units differ by
    stands in for what runs differ by: it holds that and, beside it, true differences between units, so that the
    interval errs on the wide side. Else only the texts are left: that says nothing of other runs.

    Args:
        differences: shape (seeds, units, texts).
        binary: whether they are of right and wrong, not of a continuous score.
    """
    single = differences if binary else None
    if of_runs is None and differences.shape[1] >= PAIRS:
        return paired.estimate(differences.mean(axis=0), single), TESTS["units"]
    if of_runs is None:
        return paired.estimate(differences.mean(axis=(0, 1))[None], single), TESTS["texts"]
    known = of_runs.variance(units, seeds)
    if known is None:
        return (
            None,
            f"{len(seeds)} seed{'s' * (len(seeds) != 1)} in common, and runs that do not scatter like the others need {scatter.SEEDS}",
        )
    variance, df = known
    found = paired.estimate(differences.mean(axis=1), single)
    test = TESTS["own" if of_runs.is_alone(units) else "shared"]
    return replace(found, se_runs=float(np.sqrt(variance)), df_runs=df), test


def described(estimate, margin):
    """The columns that an estimate and the margin fill; without a margin (None) those of equivalence stay empty."""
    low, high = estimate.interval()
    if margin is not None:
        low, high = max(low, -1.0), min(high, 1.0)  # two fractions differ by no more
    row = {
        "low": low,
        "high": high,
        "se_texts": estimate.se_texts,
        "se_runs": estimate.se_runs,
        "se_fixed": estimate.se_fixed,
        "df_runs": estimate.df_runs,
        "p": estimate.p_value(),
    }
    if margin is None:
        return row
    return row | {
        "margin": margin,
        "p_equivalent": estimate.p_equivalent(margin),
        "answer": equivalence.answer(low, high, margin),
        "smallest_margin": equivalence.smallest_margin(low, high),
    }


def _with_all(contrast, units, of_runs, scores):
    """What is not in the difference, runs at chance and unstable points, and the difference with them; nothing if none."""
    lost = {run for unit in contrast.units for _, runs in unit for run in getattr(runs, "collapsed", {}).values()}
    left = of_runs.left_out(contrast.units, units) if of_runs is not None and contrast.of_grid else []
    if not lost and not left:
        return {}
    whole = [
        sum(weight * np.mean([scores[run].mean(dtype=float) for run in ids]) for weight, ids in unit)
        for unit in contrast.whole()
    ]
    found = {"difference_all": float(np.mean(whole)) - contrast.offset if whole else np.nan}
    found |= {"collapsed": len(lost)} if lost else {}
    return found | ({"left_out": ", ".join(left)} if left else {})


def estimate_of(row):
    """The ``paired.Estimate`` behind a row of the comparisons that has an interval."""
    return paired.Estimate(row.difference, row.se_texts, row.se_runs, row.se_fixed, int(row.n), row.df_runs)


def _two_runs(difference, statistics):
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    low, high = paired.bootstrap(only_a, only_b, len(difference), statistics["resamples"], statistics["seed"])
    exact = paired.mcnemar(only_a, only_b)
    return {"only_a": only_a, "only_b": only_b, "mcnemar": exact, "bootstrap_low": low, "bootstrap_high": high}


def _permutation(units, seeds, scores):
    """p of exchanging the members of each unit within each seed; NaN where there is nothing to exchange."""
    sizes = {len(unit) for unit in units}
    if any(None in runs for unit in units for _, runs in unit) or len(sizes) > 1:
        return np.nan
    if any(abs(sum(weight for weight, _ in unit)) > 1e-6 for unit in units):
        return np.nan
    blocks = [[scores[runs[seed]].mean(dtype=float) for _, runs in unit] for unit in units for seed in seeds]
    weights = [[weight for weight, _ in unit] for unit in units for _ in seeds]
    return permutation.contrast(blocks, weights)


def _differences(units, seeds, scores):
    """The weighted sums of every unit and seed, shape (seeds, units, texts)."""
    return np.array(
        [
            [
                sum(np.float32(weight) * scores[runs.get(seed, runs.get(None))] for weight, runs in unit)
                for unit in units
            ]
            for seed in seeds
        ]
    )
