"""A study from a clean clone on a real Slurm: what it makes, what it asks for, what it refuses."""

import getpass
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import documents
import pytest
import yaml
from slurm_studies import Run, Study

pytestmark = pytest.mark.slurm

SCRIPTS = ("finetune_cell", "evaluate_cell", "zero_shot", "quantize_model")


@pytest.fixture(scope="module")
def cluster(start_cluster):
    return start_cluster(26840)


def small(clone, directory, **grid):
    """The tiny study with four cells, or another grid."""
    shutil.copytree(clone / ".test", directory)
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["grid"] |= {"targets": ["attention"]} | grid
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return Study(directory)


class GpuWatch(threading.Thread):
    """Notes which scripts compute at the same time in a study, and which GPU each sees."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory = str(directory)
        self.done = threading.Event()
        self.together = []

    def run(self):
        while not self.done.wait(0.3):
            seen = dict(filter(None, map(self._gpu, Path("/proc").iterdir())))
            self.together.append(seen)

    def _gpu(self, entry):
        try:
            command = (entry / "cmdline").read_text(encoding="utf-8").split("\0")
            if not any(self.directory in part and part.endswith(f".{name}.py") for part in command for name in SCRIPTS):
                return None
            environment = dict(
                part.split("=", 1)
                for part in (entry / "environ").read_text(encoding="utf-8").split("\0")
                if "=" in part
            )
        except (OSError, ValueError):
            return None
        return environment.get("SLURM_JOB_ID"), environment.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture(scope="module")
def finished(cluster, clone, tmp_path_factory):
    study = small(clone, tmp_path_factory.mktemp("whole") / "study")
    watch = GpuWatch(study.directory)
    watch.start()
    run = Run(clone, cluster, study.directory, "-j", "20").succeed(500)
    watch.done.set()
    watch.join()
    return study, run, watch.together


def test_it_makes_everything(finished, clone):
    study, run, _ = finished
    cells = [path.name for path in (study.directory / "results" / "cells").iterdir()]
    assert len(cells) == 4
    for cell in cells:
        names = {path.name for path in (study.directory / "results" / "cells" / cell).iterdir()}
        assert names == {"adapter", "training.json", "training_log.csv", "predictions.parquet", "metrics.json"}
    assert list((study.directory / "figures").glob("*.pdf"))
    assert list((study.directory / "paper_tables").glob("*.md"))
    assert not (study.directory / "results" / "leases").exists()
    assert not (study.directory / "results" / "checkpoints").exists()
    again = Run(clone, None, study.directory, "--dry-run", "--rerun-triggers", "mtime", "params", "input").succeed()
    assert "Nothing to be done" in again.output()


def test_every_gpu_job_has_a_gpu_of_its_own(finished):
    _, _, together = finished
    most = max(together, key=len)
    assert 1 < len(most) <= 4
    for seen in together:
        assert set(seen.values()) <= {"0", "1", "2", "3"}
        assert len(set(seen.values())) == len(seen)


def test_the_cluster_was_asked_for_what_the_jobs_need(finished, cluster):
    study, _, _ = finished
    by_rule = {}
    for job in cluster.jobs(study.directory):
        by_rule.setdefault(re.match(r"rule_([a-z_]+?)(?:_wildcards|$)", job["Comment"])[1], []).append(job)
    # what fetches, and what takes seconds, runs where snakemake does
    assert set(by_rule) == {*SCRIPTS, "prepare_data", "count_parameters"}
    for rule, jobs in by_rule.items():
        on_gpu = rule in SCRIPTS
        for job in jobs:
            assert job["Partition"] == ("gpu" if on_gpu else "cpu")
            assert ("a100:1" in job.get("TresPerJob", "")) is on_gpu
            assert job["TimeLimit"] == ("00:21:00" if on_gpu else "00:30:00")
            assert job["MinMemoryNode"] == ("6001M" if on_gpu else "4000M")
            assert job["Requeue"] == "0"
    assert len(by_rule["finetune_cell"]) == len(by_rule["evaluate_cell"]) == 4
    log = next((study.directory / ".snakemake" / "slurm_logs" / "rule_finetune_cell").rglob("*.log"))
    assert "1 of 1 steps (100%) done" in log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def accounting(start_cluster):
    return start_cluster(26850, accounting=True)


def test_one_cell_with_accounting(accounting, clone, new_study):
    """With slurmdbd, an account, and sacct, which understands other words than squeue."""
    cluster, study = accounting, new_study()
    run = Run(clone, cluster, study.directory, study_target(study), "--slurm-status-command", "sacct", profile=changed(
        clone, study.directory / "profile", "# slurm_account: lab ", "slurm_account: lab "
    ))  # fmt: skip
    study.until_training()
    (job,) = cluster.jobs(study.directory)
    assert job["Account"] == "lab"
    cluster.run("scancel", job["JobId"])  # sacct calls that `CANCELLED by 0`, which the plugin does not know
    run.succeed()
    assert study.training()["resumes"] == 1
    states = cluster.run("sacct", "-X", "-n", "-P", "-o", "State", "--name", run_name(run)).split("\n")
    assert sorted(filter(None, states)) == ["CANCELLED by 0", "COMPLETED", "COMPLETED"]


@pytest.mark.parametrize("command", documents.of_place(documents.SLURM), ids=lambda command: command.text)
def test_a_documented_question_to_slurm_is_answered(accounting, command):
    environment = accounting.environment | {"USER": getpass.getuser()}
    said = subprocess.run(
        ["bash", "-euc", command.text], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert re.search(documents.case_of(command.text).says, said.stdout), said.stdout


def study_target(study):
    return f"results/cells/{study.cell.name}/metrics.json"


def run_name(run):
    return re.search(r"SLURM run ID: (\S+)", run.output())[1]


def changed(clone, directory, old, new):
    """A copy of the profile with one line changed."""
    text = (clone / "slurm" / "config.yaml").read_text(encoding="utf-8")
    assert old in text
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slurm_partition: gpu ", "slurm_partition: gpux ", "`slurm_partition` is gpux; this cluster has cpu, gpu, urgent."),
        ("gpu_model: a100 ", "gpu_model: h100 ", "`gpu_model` is h100; partition gpu has GPUs of type a100."),
        ("# slurm_account: lab ", "slurm_account: lab ", "`slurm_account` is lab, and this cluster keeps no accounts"),
    ],
    ids=["partition", "gpu", "account"],
)  # fmt: skip
def test_what_the_cluster_cannot_give_is_told_before_anything_is_submitted(
    cluster, clone, new_study, tmp_path, old, new, message
):
    study = new_study()
    run = Run(clone, cluster, study.directory, study_target(study), profile=changed(clone, tmp_path / "p", old, new))
    assert run.wait(120) == 1
    assert run.output().count(message) == 1
    assert "Traceback" not in run.output()
    assert cluster.jobs(study.directory) == []


def test_a_cluster_without_gpus_is_told(start_cluster, clone, new_study):
    cluster = start_cluster(26860, gpus=0)
    study = new_study()
    run = Run(clone, cluster, study.directory, study_target(study))
    assert run.wait(120) == 1
    assert "has no GPU, and a GPU is asked for; no partition of this cluster has any" in run.output()
    assert cluster.jobs(study.directory) == []


def test_a_cell_that_fails_for_good_stops_no_other(cluster, clone, prepared, tmp_path):
    study = Study(tmp_path / "study")
    shutil.copytree(prepared[0], study.directory)
    path = study.directory / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["grid"]["lines"] = {"r": {"r": [1, 2], "alpha": 4}}
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    bad = "lora_attention_r1_a4_s0"
    (study.directory / "results" / "checkpoints").mkdir()
    (study.directory / "results" / "checkpoints" / bad).write_text("in the way", encoding="utf-8")
    good = f"results/cells/{study.cell.name}/metrics.json"
    run = Run(clone, cluster, study.directory, good, f"results/cells/{bad}/metrics.json", "--retries", "0")
    assert run.wait(400) == 1
    assert (study.directory / good).exists()
    told = run.output()[run.output().index("Not finished:") :]
    assert f"finetune.{bad}: FileExistsError: " in told  # why, and not only that
    assert f"log: logs/cells/{bad}.finetune.log" in told
    assert study.cell.name not in told
    Run(clone, None, study.directory, "paper_tables/", "figures/").succeed()
    import pandas as pd

    summary = pd.read_csv(study.directory / "results" / "summary.csv").set_index("id")
    assert (summary.loc[study.cell.name, "status"], summary.loc[bad, "status"]) == ("finished", "missing")


def test_nothing_is_left_running():
    """In an interpreter of its own, a cluster ends with all of its processes."""
    code = (
        "import sys, tempfile; sys.path.insert(0, sys.argv[1])\n"
        "import slurm_cluster\n"
        "one = slurm_cluster.Cluster(tempfile.mkdtemp(), port=26870).start()\n"
        "one.run('sbatch', '-o', '/dev/null', '--wrap', 'sleep 100')\n"
        "print(one.directory); one.stop()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, Path(__file__).parent],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    time.sleep(0.5)
    directory = done.stdout.strip().encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert directory not in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
    shutil.rmtree(directory)
