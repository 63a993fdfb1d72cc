"""The benchmarks that need no GPU and little time, in small."""

import subprocess
import sys

from lorastudy.study.settings import REPOSITORY


def test_submission_is_measured_and_nothing_is_left_behind(tmp_path):
    before = sorted(REPOSITORY.iterdir())
    command = [sys.executable, REPOSITORY / "benchmarks" / "submission.py", "2", "--poll", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    cells, jobs, *_ = done.stdout.splitlines()[-1].split()
    assert (cells, jobs) == ("2", "4")
    assert sorted(REPOSITORY.iterdir()) == before
    assert list(tmp_path.iterdir()) == []
