"""The commands that the documents and the Makefile tell people to type, found by reading them, and how each is tried.

A command is planned instead of carried out (``-n``) where other tests compute the same targets.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass

from lorastudy.study.settings import REPOSITORY

DOCUMENTS = [
    path
    for path in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
    if path.exists()
]
# A code span that begins with one of these, and goes on, is a command.
PROGRAMS = (
    "cd", "export", "git", "hf", "make", "pip", "pre-commit", "pytest", "python", "rm", "ruff", "sacct", "sacctmgr",
    "sbatch", "scontrol", "sinfo", "snakemake", "squeue", "unset",
)  # fmt: skip
SHELLS = ("", "sh", "bash", "console")  # languages of a fenced block whose lines are commands
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Command:
    """A line for a shell, and the file that says it (the first one)."""

    text: str
    source: str


def commands():
    """Every ``Command`` once, in the order of the documents; those of the Makefile last, as ``make -n`` prints them."""
    found = {}
    for path in DOCUMENTS:
        for text in of_document(path.read_text(encoding="utf-8")):
            found.setdefault(text, path.relative_to(REPOSITORY).as_posix())
    targets = [f"make {target}" for target in makefile_targets()]
    for text in (*found, *targets):
        if text.startswith("make "):
            for line in recipe(text):
                found.setdefault(line, "Makefile")
    return [Command(text, source) for text, source in found.items()]


def of_document(text):
    """The commands in a text in Markdown: lines of fenced blocks without their comments, and code spans."""
    for language, block in FENCED.findall(text):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                yield from parts(re.sub(r"(^|\s)#.*", "", line))
    for span in SPAN.findall(FENCED.sub("", text)):
        words = span.split()
        if len(words) > 1 and words[0] in PROGRAMS:
            yield from parts(" ".join(words))


def parts(line):
    """The commands of a line, without the ``&&`` between them; those after a change of directory stay with it."""
    line = line.strip()
    return [] if not line else [line] if " cd " in f" {line}" else line.split(" && ")


def recipe(command):
    """What a ``make`` command would run, everything that it depends on included."""
    done = subprocess.run(
        ["bash", "-euc", f"{command} -n -B --no-print-directory"],
        cwd=REPOSITORY,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [part for line in done.stdout.replace("\\\n", " ").splitlines() for part in parts(line)]


def makefile_targets():
    """The targets that the Makefile offers to people."""
    return re.search(r"^\.PHONY: (.*)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()


# --- how each is tried

FRESH, FINISHED, SLURM = "a fresh clone", "a clone whose studies are finished", "a cluster of tests/slurm"
CELL = "lora_attention_r2_a4_s0"  # of the finished study, in place of any that a document names
PYTHON = r"(?:\.venv/bin/)?python"
SNAKEMAKE = r"(?:\.venv/bin/)?snakemake"


@dataclass(frozen=True)
class Case:
    """How the commands that ``pattern`` matches as a whole are run.

    Attributes:
        pattern: regular expression.
        place: where.
        add: what is appended, so that nothing long is computed.
        instead: what is run in place of the command, where it cannot be tried out.
        says: regular expression for what it prints.
        leaves: glob of what it makes.
    """

    pattern: str
    place: str = FRESH
    add: str = ""
    instead: str = ""
    says: str = ""
    leaves: str = ""


# The first that matches counts.
CASES = (
    # look at a study before its run, for real
    Case(rf"{SNAKEMAKE}.* check", says="configuration in order"),
    # a bundle, where none has been unpacked yet
    Case(rf"({SNAKEMAKE}) -d UNPACKED (figures/ paper_tables/ report\.html)",  FINISHED,
         instead=r"python workflow/scripts/bundle.py demo && mkdir -p ../unpacked && "
         r"tar -xzf demo/bundle.tar.gz -C ../unpacked && \1 -n -d ../unpacked/* \2",
         says=r"plot_figure +\d+\n"),
    # what is made from results
    Case(rf"{SNAKEMAKE}( -d \S+| --cores \d+| --nolock)*( figures/| paper_tables/| report\.html)+", FINISHED,
         says="Nothing to be done"),
    Case(rf"{SNAKEMAKE}.* publish/\S+", FINISHED, leaves=f"**/publish/{CELL}/README.md"),
    Case(rf"{SNAKEMAKE}.* --report (\S+)", FINISHED, leaves="**/snakemake_report.html"),
    Case(rf"{SNAKEMAKE}.* --reporter fairscape", FINISHED, leaves="**/ro-crate-metadata.json"),
    # what computes, as a plan
    Case(rf"{SNAKEMAKE} --lint .*"),
    Case(rf"{SNAKEMAKE}.* results/cells/\S+", add=" -n", says=r"finetune_cell +1\n"),
    Case(rf"{SNAKEMAKE}.*", add=" -n", says=r"finetune_cell +\d+\n(.*\n)*make_report +1\n"),
    Case(r"make .*", add=" -n"),  # what it prints is among the commands
    # the pipeline's own programs
    Case(rf"{PYTHON} workflow/scripts/run_study\.py.*", FINISHED, says=r"verdict[ |]+claim[ |]+found"),
    Case(rf"{PYTHON} workflow/scripts/watch\.py.*", FINISHED, says="8 of 8 cells"),
    Case(rf"{PYTHON} workflow/scripts/resume\.py.*", FINISHED, add=" -n", says="Nothing to be done"),
    Case(rf"{PYTHON} workflow/scripts/bundle\.py '\.'.*", FINISHED, leaves="bundle.tar.gz"),
    Case(rf"{PYTHON} workflow/scripts/bundle\.py 'demo'.*", FINISHED, leaves="demo/bundle.tar.gz"),
    Case(rf"({PYTHON} workflow/scripts/compare\.py).*", FINISHED, instead=r"\1 . demo", leaves="comparison/comparison.md"),
    Case(rf"{PYTHON} workflow/scripts/export_logs\.py .*", add=" --help", says="usage"),  # tests/presentation/test_trackers.py
    Case(rf"{PYTHON} docs/\w+\.py", says="^$"),
    Case(rf"{PYTHON} benchmarks/\w+\.py", add=" --help", says="usage"),
    Case(rf"OMP_NUM_THREADS=1 {PYTHON} -m pytest -n auto --dist loadfile", add=" --collect-only -q tests/statistics", says="tests collected"),
    Case(rf"{PYTHON} -m pytest tests/\w+ -x", add=" --collect-only -q", says="tests collected"),
    Case(rf"{PYTHON} -m pytest tests/slurm -m slurm", add=" --collect-only -q", says="tests collected"),
    Case(r"\.venv/bin/(ruff|snakefmt) .*"),
    Case(r"PYTHONPATH=workflow/scripts \.venv/bin/lint-imports .*", says="0 broken"),
    Case(r"PYTHON=\S+ sh (envs/make_environment\.sh) \S+", instead=r"sh -n \1"),  # `make test` itself has run it
    Case(r"rm -rf demo/.*"),
    Case(r"(echo|touch)\b.*"),
    # getting started
    Case(r"git clone <this repository> && cd <it>", instead=f"git clone -q {shlex.quote(str(REPOSITORY))} ../cloned && cd ../cloned",
         leaves="../cloned/Snakefile"),
    Case(r"\. \.venv/bin/activate", add=" && command -v snakemake", says=r"\.venv/bin/snakemake"),
    Case(r"(export|unset) .*"),
    Case(r"pre-commit install", instead="pre-commit validate-config"),  # a fresh clone of the tests has no .git
    Case(rf"{PYTHON} -m compileall", add=" -q workflow/scripts/lorastudy/study"),
    # other people's programs
    Case(r"hf (auth login|upload) ?.*", instead=r"hf \1 --help", says="Usage"),
    Case(r"pip install snakemake-report-plugin-fairscape==\S+", instead="true"),  # the fixture `reporter` does
    Case(r"pip install (tensorboard|mlflow)", instead="true"),  # tests/presentation/test_trackers.py does
    Case(r"pip install snakemake-executor-plugin-…", instead="true"),  # the reader puts a name in
    Case(r"sinfo .*", SLURM, says=r"gpu gpu:a100:\d"),
    Case(r"squeue .*", SLURM, says="JOBID"),
    Case(r"sacctmgr show assoc .*", SLURM, says="lab"),
)  # fmt: skip


def case_of(command):
    """The first ``Case`` for a command; None if nobody has said how it is run."""
    return next((case for case in CASES if re.fullmatch(case.pattern, command)), None)


def shell(case, command):
    """What is run for a command."""
    if case.instead:
        return re.fullmatch(case.pattern, command).expand(case.instead)
    text = re.sub(r"publish/[\w<>-]+", f"publish/{CELL}", command) if case.place == FINISHED else command
    return text.replace("-d that-directory", "-d mine").replace("-d DIRECTORY", "-d mine") + case.add


def of_place(place):
    """The ``Command``s that are tried in ``place``."""
    return [command for command in commands() if (case := case_of(command.text)) and case.place == place]
