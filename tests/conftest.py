"""What several tests need: a tiny model and data set on disk, and the tiny study run once through Snakemake."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]
# For the processes that tests start; pytest itself has it from pyproject.toml. This clone's library, also where the
# environment has that of another one installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY / "workflow" / "scripts"), os.environ.get("PYTHONPATH")])
)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """Directory of a Llama of two layers with random weights and a tokenizer of bytes, in float32."""
    from lorastudy.inputs import base_model
    from lorastudy.study import settings

    directory = tmp_path_factory.mktemp("model") / "base"
    base_model.fetch(settings.Model(source="random", name="tiny", revision=None, dtype="float32"), directory)
    return directory


@pytest.fixture(scope="session")
def tiny_nf4(tiny_base, tmp_path_factory):
    """The same, quantized."""
    from lorastudy.engine import model

    directory = tmp_path_factory.mktemp("quantized") / "nf4"
    directory.mkdir()
    model.quantize(tiny_base, directory, "float32")
    return directory


@pytest.fixture(scope="session")
def snakemake():
    """Run ``snakemake`` with the given arguments in the repository; returns the finished process."""

    def run(*arguments, check=True, **environment):
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(REPOSITORY / "Snakefile"),
            *map(str, arguments),
        ]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # of a locale that is not this process's
            check=False,
            env=os.environ | environment,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory, snakemake):
    """The tiny study of ``.test/``, run to its end. Tests that change it work on a copy (``copy_study``).

    Where several processes test side by side (pytest-xdist), one of them runs it for all.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory, finished = base / "finished-study", base / "finished-study.done"
    with FileLock(base / "finished-study.lock"):
        if not finished.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            for name in ("config.yaml", "reviews.csv"):
                shutil.copy(REPOSITORY / ".test" / name, directory / name)
            snakemake("-d", directory, "--cores", 2)
            finished.touch()
    return directory


@pytest.fixture
def copy_study(finished_study, tmp_path):
    """A copy of the finished tiny study, times of the files kept, that a test may change."""
    copy = tmp_path / "study"
    shutil.copytree(finished_study, copy, symlinks=True)
    return copy


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A clean clone of this repository, with what is not committed yet."""
    directory = tmp_path_factory.mktemp("clone") / "pipeline"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name, follow_symlinks=False)
    return directory
