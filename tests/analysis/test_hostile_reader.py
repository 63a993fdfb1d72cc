"""A hostile reader: over random studies, every interval as it is printed, read alone, says what its verdict says."""

import math
import re

import numpy as np
import pytest
import simulation
from lorastudy.analysis.claims import catalogue, judging, measuring, questions, verdicts
from lorastudy.statistics import equivalence

PRINTED = re.compile(r"points \[([^,\]]+), ([^\]]+)\]")
PRINTED_AT_ONCE = re.compile(r", \[([^,\]]+), ([^\]]+)\] \([\d.]+%\) for all pairs at once")
LINES = ({"r": {"r": [8, 16, 64], "alpha": 32}, "alpha": {"r": 16, "alpha": [16, 32, 256]}},
         {"r": {"r": [1, 8, 64, 512], "alpha_ratio": 2}, "alpha": {"r": 8, "alpha": [8, 16, 32, 64]}})  # fmt: skip


def study(seed):
    """A random study: effects from none to some points, quiet and noisy seeds, one to five of them, some that collapse."""
    generator = np.random.default_rng(seed)
    effects = {axis: generator.choice([0.0, 0.003, 0.01, 0.03]) for axis in ("method", "targets", "r", "alpha")}
    spread = generator.choice([0.0, 0.5, 1.0, 3.0])
    chance = generator.choice([0.0, 0.0, 0.3])

    def accuracy(cell):
        return (
            0.58
            + effects["method"] * (cell.method == "lora")
            + effects["targets"] * (cell.targets == "all-linear")
            + effects["r"] * (cell.r >= 64)
            - effects["alpha"] * (cell.alpha >= 64)
        )

    world = simulation.World(
        f"random {seed}", accuracy, LINES[seed % 2], seeds=int(generator.integers(1, 6)),
        texts=int(generator.choice([200, 1600, 10_000])), scatter={name: spread * size for name, size in simulation.USUAL.items()},
        collapses=lambda cell: chance * (cell.alpha >= 128), ratios=(float(generator.uniform(0.9, 11)), float(generator.uniform(0.3, 1.1))),
        claims=bool(seed % 2),
    )  # fmt: skip
    return simulation.draw(generator, world).results()[0]


def says(low, high, required, margin):
    """What an interval that stands alone says of a statement, by the words of docs/statistics.md."""
    met, failed = {
        "ahead": (low > 0, high < 0 or -margin < low and high < margin),
        "equal": (-margin < low and high < margin, low > margin or high < -margin),
        "beyond": (low > margin, high < margin),
        "not_below": (low > -margin, high < -margin),
    }[required]
    return "supported" if met else "contradicted" if failed else "undecided"


def percent(text):
    return float(text.replace("−", "-")) / 100


@pytest.mark.parametrize("part", range(4))
def test_no_printed_interval_contradicts_its_verdict(part):
    """Eight random studies a part; each question and claim by its numbers and by the digits that are printed."""
    seen = set()
    for seed in range(8 * part, 8 * part + 8):
        results = study(seed)
        margin = results.settings["statistics"]["equivalence_margin"]
        asked = questions.table(results)
        for row in asked.itertuples():
            seen.add(_question(row, margin))
        if results.settings["study"]["paper"]:
            of = {claim.id: claim for claim in catalogue.load()}
            for row in judging.table(results).itertuples():
                if not math.isnan(row.low) and row.unit == "accuracy" and row.claim in of:
                    _claim(row, margin)
        _comparisons(results.comparisons, margin)
    assert seen >= {"supported", "contradicted", "undecided"}


def _question(row, margin):
    """Check a row of the questions; returns its verdict."""
    low, high = row.low, row.high
    if math.isnan(low):
        assert row.verdict in (verdicts.UNDECIDED, verdicts.NOT_COVERED), row
        return row.verdict
    if row.claim in ("memory", "time"):
        low, high = (-high, -low) if row.claim == "memory" else (low, high)
        bound = 1 if row.claim == "time" else -1
        said = "supported" if low > bound else "contradicted" if high < bound else "undecided"
        assert row.verdict == said, row
        return row.verdict
    printed = [percent(end) for end in PRINTED.search(row.found).groups()]
    assert _place(*printed, margin) == _place(low, high, margin), row
    out, within = _place(low, high, margin)
    if row.claim in ("r", "alpha"):
        assert {"supported": out, "contradicted": within, "undecided": not out}[row.verdict], row
        if (
            row.verdict == "contradicted" and out
        ):  # by itself: then that of all pairs at once stands beside, with 0 in it
            assert within and not _place(*map(percent, PRINTED_AT_ONCE.search(row.found).groups()), margin)[0], row
    else:
        assert row.verdict == says(low, high, "equal" if row.claim == "method_accuracy" else "ahead", margin), row
    return row.verdict


def _place(low, high, margin):
    """Whether an interval leaves 0 out, and whether it is within the margin; the same whichever side it is told from."""
    return low > 0 or high < 0, -margin < low and high < margin


def _claim(row, margin):
    """A claim that is supported or contradicted is so by its own interval; one undecided has one that is undecided, too."""
    claim = next(claim for claim in catalogue.load() if claim.id == row.claim)
    required = {check.required for check in measuring.of_claim(claim, PLANNED)}
    said = {says(row.low, row.high, one, margin) for one in required}
    if required and row.measured == row.checks:  # else it states a number, or the study lacks some of its cells
        assert row.verdict in said, row


PLANNED = [(m, t, r, a) for m in ("lora", "qlora") for t in ("attention", "all-linear")
           for r, a in [*((2**k, 2.0 ** (k + 1)) for k in range(10)), (8, 8.0), (8, 32.0), (8, 64.0)]]  # fmt: skip


def _comparisons(rows, margin):
    """The interval, its p, the answer and the smallest margin of each comparison agree."""
    rows = rows[rows.low.notna() & rows.margin.notna()]
    out = rows.low.gt(0) | rows.high.lt(0)
    assert (out == rows.p.lt(0.05)).all()
    within = rows.low.gt(-margin) & rows.high.lt(margin)
    assert (within == rows.p_equivalent.lt(0.025)).all()
    assert (within == rows.smallest_margin.lt(margin)).all()
    assert (rows.answer.isin([equivalence.EQUIVALENT, equivalence.WITHIN]) == within).all()
    assert (rows.answer.eq(equivalence.EQUIVALENT) <= ~out).all()
    assert (rows.answer.eq(equivalence.BEYOND) <= out).all()


def test_the_reader_finds_what_is_wrong():
    """A verdict turned round is found."""
    results = study(1)
    row = next(row for row in questions.table(results).itertuples() if row.claim == "gain_lora_head")
    assert row.verdict == verdicts.SUPPORTED
    with pytest.raises(AssertionError):
        _question(row._replace(verdict=verdicts.CONTRADICTED), 0.01)
