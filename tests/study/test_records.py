"""Records say where they come from, and nothing else's."""

import os
import shutil
import subprocess

import pytest
from lorastudy.study import records


def git(*arguments, cwd):
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    clean = {name: value for name, value in os.environ.items() if name not in records.GIT_VARIABLES}
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=clean | identity, capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Function that makes a git repository with one commit in a directory and returns the commit."""

    def make(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / "file").write_text(str(path), encoding="utf-8")
        git("init", "-q", cwd=path)
        git("add", "file", cwd=path)
        git("commit", "-q", "-m", "first", cwd=path)
        return git("rev-parse", "HEAD", cwd=path)

    return make


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Directory of a pipeline that was unpacked, without git."""
    place = tmp_path / "projects" / "pipeline"
    (place / "workflow" / "scripts" / "lorastudy").mkdir(parents=True)
    monkeypatch.setattr(records, "REPOSITORY", place)
    monkeypatch.setattr(records, "LIBRARY", place / "workflow" / "scripts" / "lorastudy")
    return place


NOTHING = {"git_commit": None, "git_dirty": None}


def test_the_commit_of_the_pipelines_own_repository(pipeline, repository):
    commit = repository(pipeline)
    assert records.git_state() == {"git_commit": commit, "git_dirty": False}
    (pipeline / "file").write_text("changed", encoding="utf-8")
    assert records.git_state() == {"git_commit": commit, "git_dirty": True}


def test_the_commit_of_an_enclosing_repository_is_not_the_pipelines(pipeline, repository):
    repository(pipeline.parent)
    assert records.git_state() == NOTHING
    git("add", ".", cwd=pipeline.parent)  # nor where it keeps the pipeline's files
    assert records.git_state() == NOTHING


@pytest.mark.parametrize("variables", [["GIT_DIR"], ["GIT_DIR", "GIT_WORK_TREE"], ["GIT_COMMON_DIR", "GIT_INDEX_FILE"]])
def test_variables_of_git_point_to_no_other_repository(pipeline, repository, tmp_path, monkeypatch, variables):
    commit, other = repository(pipeline), tmp_path / "other"
    repository(other)
    values = {"GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / ".git" / "index"}
    for name in variables:
        monkeypatch.setenv(name, str(values.get(name, other / ".git")))
    assert records.git_state() == {"git_commit": commit, "git_dirty": False}
    shutil.rmtree(pipeline / ".git")
    assert records.git_state() == NOTHING


def test_no_git_on_this_machine(pipeline, repository, monkeypatch):
    repository(pipeline)
    monkeypatch.setenv("PATH", "")
    assert records.git_state() == NOTHING


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_weights_have_the_permissions_of_other_files(tmp_path, mask):
    """safetensors makes its files for their owner alone (0600)."""
    import torch
    from safetensors.torch import save_file

    before = os.umask(mask)
    try:
        save_file({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
        records.open_as_others(tmp_path / "weights.safetensors")
        (tmp_path / "other").touch()
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.fixture
def code(pipeline, monkeypatch):
    """Function that writes the library's only module and returns what a process that begins now says of the code."""
    monkeypatch.setenv(records.FINGERPRINT, "")

    def fingerprint(source):
        (records.LIBRARY / "module.py").write_text(source, encoding="utf-8")
        records.code_fingerprint.cache_clear()
        return records.code_fingerprint()

    yield fingerprint
    records.code_fingerprint.cache_clear()


def test_the_code_is_known_by_what_it_does(code):
    first = code("def double(x):\n    return 2 * x\n")
    assert code('def double(x):\n    """Twice."""\n    # as said\n    return 2*x\n') == first
    assert code("def double(x):\n    return 3 * x\n") != first


def test_a_job_takes_over_what_is_known_of_the_same_code(code, monkeypatch):
    code("x = 1\n")
    text = os.environ[records.FINGERPRINT].partition(" ")[0]
    monkeypatch.setenv(records.FINGERPRINT, f"{text} known")
    assert code("x = 1\n") == "known"
    assert code("x = 2\n") != "known"
