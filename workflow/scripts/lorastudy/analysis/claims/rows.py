"""A claim or question with its verdict, as a row of a table, and how a verdict on contrasts is told."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lorastudy.analysis import comparisons
from lorastudy.analysis.claims import measuring, words
from lorastudy.statistics import corrections, equivalence

LISTED = 4  # checks that are told one by one
SCOPES = {
    comparisons.TESTS["shared"]: "runs at large",
    comparisons.TESTS["own"]: "runs at large",
    comparisons.TESTS["units"]: "runs with these seeds",
    comparisons.TESTS["texts"]: "these runs",
}
SCOPES |= {of_groups: SCOPES[test] for test, of_groups in comparisons.OF_GROUPS.items()}


@dataclass(frozen=True)
class Row:
    """A claim or question with its verdict: a row of its table.

    Attributes:
        claim: its id.
        view: the learning rates that it is judged at (``tuning.views``).
        section, figure: of the paper; empty for a question of the study.
        statement: in words.
        number: what the paper states as a number, in words; empty if it states none.
        verdict: ``supported``, ``contradicted``, ``undecided`` or ``not covered``.
        found: effect and interval, in words.
        value, low, high, level: the effect that decided, and the interval that did; fractions of accuracy (of a claim that
            states one, the difference to it), or a ratio.
        unit: ``accuracy`` or ``ratio``.
        answer, smallest_margin: what that interval says of the margin (``equivalence``).
        p: of what the verdict says, corrected for the comparisons within the claim.
        decided: how, in words.
        beside: what other tests say: negative log-likelihood, permutation, runs that collapsed.
        scope: what the verdict is about: runs at large, or no more than these.
        checks, measured, met, failed: how many comparisons.
        n, seeds: texts and seeds.
        contradicts: ids of the claims that cannot hold with it, each with its verdict.
    """

    claim: str
    view: str
    statement: str
    verdict: str
    found: str
    section: str = ""
    figure: str = ""
    number: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    level: float = math.nan
    unit: str = "accuracy"
    answer: str = ""
    smallest_margin: float = math.nan
    p: float = math.nan
    decided: str = ""
    beside: str = ""
    scope: str = ""
    checks: int = 0
    measured: int = 0
    met: int = 0
    failed: int = 0
    n: int | None = None
    seeds: int | None = None
    contradicts: str = ""


def framed(rows):
    """``Row``s as a data frame, with p values corrected for all rows by Holm's procedure."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=[*Row.__dataclass_fields__])
    frame["p_holm"] = np.nan
    frame.loc[frame.p.notna(), "p_holm"] = corrections.holm(frame.p.dropna())
    return frame.astype(dict.fromkeys(["n", "seeds"], "Int64"))


def judged(which, verdict, found, study, extra=""):
    """The ``Row`` of a verdict that rests on contrasts.

    Args:
        which: fields that say which claim or question it is.
        verdict: ``verdicts.Verdict``.
        found: its list of ``verdicts.Measured``.
        extra: a sentence for what was found.
    """
    counts = {"checks": verdict.all, "measured": verdict.measured, "met": verdict.met, "failed": verdict.failed}
    if verdict.decisive is None:
        why = "; ".join(verdict.lacking) or "nothing to compare"
        return Row(**which, verdict=verdict.verdict, found=f"{why[0].upper()}{why[1:]}.", **counts)
    row, reading = verdict.decisive.row, verdict.reading
    return Row(
        **which,
        verdict=verdict.verdict,
        found=_found(verdict, found) + extra + _without(row),
        value=row.difference,
        low=reading.low,
        high=reading.high,
        level=reading.level,
        answer=reading.answer,
        smallest_margin=equivalence.smallest_margin(reading.low, reading.high),
        p=verdict.p,
        decided=_decided(verdict, row),
        beside=_beside(verdict.decisive, study),
        scope=SCOPES[row.test],
        n=int(row.n),
        seeds=int(row.seeds),
        **counts,
    )


def _found(verdict, found):
    """What was measured: all of a few comparisons, or the one that decided and how many there are."""
    known = [one for one in found if one.estimate is not None]
    if len(known) <= LISTED:
        parts = [
            words.difference(
                one.check,
                one.row.difference,
                verdict.reading if one is verdict.decisive else one.read(0.95),
                one.margin,
            )
            for one in known
        ]
        text = "; ".join(dict.fromkeys(parts))
    else:
        one = verdict.decisive
        text = words.difference(one.check, one.row.difference, verdict.reading, one.margin)
        text += f"; of {len(known)} comparisons {verdict.met} hold and {verdict.failed} fail"
    if verdict.lacking:
        text += f"; {verdict.measured} of {verdict.all} comparisons could be made: {'; '.join(verdict.lacking)}"
    return f"{text}."


def _without(row):
    return "" if pd.isna(row.left_out) else f" Without {row.left_out}, where runs scatter far more than elsewhere."


def _decided(verdict, row):
    margin = words.margin(verdict.decisive.margin)
    required = {
        "ahead": f"an interval above 0 supports it, one below 0 or within ± {margin} contradicts it",
        "beyond": f"an interval above {margin} supports it, one below contradicts it",
        "equal": f"an interval within ± {margin} supports it, one beyond contradicts it",
        "not_below": f"an interval above −{margin} supports it, one below contradicts it",
    }[verdict.decisive.check.required]
    many = ""
    if verdict.measured > 1:
        many = f"; every one of {verdict.all} comparisons has to hold at 95%, or one to fail with all {verdict.measured} at once"
    return f"{row.test}: {required}{many}"


def _beside(decisive, study):
    """What else is known of the comparison that decided."""
    row, parts = decisive.row, []
    beside = study.rows.get(row.group, {}).get("nll") if row.family == measuring.FAMILY else study.beside(row)
    if beside is not None and not math.isnan(beside.low) and decisive.check.number is None:
        ends = words.interval(beside.low, beside.high, form=lambda end: words.signed(end, 3))
        over = "" if beside.units == row.units else f" over {words.count(beside.units, 'pair')}"  # others scatter by it
        parts.append(f"negative log-likelihood {words.signed(beside.difference, 3)} {ends} nats{over} (less is better)")
    if not math.isnan(row.p_permutation):
        parts.append(f"permutation within seeds p = {row.p_permutation:.2g}")
    left = [] if pd.isna(row.collapsed) else [words.count(row.collapsed, "run") + " at chance"]
    left += (
        [] if pd.isna(row.left_out) else [f"the pairs at {row.left_out}, where runs scatter far more than elsewhere"]
    )
    if left:
        parts.append(f"left out: {' and '.join(left)}; with all of it {words.points(row.difference_all)} points")
    return "; ".join(parts)
