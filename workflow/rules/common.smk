"""What every stage needs: the study's settings and its cells. The logic is in lorastudy."""

import os
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser

sys.path.append(str(Path(workflow.basedir) / "workflow" / "scripts"))

from lorastudy.inputs import data as study_data
from lorastudy.analysis import summary
from lorastudy.inputs import base_model, linear_layers
from lorastudy.jobs import lease, slurm
from lorastudy.presentation import figures, tables
from lorastudy.study import architecture, grid, records, settings
from lorastudy.study.errors import StudyError


def checked(step, *arguments):
    """Run a check of the library; its faults end the workflow in one line each, before any job.

    By SystemExit, because Snakemake adds lines of its own to any other exception.
    """
    try:
        return step(*arguments)
    except StudyError as fault:
        raise SystemExit(str(fault)) from None


SETTINGS = checked(settings.load, config)
# Read by scripts from the configuration and not from params, so that a change of it reruns nothing.
config["execution"] = SETTINGS.block("execution")
CELLS = grid.cells(SETTINGS.grid)
checked(records.check_places)
checked(base_model.check, SETTINGS.model)
checked(study_data.check, SETTINGS.data)


ASKED = get_argument_parser().parse_known_args()[0]


def known_cell(name):
    """The grid's cell of that name; an error that names the nearest ones if there is none."""
    if name not in CELLS:
        near = ", ".join(grid.nearest(name, CELLS))
        raise SystemExit(
            f"{name} is not a cell of this study's grid; the nearest are {near}. "
            "Correct the name, or add its r, alpha or seed to `grid` in config.yaml."
        )
    return CELLS[name]


# Here, because Snakemake adds a traceback to what an input function says.
for target in ASKED.targets:
    match Path(target).parts:
        case ("results", "cells", name, *_) | ("publish", name, *_):
            known_cell(name)


def results_as_they_are():
    """Whether only what is made of results is asked for: tables, figures, report, models to publish.

    They are then made of the results that there are. Nothing is trained for them, not even if a setting was changed
    since; such a result is shown as out of date.
    """
    paper = ("figures", "paper_tables", "report.html", "publish")
    return bool(ASKED.targets) and all(
        target.split("/")[0] in paper for target in ASKED.targets
    )


def is_job():
    """Whether this Snakemake runs a single job for another one, which has made all that the job needs."""
    return bool(ASKED.target_jobs)


ONLY_PAPER = results_as_they_are()
AS_IT_IS = ONLY_PAPER or is_job()


def check_targets():
    """Whether the base model has the linear layers that the grid names; once it is fetched, where it is not here yet."""
    base = architecture.of_study(SETTINGS.model)
    if not base.assumed and linear_layers.countable(base.config):
        checked(linear_layers.check, base.config, CELLS.values())


if not AS_IT_IS:
    check_targets()


# Where snakemake runs: what needs its network, and what takes less time than a job would wait.
localrules:
    all,
    figures,
    paper_tables,
    fetch_model,
    fetch_data,
    aggregate_results,
    make_table,
    make_numbers,
    make_report,
    plot_figure,


wildcard_constraints:
    cell=r"[^/]+",
    baseline="head|prompt",


def cell_of(wildcards):
    return known_cell(wildcards.cell)


def spec_of(wildcards):
    return SETTINGS.cell_spec(cell_of(wildcards))


def base_of(wildcards):
    """Model directory that a cell's adapters sit on."""
    return f"results/model/{'nf4' if cell_of(wildcards).method == 'qlora' else 'base'}"
