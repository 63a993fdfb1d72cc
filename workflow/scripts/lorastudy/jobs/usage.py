"""What a job took, as the system has counted it when it ends.

Snakemake's ``benchmark`` would measure the same, but twice a second, through all pages of a process that torch fills: half
a second of CPU time a cell, and twenty cells run at once.
"""

import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

from lorastudy.study import records

COLUMNS = ("s", "max_rss", "cpu_time")  # of Snakemake's benchmarks: seconds, MiB, seconds


@contextmanager
def noted(path):
    """Write what the process took from its start, with the processes that it waited for, if it comes to its end."""
    yield
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere (getrusage(2))
    values = (
        time.time() - psutil.Process().create_time(),
        max(used.ru_maxrss for used in both) / unit,
        sum(used.ru_utime + used.ru_stime for used in both),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(path) as own:
        own.write_text(
            "\n".join("\t".join(row) for row in (COLUMNS, (f"{value:.2f}" for value in values))) + "\n",
            encoding="utf-8",
        )
