"""What the pipeline asks Slurm, and how it lives with Slurm's absence and silence.

Nothing here is needed to run without Slurm. Answers are None where Slurm does not know or does not answer, and nobody
may take that for success or for failure.
"""

import getpass
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lorastudy.study.errors import StudyError
from lorastudy.study.settings import REPOSITORY

COMMANDS = REPOSITORY / "slurm" / "commands"
TIMEOUT = 20  # seconds that a question may take
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
PROFILE = "slurm/config.yaml"
EXECUTOR = "LORASTUDY_EXECUTOR"  # set for jobs that this pipeline submits, and not in an allocation that it runs in


class SlurmError(StudyError):
    """A request that this cluster can never fulfil, for a reason that the user can mend."""


@dataclass(frozen=True)
class Job:
    number: str
    state: str
    comment: str


@dataclass(frozen=True)
class Partition:
    """What one partition offers.

    Attributes:
        minutes: longest job; None without a limit.
        memory_mb: of its largest node.
        gpus: number of each type on its best-equipped node; type ``""`` for GPUs without one.
    """

    minutes: int | None
    memory_mb: int
    gpus: dict


def use_commands():
    """Put this pipeline's ``slurm/commands`` before Slurm's own, for this process and the jobs that it submits."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    if str(COMMANDS) not in path:
        os.environ["PATH"] = os.pathsep.join([str(COMMANDS), *path])
    os.environ[EXECUTOR] = "slurm"
    os.environ["LORASTUDY_NOTICES"] = f"/proc/{os.getpid()}/fd/2"
    if "SLURM_CONF" in os.environ:  # Snakemake's job step drops it, and srun would not find the cluster
        os.environ["LORASTUDY_SLURM_CONF"] = os.environ["SLURM_CONF"]


def state(job):
    """State of a job (``RUNNING`` and so on); None if Slurm does not know it any more or does not answer."""
    answer = _ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")
    return answer.split()[0] if answer and answer.split() else None


def is_over(job):
    """Whether Slurm says that a job has ended, or that there is no such job. False while Slurm is silent."""
    done = _run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")
    if done is None:
        return False
    if done.returncode:
        return "Invalid job id" in done.stderr
    return not done.stdout.split() or done.stdout.split()[0] in OVER


def end_of(job):
    """How a job ended, as Slurm puts it (``OUT_OF_MEMORY``, ``TIMEOUT``, …); None if it does not say."""
    if (word := state(job)) in OVER:
        return word
    answer = _ask("sacct", "-X", "-n", "-P", "-o", "State", "-j", str(job))
    word = answer.split()[0] if answer and answer.split() else None
    return word if word in OVER else None


def seconds_left():
    """Seconds until the time limit of the job that this process is in; None outside of one, or without a limit."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    answer = _ask("squeue", "--noheader", "--format=%L", f"--jobs={os.environ['SLURM_JOB_ID']}")
    return _seconds(answer.strip()) if answer else None


def jobs_in(directory):
    """This user's jobs, waiting or running, that work in ``directory``.

    Raises:
        SlurmError: Slurm does not answer, so that nobody knows.
    """
    if shutil.which("sinfo") is None:
        return []
    states = "--states=PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING"
    answer = _ask("squeue", "--noheader", states, f"--user={getpass.getuser()}", "--format=%A|%T|%k|%Z")
    if answer is None:
        raise SlurmError("Slurm does not answer (squeue), so it is not known which jobs still run; try again later.")
    here = str(Path(directory).resolve())
    # a comment may hold the separator; the directory ends the line all the same
    rows = (line.split("|", 2) for line in answer.splitlines() if line.count("|") >= 3)
    return [
        Job(number, state, rest.removesuffix(f"|{here}")) for number, state, rest in rows if rest.endswith(f"|{here}")
    ]


@cache
def partitions():
    """``Partition`` by name, the default one also under ``""``; empty if Slurm does not answer."""
    answer = _ask("sinfo", "--noheader", "--format=%P|%l|%m|%G") or ""
    found = {}
    for line in answer.splitlines():
        label, limit, memory, resources = line.split("|")
        seconds = None if limit in {"infinite", "n/a", "UNLIMITED"} else _seconds(limit)
        gpus = {}
        for kind, number in re.findall(r"gpu(?::([^:,()]+))??:(\d+)", resources):
            gpus[kind] = max(gpus.get(kind, 0), int(number))
        name = label.rstrip("*")
        one = Partition(seconds // 60 if seconds else None, int(re.match(r"\d+", memory)[0]), gpus)
        for key in {name, ""} if label.endswith("*") else {name}:
            found[key] = _larger(found[key], one) if key in found else one
    return found


def check(requests):
    """Find at once what the cluster would refuse after queueing, or hold for ever.

    Args:
        requests: dictionaries of resources as a profile and the rules give them (``slurm_partition``,
            ``slurm_account``, ``gpu``, ``gpu_model``, ``mem_mb``), one per job.

    Raises:
        SlurmError: one line for each thing that is wrong.
    """
    if shutil.which("sinfo") is None:  # not sbatch, which this pipeline stands in front of
        raise SlurmError(
            "there is no Slurm on this machine (no sinfo), so nothing can be submitted to Slurm; run this command on a login node "
            "of the cluster, or without --profile slurm."
        )
    known = partitions()
    if not known:
        raise SlurmError("Slurm does not answer (sinfo); is its controller running? `scontrol ping` shows it.")
    faults = dict.fromkeys(fault for request in requests for fault in _faults(request, known))
    if faults:
        raise SlurmError("\n".join(faults))


def _faults(request, known):
    name = str(request.get("slurm_partition") or "")
    if account := request.get("slurm_account"):
        yield from _account_faults(str(account))
    if name not in known:
        there = ", ".join(sorted(filter(None, known)))
        if name:
            yield f"{PROFILE}: `slurm_partition` is {name}; this cluster has {there}. Put one of them there."
        else:
            yield f"{PROFILE}: this cluster has no default partition; set `slurm_partition` to one of {there}."
        return
    partition = known[name]
    label = name or "the default partition"
    number = request.get("gpu") or 0
    model = request.get("gpu_model")
    if number or model:
        offers = {kind or "without a type": count for kind, count in partition.gpus.items()}
        if not offers:
            others = sorted(other for other, one in known.items() if other and one.gpus)
            hint = (
                f"partitions that have some: {', '.join(others)}" if others else "no partition of this cluster has any"
            )
            yield f"{PROFILE}: `slurm_partition` {label} has no GPU, and a GPU is asked for; {hint}."
        elif model and str(model) not in partition.gpus:
            yield f"{PROFILE}: `gpu_model` is {model}; partition {label} has GPUs of type {', '.join(sorted(offers))}."
    memory = request.get("mem_mb")
    if isinstance(memory, int) and memory > partition.memory_mb:
        yield (
            f"a job asks for {memory} MB of memory, and the largest node of partition {label} has {partition.memory_mb}; "
            f"choose another partition in {PROFILE}."
        )


@cache
def _account_faults(account):
    done = _run("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={getpass.getuser()}", "format=account")
    if done is None or done.returncode:
        return [
            f"{PROFILE}: `slurm_account` is {account}, and this cluster keeps no accounts (sacctmgr does not answer); "
            "remove the line."
        ]
    accounts = sorted(set(done.stdout.split()))
    if accounts and account.lower() not in {name.lower() for name in accounts}:
        return [f"{PROFILE}: `slurm_account` is {account}; your accounts are {', '.join(accounts)}."]
    return []


def _larger(one, other):
    minutes = None if None in (one.minutes, other.minutes) else max(one.minutes, other.minutes)
    kinds = one.gpus.keys() | other.gpus.keys()
    gpus = {kind: max(one.gpus.get(kind, 0), other.gpus.get(kind, 0)) for kind in kinds}
    return Partition(minutes, max(one.memory_mb, other.memory_mb), gpus)


def _seconds(text):
    """Seconds of Slurm's ``days-hours:minutes:seconds``; None for words such as ``UNLIMITED``."""
    if not re.fullmatch(r"(\d+-)?(\d+:){0,2}\d+", text):
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    parts = parts + [0] * (3 - len(parts)) if days else [0] * (3 - len(parts)) + parts
    return int(days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]


def _ask(*command):
    done = _run(*command)
    return done.stdout if done is not None and done.returncode == 0 else None


def _run(*command):
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
