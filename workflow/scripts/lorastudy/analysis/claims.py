"""The paper's questions as claims, and what the study's data says about each: supported, contradicted or open.

The material at hand (tables, headings, abstract) states base accuracy, memory and time, and *asks* the rest; a claim
is the reading of a question that data can support or contradict. The tests, all at 5% on the paired comparisons of
``comparisons``:

- ``greater`` (a is better than b): supported when a is ahead and the difference is shown, contradicted when it is shown
  to be less than the margin (its 95% interval lies above 0, or below the margin). A difference below the margin counts
  as none unless it is shown to be one.
- ``depends`` (accuracy depends on r): supported when any two values differ, or there is a trend, after Holm's
  correction for all of these tests; contradicted when all values have run and every two of them are equivalent.
- ``equal`` (a is as good as b): supported when two one-sided tests show the difference to be within the margin;
  contradicted when it is shown to be beyond the margin on either side.
- ``ratio``: supported when the 95% interval of the ratio lies on the claimed side of 1, contradicted when it lies on
  the other.

Otherwise a claim is open: the study is too small to tell. So it is where an average has too few pairs for a test.
"""

import math
from dataclasses import asdict, dataclass

from lorastudy.analysis import ratios, tuning
from lorastudy.statistics import corrections, paired
from lorastudy.study import paper

LEVEL = 0.05
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "open"
NAMES = {
    "lora": "LoRA",
    "qlora": "QLoRA",
    "attention": "attention",
    "all-linear": "all-linear",
    "head": "untrained head",
    "prompt": "prompting",
}


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict: a row of the table of claims.

    Attributes:
        claim: short name, letters and underscores.
        view: which cells it is judged on (``tuning.views``).
        statement: the claim in words.
        paper: what the paper states or asks.
        verdict: ``supported``, ``contradicted`` or ``open``.
        found: what was found, in words.
        value, low, high, unit: the quantity behind the verdict with its interval; accuracies are fractions.
        test: how the verdict was reached.
        p_supported, p_contradicted: p of the test that supports the claim and of that which contradicts it, each
            small when the data does; NaN where there is none.
        n, seeds, units: test texts, seeds, and differences averaged.
    """

    claim: str
    view: str
    statement: str
    paper: str
    verdict: str
    found: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = "accuracy"
    test: str = ""
    p_supported: float = math.nan
    p_contradicted: float = math.nan
    n: int | None = None
    seeds: int | None = None
    units: int | None = None


def build(results, directory=paper.DIRECTORY):
    """All claims of a study, as a data frame with the fields of ``Claim`` as columns.

    With tuned learning rates, the claims about accuracy have a row for either view.

    Args:
        results: ``summary.Results``.
        directory: where the paper's values are.
    """
    import pandas as pd

    margin = results.settings["statistics"]["equivalence_margin"]
    found = []
    for view, cells in tuning.views(results.summary).items():
        of_view = results.comparisons[results.comparisons["view"].eq(view)]
        found += about_accuracy(of_view, results.settings["grid"], results.lines, margin, view, directory)
        if view == tuning.CONFIGURED:
            found += _costs(cells, directory)
    table = pd.DataFrame([asdict(claim) for claim in found])
    table = table.astype(dict.fromkeys(["n", "seeds", "units"], "Int64"))
    return table if results.settings["study"]["paper"] else table.drop(columns="paper")


def about_accuracy(comparisons, grid, lines, margin, view=tuning.CONFIGURED, directory=paper.DIRECTORY):
    """The claims that are about accuracy, as a list of ``Claim``.

    Args:
        comparisons: of ``comparisons.build``, of one view.
        grid: the configuration's block of that name.
        lines: the grid's lines.
        margin: difference in accuracy below which two cells count as equally good.
    """
    study = _View(view, comparisons[comparisons.metric.eq("accuracy")], grid, lines, margin)
    return [
        *_gains(study, directory),
        _depends(study, "r", "alpha"),
        _depends(study, "alpha", "r"),
        _targets(study),
        _methods(study),
    ]


@dataclass(frozen=True)
class _View:
    name: str
    comparisons: "pd.DataFrame"  # noqa: F821
    grid: dict
    lines: tuple
    margin: float

    def family(self, name):
        return self.comparisons[self.comparisons.family.eq(name)]


def estimate_of(row):
    """The ``paired.Estimate`` behind a row of the comparisons."""
    return paired.Estimate(row.difference, row.se_texts, row.se_runs, row.se_fixed, int(row.n), row.df_runs)


def _size(row):
    return {"n": int(row.n), "seeds": int(row.seeds), "units": int(row.units)}


def greater(row, margin):
    """Verdict on a being better than b, with the two p values. ``row`` is a row of the comparisons."""
    if math.isnan(row.p):
        return OPEN, math.nan, math.nan
    ahead = row.p if row.difference > 0 else 1 - row.p / 2
    not_ahead = min(1.0, 2 * estimate_of(row).p_below(margin))
    verdict = SUPPORTED if ahead < LEVEL else CONTRADICTED if not_ahead < LEVEL else OPEN
    return verdict, ahead, not_ahead


def equal(row, margin):
    """Verdict on a being as good as b, with the two p values."""
    if math.isnan(row.p):
        return OPEN, math.nan, math.nan
    estimate = estimate_of(row)
    beyond = min(1.0, 2 * min(estimate.p_above(margin), estimate.p_below(-margin)))
    verdict = SUPPORTED if row.p_equivalent < LEVEL else CONTRADICTED if beyond < LEVEL else OPEN
    return verdict, row.p_equivalent, beyond


def depends(pairs, trend, all_values):
    """Verdict on the accuracy depending on what the pairs differ in, with the two p values.

    Args:
        pairs: rows of the comparisons, any two values of an axis.
        trend: rows of the trend along it.
        all_values: whether every two of the study's values are among the pairs.
    """
    differs = float(corrections.holm([*pairs.p.dropna(), *trend.p.dropna()]).min(initial=math.inf))
    differs = differs if math.isfinite(differs) else math.nan
    alike = float(pairs.p_equivalent.max(skipna=False)) if all_values else math.nan
    verdict = SUPPORTED if differs < LEVEL else CONTRADICTED if alike < LEVEL else OPEN
    return verdict, differs, alike


def _gains(study, directory):
    stated = paper.table(5, directory).accuracy.iloc[0]
    pooled = study.family("pooled_baseline")
    for baseline in ("head", "prompt"):
        for method in study.grid["methods"]:
            rows = pooled[pooled.a.eq(method) & pooled.b.eq(baseline)]
            claim = {
                "claim": f"gain_{method}_{baseline}",
                "view": study.name,
                "statement": f"{NAMES[method]} improves on the base model ({NAMES[baseline]}).",
                "paper": f"Asks how much each method gains; base model's accuracy {stated} (Table 5).",
            }
            if rows.empty:
                yield _nothing(claim, f"no finished {NAMES[method]} cell, or no baseline")
                continue
            row = rows.iloc[0]
            verdict, ahead, not_ahead = greater(row, study.margin)
            cells = study.family("baseline")
            cells = cells[cells.method.eq(method) & cells.b.eq(baseline)]
            better = int((cells.p_holm.lt(LEVEL) & cells.difference.gt(0)).sum())
            yield Claim(
                **claim,
                verdict=verdict,
                found=f"{NAMES[method]} {_points(row)} on average over {_count(row.units, 'point')} of the grid; "
                f"{better} of {len(cells)} better one by one after correction.",
                value=row.difference,
                low=row.low,
                high=row.high,
                test=_test(row, f"against no difference, and against {_margin(study)}"),
                p_supported=ahead,
                p_contradicted=not_ahead,
                **_size(row),
            )


def _depends(study, axis, other):
    claim = {
        "claim": axis,
        "view": study.name,
        "statement": f"Accuracy depends on {axis} at constant {other}.",
        "paper": f"Asks which {axis} is best (section {'3.2' if axis == 'r' else '3.1'}); its answer is not in the material at hand.",
    }
    pairs, trend = study.family(f"pooled_{axis}_pair"), study.family(f"pooled_{axis}_trend")
    if pairs.empty:
        return _nothing(claim, f"fewer than two values of {axis} have finished")
    along = [part for line in study.lines for part in line.along(axis)]
    values = sorted({float(point[axis == "alpha"]) for line in along for point in line.points})
    measured = sorted({float(value) for value in [*pairs.a_value, *pairs.b_value]})
    verdict, differs, alike = depends(pairs, trend, measured == values)
    widest = pairs.loc[pairs.difference.abs().idxmax()]
    tested = [row for rows in (pairs, trend) for row in rows.itertuples() if not math.isnan(row.p)]
    low = high = math.nan
    if not math.isnan(widest.p):
        low, high = (
            max(-1.0, min(1.0, end)) for end in estimate_of(widest).interval(1 - LEVEL / pairs.p.notna().sum())
        )
    best, beside = _best(pairs, axis)
    found = f"Highest at {axis} = {best:g}"
    if beside:
        found += f", not distinguishable from {axis} = {', '.join(f'{value:g}' for value in beside)}"
    first, second = (widest.a, widest.b) if widest.difference >= 0 else (widest.b, widest.a)
    found += f"; largest difference: {first} {_points(widest, low, high, sign=1)} against {second}"
    if (tried := pairs.p.notna().sum()) > 1:
        found += f" (interval for all {tried} pairs at once)"
    if alike < LEVEL:
        found += f"; every two values are equal within {_margin(study)}"
    if len(trend):
        row = trend.iloc[0]
        found += f"; along the trend {row.a} {_points(row)} against {row.b}"
    if measured != values:
        found += f"; not all values have run: {', '.join(f'{v:g}' for v in values if v not in measured)}"
    return Claim(
        **claim,
        verdict=verdict,
        found=found + ".",
        value=widest.difference,
        low=low,
        high=high,
        test=_test(
            tested[0] if tested else widest,
            f"any two of {len(measured)} values and the trend on log2, Holm over {len(tested)} tests; two one-sided "
            f"tests of every pair against {_margin(study)}",
        ),
        p_supported=differs,
        p_contradicted=alike,
        **_size(widest),
    )


def _best(pairs, axis):
    """The value that is ahead of all others, and those that are not shown to be behind it."""
    values = sorted({float(value) for value in [*pairs.a_value, *pairs.b_value]})
    against = {value: {} for value in values}
    for row in pairs.itertuples():
        a, b = float(row.a_value), float(row.b_value)
        against[a][b], against[b][a] = (row.difference, row.p_holm), (-row.difference, row.p_holm)
    best = max(values, key=lambda value: sum(difference for difference, _ in against[value].values()))
    return best, [value for value, (_, p) in against[best].items() if not p < LEVEL]  # nor is one without a test


def _targets(study):
    claim = {
        "claim": "targets",
        "view": study.name,
        "statement": "Adapting all linear layers gives a higher accuracy than attention alone.",
        "paper": "Asks whether all linear layers beat attention alone; its answer is not in the material at hand.",
    }
    rows = study.family("pooled_targets")
    if rows.empty:
        return _nothing(claim, "no two finished cells that differ in the target set alone")
    row = rows.iloc[0]
    verdict, ahead, not_ahead = greater(row, study.margin)
    return Claim(
        **claim,
        verdict=verdict,
        found=f"All linear layers {_points(row)} on average over {_count(row.units, 'matched pair')}; "
        f"{_one_by_one(study, 'targets')}.",
        value=row.difference,
        low=row.low,
        high=row.high,
        test=_test(row, f"against no difference, and against {_margin(study)}"),
        p_supported=ahead,
        p_contradicted=not_ahead,
        **_size(row),
    )


def _methods(study):
    claim = {
        "claim": "method_accuracy",
        "view": study.name,
        "statement": f"QLoRA is as accurate as LoRA, within {_margin(study)}.",
        "paper": "Asks what QLoRA trades for its memory (section 3.3); accuracies are not in the material at hand.",
    }
    rows = study.family("pooled_method")
    if rows.empty:
        return _nothing(claim, "no two finished cells that differ in the method alone")
    row = rows.iloc[0]
    verdict, within, beyond = equal(row, study.margin)
    return Claim(
        **claim,
        verdict=verdict,
        found=f"LoRA {_points(row)} on average over {_count(row.units, 'matched pair')}; "
        f"{_one_by_one(study, 'method')}.",
        value=row.difference,
        low=row.low,
        high=row.high,
        test=_test(row, f"two one-sided tests against {_margin(study)}"),
        p_supported=within,
        p_contradicted=beyond,
        **_size(row),
    )


def _one_by_one(study, family):
    cells = study.family(family)
    return f"{int(cells.p_holm.lt(LEVEL).sum())} of {len(cells)} pairs differ one by one after correction"


def _costs(cells, directory):
    stated = paper.table(1, directory).set_index("method")
    minutes, gib = stated.finetune_time_min, stated.memory_gb
    texts = {
        "memory": (
            "peak_memory_gib",
            "QLoRA needs less memory than LoRA.",
            f"LoRA {gib['lora']:g} GB, QLoRA {gib['qlora']:g} GB: ratio {gib['qlora'] / gib['lora']:.3g} (Table 1).",
            -1,
        ),
        "time": (
            "seconds",
            "QLoRA takes longer to fine-tune than LoRA.",
            f"LoRA {minutes['lora']:g} min, QLoRA {minutes['qlora']:g} min: "
            f"ratio {minutes['qlora'] / minutes['lora']:.3g} (Table 1).",
            1,
        ),
    }
    for name, (column, statement, says, side) in texts.items():
        claim = {"claim": name, "view": tuning.CONFIGURED, "statement": statement, "paper": says}
        ratio = ratios.ratio(cells, column)
        if not ratio.pairs:
            yield _nothing(claim, "no LoRA and QLoRA cell that differ in the method alone and ran on the same device")
            continue
        verdict = OPEN
        if ratio.p < LEVEL:
            verdict = SUPPORTED if (ratio.value - 1) * side > 0 else CONTRADICTED
        pairs = ratios.matched(cells, column)
        what = f"peak of the {pairs.memory_meter.iloc[0]}" if name == "memory" else "time of the training loop"
        if ratio.shared:
            what += f", {ratio.shared} processes at a time on one GPU"
        elif name == "time" and ratios.crowd(cells[cells.status.eq("finished")]):
            what += ", of pairs that had their GPU to themselves"
        found = f"Ratio QLoRA / LoRA {ratio.value:.3g}"
        if not math.isnan(ratio.low):
            found += f" [{ratio.low:.3g}, {ratio.high:.3g}]"
        elif ratio.pairs == 1:
            found += " (one pair, no interval)"
        yield Claim(
            **claim,
            verdict=verdict,
            found=f"{found} over {_count(ratio.pairs, 'matched pair')} ({what}, {', '.join(sorted(set(pairs.device)))})"
            f"{'; times of runs side by side decide nothing' * bool(ratio.shared)}.",
            value=ratio.value,
            low=ratio.low,
            high=ratio.high,
            unit="ratio",
            test="" if math.isnan(ratio.p) else "t on the logarithms of matched ratios, over conditions",
            p_supported=ratio.p if (ratio.value - 1) * side > 0 else 1 - ratio.p / 2,
            p_contradicted=ratio.p if (ratio.value - 1) * side < 0 else 1 - ratio.p / 2,
            seeds=ratio.seeds,
            units=ratio.pairs,
        )


def _nothing(claim, reason):
    return Claim(**claim, verdict=OPEN, found=f"Nothing to compare: {reason}.")


def _points(row, low=None, high=None, sign=None):
    """A difference of accuracies in percentage points with its interval, in words; ``sign`` 1 turns it to be positive."""
    low, high = (row.low, row.high) if low is None else (low, high)
    side = 1 if row.difference >= 0 else -1
    low, high = sorted((side * low, side * high))
    way = "ahead" if side == 1 or sign == 1 else "behind"
    around = f"({row.reason})" if math.isnan(row.p) else f"[{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")
    return f"{way} by {100 * abs(row.difference):.1f} points {around}"


def _test(row, what):
    """How a verdict was reached; empty where there was no test."""
    return "" if math.isnan(row.p) else f"{row.test}: {what}"


def _margin(study):
    return f"{100 * study.margin:g} points"


def _count(number, what):
    return f"{int(number)} {what}{'' if number == 1 else 's'}"
