"""At most one job writes a cell: a lease that its holder renews, and that others can tell to be abandoned.

The lease is a small file in ``results/leases/``. It appears whole or not at all (a hard link of a finished file, which
is atomic on shared file systems too; where there are no such links, a file that only one can create), names its holder,
and its holder touches it every few seconds. A lease whose
holder died without a word is recognised as abandoned: on the same machine at once, because the process is gone; from
another machine when it has not been touched for a while and Slurm says that the job is over, or not for a long while.
"""

import errno
import json
import logging
import os
import platform
import signal
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lorastudy.jobs import slurm
from lorastudy.study.errors import StudyError

log = logging.getLogger("lorastudy")

DIRECTORY = "results/leases"
PROC = Path("/proc")
RENEWED_EVERY = 15  # seconds
SILENT = 120  # seconds without renewal after which Slurm's word counts; file systems may cache a time for a minute
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # of a file system (link(2))
DEAD = 300  # seconds without renewal after which a lease is abandoned in any case; its holder stops if it wakes up


class LeaseError(StudyError):
    """A cell that another job holds, or took over from this one."""


class Lease:
    """The lease of one name (a cell, or the study itself).

    Args:
        name: what is held.
        directory: where leases are.
    """

    def __init__(self, name, directory=DIRECTORY):
        self.name = name
        self.path = Path(directory, f"{name}.json")
        self.holder = {
            "host": platform.node(),
            "pid": os.getpid(),
            "process_started": started(os.getpid()),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "since_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid.uuid4().hex,
        }
        self._released = threading.Event()

    def acquire(self, wait=True, poll=2.0):
        """Take the lease; returns whether another job had to be waited for.

        Raises:
            LeaseError: another job holds it and ``wait`` is off.
        """
        waited = False
        while not self._take():
            found = self._read()
            if found is None:  # gone again, or not written to its end yet
                time.sleep(0.01)
                continue
            if reason := abandoned(self.path, found):
                log.warning("lease of %s: %s was left behind by %s (%s)", self.name, self.path, who(found), reason)
                self._discard(found)
                continue
            if not wait:
                raise LeaseError(f"{self.name} is in the hands of {who(found)}, which is still running ({self.path}).")
            if not waited:
                log.warning("%s is being written by %s; waiting until it ends", self.name, who(found))
            waited = True
            time.sleep(poll)
        threading.Thread(target=self._renew, daemon=True).start()
        return waited

    def check(self):
        """Raise LeaseError if the lease is not this process's any more."""
        found = self._read()
        if found is None or found["token"] != self.holder["token"]:
            now = who(found) if found else "nobody"
            raise LeaseError(f"{self.name} was taken over by {now} while this job ran; this job writes nothing more.")

    def release(self):
        self._released.set()
        found = self._read()
        if found and found["token"] == self.holder["token"]:
            self.path.unlink(missing_ok=True)
            _remove_if_empty(self.path.parent)

    def _take(self):
        own = self.path.with_name(f".{self.path.name}.{self.holder['token']}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(json.dumps(self.holder, indent=2) + "\n", encoding="utf-8")
            _place(own, self.path)
        except (FileExistsError, FileNotFoundError):  # held; or somebody else made or removed the directory meanwhile
            if self.path.parent.is_file():
                raise LeaseError(
                    f"{self.path.parent} is a file, and the leases of cells go there; move it away."
                ) from None
            return False
        finally:
            with suppress(OSError):
                own.unlink()
        return True

    def _read(self):
        return read(self.path)

    def _discard(self, found):
        """Put an abandoned lease out of the way, unless somebody else was faster and holds a new one by now."""
        away = self.path.with_name(f".{self.path.name}.abandoned.{self.holder['token']}")
        try:
            os.rename(self.path, away)
        except FileNotFoundError:
            return
        taken = read(away)
        if taken and taken["token"] != found["token"]:
            try:
                _place(away, self.path)
            except FileExistsError:
                log.error("lease of %s: %s lost it by a race and will stop", self.name, who(taken))
        away.unlink()

    def _renew(self):
        while not self._released.wait(RENEWED_EVERY):
            try:
                self.check()
                os.utime(self.path)
            except LeaseError as lost:
                if not self._released.is_set():
                    log.error("%s", lost)
                    os.kill(os.getpid(), signal.SIGTERM)
                return
            except OSError as fault:  # a file system that hesitates is no reason to stop
                log.warning("lease of %s could not be renewed: %s", self.name, fault)


@contextmanager
def held(name, directory=DIRECTORY, wait=True):
    """Hold the lease of ``name``; the value is the ``Lease``, whose ``waited`` says whether another job had it before."""
    lease = Lease(name, directory)
    lease.waited = lease.acquire(wait)
    try:
        yield lease
    finally:
        lease.release()


def _place(own, path):
    """Give a finished file its place, unless there is one.

    Raises:
        FileExistsError: there is one.
    """
    try:
        os.link(own, path)
    except FileExistsError:
        raise
    except OSError as fault:
        if fault.errno not in NO_LINKS:
            raise
        with path.open("xb") as file:
            file.write(own.read_bytes())


def read(path):
    """Holder of a lease; None if there is none, or it is not written to its end."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        if _silence(path) > SILENT:  # nor will it be: whoever wrote it was killed
            path.unlink(missing_ok=True)
        return None


def abandoned(path, holder):
    """Why a lease counts as abandoned; empty while its holder is, or may be, at work."""
    if holder["host"] == platform.node():
        return "" if started(holder["pid"]) == holder["process_started"] else "its process is gone"
    silent = _silence(path)
    if silent > DEAD:
        return f"not renewed for {silent / 60:.0f} minutes"
    if silent > SILENT and holder["slurm_job"] and slurm.is_over(holder["slurm_job"]):
        return "its Slurm job is over"
    return ""


def living(directory=DIRECTORY):
    """Holders of all leases that are not abandoned, by name."""
    leases = {path.stem: (path, read(path)) for path in sorted(Path(directory).glob("*.json"))}
    return {name: holder for name, (path, holder) in leases.items() if holder and not abandoned(path, holder)}


def clear(directory=DIRECTORY):
    """Remove all leases that are abandoned."""
    for path in sorted(Path(directory).glob("*.json")):
        holder = read(path)
        if holder and abandoned(path, holder):
            Lease(path.stem, directory)._discard(holder)
    _remove_if_empty(Path(directory))


def who(holder):
    job = f"Slurm job {holder['slurm_job']}, " if holder["slurm_job"] else ""
    return f"{job}process {holder['pid']} on {holder['host']} since {holder['since_utc']}"


def started(pid):
    """When a process started, so that a reused number is not taken for it; None if it is gone.

    On Linux in clock ticks since boot, elsewhere in seconds; 0 where the system does not tell.
    """
    if not (PROC / str(os.getpid())).is_dir():
        return _started_without_proc(pid)
    try:
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _started_without_proc(pid):
    """The same on macOS, and where /proc is not mounted."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's
        pass
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except (psutil.Error, OSError):  # on Linux psutil needs /proc itself
        return 0


def _silence(path):
    """Seconds since a lease was renewed, by the clock of the file system that it is on."""
    probe = path.with_name(f".clock.{platform.node()}.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _remove_if_empty(directory):
    with suppress(OSError):
        directory.rmdir()
