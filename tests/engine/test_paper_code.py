"""The benchmark of the paper's own code, rehearsed on a tiny shape: every variant runs, in the format that it is named for."""

import json
import subprocess
import sys

from lorastudy.study.settings import REPOSITORY


def test_every_variant_runs_and_computes_in_its_format(tmp_path):
    script = REPOSITORY / "benchmarks" / "paper_code.py"
    command = [sys.executable, script, "--rehearse", "--steps", "1", "--repeats", "2", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {
        row["key"]: row
        for row in json.loads((tmp_path / "paper_code_rehearsal.json").read_text(encoding="utf-8"))["rows"]
    }
    assert {key: row["compute"] for key, row in rows.items()} == {
        "lora_bfloat16": "bfloat16",
        "qlora_as_loaded": "float32",  # what bitsandbytes multiplies in where no format is named
        "qlora_prepared": "float32",
        "qlora_tf32": "tf32",
        "qlora_bfloat16": "bfloat16",
        "engine_lora": "bfloat16",
        "engine_qlora": "bfloat16",
    }
    assert all(
        row["repeats"] == 2 and row["lowest"] <= row["seconds_a_step"] <= row["highest"] for row in rows.values()
    )
    assert "| QLoRA prepared, bfloat16 compute, autocast |" in (tmp_path / "paper_code_rehearsal.md").read_text(
        encoding="utf-8"
    )
