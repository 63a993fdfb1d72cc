"""How a job ended decides what its next attempt asks for and what the user reads."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from lorastudy.engine import training
from lorastudy.jobs import attempts, lease, logs
from lorastudy.planning import resources
from lorastudy.study import grid, settings
from lorastudy.study.errors import Cause, DiskFull
from lorastudy.study.settings import REPOSITORY

CELL = "lora_attention_r2_a4_s0"
JOB = f"finetune.{CELL}"


@pytest.fixture(autouse=True)
def _in_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def fail(fault, job=JOB):
    with pytest.raises(BaseException) as caught, attempts.noted(job, "logs/x.log"):
        raise fault
    return caught.value


def estimate(**options):
    study = settings.load(yaml.safe_load((REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8")))
    return resources.Estimate(study, grid.cells(study.grid), **options)


def requests(one):
    return one.finetune_minutes(CELL), one.finetune_memory_mb(CELL), one.gpu_memory_mb(CELL, "finetune")


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("fault", "cause", "grown"),
    [
        (MemoryError(), Cause.MEMORY, (1, 1.6, 1)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Cause.MEMORY, (1, 1.6, 1)),
        (OutOfMemoryError("CUDA out of memory"), Cause.GPU_MEMORY, (1, 1, 1.6)),
        (training.TrainingError("out of memory with a single text of 512 tokens"), Cause.GPU_MEMORY, (1, 1, 1.6)),
        (OSError(errno.ENOSPC, "No space left on device"), Cause.DISK, (1, 1, 1)),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), Cause.DISK, (1, 1, 1)),
        (RuntimeError("something else"), Cause.FAULT, (1, 1, 1)),
        (logs.Interrupted("stopped by SIGTERM", signal.SIGTERM), Cause.STOPPED, (1, 1, 1)),
    ],
)
def test_only_what_was_missing_grows(fault, cause, grown):
    before = requests(estimate(gpu="a100"))
    fail(fault)
    assert attempts.failures_of(JOB)[-1]["cause"] == cause
    after = requests(estimate(gpu="a100"))
    assert [new / old for new, old in zip(after, before)] == pytest.approx(grown, rel=0.03)


def test_a_stop_close_to_the_time_limit_is_the_time_limit(monkeypatch):
    before = requests(estimate())
    for left, cause in ((100, Cause.TIME), (5000, Cause.STOPPED), (None, Cause.STOPPED), (90, Cause.TIME)):
        monkeypatch.setattr(attempts.slurm, "seconds_left", lambda left=left: left)
        fail(logs.Interrupted("stopped by SIGTERM", signal.SIGTERM))
        assert attempts.failures_of(JOB)[-1]["cause"] == cause
    after = requests(estimate())
    assert after[0] / before[0] == pytest.approx(4, rel=0.05)  # twice for want of time
    assert after[1:] == before[1:]


def test_the_cluster_s_limit_bounds_the_request(monkeypatch):
    monkeypatch.setattr(attempts.slurm, "seconds_left", lambda: 1)
    for _ in range(8):
        fail(logs.Interrupted("stopped by SIGTERM", signal.SIGTERM))
    one = estimate(gpu="a100")
    assert one.finetune_minutes(CELL) > 1440
    one.longest = 1440
    assert one.finetune_minutes(CELL) == 1440


def test_success_forgets_the_failures():
    fail(RuntimeError("x"))
    with attempts.noted(JOB, "logs/x.log"):
        assert (
            json.loads(Path(f"logs/attempts/{JOB}.json").read_text(encoding="utf-8"))["running"]["pid"] == os.getpid()
        )
        assert len(attempts.failures_of(JOB)) == 1  # what runs has not failed
    assert attempts.failures_of(JOB) == []
    assert not list(Path("logs/attempts").iterdir())


@pytest.mark.parametrize(
    ("word", "cause"), [("OUT_OF_MEMORY", Cause.MEMORY), ("TIMEOUT", Cause.TIME), ("NODE_FAIL", Cause.KILLED)]
)
def test_what_slurm_knows_of_a_job_that_was_killed(monkeypatch, word, cause):
    monkeypatch.setattr(attempts.slurm, "end_of", lambda _: word)
    monkeypatch.setattr(attempts.slurm, "is_over", lambda _: True)
    running = {"log": "l", "host": "n7", "pid": 1, "process_started": 1, "slurm_job": "5", "begun_utc": ""}
    Path("logs/attempts").mkdir(parents=True)
    Path(f"logs/attempts/{JOB}.json").write_text(json.dumps({"failures": [], "running": running}), encoding="utf-8")
    (failure,) = attempts.failures_of(JOB)
    assert failure["cause"] == cause
    assert word in failure["reason"]


def test_memory_that_slurm_tells_only_in_the_log(monkeypatch):
    monkeypatch.setattr(attempts.slurm, "end_of", lambda _: "FAILED")
    monkeypatch.setattr(attempts.slurm, "is_over", lambda _: True)
    log = Path(".snakemake/slurm_logs/rule_finetune_cell/x/5.log")
    log.parent.mkdir(parents=True)
    log.write_text("slurmstepd: error: Exceeded job memory limit\n", encoding="utf-8")
    running = {"log": "l", "host": "n7", "pid": 1, "process_started": 1, "slurm_job": "5", "begun_utc": ""}
    Path("logs/attempts").mkdir(parents=True)
    Path(f"logs/attempts/{JOB}.json").write_text(json.dumps({"failures": [], "running": running}), encoding="utf-8")
    assert attempts.count(JOB, Cause.MEMORY) == 1


def test_a_full_disk_is_told_in_words():
    told = fail(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert isinstance(told, DiskFull)
    assert "no room left on the disk, or no quota" in str(told)


def test_a_signal_ends_a_job_in_order_when_it_is_not_training():
    with pytest.raises(logs.Interrupted, match="stopped by SIGTERM"), attempts.noted(JOB, "logs/x.log"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_report_names_job_reason_and_log():
    begun = attempts.now()
    fail(lease.LeaseError("first line\nsecond"))
    fail(lease.LeaseError("first line\nsecond"))
    fail(KeyError("x"), "fetch_data")
    assert attempts.report(begun) == [
        "fetch_data: KeyError: 'x'\n    log: logs/x.log",
        f"{JOB} (2 attempts): first line\n    log: logs/x.log",
    ]
    assert attempts.report("2999-01-01T00:00:00+00:00") == []  # of an earlier run, and not tried in this one
    with attempts.noted("fetch_data", "logs/x.log"):
        pass
    assert len(attempts.report(begun)) == 1
