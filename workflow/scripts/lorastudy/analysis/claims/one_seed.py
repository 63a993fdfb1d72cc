"""The paper's claims read from one seed at a time: what a study with one run of each cell would have printed.

Such a study has no intervals over runs. A reader of its tables compares two numbers, and what is required of a
difference (``requirements``) is asked of the number itself: one above 0 is a lead, one within the margin is no
difference. A run that ended at chance is a number like any other. How often a claim comes out so, over the seeds,
says what one seed was worth.
"""

import math

import pandas as pd

from lorastudy.analysis import collapse, contrasts, ratios, tuning
from lorastudy.analysis.claims import catalogue, measuring, requirements, stated, verdicts
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
    # by one who does not tell runs at chance from others
    known = summary.assign(status=summary.status.where(summary.status.ne(collapse.COLLAPSED), "finished"))
    cells, configured = known[known.kind.eq("cell")], tuning.views(known)[tuning.CONFIGURED]
    measured = known[known.status.eq("finished")]
    accuracy = dict(zip(measured.id, measured.accuracy.astype(float)))
    required = _required(cells, configured, list(measured.id[measured.kind.eq("baseline")]), directory)

    def comes_out(claim, seed):
        (part, *_) = claim.parts
        if part.kind == "ratio":
            return _ratio(part, configured[configured.seed.eq(seed)], directory)
        return _all_met(required[claim.id], seed, accuracy, margin)

    claims, seeds = catalogue.load(directory), sorted({int(seed) for seed in cells.seed})
    table = {seed: [comes_out(claim, seed) for claim in claims] for seed in seeds}
    return pd.DataFrame(table, index=[claim.id for claim in claims], dtype=object)


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
        f"A reader of one seed alone would have found {_range(single)} of {len(read)} claims confirmed; on {mixed} of them seeds "
        f"disagree. Of the {len(shown)} that one seed or more confirms, all seeds together support {supported}."
    )


def _range(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _required(cells, configured, baselines, directory):
    """Claim → (what is required, ``Contrast`` of which) of each of its comparisons; None for one that the grid lacks."""
    points = contrasts.points(configured)
    built = {contrast.group: contrast for contrast in measuring.build(points, baselines, directory)}
    planned, found = list(measuring.planned(points)), {}
    for claim in catalogue.load(directory):
        checked = enumerate(measuring.of_claim(claim, planned))
        found[claim.id] = [(check.required, built.get(measuring.key(claim, index))) for index, check in checked]
        if claim.parts[0].kind == "coincide":
            found[claim.id] = [("equal", contrast) for contrast in measuring.crossing(contrasts.points(cells))]
    return found


def _all_met(required, seed, accuracy, margin):
    """Whether what is required of each contrast holds of the runs of a seed; None without all of them."""
    values = [(name, _value(contrast, seed, accuracy)) for name, contrast in required]
    if not values or any(value is None for _, value in values):
        return None
    return all(requirements.outcome(name, value, value, margin) == requirements.MET for name, value in values)


def _value(contrast, seed, accuracy):
    """A contrast between runs of one seed: the mean of its units. None if one has no number."""
    if contrast is None:
        return None
    ran = [(weight, runs.get(seed, runs.get(None))) for unit in contrast.units for weight, runs in unit]
    if any(name not in accuracy for _, name in ran):
        return None
    return sum(weight * accuracy[name] for weight, name in ran) / len(contrast.units) - contrast.offset


def _ratio(part, cells, directory):
    """Whether QLoRA over LoRA is within a factor of ``stated.RATIO_MARGIN`` of the ratio of the paper's numbers."""
    numbers = paper.table(1, directory).set_index("method")[part.stated]
    found = ratios.ratio(cells, part.column)
    if not found.pairs or found.shared:
        return None
    return abs(math.log(found.value * numbers["lora"] / numbers["qlora"])) < math.log(stated.RATIO_MARGIN)
