"""Studies that run on a cluster of the tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

CELL = "lora_attention_r2_a4_s0"
TRAINED = f"results/cells/{CELL}/training.json"
FILES = ("adapter/adapter_model.safetensors", "training_log.csv", "predictions.parquet")


class Run:
    """A ``snakemake --profile slurm`` on a study, running in the background.

    Args:
        clone: the pipeline.
        cluster: None for a run on this machine without Slurm.
        study: its directory.
        script: run by Python in place of the module ``snakemake``.
        environment: variables that are set besides.
    """

    def __init__(self, clone, cluster, study, *arguments, script=None, profile="slurm", **environment):
        command = [sys.executable, script] if script else [sys.executable, "-m", "snakemake"]
        options = ["--directory", study, *arguments]
        if cluster:
            # short looks, so that the tests are
            options += ["--profile", profile, "--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "40"]
        else:
            options += ["--cores", "2"]
        self.log = study / "snakemake.out"
        environment = (cluster.environment if cluster else os.environ) | {"OMP_NUM_THREADS": "1"} | environment
        with self.log.open("a", encoding="utf-8") as log:
            # a shell that starts the tests in the background has them ignore SIGINT, and children inherit that
            self.process = subprocess.Popen(
                ["env", "--default-signal=INT", *command, *map(str, options)],
                cwd=clone,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds=400):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.output()[-3000:]}") from None

    def signal(self, number):
        self.process.send_signal(number)

    def output(self):
        return self.log.read_text(encoding="utf-8")

    def succeed(self, seconds=400):
        code = self.wait(seconds)
        assert code == 0, self.output()[-4000:]
        return self


class Study:
    """A study of one cell that trains for some seconds."""

    def __init__(self, directory):
        self.directory = directory
        self.cell = directory / "results" / "cells" / CELL

    def until(self, condition, what, seconds=240):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.05)
        output = self.directory / "snakemake.out"
        raise AssertionError(
            f"no {what} after {seconds} s\n{output.read_text(encoding='utf-8')[-3000:] if output.exists() else ''}"
        )

    def until_training(self):
        """Wait until a checkpoint was written; returns the process that trains (its note)."""
        self.until(lambda: list(self.directory.glob("results/checkpoints/*/step*.safetensors")), "checkpoint")
        return json.loads((self.directory / "logs" / "attempts" / f"finetune.{CELL}.json").read_text(encoding="utf-8"))[
            "running"
        ]

    def files(self):
        return {name: (self.cell / name).read_bytes() for name in FILES if (self.cell / name).exists()}

    def told(self):
        """What the user can read: on the terminal and in the logs of jobs."""
        logs = (self.directory / ".snakemake" / "slurm_logs").rglob("*.log")
        files = [self.directory / "snakemake.out", *logs]
        return "".join(path.read_text(errors="replace", encoding="utf-8") for path in files if path.exists())

    def training(self):
        return json.loads((self.cell / "training.json").read_text(encoding="utf-8"))


def process(note):
    """Number of the process that a note is about, which must still run."""
    assert Path(f"/proc/{note['pid']}").exists()
    return note["pid"]


def losses(study):
    """Training log without its clock."""
    import pandas as pd

    return pd.read_csv(study.cell / "training_log.csv")[["step", "loss", "learning_rate", "grad_norm", "samples"]]
