"""What every stage needs: the study's settings and its cells. The logic is in lorastudy."""

from snakemake.cli import get_argument_parser

from lorastudy.inputs import data as study_data
from lorastudy.analysis import summary
from lorastudy.inputs import base_model, linear_layers
from lorastudy.jobs import lease, slurm
from lorastudy.presentation import figures, tables
from lorastudy.study import command, configuration, grid, layout, records, settings
from lorastudy.study.errors import StudyError


def checked(step, *arguments):
    """Run a check of the library; its faults end the workflow in one line each, before any job.

    By SystemExit, because Snakemake adds lines of its own to any other exception.
    """
    try:
        return step(*arguments)
    except StudyError as fault:
        raise SystemExit(str(fault)) from None


ASKED = get_argument_parser().parse_known_args()[0]
CONFIGURED = configuration.Configuration.of(workflow.config_settings)
checked(command.require_own_report, ASKED.report)
checked(
    configuration.require_single_keys, [*workflow.configfiles, *command.profiles(ASKED)]
)
checked(CONFIGURED.typed, config)
SETTINGS = checked(settings.load, config)
# Read by scripts from the configuration and not from params, so that a change of it reruns nothing.
config["execution"] = SETTINGS.block("execution")
CELLS = grid.cells(SETTINGS.grid)
checked(records.check_directories)
# An unpacked bundle has records and neither texts nor weights: what there is can be drawn, and nothing be trained.
IS_BUNDLE = os.path.exists(layout.BUNDLE)
if not IS_BUNDLE:
    checked(base_model.check, SETTINGS.model, SETTINGS.data.max_length)
    checked(study_data.check, SETTINGS.data)


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
ASKED_CELLS, PUBLISHED = command.cells(ASKED.targets)
for name in [*ASKED_CELLS, *PUBLISHED]:
    known_cell(name)


def is_job():
    """Whether this Snakemake runs a single job for another one, which has made all that the job needs."""
    return bool(ASKED.target_jobs)


ONLY_PAPER = IS_BUNDLE or command.only_paper(ASKED.targets)
AS_IT_IS = ONLY_PAPER or is_job()


if not AS_IT_IS:
    checked(linear_layers.check, SETTINGS.model, CELLS.values())


# Where snakemake runs, here and in the other files: what needs its network, and what takes less time than a job would wait.
localrules:
    all,
    figures,
    paper_tables,


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
