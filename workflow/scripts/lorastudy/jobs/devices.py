"""Which GPU of this machine a job computes on, where no scheduler gives it one.

Each GPU is divided into parts of one GiB. A job locks as many parts of one GPU as it needs, and sees that GPU alone.
The locks belong to the process: the system frees them however it ends. They lie in one place for the whole machine and
every user may take them, so that several studies and several users share the GPUs too.
"""

import fcntl
import logging
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lorastudy.jobs import nvidia, slurm
from lorastudy.jobs.nvidia import PART_MB, VISIBLE
from lorastudy.study.errors import StudyError

log = logging.getLogger("lorastudy")

# Not the user's own TMPDIR. Files are touched when they are locked, so that no cleaner of old files takes them away.
LOCKS = Path("/tmp/lorastudy-gpu-shares")


class DeviceError(StudyError):
    """A GPU that cannot be had."""


@contextmanager
def claimed(memory_mb, directory=None, poll=0.5, count=1):
    """Have a share of one GPU, or of several, and see no other; waits for it. Must come before torch is imported.

    In a job that was submitted to Slurm, which hands out GPUs itself, and without a GPU, nothing is done. Jobs get their shares in
    the order in which they ask, so that large ones are not kept waiting by small ones for ever.

    Args:
        memory_mb: memory that the job may need of each GPU; more than a GPU has is taken for a whole one.
        directory: where the locks are; one for the whole machine by default.
        count: GPUs that the job computes on together. Of a machine with fewer it gets all, and says itself what is amiss.

    Returns:
        List of the ``nvidia.Gpu`` s; None where nothing was done.

    Raises:
        DeviceError: the place of the locks is not open to this user.
    """
    if os.environ.get(slurm.EXECUTOR) == "slurm":
        yield None
        return
    found = nvidia.gpus()
    if not found:
        log.warning("no GPU on this machine, or none that may be used: computing on the CPU")
        yield None
        return
    directory = Path(directory or LOCKS)
    with ExitStack() as locks:
        with _open_to_all(directory), _locked(directory / "queue"):
            waited = False
            while not (taken := _take(found, memory_mb, directory, locks, min(count, len(found)))):
                if not waited:
                    log.info("waiting for %d MB on %d of %d GPUs", memory_mb, count, len(found))
                waited = True
                time.sleep(poll)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(gpu.name for gpu in taken)
        for gpu in taken:
            log.info("computing on GPU %s, a share of %d of %d MB", gpu.name, memory_mb, gpu.memory_mb)
        try:
            yield taken
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def _take(found, memory_mb, directory, locks, count):
    """Lock the parts on the ``count`` GPUs with the most free ones; an empty list if they do not fit now."""
    offers = []
    for gpu in found:
        wanted = min(max(1, -(-memory_mb // PART_MB)), gpu.parts)
        paths = [directory / f"{gpu.name.replace('/', '_')}.{part}" for part in range(gpu.parts)]
        with ExitStack() as trial:
            free = [path for path in paths if _taken(path, trial)]
        if len(free) >= wanted:
            offers.append((len(free) / gpu.parts, gpu, free[:wanted]))
    if len(offers) < count:
        return []
    best = sorted(offers, key=lambda offer: -offer[0])[:count]
    for _, _, parts in best:
        for path in parts:  # still free: whoever takes some holds the queue
            _taken(path, locks)
    return [gpu for _, gpu, _ in best]


@contextmanager
def _open_to_all(directory):
    """Make the directory of the locks, for every user; say what is wrong with one that is not open to this one."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # not this user's: its maker has done it, or is about to
            directory.chmod(0o1777)  # as /tmp itself: everybody may add files, and nobody remove another's
        yield
    except PermissionError as fault:
        raise DeviceError(
            f"{fault.filename or directory} is not open to this user, and the GPUs of this machine are shared by it; "
            f"remove {directory} while no study runs, or ask its owner for it."
        ) from None


@contextmanager
def _locked(path):
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _taken(path, until):
    """Whether a lock was free, and is taken now until the ``ExitStack`` ends."""
    lock = _open(path)
    until.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.utime(lock)
    return True


def _open(path, patience=5.0):
    """Descriptor of a lock's file, which every user may open whatever the umask of the one who made it.

    An existing file is opened without O_CREAT, which Linux forbids for others' files in such directories
    (``fs.protected_regular``). Its maker opens it to all a moment after it appears.
    """
    end = time.monotonic() + patience
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
            except FileExistsError:
                continue
            os.fchmod(lock, 0o666)
            return lock
        except PermissionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
