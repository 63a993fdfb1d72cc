"""Every command in the documents and the Makefile, run as it stands there.

A new command needs no line in ``documents.CASES`` if it is one of ``snakemake`` or ``make`` that can be planned in a fresh
clone; any other has to be told how it is run.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from documents import CASES, DOCUMENTS, FINISHED, SLURM, case_of, commands, shell
from lorastudy.study.settings import REPOSITORY

COMMANDS = commands()


@pytest.fixture(scope="module")
def fresh(clone, tiny_base, tmp_path_factory):
    """A fresh clone of this module's own, with an environment, and in ``mine`` the study that README describes."""
    place = tmp_path_factory.mktemp("fresh") / "pipeline"
    shutil.copytree(clone, place)
    (place / ".venv").symlink_to(sys.prefix)
    shutil.copytree(REPOSITORY / ".test", place / "mine")
    (example,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    config = yaml.safe_load(example)
    assert config["model"]["source"] == "directory"
    config["model"]["name"] = str(tiny_base)
    (place / "mine" / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
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
        ["bash", "-euc", command], cwd=place, env=environment, capture_output=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_a_documented_command_works(command, request):
    case = case_of(command.text)
    assert case, f"{command.source}: nobody has said how to run `{command.text}`; add a case to tests/documents.py"
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


PLACES = [REPOSITORY, REPOSITORY / "docs" / "results", REPOSITORY / "workflow" / "scripts" / "lorastudy"]
FILE = re.compile(r"`([\w./*-]+/[\w./*-]*\.(?:py|sh|smk|yaml|json|md))`")
MODULE = re.compile(r"`(lorastudy(?:\.\w+)+)`")
PRODUCT = re.compile(r"`((?:figures|paper_tables)/[\w.*]+)`")


def named(pattern):
    """What documents name: (document, name)."""
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    return [(path.name, name) for path, text in texts.items() for name in pattern.findall(text)]


def test_modules_and_files_that_documents_name_are_there():
    ours = [(document, name) for document, name in named(FILE) if not name.startswith(("mine/", "paper_tables/"))]
    assert len(ours) > 20
    assert [pair for pair in ours if not any((place / pair[1]).exists() for place in PLACES)] == []
    modules = named(MODULE)
    assert len(modules) > 3
    assert [pair for pair in modules if importlib.util.find_spec(pair[1]) is None] == []


def test_tables_and_figures_that_documents_name_are_made(finished_study):
    products = named(PRODUCT)
    assert len(products) > 10
    assert [pair for pair in products if not list(finished_study.glob(pair[1]))] == []


def test_profiles_and_documents_name_rules_that_exist(snakemake):
    rules = set(snakemake("--list-rules", "-d", REPOSITORY / ".test").stdout.split())
    for path in REPOSITORY.glob("*/config.yaml"):
        named = set(yaml.safe_load(path.read_text(encoding="utf-8")).get("set-resources", {}))
        assert named <= rules, path
    assert {"finetune_cell", "evaluate_cell", "check", "make_table"} <= rules
