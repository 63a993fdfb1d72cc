"""What `snakemake check` prints of a study's power, as a reader has it before them."""

import io

import check_study
import pandas as pd
import pytest
from lorastudy.analysis import comparisons, sensitivity
from lorastudy.statistics import equivalence
from rich.console import Console


def printed(table, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("test", "about"), [("shared", "runs at large"), ("units", "runs with these seeds"), ("texts", "these runs")]
)
def test_the_table_says_what_each_row_is_about(test, about):
    """Smaller differences of less: one pair of runs can show what an average over matched pairs cannot."""
    row = sensitivity.Row("two values of r, one pair", comparisons.TESTS[test], 45, 0.0104, 0.0083)
    table = printed(check_study.power_table([row], 3, "1,600 test texts", 0.01))
    (line,) = [line for line in table.splitlines() if "one pair" in line]
    assert [part.strip() for part in line.split("  ") if part] == [
        "two values of r, one pair",
        about,
        "45",
        "1.0",
        "0.8",
    ]


def test_what_is_open_has_the_seeds_that_settle_it():
    """A tenth of a point apart with scatter from runs alone is settled by more seeds; at the margin itself nothing settles it."""
    common = {"family": "pooled_r_pair", "test": comparisons.TESTS["shared"], "se_texts": 0.0, "se_fixed": 0.0, "n": 1600,
              "se_runs": 0.006, "df_runs": 4.0, "seeds": 3, "margin": 0.01, "answer": equivalence.UNDECIDED}  # fmt: skip
    rows = pd.DataFrame([
        common | {"a": "r=2", "b": "r=1", "difference": 0.001},
        common | {"a": "r=4", "b": "r=1", "difference": 0.01},
        common | {"a": "r=4", "b": "r=2", "difference": 0.05, "answer": equivalence.BEYOND},
    ])  # fmt: skip
    (sentence,) = check_study.open_notes(rows)
    assert sentence.startswith("Undecided: 2 of 3, two values of r, 0.1 to 1.0 points apart so far; ")
    assert " seeds would settle 1; 1 would stay open with 30" in sentence
