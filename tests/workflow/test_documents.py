"""Every command in the documents and the Makefile, run as it stands there.

A command is planned instead of carried out (``-n``) where other tests compute the same targets. A new command needs no
line here if it is one of ``snakemake`` or ``make``; any other has to be told how it is run.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import documents
import pytest
import yaml
from lorastudy.study.settings import REPOSITORY

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
    Case(rf"{PYTHON} workflow/scripts/watch\.py.*", FINISHED, says="8 of 8 cells"),
    Case(rf"{PYTHON} workflow/scripts/take_up\.py.*", FINISHED, add=" -n", says="Nothing to be done"),
    Case(rf"{PYTHON} docs/\w+\.py", says="^$"),
    Case(rf"{PYTHON} benchmarks/\w+\.py", add=" --help", says="usage"),
    Case(rf"{PYTHON} -m pytest", add=" --collect-only -q tests/statistics", says="tests collected"),
    Case(rf"{PYTHON} -m pytest tests/slurm -m slurm", add=" --collect-only -q", says="tests collected"),
    Case(r"\.venv/bin/(ruff|snakefmt) .*"),
    Case(r"PYTHONPATH=workflow/scripts \.venv/bin/lint-imports .*", says="0 broken"),
    Case(r"PYTHON=\S+ sh (envs/make_environment\.sh) \S+", instead=r"sh -n \1"),  # `make test` itself has run it
    Case(r"rm -rf demo/.*"),
    Case(r"(echo|touch)\b.*"),
    # getting started
    Case(r"git clone <this repository> && cd <it>", instead=f"git clone -q '{REPOSITORY}' ../cloned && cd ../cloned",
         leaves="../cloned/Snakefile"),
    Case(r"\. \.venv/bin/activate", add=" && command -v snakemake", says=r"\.venv/bin/snakemake"),
    Case(r"(export|unset) .*"),
    Case(rf"{PYTHON} -m compileall", add=" -q workflow/scripts/lorastudy/study"),
    # other people's programs
    Case(r"hf (auth login|upload) ?.*", instead=r"hf \1 --help", says="Usage"),
    Case(r"pip install snakemake-report-plugin-fairscape==\S+", instead="true"),  # the fixture `reporter` does
    Case(r"pip install snakemake-executor-plugin-…", instead="true"),  # the reader puts a name in
    Case(r"(sinfo|squeue|sacctmgr|scontrol) .*", SLURM),
)  # fmt: skip
COMMANDS = documents.commands()


def case_of(command):
    """The first ``Case`` for a command; None if nobody has said how it is run."""
    return next((case for case in CASES if re.fullmatch(case.pattern, command)), None)


def shell(case, command):
    """What is run for a command."""
    if case.instead:
        return re.fullmatch(case.pattern, command).expand(case.instead)
    text = re.sub(r"publish/[\w<>-]+", f"publish/{CELL}", command) if case.place == FINISHED else command
    return text.replace("-d that-directory", "-d mine").replace("-d DIRECTORY", "-d mine") + case.add


@pytest.fixture(scope="module")
def fresh(clone, tiny_base, tmp_path_factory):
    """A fresh clone of this module's own, with an environment, and in ``mine`` the study that README describes."""
    place = tmp_path_factory.mktemp("fresh") / "pipeline"
    shutil.copytree(clone, place)
    (place / ".venv").symlink_to(sys.prefix)
    shutil.copytree(REPOSITORY / ".test", place / "mine")
    (example,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    config = yaml.safe_load(example)
    assert config["model"]["source"] == "directory"
    config["model"]["name"] = str(tiny_base)
    (place / "mine" / "config.yaml").write_text(yaml.safe_dump(config))
    return place


@pytest.fixture(scope="module")
def finished(fresh, finished_study, tmp_path_factory):
    """A clone in which the paper's study and the demo are finished: both are the tiny study."""
    place = tmp_path_factory.mktemp("finished") / "pipeline"
    shutil.copytree(fresh, place, symlinks=True)
    for study in (place, place / "demo"):
        shutil.copytree(finished_study, study, symlinks=True, dirs_exist_ok=True)
    return place


@pytest.fixture(scope="module")
def reporter(tmp_path_factory):
    """Path of the reporter that docs/report.md has people install, in the version that it names."""
    place = tmp_path_factory.mktemp("reporter")
    (wanted,) = {word for one in COMMANDS for word in one.text.split() if word.startswith("snakemake-report-plugin-")}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), "--no-deps"]
    subprocess.run([*command, wanted, "fairscape-conversion<0.2"], check=True, capture_output=True)
    return place


def run(command, place, *paths):
    """Run a command in a shell, in a clone with its environment active; ``paths`` come before Python's own."""
    path = os.pathsep.join(map(str, (place / "workflow" / "scripts", *paths)))  # as `make .venv/installed` does it
    environment = os.environ | {
        "PATH": f"{place}/.venv/bin:{os.environ['PATH']}", "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "SCRATCH": "/tmp",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-euc", command], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_a_documented_command_works(command, request):
    case = case_of(command.text)
    assert case, f"{command.source}: nobody has said how to run `{command.text}`; add a case to {Path(__file__).name}"
    if case.place == SLURM:
        return  # tests/slurm/test_documents.py
    place = request.getfixturevalue("finished" if case.place == FINISHED else "fresh")
    extra = [request.getfixturevalue("reporter")] if "--reporter" in command.text else []
    done = run(shell(case, command.text), place, *extra)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(case.says, said, re.MULTILINE), said
    assert "Traceback" not in said
    assert not case.leaves or list(place.glob(case.leaves)), said


def test_every_case_is_of_a_command():
    used = {case_of(command.text) for command in COMMANDS}
    assert [case.pattern for case in CASES if case not in used] == []


def test_what_pages_are_written_from_gives_the_same_pages(fresh):
    """``python docs/….py`` has left the committed pages as they were."""
    for page in sorted((REPOSITORY / "docs").rglob("*.md")):
        assert (fresh / page.relative_to(REPOSITORY)).read_bytes() == page.read_bytes()


def test_profiles_and_documents_name_rules_that_exist(snakemake):
    rules = set(snakemake("--list-rules", "-d", REPOSITORY / ".test").stdout.split())
    for path in REPOSITORY.glob("*/config.yaml"):
        named = set(yaml.safe_load(path.read_text()).get("set-resources", {}))
        assert named <= rules, path
    assert {"finetune_cell", "evaluate_cell", "check", "make_table"} <= rules
