"""How a job's attempts ended: what the next attempt asks for, and what the end of a run tells the user.

A job notes that it has begun, and how it ended if it could. A note without an end means that the job was killed without
a word; Slurm may then know why. The notes lie beside the logs and are removed when the job succeeds.
"""

import logging
import os
import platform
import signal
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lorastudy.jobs import lease, logs, slurm
from lorastudy.study import records
from lorastudy.study.errors import Cause, DiskFull, StudyError, is_disk_full, is_memory_exhausted

log = logging.getLogger("lorastudy")

DIRECTORY = "logs/attempts"
WARNING_SECONDS = 360  # a stop signal this close to the time limit is the warning of it


@contextmanager
def noted(job, logfile):
    """Note the beginning and the end of an attempt at ``job`` (for instance ``finetune.<cell>``).

    Raises:
        DiskFull: in place of the error that a full disk or an exhausted quota causes.
    """
    path = Path(DIRECTORY, f"{job}.json")
    failures = failures_of(job)
    begun = {
        "log": str(logfile),
        "host": platform.node(),
        "pid": os.getpid(),
        "process_started": lease.started(os.getpid()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "begun_utc": now(),
    }
    _write(path, {"failures": failures, "running": begun})
    try:
        with _stoppable():
            yield
    except BaseException as fault:
        cause = cause_of(fault)
        told = DiskFull(_disk_message(fault)) if cause == Cause.DISK and not isinstance(fault, StudyError) else fault
        if isinstance(fault, logs.Interrupted):
            log.error("%s: %s", cause, fault)
        ended = {"cause": cause, "reason": logs.in_a_line(told), "ended_utc": now()}
        _write(path, {"failures": [*failures, begun | ended], "running": None})
        if told is not fault:
            raise told from fault
        raise
    path.unlink(missing_ok=True)


@contextmanager
def _stoppable():
    """Let SIGTERM and SIGUSR1 end a job in order, also while it is not training (which handles them itself)."""

    def stop(number, _frame):
        raise logs.Interrupted(
            f"stopped by {signal.Signals(number).name}. Run the same command again to go on.", number
        )

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cause_of(fault):
    """The ``Cause`` that made a job end with this exception."""
    match fault:
        case logs.Interrupted():
            left = slurm.seconds_left()
            return Cause.TIME if left is not None and left < WARNING_SECONDS else Cause.STOPPED
        case KeyboardInterrupt():
            return Cause.STOPPED
        case StudyError() if fault.cause != Cause.FAULT:
            return fault.cause
    if is_disk_full(fault):
        return Cause.DISK
    if is_memory_exhausted(fault):
        return Cause.MEMORY
    # torch's, which is not imported here
    return Cause.GPU_MEMORY if type(fault).__name__ == "OutOfMemoryError" else Cause.FAULT


def failures_of(job, study_directory="."):
    """The failed attempts at a job since it last succeeded, oldest first: dictionaries with ``cause`` and ``reason``."""
    note = _read(Path(study_directory, DIRECTORY, f"{job}.json"))
    if note is None:
        return []
    running = note["running"]
    if running is None or _alive(running):
        return note["failures"]
    return [*note["failures"], running | _killed(running)]


def count(job, cause):
    """How many of the failed attempts at a job ended for ``cause``."""
    return sum(failure["cause"] == cause for failure in failures_of(job))


def running(job, study_directory="."):
    """Whether an attempt at a job is going on."""
    note = _read(Path(study_directory, DIRECTORY, f"{job}.json"))
    return bool(note and note["running"] and _alive(note["running"]))


def now():
    """The time as notes have it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def report(since):
    """A line for each job whose last attempt failed at ``since`` (as of ``now``) or later: name, cause, reason, log."""
    lines = []
    for path in sorted(Path(DIRECTORY).glob("*.json")):
        failures = failures_of(path.stem)
        if failures and (failures[-1].get("ended_utc") or failures[-1]["begun_utc"]) >= since:
            last = failures[-1]
            cause = "" if last["cause"] == Cause.FAULT else f"{last['cause']}: "
            tried = f" ({len(failures)} attempts)" if len(failures) > 1 else ""
            lines.append(f"{path.stem}{tried}: {cause}{last['reason']}\n    log: {last['log']}")
    return lines


def _killed(running):
    """What is known of an attempt that left no end."""
    word = slurm.end_of(running["slurm_job"]) if running["slurm_job"] else None
    by_word = {"OUT_OF_MEMORY": Cause.MEMORY, "TIMEOUT": Cause.TIME}
    if word in by_word:
        return {"cause": by_word[word], "reason": f"Slurm ended job {running['slurm_job']}: {word}"}
    if running["slurm_job"] and _memory_in_log(running["slurm_job"]):
        return {"cause": Cause.MEMORY, "reason": f"Slurm ended job {running['slurm_job']}: it exceeded its memory"}
    said = f"; Slurm says {word} of job {running['slurm_job']}" if word else ""
    return {"cause": Cause.KILLED, "reason": f"ended without a word (killed, or its node was lost){said}"}


def _memory_in_log(job):
    """Whether Slurm wrote into a job's log that it used too much memory (its state says only FAILED in some set-ups)."""
    for path in Path(".snakemake/slurm_logs").rglob(f"{job}.log"):
        text = path.read_text(errors="replace", encoding="utf-8")
        if "Exceeded job memory limit" in text or "oom_kill" in text or "oom-kill" in text:
            return True
    return False


def _alive(running):
    """Whether an attempt goes on, as far as one can see from this machine."""
    if running["host"] == platform.node():
        return lease.started(running["pid"]) == running["process_started"]
    return bool(running["slurm_job"]) and not slurm.is_over(running["slurm_job"])


def _disk_message(fault):
    return (
        f"no room left on the disk, or no quota, for what this job writes ({str(fault).strip().splitlines()[0]}). "
        "What was kept before is whole. Make room and run the same command again."
    )


def _read(path):
    return records.read_json(path) if path.exists() else None


def _write(path, note):
    """A note must never be the reason that a job fails: without room for it there is none."""
    try:
        records.write_json(path, note)
    except OSError as fault:
        log.warning("%s could not be written: %s", path, fault)
