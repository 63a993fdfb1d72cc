"""The paper's claims read from one seed at a time: what a study with one run of each cell would have printed.

Such a study has no intervals over runs. A reader of its tables compares two numbers, and what is required of a
difference (``requirements``) is asked of the number itself: one above 0 is a lead, one within the margin is no
difference. A run that ended at chance is a number like any other. How often a claim comes out so, over the seeds,
says what one seed was worth.
"""

import math

import pandas as pd

from lorastudy.analysis import collapse, contrasts, ratios, tuning
from lorastudy.analysis.claims import catalogue, checks, measuring, requirements, stated, verdicts
from lorastudy.study import paper


def readings(summary, margin, directory=paper.DIRECTORY):
    """Whether each claim comes out with each seed.

    Args:
        summary: of ``summary.build``.
        margin: of equivalence, a fraction.

    Returns:
        data frame of True, False and None, a row a claim (its id) and a column a seed. None: cells are missing or have no
        number, times were taken side by side, or no seed is in it (the base model).
    """
    claims = catalogue.load(directory)
    seeds = sorted(summary[summary.kind.eq("cell")].seed.unique())
    read = {int(seed): _of_seed(_only(summary, seed), claims, margin, directory) for seed in seeds}
    return pd.DataFrame(read, index=[claim.id for claim in claims], dtype=object)


def counts(table):
    """``readings`` in numbers: a row a claim with ``seeds``, how many could be read, and ``came_out``, with how many it did."""
    return pd.DataFrame({"seeds": table.notna().sum(axis=1), "came_out": table.eq(True).sum(axis=1)})


def shares(table):
    """``readings`` in words, a row a claim: "3 of 10"; a dash where nothing could be read."""
    return [f"{row.came_out} of {row.seeds}" if row.seeds else "–" for row in counts(table).itertuples()]


def sentence(table, verdict):
    """What ``readings`` come to beside the verdicts on all seeds (claim → verdict)."""
    of = counts(table)
    read = of[of.seeds.gt(0)]
    single = [int(table[seed].eq(True).sum()) for seed in table]
    mixed = read.came_out.between(1, read.seeds - 1).sum()
    shown = read[read.came_out.gt(0)]
    supported = sum(verdict[claim] == verdicts.SUPPORTED for claim in shown.index)
    return (
        f"Read with one seed, {_range(single)} of {len(read)} claims come out; {mixed} do with some seeds and not with "
        f"others. Of the {len(shown)} that come out with one seed or more, all seeds together support {supported}."
    )


def _range(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _only(summary, seed):
    """The summary as it would be without the other seeds, by one who does not tell runs at chance from others."""
    ours = summary[summary.kind.ne("cell") | summary.seed.eq(seed)]
    return ours.assign(status=ours.status.where(ours.status.ne(collapse.COLLAPSED), "finished"))


def _of_seed(summary, claims, margin, directory):
    cells = summary[summary.kind.eq("cell")]
    configured = contrasts.points(tuning.views(summary)[tuning.CONFIGURED])
    measured = summary[summary.status.eq("finished")]
    accuracy = dict(zip(measured.id, measured.accuracy.astype(float)))
    baselines = [name for name in measured.id[measured.kind.eq("baseline")]]
    values = {
        contrast.group: _value(contrast, accuracy) for contrast in measuring.build(configured, baselines, directory)
    }
    planned = list(measuring.planned(configured))

    def comes_out(claim):
        (part, *_) = claim.parts
        if part.kind in checks.KINDS:
            found = enumerate(measuring.of_claim(claim, planned))
            return _all_met(
                [(check.required, values.get(measuring.key(claim, index))) for index, check in found], margin
            )
        if part.kind == "ratio":
            return _ratio(part, tuning.views(summary)[tuning.CONFIGURED], directory)
        if part.kind == "coincide":
            crossed = measuring.crossing(contrasts.points(cells))
            return _all_met([("equal", _value(contrast, accuracy)) for contrast in crossed], margin)
        return None  # of the base model, which has no seeds

    return {claim.id: comes_out(claim) for claim in claims}


def _value(contrast, accuracy):
    """A contrast of single runs: the mean of its units. None if a run has no number."""
    total = 0.0
    for unit in contrast.units:
        for weight, runs in unit:
            score = next((accuracy.get(name) for name in runs.values()), None)
            if score is None:
                return None
            total += weight * score
    return total / len(contrast.units) - contrast.offset


def _all_met(found, margin):
    """Whether what is required of each value holds of it; None without all of them."""
    if not found or any(value is None for _, value in found):
        return None
    return all(requirements.outcome(required, value, value, margin) == requirements.MET for required, value in found)


def _ratio(part, cells, directory):
    """Whether QLoRA over LoRA is within a factor of ``stated.RATIO_MARGIN`` of the ratio of the paper's numbers."""
    numbers = paper.table(1, directory).set_index("method")[part.stated]
    found = ratios.ratio(cells, part.column)
    if not found.pairs or found.shared:
        return None
    return abs(math.log(found.value * numbers["lora"] / numbers["qlora"])) < math.log(stated.RATIO_MARGIN)
