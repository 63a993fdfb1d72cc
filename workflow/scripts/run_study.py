"""Run a study and show how far it is: python workflow/scripts/run_study.py DIRECTORY [SNAKEMAKE ARGUMENTS]

Snakemake's own words go to logs/snakemake.log of the study. What is seen instead: cells done, running and failed, the
time left, and at the end the verdicts on the claims, or what failed and why.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import watch
from lorastudy.jobs import attempts, logs, progress
from lorastudy.study import command, configuration, grid
from lorastudy.study.settings import REPOSITORY
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

LOG = Path("logs", "snakemake.log")
VERDICTS = (Path("paper_tables", "claims.csv"), Path("paper_tables", "questions.csv"))
NOT_COVERED = "not covered"  # the verdict on a claim about cells that a study does not have
EVERY = 2.0  # seconds between two looks
TAIL = 15  # lines of Snakemake's words that are shown where no job says what failed
MARKS = {"supported": "green", "contradicted": "red"}  # verdicts, by the colour that they have
PRODUCTS = (  # of a study, and what to begin with
    ("Report", "report.html", "one page, for a browser"),
    ("Tables", "paper_tables/", "start with claims.md"),
    ("Figures", "figures/", "start with r_trend.pdf"),
    ("Numbers", "results/summary.csv", "a row for each cell"),
)


def main(directory, configured, arguments):
    """Run the study in ``directory`` with Snakemake's ``arguments``; returns Snakemake's exit status.

    Args:
        configured: ``configuration.Configuration``.
    """
    console = Console(highlight=False)
    study = watch.study_in(directory, configured)
    os.chdir(directory)
    LOG.parent.mkdir(exist_ok=True)
    begun = attempts.now()
    snakemake = [*command.SNAKEMAKE, "--directory", Path.cwd()]
    with LOG.open("w", encoding="utf-8") as log:
        # options at the end, for they take all that follows for values
        process = subprocess.Popen(
            [*snakemake, *arguments, *configured.arguments()], cwd=REPOSITORY, stdout=log, stderr=log
        )
        signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
        try:
            follow(console, study, process)
        except KeyboardInterrupt:  # which the terminal sends to Snakemake too
            console.print("Stopping: running cells keep a checkpoint, and the same command goes on from it.")
        finally:
            status = process.wait()
    if status:
        console.print("\n".join(what_failed(begun)), soft_wrap=True, markup=False)
        console.print(f"All that Snakemake said is in {os.path.join(directory, LOG)}.", style="dim", soft_wrap=True)
    else:
        console.print(verdicts(VERDICTS))
        for name, path, what in PRODUCTS:
            console.print(f"{name + ':':9}{os.path.join(directory, path):30} ({what})", markup=False, soft_wrap=True)
    return status


def follow(console, study, process):
    """Show the study until ``process`` ends: again and again in a terminal, else a line whenever more is done."""
    cells = grid.cells(study.grid)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while process.poll() is None:
                live.update(watch.view(study, progress.states(study, cells), progress.steps(LOG)), refresh=True)
                time.sleep(EVERY)
            live.update(watch.view(study, progress.states(study, cells), progress.steps(LOG)), refresh=True)
        return
    said = None
    while True:
        ended = process.poll() is not None
        found = progress.states(study, cells)
        if (now := (watch.over(found), progress.unmade(study))) != said:
            said = now
            console.print(f"{time.strftime('%H:%M:%S')}  {watch.in_a_line(study, found)}", soft_wrap=True, markup=False)
        if ended:
            return
        time.sleep(EVERY)


def what_failed(begun):
    """Lines: what the jobs that failed since ``begun`` say; else the end of what Snakemake said."""
    lines = attempts.report(begun)
    return ["Not finished:", *lines] if lines else LOG.read_text(encoding="utf-8").splitlines()[-TAIL:]


def verdicts(paths):
    """The paper's claims and the questions of a study with their verdicts, as a table for the terminal.

    Args:
        paths: their CSV files. Claims that the study has no cells for are only counted.
    """
    rows = []
    for path in filter(Path.exists, paths):  # a study that is not about the paper has no claims
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    table = Table("verdict", "claim", "found", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for row in rows:
        if row["verdict"] != NOT_COVERED:
            colour = MARKS.get(row["verdict"], "yellow")
            table.add_row(f"[{colour}]{row['verdict']}[/]", escape(row["statement"]), escape(row["found"]))
    if left := sum(row["verdict"] == NOT_COVERED for row in rows):
        table.caption, table.caption_justify = (
            f"{left} more claims are about cells that this study does not have.",
            "left",
        )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", help="the study")
    configuration.add_options(parser)
    known, others = parser.parse_known_args()
    logs.any_terminal()
    try:
        sys.exit(main(known.directory, configuration.Configuration.of_options(known), others))
    except KeyboardInterrupt:
        sys.exit(130)
