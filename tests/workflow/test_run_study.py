"""A study run by ``run_study``, as `make demo` does it: what is seen of it."""

import csv
import shutil
import subprocess
import sys

from lorastudy.study.settings import REPOSITORY

VERDICTS = ("supported", "contradicted", "undecided")


def verdicts(study):
    """Rows of the tables of claims and questions."""
    for name in ("claims", "questions"):
        with (study / "paper_tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def run(study, *arguments):
    command = [sys.executable, "workflow/scripts/run_study.py", study, "--cores", "2", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)


def test_it_ends_with_the_verdicts_and_where_to_look(copy_study):
    (copy_study / "paper_tables" / "claims.md").unlink()
    done = run(copy_study)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = done.stdout
    assert "8 of 8 cells" in seen.splitlines()[0]
    assert "Reason:" not in seen
    assert "rule" not in done.stderr
    lines = [
        line.strip("|").split() for line in seen.splitlines()
    ]  # frames are of these where a terminal has no others
    told = [line[0] for line in lines if line and line[0] in VERDICTS]
    assert told == [row["verdict"] for row in verdicts(copy_study) if row["verdict"] in VERDICTS]
    left = sum(row["verdict"] == "not covered" for row in verdicts(copy_study))
    assert f"{left} more claims are about cells that this study does not have." in " ".join(seen.split())
    assert seen.splitlines()[-4].startswith(f"Report:  {copy_study}/report.html")
    assert "make_table" in (copy_study / "logs" / "snakemake.log").read_text(encoding="utf-8")


def test_it_ends_with_what_failed(tmp_path):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path)
    with (tmp_path / "reviews.csv").open("a", encoding="utf-8") as file:
        file.write("a good film indeed,2.5\n")
    done = run(tmp_path, "results/data/source.parquet")
    assert done.returncode == 1
    assert "Exception" not in done.stdout + done.stderr
    last = done.stdout.splitlines()[-4:]
    assert last[0] == "Not finished:"
    assert last[1].startswith("fetch_data: `data.train_file` 'reviews.csv': 1 row has a fractional label")
    assert last[3] == f"All that Snakemake said is in {tmp_path}/logs/snakemake.log."


def test_what_no_job_says_is_shown_as_snakemake_says_it(tmp_path):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path)
    done = run(tmp_path, "results/cells/lora_attention_r3_a4_s0/metrics.json")
    assert done.returncode != 0
    assert "lora_attention_r3_a4_s0 is not a cell of this study's grid" in done.stdout.splitlines()[-2]
