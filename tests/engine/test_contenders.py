"""The benchmark of this engine and its peers, rehearsed on a tiny shape: every contender of every setting trains."""

import json
import subprocess
import sys

from lorastudy.study.settings import REPOSITORY


def test_every_contender_trains(tmp_path):
    script = REPOSITORY / "benchmarks" / "contenders.py"
    command = [sys.executable, script, "--rehearse", "--repeats", "2", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "contenders_rehearsal.json").read_text(encoding="utf-8"))["rows"]
    ours = [row for row in rows if row["peer"] is None]
    assert {(row["method"], row["texts"], row["dropout"]) for row in ours} >= {
        (method, texts, dropout)
        for method in ("lora", "qlora")
        for texts, dropout in ((8, 0.05), (16, 0.0), (16, 0.05), (48, 0.0), (48, 0.05))
    }
    assert all(row["fused"] and row["loss_is_finite"] and row["repeats"] == 2 for row in ours)
    assert all(row["lowest"] <= row["tokens_per_second"] <= row["highest"] for row in ours)
    page = (tmp_path / "contenders_rehearsal.md").read_text(encoding="utf-8")
    assert page.count("this engine |") == len(ours)
