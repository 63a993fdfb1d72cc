"""The profile for one machine with several GPUs, pretended here."""

import re
import shutil

import pandas as pd

CELLS = ("lora_attention_r2_a4_s0", "qlora_attention_r2_a4_s0")


def test_cells_share_the_gpus_of_a_machine(copy_study, snakemake):
    cells = copy_study / "results" / "cells"
    before = {cell: pd.read_parquet(cells / cell / "predictions.parquet") for cell in CELLS}
    for cell in CELLS:
        shutil.rmtree(cells / cell)
    targets = [f"results/cells/{cell}/metrics.json" for cell in CELLS]
    snakemake(
        "--profile", "workstation", "--cores", 2, "-d", copy_study, *targets, LORASTUDY_PRETENDED_GPUS="8192,8192"
    )
    for cell in CELLS:
        assert pd.read_parquet(cells / cell / "predictions.parquet").equals(before[cell])
        logs = {
            step: (copy_study / "logs" / "cells" / f"{cell}.{step}.log").read_text(encoding="utf-8")
            for step in ("finetune", "evaluate")
        }
        assert re.search(r"computing on GPU [01], a share of \d+ of 8192 MB", logs["finetune"])
        assert "GPU" not in logs["evaluate"]  # predicted by the job that trained it
    assert not (copy_study / "results" / "leases").exists()
    assert not (copy_study / "results" / "checkpoints").exists()


def test_without_a_gpu_the_log_warns(finished_study):
    log = (finished_study / "logs" / "cells" / f"{CELLS[0]}.finetune.log").read_text(encoding="utf-8")
    assert "computing on the CPU" in log
