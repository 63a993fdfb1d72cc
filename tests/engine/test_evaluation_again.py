"""A cell is evaluated by the job that trained it; a fresh process that loads its adapter finds the same, bit for bit."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from lorastudy.jobs import predicted
from lorastudy.study import grid, settings

AGAIN = """
import json, sys, evaluate_cell
evaluate_cell.main(**json.load(sys.stdin))
"""


@pytest.mark.parametrize("name", ["lora_all-linear_r2_a4_s0", "qlora_attention_r1_a2_s0"])
def test_a_fresh_process_finds_the_same_bits(finished_study, tmp_path, name):
    study = settings.load(yaml.safe_load((finished_study / "config.yaml").read_text(encoding="utf-8")))
    spec = study.cell_spec(grid.cells(study.grid)[name])
    cell = finished_study / "results" / "cells" / name
    data = finished_study / "results" / "data"
    files = {split: str(data / f"{split}.parquet") for split in predicted.SPLITS}
    base = "nf4" if name.startswith("qlora") else "base"
    arguments = files | {
        "base": str(finished_study / "results" / "model" / base),
        "card": str(data / "card.json"),
        "adapter": str(cell / "adapter"),
        "record": str(cell / "training.json"),
        "predictions": str(tmp_path / "predictions.parquet"),
        "metrics": str(tmp_path / "metrics.json"),
        "spec": spec,
        "statistics": study.block("statistics"),
        "execution": study.block("execution"),
        "threads": 1,
    }
    subprocess.run(
        [sys.executable, "-c", AGAIN], input=json.dumps(arguments), encoding="utf-8", check=True, cwd=tmp_path
    )
    ours, again = (pd.read_parquet(place / "predictions.parquet") for place in (cell, tmp_path))
    pd.testing.assert_frame_equal(ours, again, check_exact=True)
    ours, again = (json.loads((place / "metrics.json").read_text(encoding="utf-8")) for place in (cell, tmp_path))
    for record in (ours, again):
        for changes in ("evaluation", "provenance"):
            record.pop(changes)
    assert ours == again


def test_the_job_that_trained_has_evaluated(finished_study):
    logs = finished_study / "logs" / "cells"
    assert "evaluated 1 of" in (logs / "lora_attention_r2_a4_s0.finetune.log").read_text(encoding="utf-8")
    assert "evaluated" not in (logs / "lora_attention_r2_a4_s0.evaluate.log").read_text(encoding="utf-8")
    assert not (finished_study / "results" / "checkpoints").exists()
