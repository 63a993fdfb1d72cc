"""Resume a study that was interrupted: see to jobs that still run, unlock, go on.

    python workflow/scripts/resume.py [--directory STUDY] [--cancel] [SNAKEMAKE ARGUMENTS]

After Snakemake was killed, its jobs run on and its lock stays. Unlocking and starting again at once would set a second
job beside each of them. This command finds the jobs that still work in the study (by Slurm's record of their working
directory, and by the leases of cells), cancels those that have not begun, waits until the others have ended, or ends them
with --cancel (they keep a checkpoint), and then runs snakemake with the given arguments, for instance --profile slurm -j 20.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lorastudy.jobs import lease, logs, slurm
from lorastudy.study import command, configuration
from lorastudy.study.settings import REPOSITORY

POLL_SECONDS = 3


@dataclass(frozen=True)
class Remaining:
    """A job that still works in the study, or will."""

    name: str
    begun: bool
    end: Callable


def remaining(study):
    """What still works in a study: ``Remaining`` by name."""
    # where no job was ever submitted, Slurm's silence does not matter
    jobs = slurm.jobs_in(study) if (study / ".snakemake" / "slurm_jobs").is_dir() else []
    found = [
        Remaining(f"Slurm job {job.number} ({job.comment})", job.state != "PENDING", partial(_cancel, job))
        for job in jobs
    ]
    for name, holder in lease.living(study / lease.DIRECTORY).items():
        if name != "snakemake" and not holder["slurm_job"]:
            found.append(Remaining(f"{name}: {lease.who(holder)}", True, partial(_stop, holder)))
    return found


def _cancel(job):
    subprocess.run(["scancel", job.number], check=False)


def _stop(holder):
    if holder["host"] == platform.node():
        os.kill(holder["pid"], signal.SIGTERM)


def main(study, configured, cancel, arguments, poll=POLL_SECONDS):
    """Returns the exit status of snakemake; 2 if the study is not to be resumed.

    Args:
        study: its directory.
        configured: ``configuration.Configuration``.
        cancel: whether running jobs are ended.
        arguments: for snakemake.

    Raises:
        slurm.SlurmError: Slurm does not answer, so that nobody knows what still runs.
    """
    if not (configured.files or (study / configuration.CONFIG).is_file()):
        print(f"{study.resolve()} has no config.yaml: it is not a study's directory.", file=sys.stderr)
        return 2
    if running := lease.living(study / lease.DIRECTORY).get("snakemake"):
        print(
            f"Snakemake still runs this study ({lease.who(running)}); end it first, or let it go on.", file=sys.stderr
        )
        return 2
    told = set()
    while jobs := remaining(study):
        for job in jobs:
            if job.name not in told:
                ending = cancel or not job.begun
                print(f"{'Ending' if ending else 'Waiting for'} {job.name}", flush=True)
                if ending:
                    job.end()
            told.add(job.name)
        time.sleep(poll)
    lease.clear(study / lease.DIRECTORY)
    snakemake = [*command.SNAKEMAKE, "--directory", study]
    # at the end, because targets that followed would be taken for values
    options = configured.arguments()
    subprocess.run([*snakemake, "--unlock", "--quiet", *options], check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    return subprocess.run(
        [*snakemake, "--rerun-incomplete", *arguments, *options], check=False, cwd=REPOSITORY
    ).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--directory", type=Path, default=Path(), help="the study (default: this directory)")
    parser.add_argument("--cancel", action="store_true", help="end the jobs that still run instead of waiting for them")
    configuration.add_options(parser)
    known, others = parser.parse_known_args()
    logs.any_terminal()
    try:
        configured = configuration.Configuration.of_options(known).or_last(known.directory)
        sys.exit(main(known.directory.resolve(), configured, known.cancel, others))
    except slurm.SlurmError as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit(130)
