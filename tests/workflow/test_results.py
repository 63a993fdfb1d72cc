"""docs/results and the README's results: written from the records, and saying what these say."""

import json
import re
import runpy
import shutil

import pandas as pd
import pytest
from lorastudy.presentation import report
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
    asked = pd.read_csv(other / "paper_tables" / "questions.csv")
    asked.loc[asked.claim.eq("targets"), "found"] += (
        " Without r=8 alpha=64, r=32 alpha=64, where runs scatter far more than elsewhere."
    )
    asked.to_csv(other / "paper_tables" / "questions.csv", index=False)
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


def test_no_page_of_a_study_holds_texts_of_its_data(results, tmp_path, monkeypatch):
    empty = report.without_texts(f"{report.BEGIN}{report.END}")
    for page in RECORDS.glob("*/report.html"):
        assert empty in page.read_text(encoding="utf-8"), f"{page} holds texts"
    study = tmp_path / "examples" / "clothing"
    (study / "results" / "data").mkdir(parents=True)
    (study / "config.yaml").touch()
    (study / "results" / "data" / "test.parquet").touch()
    (study / "report.html").write_text(f"before {report.BEGIN}a customer's words{report.END} after", encoding="utf-8")
    monkeypatch.setattr(results["studies"], "HERE", tmp_path / "results")
    results["studies"].take(study)
    assert {path.name for path in (tmp_path / "results" / "clothing").rglob("*")} == {"config.yaml", "report.html"}
    assert (tmp_path / "results" / "clothing" / "report.html").read_text(encoding="utf-8") == f"before {empty} after"


def test_the_readme_has_verdict_and_interval_of_the_records():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    asked = pd.read_csv(RECORDS / "smollm2" / "paper_tables" / "questions.csv").set_index("claim")
    for claim, leader in {"gain_lora_head": "LoRA", "targets": "all linear layers", "method_accuracy": "LoRA"}.items():
        row = asked.loc[claim]
        (found,) = rows_of(readme, row.statement.rstrip("."))
        said = f"**{row.verdict}**: {leader} "
        assert found[2].startswith(said)
        shown = found[2].removeprefix(said).split(" (without")[0]
        numbers = [float(number.replace("−", "-")) for number in re.findall(r"[−\d.]+", shown)]
        assert numbers == pytest.approx([100 * row.value, 100 * row.low, 100 * row.high], abs=0.051)


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
    whole = [seed for seed in seeds if cells[cells.seed.eq(seed)].accuracy.notna().all()]
    assert whole
    page = (RECORDS / "README.md").read_text(encoding="utf-8")
    for claim, comes_out in expected.items():
        (row,) = rows_of(page, claim)
        assert row[3] == f"{sum(map(comes_out, whole))} of {len(whole)}"


def test_a_second_data_set_stands_beside_the_first(beside):
    page = beside["index"]()
    (row,) = rows_of(page, "At r = 2, all linear layers beat attention for both methods.")
    assert len(row) == 6
    assert row[2].startswith("**supported**")
    assert row[4] == "**contradicted** −5.0 [−6.0, −4.0]"
    assert "- Supported on one and contradicted on the other: 1. Decided on one alone: 0." in page
    assert "clothing/figures/r_trend.png" in page
    (row,) = rows_of(page, "All linear layers give a higher accuracy than attention")
    assert all(re.search(r"\] \(without \d points whose runs scatter far more\)$", cell) for cell in (row[2], row[3]))
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


def test_the_rehearsal_counts_its_first_steps_once(results, tmp_path, monkeypatch):
    """200 steps of 100 tokens, the first half at 0.3 s and the second at 0.1 s a step: 20 s even, and 20 s more at the start."""
    rehearsal = results["rehearsal"]
    assert "even is all of them" in "\n".join(rehearsal.page()) or rehearsal.has_logs()
    shutil.copytree(RECORDS / rehearsal.NAME, tmp_path / rehearsal.NAME)
    summary = pd.read_csv(tmp_path / rehearsal.NAME / "summary.csv")
    cells = summary.kind.eq("cell") & summary.status.eq("finished")
    summary.loc[cells, ["tokens", "seconds"]] = [20_000, 40.0]
    summary.to_csv(tmp_path / rehearsal.NAME / "summary.csv", index=False)
    steps = range(10, 201, 10)
    logs = [
        {"id": name, "step": step, "tokens": 100 * step, "seconds": 0.3 * min(step, 100) + 0.1 * max(0, step - 100)}
        for name in summary.id[cells]
        for step in steps
    ]
    (tmp_path / rehearsal.NAME / "curves.csv").unlink(missing_ok=True)
    monkeypatch.setattr(rehearsal.studies, "HERE", tmp_path)
    before = rehearsal.starts(rehearsal.measured())
    pd.DataFrame(logs).to_csv(tmp_path / rehearsal.NAME / "curves.csv", index=False)
    done = rehearsal.measured()
    assert done.seconds.tolist() == pytest.approx([20.0] * len(done))
    assert done.whole.tolist() == [40.0] * len(done)
    assert rehearsal.starts(done) == {method: pytest.approx(seconds + 20.0) for method, seconds in before.items()}
    assert "by the second half" in rehearsal.projected(done)[1]


def test_the_papers_code_stands_beside_the_projection(results):
    """26 cells of each method, 50,000 / 8 steps each, at the seconds a step of the benchmark's record."""
    record = json.loads((REPOSITORY / "benchmarks" / "results" / "paper_code.json").read_text(encoding="utf-8"))
    step = {row["key"]: row["seconds_a_step"] for row in record["rows"]}
    hours = {key: 26 * 50_000 / 8 * seconds / 3600 for key, seconds in step.items()}
    page = "\n".join(results["rehearsal"].page())
    for how, key in (("as loaded", "qlora_as_loaded"), ("prepared for training", "qlora_prepared")):
        (row,) = rows_of(page, f"H100 80 GB, the paper's code, {how}")
        assert row[1:4] == [
            f"{hours['lora_bfloat16']:.1f}",
            f"{hours[key]:.1f}",
            f"{hours['lora_bfloat16'] + hours[key]:.1f}",
        ]
