"""Claims that are no contrast of cells: ratios of cost, the base model, alpha against the learning rate."""

import math
from dataclasses import replace

from lorastudy.analysis import ratios, tuning
from lorastudy.analysis.claims import checks, measuring, requirements, verdicts, words
from lorastudy.analysis.claims.rows import Row, judged
from lorastudy.statistics import equivalence, proportions
from lorastudy.study import paper

RATIO_MARGIN = 1.25  # ratios within this factor count as equal: the 80 to 125% rule of bioequivalence (Schuirmann 1987)
VERDICTS = {
    requirements.MET: verdicts.SUPPORTED,
    requirements.FAILED: verdicts.CONTRADICTED,
    requirements.UNDECIDED: verdicts.UNDECIDED,
}


def of_paper(claim, study):
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


def ratio(claim, part, study):
    """Time or memory of QLoRA over LoRA against the ratio of the paper's two numbers."""
    stated = paper.table(1, study.directory).set_index("method")[part.stated]
    number, unit = stated["qlora"] / stated["lora"], "min" if part.stated.endswith("min") else "GB"
    which = of_paper(claim, study) | {
        "number": f"ratio {number:.3g} (LoRA {stated['lora']:g} {unit}, QLoRA {stated['qlora']:g} {unit})"
    }
    found = ratios.ratio(study.cells, part.column)
    ends = [math.log(end / number) for end in (found.low, found.high)]
    outcome = requirements.outcome("equal", *ends, math.log(RATIO_MARGIN))
    means = ", ".join(
        f"{checks.NAMES[name]} {_amount(part.column, study.cells[study.cells.method.eq(name)][part.column].astype(float).mean())}"
        for name in ("lora", "qlora")
    )
    bounds = (number / RATIO_MARGIN, number * RATIO_MARGIN)
    decided = (
        f"t on logarithms of matched ratios, each the mean of its seeds: an interval within {bounds[0]:.3g} to {bounds[1]:.3g} (a factor of "
        f"{RATIO_MARGIN:g}) supports it, one beyond contradicts it"
    )
    answer = equivalence.answer(*ends, math.log(RATIO_MARGIN))
    row = of_ratio(which, found, VERDICTS[outcome], decided, bounds, f"; mean {means}")
    return replace(row, answer=answer) if found.pairs else row


def of_ratio(which, found, verdict, decided, bounds, more=""):
    """The ``Row`` of a verdict on a ``ratios.Ratio``; ``bounds`` are what its interval was held against."""
    if not found.pairs:
        reason = "No LoRA and QLoRA run that differ in the method alone on the same device."
        return Row(**which, verdict=verdicts.NOT_COVERED, found=reason, unit="ratio", checks=1)
    text = f"QLoRA over LoRA {found.value:.3g} {{around}} over {words.count(found.pairs, 'matched pair')}"
    if found.shared:
        text = text.format(around="(no interval)")
        text += f", {found.shared} processes at a time on one GPU; times of runs side by side decide nothing"
    elif math.isnan(found.low):
        text = text.format(around="(one pair, no interval)")
    else:
        text = text.format(around=words.ratio_interval(found.low, found.high, bounds))
    return Row(
        **which,
        verdict=verdict,
        found=f"{text}{more}.",
        value=found.value,
        low=found.low,
        high=found.high,
        level=0.95,
        unit="ratio",
        p=found.p if verdict != verdicts.UNDECIDED else math.nan,
        decided=decided,
        scope="runs on this device",
        checks=1,
        measured=int(not math.isnan(found.low)),
        met=int(verdict == verdicts.SUPPORTED),
        failed=int(verdict == verdicts.CONTRADICTED),
        seeds=found.seeds,
    )


def _amount(column, value):
    return f"{value / 60:.3g} min" if column == "seconds" else f"{value:.3g} GiB"


def chance(claim, part, study):
    """The base model's accuracy: an untrained head is drawn at random, so that it is judged by its distance from chance."""
    stated = float(paper.table(5, study.directory).accuracy.iloc[0])
    which = of_paper(claim, study) | {"number": f"{stated:g}"}
    base = study.results.baselines
    if part.baseline not in base.index or base.status[part.baseline] != "finished":
        return Row(**which, verdict=verdicts.NOT_COVERED, found="The base model has not been measured.", checks=1)
    row = base.loc[part.baseline]
    low, high = proportions.wilson(row.accuracy * row.n_test, row.n_test)
    margin = abs(stated - row.chance) + study.margin
    outcome = requirements.outcome("equal", low - row.chance, high - row.chance, margin)
    return Row(
        **which,
        verdict=VERDICTS[outcome],
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


def coincide(claim, part, study):
    """Cells that differ in alpha and have the same alpha times learning rate."""
    found = [
        study.measured(_crossed(of["accuracy"]), of["accuracy"])
        for of in study.rows.values()
        if "accuracy" in of and of["accuracy"].line == measuring.RATES
    ]
    if not found:
        reason = "The grid has no two cells that differ in alpha with the same alpha times learning rate."
        return Row(**of_paper(claim, study), verdict=verdicts.NOT_COVERED, found=reason)
    return judged(of_paper(claim, study), verdicts.decide(found), found, study)


def _crossed(row):
    a, b = (f"α = {float(value):g}" for value in (row.a_value, row.b_value))
    context = f"{checks.NAMES.get(row.method, row.method)}, {checks.NAMES.get(row.targets, row.targets)}, r = {row.r}"
    return checks.Check(a, b, f"{context}, α × learning rate the same", "equal", (), ())


KINDS = {"ratio": ratio, "chance": chance, "coincide": coincide}
