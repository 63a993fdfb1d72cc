"""The table of the paper's claims: each with its words, its number, what was found, how that was decided, the verdict."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from lorastudy.analysis import collapse, comparisons, ratios, tuning
from lorastudy.analysis.claims import catalogue, checks, measuring, requirements, verdicts, words
from lorastudy.statistics import corrections, equivalence, permutation, proportions
from lorastudy.study import grid, paper

LISTED = 4  # checks that are told one by one
RATIO_MARGIN = 1.25  # ratios within this factor count as equal: the 80 to 125% rule of bioequivalence (Schuirmann 1987)
SCOPES = {
    comparisons.TESTS["shared"]: "runs at large",
    comparisons.TESTS["own"]: "runs at large",
    comparisons.TESTS["units"]: "runs with these seeds",
    comparisons.TESTS["texts"]: "these runs",
}


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
        value, low, high, level: the effect that decided, and the interval that did; fractions of accuracy, or a ratio.
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


def table(results, directory=paper.DIRECTORY):
    """All claims of the paper as a data frame: the fields of ``Row``, and ``p_holm`` over all claims that have a p.

    Args:
        results: ``summary.Results``.
        directory: where the paper's values and claims are.
    """
    study = Study(results, directory)
    rows = [_row(claim, study) for claim in catalogue.load(directory)]
    verdict = {row.claim: row.verdict for row in rows}
    against = {claim.id: claim.contradicts for claim in catalogue.load(directory)}
    frame = framed(rows)
    frame["contradicts"] = [", ".join(f"{name} ({verdict[name]})" for name in against[row.claim]) for row in rows]
    return frame


def framed(rows):
    """``Row``s as a data frame, with p values corrected for all rows by Holm's procedure."""
    import pandas as pd

    frame = pd.DataFrame([asdict(row) for row in rows], columns=[*Row.__dataclass_fields__])
    frame["p_holm"] = np.nan
    frame.loc[frame.p.notna(), "p_holm"] = corrections.holm(frame.p.dropna())
    return frame.astype(dict.fromkeys(["n", "seeds"], "Int64"))


class Study:
    """What claims are judged on.

    Attributes:
        results: ``summary.Results``.
        margin: of equivalence, a fraction.
        rows: group of the comparisons of claims → metric → row.
        cells: cells of the summary at the configured learning rate.
        directory: where the paper's values are.
    """

    def __init__(self, results, directory=paper.DIRECTORY):
        self.results, self.directory = results, directory
        self.margin = results.settings["statistics"]["equivalence_margin"]
        self.cells = tuning.views(results.summary)[tuning.CONFIGURED]
        self.rows = {}
        of_claims = results.comparisons[results.comparisons.family.eq(measuring.FAMILY)]
        for row in of_claims.itertuples():
            self.rows.setdefault(row.group, {})[row.metric] = row
        standard = self.cells[self.cells.scaling.eq("standard")]
        keys = zip(standard.method, standard.targets, standard.r.astype(int), standard.alpha.astype(float))
        self.planned = list(dict.fromkeys(keys))

    def measured(self, check, row, margin=None):
        """``verdicts.Measured`` of a check from its row of the comparisons (None if there is none)."""
        margin = self.margin if margin is None else margin
        if row is None:
            return verdicts.Measured(check, margin=margin, lacking=self.lacking(check))
        if math.isnan(row.low):
            return verdicts.Measured(check, row, margin=margin, lacking=row.reason)
        return verdicts.Measured(check, row, comparisons.estimate_of(row), margin)

    def beside(self, row):
        """The row of the comparisons by negative log-likelihood that belongs to one by accuracy; None without."""
        every = self.results.comparisons
        same = every[every.metric.eq("nll") & every["view"].eq(row.view) & every.family.eq(row.family)]
        same = same[same.a.eq(row.a) & same.b.eq(row.b)]
        return next(same.itertuples(), None)

    def permuted(self, axis):
        """p of exchanging the values of r or alpha among the runs of a set and seed; NaN without two complete blocks.

        Over all runs, those at chance among them: that they are is something that r or alpha does.
        """
        line = grid.trend(self.results.lines, axis)
        if line is None:
            return math.nan
        ran = self.cells[self.cells.status.isin(collapse.RAN)]
        ran = ran[[point in line.points for point in zip(ran.r, ran.alpha)]]
        blocks = ran.pivot_table(index=["method", "targets", "scaling", "seed"], columns=axis, values="accuracy")
        blocks = blocks.dropna() if blocks.shape[1] == len(line.points) else blocks.iloc[:0]
        return permutation.spread(blocks.to_numpy()) if len(blocks) > 1 else math.nan

    def lacking(self, check):
        cells = set(check.cells)
        if absent := sorted(cells - set(self.planned)):
            named = ", ".join(
                f"r = {r:g}, α = {alpha:g}" for r, alpha in list(dict.fromkeys(c[2:] for c in absent))[:3]
            )
            more = " and more" if len({cell[2:] for cell in absent}) > 3 else ""
            sets = {cell[:2] for cell in absent}
            of = "" if len(sets) > 1 else " of " + " on ".join(checks.NAMES.get(name, name) for name in sets.pop())
            return f"the grid has no {named}{more}{of}"
        return "not all of its cells have run"


def _row(claim, study):
    kind = claim.parts[0].kind
    if kind in _OTHERS:
        return _OTHERS[kind](claim, claim.parts[0], study)
    found = [
        study.measured(check, study.rows.get(measuring.key(claim, place), {}).get("accuracy"))
        for place, check in enumerate(measuring.of_claim(claim, study.planned))
    ]
    return judged(_of_paper(claim, study), verdicts.decide(found), found, study)


def _of_paper(claim, study):
    """The fields of ``Row`` that say which claim it is."""
    numbers = list(dict.fromkeys(f"{part.number:g}" for part in claim.parts if part.number is not None))
    return {
        "claim": claim.id,
        "view": tuning.CONFIGURED,
        "section": claim.section,
        "figure": claim.figure,
        "statement": claim.says,
        "number": ", ".join(numbers),
    }


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
        found=_found(verdict, found) + extra,
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
    import pandas as pd

    row, parts = decisive.row, []
    beside = study.rows.get(row.group, {}).get("nll") if row.family == measuring.FAMILY else study.beside(row)
    if beside is not None and not math.isnan(beside.low) and decisive.check.number is None:
        ends = words.interval(beside.low, beside.high, form=lambda end: words.signed(end, 3))
        parts.append(f"negative log-likelihood {words.signed(beside.difference, 3)} {ends} nats (less is better)")
    if not math.isnan(row.p_permutation):
        parts.append(f"permutation within seeds p = {row.p_permutation:.2g}")
    if not pd.isna(row.collapsed):
        parts.append(
            f"{words.count(row.collapsed, 'run')} at chance left out, with {'it' if row.collapsed == 1 else 'them'} "
            f"{words.points(row.difference_all)} points"
        )
    return "; ".join(parts)


def _ratio(claim, part, study):
    """Time or memory of QLoRA over LoRA against the ratio of the paper's two numbers."""
    stated = paper.table(1, study.directory).set_index("method")[part.stated]
    number, unit = stated["qlora"] / stated["lora"], "min" if part.stated.endswith("min") else "GB"
    which = _of_paper(claim, study) | {
        "number": f"ratio {number:.3g} (LoRA {stated['lora']:g} {unit}, QLoRA {stated['qlora']:g} {unit})"
    }
    ratio = ratios.ratio(study.cells, part.column)
    if not ratio.pairs:
        reason = "No LoRA and QLoRA run that differ in the method alone on the same device."
        return Row(**which, verdict=verdicts.NOT_COVERED, found=reason, unit="ratio", checks=1)
    ends = [math.log(end / number) for end in (ratio.low, ratio.high)]
    outcome = requirements.outcome("equal", *ends, math.log(RATIO_MARGIN))
    means = ", ".join(
        f"{checks.NAMES[name]} {_amount(part.column, study.cells[study.cells.method.eq(name)][part.column].astype(float).mean())}"
        for name in ("lora", "qlora")
    )
    return Row(
        **which,
        verdict=_VERDICT[outcome],
        found=f"{ratio_words(ratio)}; mean {means}.",
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        level=0.95,
        unit="ratio",
        answer=equivalence.answer(*ends, math.log(RATIO_MARGIN)),
        decided=f"t on logarithms of matched ratios, each the mean of its seeds: an interval within {number / RATIO_MARGIN:.3g} to "
        f"{number * RATIO_MARGIN:.3g} (a factor of {RATIO_MARGIN:g}) supports it, one beyond contradicts it",
        scope="runs on this device",
        checks=1,
        measured=1,
        met=int(outcome == requirements.MET),
        failed=int(outcome == requirements.FAILED),
        seeds=ratio.seeds,
    )


def ratio_words(ratio):
    """A ``ratios.Ratio`` in words, and why it has no interval if it has none."""
    over = f"over {words.count(ratio.pairs, 'matched pair')}"
    if ratio.shared:
        return (
            f"QLoRA over LoRA {ratio.value:.3g} {over}, {ratio.shared} processes at a time on one GPU; times of runs side by "
            "side decide nothing"
        )
    around = (
        "(one pair, no interval)"
        if math.isnan(ratio.low)
        else words.interval(ratio.low, ratio.high, form="{:.3g}".format)
    )
    return f"QLoRA over LoRA {ratio.value:.3g} {around} {over}"


def _amount(column, value):
    return f"{value / 60:.3g} min" if column == "seconds" else f"{value:.3g} GiB"


def _chance(claim, part, study):
    """The base model's accuracy: an untrained head is drawn at random, so that it is judged by its distance from chance."""
    stated = float(paper.table(5, study.directory).accuracy.iloc[0])
    which = _of_paper(claim, study) | {"number": f"{stated:g}"}
    base = study.results.baselines
    if part.baseline not in base.index or base.status[part.baseline] != "finished":
        return Row(**which, verdict=verdicts.NOT_COVERED, found="The base model has not been measured.", checks=1)
    row = base.loc[part.baseline]
    low, high = proportions.wilson(row.accuracy * row.n_test, row.n_test)
    margin = abs(stated - row.chance) + study.margin
    outcome = requirements.outcome("equal", low - row.chance, high - row.chance, margin)
    return Row(
        **which,
        verdict=_VERDICT[outcome],
        found=f"{row.accuracy:.4f} {words.interval(low, high, form='{:.4f}'.format)}; chance is {row.chance:.3g}.",
        value=row.accuracy,
        low=low,
        high=high,
        level=0.95,
        answer=equivalence.answer(low - row.chance, high - row.chance, margin),
        smallest_margin=equivalence.smallest_margin(low - row.chance, high - row.chance),
        decided=f"Wilson's interval over the texts: an untrained head is drawn at random, so one within ± "
        f"{100 * margin:.3g} points of chance, as near as the paper's number and {words.margin(study.margin)} more, "
        "supports it, one beyond contradicts it",
        scope="this head",
        checks=1,
        measured=1,
        met=int(outcome == requirements.MET),
        failed=int(outcome == requirements.FAILED),
        n=int(row.n_test),
    )


def _coincide(claim, part, study):
    """Cells that differ in alpha and have the same alpha times learning rate."""
    found = [
        study.measured(_crossed(of["accuracy"]), of["accuracy"])
        for of in study.rows.values()
        if "accuracy" in of and of["accuracy"].line == measuring.RATES
    ]
    if not found:
        reason = "The grid has no two cells that differ in alpha with the same alpha times learning rate."
        return Row(**_of_paper(claim, study), verdict=verdicts.NOT_COVERED, found=reason)
    return judged(_of_paper(claim, study), verdicts.decide(found), found, study)


def _crossed(row):
    a, b = (f"α = {float(value):g}" for value in (row.a_value, row.b_value))
    context = f"{checks.NAMES.get(row.method, row.method)}, {checks.NAMES.get(row.targets, row.targets)}, r = {row.r}"
    return checks.Check(a, b, f"{context}, α × learning rate the same", "equal", (), ())


_VERDICT = {
    requirements.MET: verdicts.SUPPORTED,
    requirements.FAILED: verdicts.CONTRADICTED,
    requirements.UNDECIDED: verdicts.UNDECIDED,
}
_OTHERS = {"ratio": _ratio, "chance": _chance, "coincide": _coincide}
