"""A cell of the tiny study, killed at random moments, ends as if nobody had disturbed it (``benchmarks/kills.py``)."""

import json
import subprocess
import sys

from lorastudy.study.settings import REPOSITORY


def test_kills_change_no_bit(tmp_path):
    result = tmp_path / "kills.json"
    script = REPOSITORY / "benchmarks" / "kills.py"
    subprocess.run([sys.executable, script, "--kills", "3", "--epochs", "40", "--output", result], check=False)
    seen = json.loads(result.read_text(encoding="utf-8"))
    assert seen["kills"]
    assert seen["identical"]
    assert seen["resumes"] >= 1
    assert seen["checkpoints_left"] == []
