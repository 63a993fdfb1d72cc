"""Slurm clusters on this machine, and studies that run on them."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import cluster as slurm_cluster

REPOSITORY = Path(__file__).resolve().parents[2]
CELL = "lora_attention_r2_a4_s0"
TRAINED = f"results/cells/{CELL}/training.json"
FILES = ("adapter/adapter_model.safetensors", "training_log.csv", "predictions.parquet")


@pytest.fixture(scope="session")
def start_cluster(tmp_path_factory):
    """Function that starts a cluster; all are stopped at the end."""
    started = []

    def start(port, **options):
        packages = slurm_cluster.PACKAGES
        if options.get("accounting"):
            packages += slurm_cluster.ACCOUNTING_PACKAGES
        try:
            slurm_cluster.install(packages)
        except slurm_cluster.CannotInstall as reason:
            pytest.skip(str(reason))
        one = slurm_cluster.Cluster(tmp_path_factory.mktemp("cluster"), port=port, **options)
        started.append(one)
        return one.start()

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A clean clone of this repository, with what is not committed yet."""
    directory = tmp_path_factory.mktemp("clone") / "pipeline"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name, follow_symlinks=False)
    return directory


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
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *map(str, options)],
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
        return self.log.read_text()

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
        raise AssertionError(f"no {what} after {seconds} s\n{output.read_text()[-3000:] if output.exists() else ''}")

    def until_training(self):
        """Wait until a checkpoint was written; returns the process that trains (its note)."""
        self.until(lambda: list(self.directory.glob("results/checkpoints/*/step*.safetensors")), "checkpoint")
        return json.loads((self.directory / "logs" / "attempts" / f"finetune.{CELL}.json").read_text())["running"]

    def files(self):
        return {name: (self.cell / name).read_bytes() for name in FILES if (self.cell / name).exists()}

    def training(self):
        return json.loads((self.cell / "training.json").read_text())


def process(note):
    """Number of the process that a note is about, which must still run."""
    assert Path(f"/proc/{note['pid']}").exists()
    return note["pid"]


def losses(study):
    """Training log without its clock."""
    import pandas as pd

    return pd.read_csv(study.cell / "training_log.csv")[["step", "loss", "learning_rate", "grad_norm", "samples"]]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, clone):
    """A study of one cell, with model and data, and the same study run undisturbed to the end of its cell."""
    directory = tmp_path_factory.mktemp("prepared") / "study"
    shutil.copytree(clone / ".test", directory)
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["grid"] |= {"methods": ["lora"], "targets": ["attention"], "r": [2]}
    config["training"]["epochs"] = 120
    config["execution"] = {"checkpoint_minutes": 0.03, "log_every_steps": 20}
    path.write_text(yaml.safe_dump(config))
    Run(clone, None, directory, "results/data/card.json").succeed()
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "study"
    shutil.copytree(directory, undisturbed)
    Run(clone, None, undisturbed, f"results/cells/{CELL}/metrics.json").succeed()
    return directory, Study(undisturbed)


@pytest.fixture(scope="session")
def new_study(prepared, tmp_path_factory):
    """Function that makes a copy of the prepared study."""
    lock = threading.Lock()

    def make():
        with lock:
            directory = tmp_path_factory.mktemp("study") / "study"
        shutil.copytree(prepared[0], directory)
        (directory / "snakemake.out").unlink()
        return Study(directory)

    return make
