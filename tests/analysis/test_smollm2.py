"""The verdicts on the committed records of SmolLM2: of the paper's grid (docs/results/smollm2), and of an earlier one, along
whose r alpha stayed at 32 (docs/results/smollm2-earlier-grid), of 520 and 156 runs, of which 36 and 3 ended at chance.

The records hold the accuracy of every run, and of every comparison the standard errors that the texts make; what each
run said of each text they do not. So what the seeds make of a comparison is computed here from the runs' accuracies as
for any study, and what the texts make of it is taken from the records. There the averages hold points that scatter for
themselves, in the earlier ones the three runs at chance too: on the wide side.
"""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from lorastudy.analysis import collapse, comparisons, contrasts, scatter
from lorastudy.analysis.claims import verdicts
from lorastudy.statistics import equivalence, paired, permutation
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results"
EARLIER, PAPER = RESULTS / "smollm2-earlier-grid", RESULTS / "smollm2"
MARGIN = 0.01


def cells_of(records):
    found = pd.read_csv(records / "summary.csv", dtype={"r": "Int64", "seed": "Int64"}).assign(chance=0.2)
    found.loc[collapse.find(found), "status"] = collapse.COLLAPSED
    return found[found.kind.eq("cell")]


@pytest.fixture(scope="module")
def cells():
    return cells_of(EARLIER)


@pytest.fixture(scope="module")
def measured(cells):
    return averages(EARLIER, cells)


@pytest.fixture(scope="module")
def papers():
    return averages(PAPER, cells_of(PAPER))


def averages(records, cells):
    """Family → what was measured of each of its averages over the grid: ``verdicts.Measured``."""
    study = settings.load(yaml.safe_load((records / "config.yaml").read_text(encoding="utf-8")))
    table = contrasts.points(cells)
    accuracy = {row.id: np.array([row.accuracy]) for row in cells.itertuples()}
    of_runs = scatter.fit(table, accuracy)
    rows = pd.read_csv(records / "comparisons.csv").query("metric == 'accuracy'").set_index(["family", "a", "b"])
    found = {}
    for contrast in contrasts.build(table, grid.lines(study.grid), []):
        if not contrast.family.startswith("pooled_") or contrast.family.endswith("_trend"):
            continue
        units, seeds = contrasts.complete(contrast.members(of_runs))
        texts = rows.loc[(contrast.family, contrast.a, contrast.b)]
        value = np.mean([sum(weight * accuracy[runs[seed]][0] for weight, runs in unit) for unit in units for seed in seeds])  # fmt: skip
        row = SimpleNamespace(a=contrast.a, b=contrast.b, difference=value, units=len(units), seeds=len(seeds),
                              left_out=of_runs.left_out(contrast.units, units),
                              p_permutation=comparisons._permutation(units, seeds, accuracy))  # fmt: skip
        known = of_runs.variance(units, seeds)
        errors = (texts.se_texts, math.sqrt(known[0]), texts.se_fixed) if known else None
        estimate = paired.Estimate(value, *errors, int(texts.n), known[1]) if known else None
        check = SimpleNamespace(required="equal", number=None)
        found.setdefault(contrast.family, []).append(verdicts.Measured(check, row, estimate, MARGIN))
    return found


def points(one):
    """Difference, interval (95%) and degrees of freedom, in percentage points."""
    return [100 * value for value in (one.row.difference, *one.estimate.interval())]


def test_three_runs_ended_at_chance(cells):
    lost = cells[cells.status.eq(collapse.COLLAPSED)]
    assert set(lost.id) == {"lora_attention_r16_a512_s1", "lora_all-linear_r16_a512_s1", "qlora_attention_r16_a256_s1"}
    share = next(share for share in collapse.shares(cells, "alpha") if share.value == "alpha = 512")
    assert (share.lost, share.runs, share.seeds) == (2, 12, (1,))


def test_values_of_r_are_equal_within_a_point(measured):
    """All 21 pairs of 7 values, whose interval was [−7.0, 7.7] where each had its own two degrees of freedom."""
    pairs = measured["pooled_r_pair"]
    assert len(pairs) == 21
    for one in pairs:
        assert equivalence.answer(*one.estimate.interval(), MARGIN) == equivalence.EQUIVALENT, one.row
        assert one.estimate.df_runs == 18
    assert max(equivalence.smallest_margin(*one.estimate.interval()) for one in pairs) == pytest.approx(
        0.0085, abs=5e-4
    )
    assert verdicts.depends(pairs, complete=True).verdict == verdicts.CONTRADICTED


def test_alpha_is_decided(measured):
    """Accuracy rises from alpha = 8 to 32 and 64; what keeps α = 512 (two seeds in common) from an interval is said."""
    pairs = measured["pooled_alpha_pair"]
    verdict = verdicts.depends(pairs, complete=True)
    assert (verdict.verdict, verdict.met) == (verdicts.SUPPORTED, 2)
    assert (verdict.decisive.row.a, verdict.decisive.row.b) == ("alpha=32", "alpha=8")
    assert points(verdict.decisive) == pytest.approx([1.39, 0.66, 2.13], abs=0.01)
    assert verdict.reading.low > 0
    lacking = [one.row for one in pairs if one.estimate is None]
    assert {(row.a, row.seeds) for row in lacking} == {("alpha=512", 2)}


def test_alpha_512_is_below_32_in_every_run(cells):
    """The permutation within seeds that the shared variance stands beside: 12 of 12 runs, those at chance among them."""
    runs = cells[cells.r.eq(16)].pivot(index=["method", "targets", "seed"], columns="alpha", values="accuracy")
    assert runs[512].lt(runs[32]).sum() == len(runs) == 12
    assert permutation.contrast(runs[[512, 32]].to_numpy(), [1, -1]) == 2 / 2**12


@pytest.mark.parametrize(
    ("family", "expected"), [("pooled_method", [1.31, 0.36, 2.25]), ("pooled_targets", [1.13, 0.23, 2.04])]
)
def test_methods_and_targets_are_known_to_a_point_and_a_half(measured, family, expected):
    """LoRA ahead of QLoRA and all linear layers of attention: shown, and whether by as much as the margin is not."""
    (one,) = measured[family]
    assert one.row.units == 20
    assert one.row.left_out == ["r=16 alpha=128", "r=16 alpha=256", "r=16 alpha=512"]
    assert points(one) == pytest.approx(expected, abs=0.01)
    assert one.estimate.half_width() < 0.015
    assert one.estimate.p_value() < 0.05
    assert verdicts.decide([one]).verdict == verdicts.UNDECIDED  # equal within 1 point or not


def test_each_agrees_with_the_permutation_within_seeds(measured):
    known = [one for family in measured.values() for one in family if one.estimate is not None]
    assert len(known) == 1 + 1 + 21 + 15
    for one in known:
        assert (one.estimate.p_value() < 0.05) == (one.row.p_permutation < 0.05), one.row


@pytest.mark.parametrize("family", ["pooled_method", "pooled_targets"])
def test_runs_that_half_failed_do_not_undecide_the_papers_grid(papers, family):
    """One of QLoRA on all linear layers at r = 128 reached 0.37, two at r = 256 less: averages go without such points."""
    (one,) = papers[family]
    scattered = ["r=64 alpha=128", "r=128 alpha=256", "r=256 alpha=512", "r=512 alpha=1024"]
    assert (one.row.units, one.row.left_out) == (18, scattered)
    (published,) = (
        pd.read_csv(PAPER / "comparisons.csv").query("metric == 'accuracy' and family == @family").itertuples()
    )
    expected = [100 * published.difference, 100 * published.low, 100 * published.high]
    assert points(one) == pytest.approx(expected, abs=0.01)
    assert one.estimate.half_width() < 0.01
    assert one.row.p_permutation < 0.001


def test_what_the_papers_grid_shows_the_permutation_shows(papers):
    """Three more it shows alone: it takes runs of a seed as so many events, and what a seed does to a point is one."""
    known = [one for family in papers.values() for one in family if one.estimate is not None]
    shown = [one for one in known if one.estimate.p_value() < 0.05]
    assert len(known) == 1 + 1 + 36 + 6
    assert len(shown) == 1 + 1 + 25 + 4
    assert all(one.row.p_permutation < 0.05 for one in shown)
    alone = [one.row for one in known if one not in shown and one.row.p_permutation < 0.05]
    assert {(row.a, row.b) for row in alone} == {
        ("r=256", "r=128"), ("alpha=32", "alpha=16"), ("alpha=64", "alpha=32")
    }  # fmt: skip
