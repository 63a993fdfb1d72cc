"""Which GPU of this machine a job computes on, where no scheduler gives it one.

Each GPU is divided into parts of one GiB. A job locks as many parts of one GPU as it needs, and sees that GPU alone.
The locks belong to the process: the system frees them however it ends. They lie in the machine's directory for temporary
files, so that several studies and several users share the GPUs too.
"""

import logging
import os
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorastudy.jobs import slurm
from lorastudy.study.errors import StudyError

log = logging.getLogger("lorastudy")

PART_MB = 1024
PRETENDED = "LORASTUDY_PRETENDED_GPUS"  # for tests: megabytes of each pretended GPU, for instance 8192,8192
VISIBLE = "CUDA_VISIBLE_DEVICES"


class DeviceError(StudyError):
    """A GPU that cannot be had."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: what CUDA calls it, and its memory in MB."""

    name: str
    memory_mb: int

    @property
    def parts(self):
        return max(1, self.memory_mb // PART_MB)


def gpus():
    """The GPUs that this process may use, in the driver's order; empty if there are none."""
    if pretended := os.environ.get(PRETENDED):
        found = [Gpu(str(index), int(size)) for index, size in enumerate(pretended.split(","))]
    else:
        query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError):
            return []
        rows = [re.split(r",\s*", line) for line in answer.splitlines()]
        allowed = os.environ.get(VISIBLE)
        if allowed is not None:
            names = [name.strip() for name in allowed.split(",")]
            rows = [row for row in rows if row[0] in names or any(name and row[1].startswith(name) for name in names)]
        found = [Gpu(uuid, int(float(size))) for _, uuid, size in rows]
    return found


@contextmanager
def claimed(memory_mb, directory=None, poll=0.5):
    """Have a share of one GPU, and see no other; waits for it. Must come before torch is imported.

    In a job that was submitted to Slurm, which hands out GPUs itself, and without a GPU, nothing is done. Jobs get their shares in
    the order in which they ask, so that large ones are not kept waiting by small ones for ever.

    Args:
        memory_mb: GPU memory that the job may need; more than a GPU has is taken for a whole one.
    """
    if os.environ.get(slurm.EXECUTOR) == "slurm":
        yield None
        return
    found = gpus()
    if not found:
        log.warning("no GPU on this machine, or none that may be used: computing on the CPU")
        yield None
        return
    directory = Path(directory or Path(tempfile.gettempdir()) / "lorastudy-gpus")
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        with _lock(directory / "queue"):
            waited = False
            while (gpu := _take(found, memory_mb, directory, locks)) is None:
                if not waited:
                    log.info("waiting for %d MB on one of %d GPUs", memory_mb, len(found))
                waited = True
                time.sleep(poll)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = gpu.name
        log.info("computing on GPU %s, a share of %d of %d MB", gpu.name, memory_mb, gpu.memory_mb)
        try:
            yield gpu
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def _take(found, memory_mb, directory, locks):
    """Lock the parts on the GPU with the most free ones; None if they fit nowhere now."""
    offers = []
    for gpu in found:
        wanted = min(max(1, -(-memory_mb // PART_MB)), gpu.parts)
        with ExitStack() as trial:
            free = []
            for part in range(gpu.parts):
                lock = _lock(directory / f"{gpu.name}.{part}")
                if _acquire(lock):
                    trial.callback(lock.release)
                    free.append(part)
            if len(free) >= wanted:
                offers.append((len(free) / gpu.parts, gpu, free[:wanted]))
    if not offers:
        return None
    _, gpu, parts = max(offers, key=lambda offer: offer[0])
    for part in parts:
        lock = _lock(directory / f"{gpu.name}.{part}")
        lock.acquire()
        locks.callback(lock.release)
    return gpu


def _lock(path):
    from filelock import UnixFileLock

    return UnixFileLock(path, mode=0o666)


def _acquire(lock):
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
