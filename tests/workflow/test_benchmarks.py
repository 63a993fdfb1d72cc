"""The benchmarks that need no GPU and little time, in small."""

import re
import runpy
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from lorastudy.study.settings import REPOSITORY

# by its path: a package of that name measures what tests run through
coverage = SimpleNamespace(**runpy.run_path(str(REPOSITORY / "benchmarks" / "coverage.py")))


def test_submission_is_measured_and_nothing_is_left_behind(tmp_path):
    before = sorted(REPOSITORY.iterdir())
    command = [sys.executable, REPOSITORY / "benchmarks" / "submission.py", "2", "--poll", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    cells, jobs, *_ = done.stdout.splitlines()[-1].split()
    assert (cells, jobs) == ("2", "4")
    assert sorted(REPOSITORY.iterdir()) == before
    assert list(tmp_path.iterdir()) == []


def test_coverage_counts_studies_of_every_kind():
    worlds = ("claims flat", "more seeds, flat", "rare failure", "one seed")
    counts = {name: coverage.run(name, 1, 3) for name in worlds}
    assert all(found["studies",] == 1 for found in counts.values())
    page = coverage.page(counts)
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## In short",
        *(f"## {name}" for name in worlds),
    ]
    # of all of one study: the error is that of two of three, sqrt(2 / 27)
    assert "| pooled_method | cells | 1 | 100.0 ± 27.2 | 0.0 ± 27.2 |" in page
    # 20 pairs of single runs: about these runs, and no more often right about all runs
    right, as_if = (counts["one seed"]["held", "method", about, "part"] for about in ("runs", coverage.AS_IF))
    assert counts["one seed"]["held", "method", coverage.AS_IF, "whole"] == 20 and as_if < right


def test_standard_errors_of_shares_are_those_over_studies():
    """Three studies with 1 of 2, 2 of 2 and 1 of 4: 4 of 8, deviations 0, 1 and -1."""
    counts = Counter()
    for found in ([True, False], [True, True], [True, False, False, False]):
        coverage.tally(counts, ("held",), np.array(found))
    assert coverage.share(counts, ("held",), 3) == f"50.0 ± {100 * np.sqrt(2) / 8:.1f}"


def test_the_page_begins_with_all_worlds_together():
    """Those with three seeds and more, by whether all of their runs learn: the same three studies are 4 of 8 intervals."""
    worlds = {name: Counter({("studies",): 3}) for name in ("flat", "margin", "unstable", "one seed")}
    for name, counts in worlds.items():
        for found in ([True, False], [True, True], [True, False, False, False]):
            coverage.tally(counts, ("held", "r_pair", "cells"), np.array(found) | (name == "unstable"))
    short = coverage.page(worlds).split("## flat")[0]
    half, all_held = f"50.0 ± {100 * np.sqrt(2 * 2) / 16:.1f}", f"100.0 ± {100 * np.sqrt(4 / 5**3):.1f}"
    assert f"| r_pair | {half} | – | {all_held} | – |" in short


def test_the_counts_are_what_the_statistics_page_says():
    """ "hold the truth in 93 to 98%", "errors are at most 6%", "seen in more than 95%", "turn ... in about 1 of 200"."""
    page = coverage.page(coverage.load(coverage.RESULTS / "coverage.json"))
    short = page.split("## In short")[1].split("## ")[0]
    rows = [line.split("|")[2:6] for line in short.splitlines() if " ± " in line and line.startswith("|")]
    assert len(rows) == 18
    shares = [[None if "±" not in cell else float(cell.split("±")[0]) for cell in row] for row in rows]
    assert all(93 <= held <= 98 for row in shares for held in (row[0], row[2]))
    assert all(error <= 6 for row in shares for error in (row[1], row[3]) if error is not None)
    assert float(re.search(r"lower is seen in ([\d.]+) percent", short)[1]) > 95
    assert float(re.search(r"In ([\d.]+) ± [\d.]+ percent of \d+ studies a right answer", short)[1]) < 1


def test_an_answer_turns_into_its_opposite_only_if_it_was_right():
    may = (True, False)  # to be supported
    assert coverage.is_opposite("supported", "contradicted", may)
    assert not coverage.is_opposite("contradicted", "supported", may)
    assert not coverage.is_opposite("supported", "undecided", may)
    assert not coverage.is_opposite("supported", "contradicted", (True, True))


def test_trends_of_two_sets_have_a_truth_of_their_own():
    """Where one set alone falls with r, its trend is not that of the others, though their ends are called alike."""
    world = coverage.World("one set falls", lambda cell: 0.6 - 0.01 * (cell.targets == "attention") * np.log2(cell.r), coverage.SLICES)  # fmt: skip
    study = coverage.simulation.draw(np.random.default_rng(0), world)
    results, wanted, of_runs = study.results()
    rows = results.comparisons[results.comparisons.family.eq("r_trend")].reset_index(drop=True)
    truth, _ = coverage.true_differences(rows, wanted, of_runs, study)
    assert truth[rows.targets.eq("attention")] == pytest.approx(-0.06)
    assert truth[rows.targets.eq("all-linear")] == pytest.approx(0.0)
