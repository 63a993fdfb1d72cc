"""An interrupted study is resumed only when nothing works in it any more."""

import subprocess
import sys
import time

import pytest
from lorastudy.jobs import lease
from lorastudy.study.settings import REPOSITORY

HOLD = "import time; from lorastudy.jobs import lease; lease.Lease({name!r}, {directory!r}).acquire(); time.sleep(60)"


@pytest.fixture
def study(tmp_path):
    for name in ("config.yaml", "reviews.csv"):
        (tmp_path / name).write_bytes((REPOSITORY / ".test" / name).read_bytes())
    return tmp_path


@pytest.fixture
def hold(study):
    """Function that starts a process that holds a lease of the study."""
    running = []

    def start(name):
        directory = study / lease.DIRECTORY
        code = HOLD.format(name=name, directory=str(directory))
        running.append(subprocess.Popen([sys.executable, "-c", code]))
        end = time.monotonic() + 30
        while not (directory / f"{name}.json").exists() and time.monotonic() < end:
            time.sleep(0.05)
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def resume(study, *arguments):
    command = [sys.executable, "workflow/scripts/resume.py", "-d", study, *arguments, "-n", "--quiet"]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def test_it_waits_for_an_orphan(study, hold):
    orphan = hold("a_cell")
    up = resume(study)
    assert f"Waiting for a_cell: process {orphan.pid}" in up.stdout.readline()
    assert up.poll() is None
    orphan.kill()
    orphan.wait()
    up.communicate()
    assert up.returncode == 0
    assert not (study / lease.DIRECTORY).exists()


def test_it_ends_an_orphan_on_request(study, hold):
    orphan = hold("a_cell")
    up = resume(study, "--cancel")
    assert "Ending a_cell" in up.communicate()[0]
    assert up.returncode == 0
    assert orphan.wait() == -15


def test_it_leaves_a_living_snakemake_alone(study, hold):
    hold("snakemake")
    up = resume(study)
    assert "Snakemake still runs this study" in up.communicate()[0]
    assert up.returncode == 2


def test_a_directory_that_is_no_study_is_told(tmp_path):
    up = resume(tmp_path)
    assert "has no config.yaml" in up.communicate()[0]
    assert up.returncode == 2
