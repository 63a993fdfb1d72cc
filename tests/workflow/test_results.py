"""docs/results and the README's results: written from the records, and saying what these say."""

import re
import runpy
import shutil

import pandas as pd
import pytest
from lorastudy.study.settings import REPOSITORY

RECORDS = REPOSITORY / "docs" / "results"


@pytest.fixture
def results():
    return runpy.run_path(str(REPOSITORY / "docs" / "results.py"))


@pytest.fixture
def beside(results, tmp_path, monkeypatch):
    """The same with a second data set: the first one's records again, and one verdict of another sign."""
    shutil.copytree(RECORDS, tmp_path / "results")
    other = tmp_path / "results" / "clothing"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(RECORDS / "smollm2", other)
    claims = pd.read_csv(other / "paper_tables" / "claims.csv")
    claims.loc[claims.claim.eq("targets_r2"), ["verdict", "value", "low", "high"]] = [
        "contradicted",
        -0.05,
        -0.06,
        -0.04,
    ]
    claims.to_csv(other / "paper_tables" / "claims.csv", index=False)
    monkeypatch.setattr(results["studies"], "HERE", tmp_path / "results")
    return results


def rows_of(text, first):
    """The cells of the rows of all tables in a text that have ``first`` in their first two columns."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if first in row[:2]]


def test_the_results_in_the_documents_are_those_of_the_records(results):
    for path, text in results["pages"]().items():
        assert path.read_text(encoding="utf-8") == text, "run: python docs/results.py"
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"{results['BEGIN']}\n{results['block']()}\n{results['END']}" in readme


def test_every_link_and_figure_of_the_pages_is_there(results):
    for path, text in results["pages"]().items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (path.parent / target).exists(), (path, target)


def test_the_readme_has_verdict_and_interval_of_the_records():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    asked = pd.read_csv(RECORDS / "smollm2" / "paper_tables" / "questions.csv").set_index("claim")
    for claim, leader in {"gain_lora_head": "LoRA", "targets": "all linear layers", "method_accuracy": "LoRA"}.items():
        row = asked.loc[claim]
        ends = ", ".join(f"{100 * end:.1f}".replace("-", "−") for end in (row.low, row.high))
        sign = "+" if row.value > 0 else ""
        effect = f"{sign}{100 * row.value:.1f} [{ends}]".replace("-", "−")
        (found,) = rows_of(readme, row.statement.rstrip("."))
        assert found[2] == f"**{row.verdict}**: {leader} {effect}"


def test_one_seed_on_the_page_is_what_the_runs_say():
    """Three claims by hand, from the accuracies of single runs."""
    cells = pd.read_csv(RECORDS / "smollm2" / "summary.csv").query("kind == 'cell'")
    score = cells.set_index(["method", "targets", "r", "alpha", "seed"]).accuracy
    seeds = sorted(cells.seed.unique())

    def at(method, targets, r, alpha, seed):
        return score[method, targets, r, alpha, seed]

    both = ("lora", "qlora")
    expected = {
        "At r = 2, all linear layers beat attention for both methods.": lambda seed: all(
            at(method, "all-linear", 2, 4, seed) > at(method, "attention", 2, 4, seed) for method in both
        ),
        "On all linear layers at r = 8, performance falls once alpha exceeds 32.": lambda seed: all(
            at(method, "all-linear", 8, 32, seed) > at(method, "all-linear", 8, 64, seed) for method in both
        ),
        "QLoRA on all linear layers is the same at r = 4 and r = 8.": lambda seed: (
            abs(at("qlora", "all-linear", 8, 16, seed) - at("qlora", "all-linear", 4, 8, seed)) < 0.01
        ),
    }
    page = (RECORDS / "README.md").read_text(encoding="utf-8")
    for claim, comes_out in expected.items():
        (row,) = rows_of(page, claim)
        assert row[3] == f"{sum(map(comes_out, seeds))} of {len(seeds)}"


def test_a_second_data_set_stands_beside_the_first(beside):
    page = beside["index"]()
    (row,) = rows_of(page, "At r = 2, all linear layers beat attention for both methods.")
    assert len(row) == 6
    assert row[2].startswith("**supported**")
    assert row[4] == "**contradicted** −5.0 [−6.0, −4.0]"
    assert "- Supported on one and contradicted on the other: 1. Decided on one alone: 0." in page
    assert "clothing/figures/r_trend.png" in page
    assert "Clothing reviews: of the paper's 33 claims" in beside["block"]()


def test_power_that_came_out_is_that_of_the_errors(results):
    """A difference is shown with a chance of 80% if it is 1 + 0.84 / 1.96 half-widths of its interval, with many degrees of freedom."""
    rows = pd.read_csv(RECORDS / "smollm2" / "comparisons.csv").query(
        "metric == 'accuracy' and family == 'pooled_method'"
    )
    half = float((rows.high - rows.low).iloc[0] / 2)
    page = "\n".join(results["grid"].page("smollm2"))
    (row,) = rows_of(page, "LoRA and QLoRA, mean of 26 pairs")
    assert float(row[3]) == pytest.approx(100 * half * (1 + 0.84 / 1.96), rel=0.06)
