"""The paper's claims: each true, false and undecidable on estimates made for it; and the rules behind verdicts, by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from lorastudy.analysis import collapse
from lorastudy.analysis.claims import catalogue, checks, measuring, requirements, stated, verdicts, words
from lorastudy.statistics import equivalence, paired

MARGIN = 0.01
R = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
POINTS = [*((r, 2.0 * r) for r in R), (8, 8.0), (8, 32.0), (8, 64.0)]
PLANNED = [(m, t, r, a) for m in ("lora", "qlora") for t in ("attention", "all-linear") for r, a in POINTS]
CLAIMS = {claim.id: claim for claim in catalogue.load()}
OF_CELLS = [name for name, claim in CLAIMS.items() if claim.parts[0].kind in checks.KINDS]
# a difference a minus b that meets, fails and leaves undecided what is required of it, in standard errors of 0.001
EFFECTS = {"ahead": (0.02, -0.02), "beyond": (0.3, -0.3), "equal": (0.0, 0.05), "not_below": (0.0, -0.05)}


def estimate(value, error=0.001):
    """An estimate over so many texts that t is the normal."""
    return paired.Estimate(value, error, 0.0, error, 10**7, 0)


def measured(check, value, error=0.001):
    return verdicts.Measured(check, SimpleNamespace(difference=value), estimate(value, error), MARGIN)


def test_the_catalogue_has_all_claims():
    assert len(CLAIMS) == 33
    assert all(claim.says and claim.section and claim.parts for claim in CLAIMS.values())
    for claim in CLAIMS.values():  # what cannot hold together is mutual, and there
        assert all(claim.id in CLAIMS[other].contradicts for other in claim.contradicts)


@pytest.mark.parametrize("name", OF_CELLS)
def test_every_claim_on_cells_is_true_false_and_undecidable(name):
    """All checks met; one of them failed, whichever; all too noisy to tell."""
    found = measuring.of_claim(CLAIMS[name], PLANNED)
    met = [measured(check, EFFECTS[check.required][0]) for check in found]
    assert verdicts.decide(met).verdict == "supported"
    for place in {0, len(found) // 2, len(found) - 1}:
        failed = [*met]
        failed[place] = measured(found[place], EFFECTS[found[place].required][1])
        verdict = verdicts.decide(failed)
        assert verdict.verdict == "contradicted"
        assert verdict.decisive is failed[place]
    noisy = [measured(check, 0.004, error=0.5) for check in found]
    assert verdicts.decide(noisy).verdict == "undecided"


@pytest.mark.parametrize("name", OF_CELLS)
def test_claims_on_cells_that_a_study_lacks_are_not_covered(name):
    found = [verdicts.Measured(check, lacking="no cell") for check in measuring.of_claim(CLAIMS[name], PLANNED)]
    assert verdicts.decide(found).verdict == "not covered"


@pytest.mark.parametrize("name", OF_CELLS)
def test_checks_speak_of_cells_of_the_papers_grid(name):
    for check in measuring.of_claim(CLAIMS[name], PLANNED):
        assert set(check.cells) <= set(PLANNED)
        for unit in check.sides:
            total = sum(weight for weight, _ in unit)
            assert total == pytest.approx(1.0 if check.number is not None or check.baseline else 0.0)


def test_the_checks_of_some_claims_by_hand():
    alpha = measuring.of_claim(CLAIMS["alpha_all_linear"], PLANNED)
    assert [check.sides for check in alpha] == [
        (((1.0, (m, "all-linear", 8, 32.0)), (-1.0, (m, "all-linear", 8, 64.0))),) for m in ("lora", "qlora")
    ]
    steady = measuring.of_claim(CLAIMS["r_attention_steady"], PLANNED)
    assert (len(steady), {check.required for check in steady}) == (2 * 36, {"equal"})
    rising = measuring.of_claim(CLAIMS["alpha_attention"], PLANNED)
    assert [check.required for check in rising] == ["ahead", "not_below", "not_below"] * 2
    # the change along the regression line on log2 of three equally spaced values is that of the ends
    assert dict((cell, round(weight, 9)) for weight, cell in rising[0].sides[0])[("lora", "attention", 8, 64.0)] == 1.0
    pooled = measuring.of_claim(CLAIMS["qlora_equals_lora"], PLANNED)
    assert (len(pooled), len(pooled[0].sides)) == (1, 26)
    beyond = measuring.of_claim(CLAIMS["qlora_beyond_32"], PLANNED)[0].sides[0]
    assert {cell[2]: weight for weight, cell in beyond} == {64: 0.5, 128: 0.5, 16: -0.5, 32: -0.5}
    assert len(measuring.of_claim(CLAIMS["qlora_attention_ahead"], PLANNED)[0].sides) == 6


def test_a_claim_is_partly_covered():
    """Supported it cannot be, contradicted it can."""
    found = measuring.of_claim(CLAIMS["lora_steady"], PLANNED)
    lacking = [verdicts.Measured(check, lacking="no cell") for check in found[1:]]
    assert verdicts.decide([measured(found[0], 0.0), *lacking]).verdict == "undecided"
    assert verdicts.decide([measured(found[0], 0.05), *lacking]).verdict == "contradicted"


@pytest.mark.parametrize(
    ("required", "low", "high", "outcome"),
    [
        ("ahead", 0.002, 0.006, "met"),  # shown, though below the margin
        ("ahead", -0.005, 0.005, "failed"),  # no lead of the margin
        ("ahead", -0.03, -0.002, "failed"),
        ("ahead", -0.005, 0.012, "undecided"),
        ("ahead", -0.05, 0.009, "undecided"),
        ("beyond", 0.011, 0.02, "met"),
        ("beyond", 0.002, 0.02, "undecided"),
        ("beyond", -0.02, 0.009, "failed"),
        ("equal", -0.009, 0.009, "met"),
        ("equal", 0.002, 0.009, "met"),
        ("equal", 0.002, 0.02, "undecided"),
        ("equal", 0.011, 0.02, "failed"),
        ("equal", -0.02, -0.011, "failed"),
        ("not_below", -0.009, 0.05, "met"),
        ("not_below", -0.011, 0.05, "undecided"),
        ("not_below", -0.05, -0.011, "failed"),
        ("equal", math.nan, math.nan, "undecided"),
    ],
)
def test_requirements(required, low, high, outcome):
    assert requirements.outcome(required, low, high, MARGIN) == outcome


def test_no_interval_contradicts_its_verdict():
    """Random claims of one to six checks: the printed interval, read alone, says what the verdict says."""
    generator = np.random.default_rng(1)
    seen = set()
    for _ in range(400):
        names = generator.choice(list(EFFECTS), generator.integers(1, 7))
        found = [
            measured(SimpleNamespace(required=name), generator.normal(0, 0.015), generator.choice([0.001, 0.003, 0.01]))
            for name in names
        ]
        verdict = verdicts.decide(found)
        low, high = verdict.reading.low, verdict.reading.high
        read = requirements.outcome(verdict.decisive.check.required, low, high, MARGIN)
        expected = {"supported": "met", "contradicted": "failed", "undecided": "undecided"}[verdict.verdict]
        assert read == expected
        assert verdict.reading.answer == equivalence.answer(low, high, MARGIN)
        assert (verdict.p < 0.05) == (verdict.verdict != "undecided") or verdict.verdict == "undecided"
        seen.add(verdict.verdict)
    assert seen == {"supported", "contradicted", "undecided"}


@pytest.mark.parametrize(
    ("differences", "error", "complete", "verdict"),
    [
        ([0.03, 0.0, 0.0], 0.005, True, "supported"),  # z = 6
        ([0.0115, 0.0, 0.0], 0.005, True, "undecided"),  # z = 2.3: p = 0.021 x 3
        ([0.0, 0.001, 0.0], 0.004, True, "contradicted"),  # 0.001 + 1.96 x 0.004 < 0.01
        ([0.0, 0.001, 0.0], 0.004, False, "undecided"),  # values that have not run may differ
        ([0.0, 0.003, 0.0], 0.004, True, "undecided"),
    ],
)
def test_whether_something_makes_a_difference(differences, error, complete, verdict):
    check = SimpleNamespace(required="equal")
    assert verdicts.depends([measured(check, value, error) for value in differences], complete).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-0.0004, 0.0123, "[−0.04, 1.23]"),  # not [0.0, 1.2]: 0 is inside
        (0.0004, 0.0123, "[0.04, 1.23]"),
        (-0.002, 0.0097, "[−0.20, 0.97]"),  # not 1.0, which is the margin
        (-0.002, 0.0084, "[−0.2, 0.8]"),
    ],
)
def test_rounding_moves_no_end_across_zero_or_the_margin(low, high, shown):
    assert words.difference_interval(low, high, MARGIN) == shown


@pytest.mark.parametrize(
    ("claim", "value", "low", "high", "verdict"),
    [
        ("time", 1.4, 1.37, 1.47, "contradicted"),  # longer, and not ten times as long
        ("time", 9.8, 9.0, 10.7, "supported"),
        ("time", 9.0, 6.0, 13.5, "undecided"),
        ("time", 1.4, math.nan, math.nan, "undecided"),
        ("memory", 0.868, 0.861, 0.875, "contradicted"),
        ("memory", 0.38, 0.37, 0.39, "supported"),
        ("memory", 0.38, 0.25, 0.58, "undecided"),
    ],
)
def test_ratios_are_judged_against_the_papers(monkeypatch, claim, value, low, high, verdict):
    """10 and 0.375, within a factor of 1.25."""
    import pandas as pd
    from lorastudy.study import paper

    ratio = SimpleNamespace(value=value, low=low, high=high, p=0.001, pairs=26, seeds=3, shared=None)
    monkeypatch.setattr(stated.ratios, "ratio", lambda cells, column: ratio)
    cells = pd.DataFrame({"method": ["lora", "qlora"], "seconds": [60.0, 84.0], "peak_memory_gib": [1.0, 0.9]})
    study = SimpleNamespace(cells=cells, directory=paper.DIRECTORY)
    row = stated.ratio(CLAIMS[claim], CLAIMS[claim].parts[0], study)
    assert row.verdict == verdict
    assert ("ratio 10" if claim == "time" else "ratio 0.375") in row.number


@pytest.mark.parametrize(
    ("accuracy", "texts", "verdict"), [(0.194, 1600, "supported"), (0.5, 1600, "contradicted"), (0.2, 100, "undecided")]
)
def test_an_untrained_head_is_judged_by_its_distance_from_chance(accuracy, texts, verdict):
    """0.2191 is 0.0191 from chance: within 0.0291 of it is the same finding."""
    import pandas as pd
    from lorastudy.study import paper

    row = {"status": "finished", "accuracy": accuracy, "n_test": texts, "chance": 0.2}
    base = pd.DataFrame([row], index=["head"])
    study = SimpleNamespace(results=SimpleNamespace(baselines=base), directory=paper.DIRECTORY, margin=MARGIN)
    assert stated.chance(CLAIMS["base"], CLAIMS["base"].parts[0], study).verdict == verdict


def test_collapsed_runs_are_found_and_counted():
    """SmolLM2 at r = 16, alpha = 512 as it was: 0.483, 0.196, 0.538 of 1,600 texts, among runs near 0.58."""
    import pandas as pd

    accuracy = [0.483125, 0.195625, 0.538125, *[0.58] * 9]
    cells = pd.DataFrame(
        {"kind": "cell", "status": "finished", "accuracy": accuracy, "n_test": 1600, "chance": 0.2, "seed": [0, 1, 2] * 4,
         "alpha": [512.0] * 3 + [32.0] * 9}
    )  # fmt: skip
    lost = collapse.find(cells)
    assert lost.tolist() == [False, True] + [False] * 10
    cells.loc[lost, "status"] = collapse.COLLAPSED
    assert collapse.describe(cells[:3]) == "1 of 3 runs collapsed; the others 0.483, 0.538"
    share = collapse.shares(cells, "alpha")[1]
    assert (share.lost, share.runs, share.seeds) == (1, 3, (1,))
    assert share.p == pytest.approx(3 / 12)  # hypergeometric: the one lost run is among the three of twelve
    assert not collapse.find(cells.assign(accuracy=0.2, status="finished")).any()  # nothing has learned
