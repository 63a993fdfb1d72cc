"""What surrounds a computation in a job: its log, the lease of its cell, its GPU, the note of how it ended."""

import os
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lorastudy.jobs import attempts, devices, lease, logs, usage


@contextmanager
def of_cell(step, cell, logfile, gpu_memory_mb=None, gpus=1):
    """A job that writes files of a cell, and is alone in that. The value is the lease.

    Args:
        step: ``finetune`` or ``evaluate``.
        cell: id of the cell.
        logfile: the rule's log.
        gpu_memory_mb: share of a GPU that it needs where no scheduler gives it one; without it none is taken.
        gpus: that it computes on together, with such a share of each.
    """
    with (
        lease.held(cell) as held,  # first, because the log is the other job's until it ends
        logs.to_file(logfile),
        nullcontext() if gpu_memory_mb is None else devices.claimed(gpu_memory_mb, count=gpus),
        kernels_kept(),
        attempts.noted(f"{step}.{cell}", logfile),
        usage.noted(f"logs/benchmarks/{cell}.{step}.tsv"),
    ):
        yield held


@contextmanager
def job(logfile):
    """A job that needs no GPU; it is noted by the name of its log."""
    with logs.to_file(logfile), attempts.noted(Path(logfile).stem, logfile):
        yield


@contextmanager
def on_gpu(name, logfile, gpu_memory_mb):
    """A job of the base model."""
    with logs.to_file(logfile), devices.claimed(gpu_memory_mb), kernels_kept(), attempts.noted(name, logfile):
        yield


@contextmanager
def kernels_kept():
    """Triton keeps the kernels that it compiles in the home; where that may not be written, in a place of this process."""
    own = Path(os.path.expanduser("~"), ".triton")
    named = {"TRITON_HOME", "TRITON_CACHE_DIR"} & os.environ.keys()
    if named or os.access(own if own.exists() else own.parent, os.W_OK):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="lorastudy-kernels-") as cache:
        os.environ["TRITON_HOME"] = cache
        try:
            yield
        finally:
            del os.environ["TRITON_HOME"]
