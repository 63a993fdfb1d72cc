"""A cell has one writer."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context

import pytest
from lorastudy.jobs import lease


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "leases"


def holder_in_another_process(directory, name="cell"):
    """A process that holds a lease until it is killed."""
    code = (
        f"import time\n"
        f"from lorastudy.jobs import lease; lease.Lease({name!r}, {str(directory)!r}).acquire(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    path = directory / f"{name}.json"
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists()
    return process


def elsewhere(directory, silent, name="cell", **changes):
    """A lease of a process on another machine, last renewed ``silent`` seconds ago."""
    path = directory / f"{name}.json"
    directory.mkdir(exist_ok=True)
    holder = lease.Lease(name, directory).holder | {"host": "another", "token": "other"} | changes
    path.write_text(json.dumps(holder), encoding="utf-8")
    os.utime(path, (time.time() - silent,) * 2)
    return path


def test_a_lease_leaves_nothing(directory):
    with lease.held("cell", directory) as held:
        assert not held.waited
        assert json.loads((directory / "cell.json").read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert not directory.exists()


def test_a_second_job_waits_until_the_first_ends(directory):
    process = holder_in_another_process(directory)
    threading.Timer(0.5, process.terminate).start()
    with lease.held("cell", directory) as held:
        assert held.waited
        assert process.poll() is not None or lease.started(process.pid) is None
    process.wait()


def test_who_does_not_wait_is_told_by_whom_it_is_held(directory):
    process = holder_in_another_process(directory)
    try:
        with pytest.raises(
            lease.LeaseError, match=rf"cell is in the hands of process {process.pid} on .* still running"
        ):
            lease.Lease("cell", directory).acquire(wait=False)
        assert list(lease.living(directory)) == ["cell"]
    finally:
        process.kill()
        process.wait()
    assert lease.living(directory) == {}


def test_a_killed_holder_on_this_machine_is_recognised_at_once(directory):
    process = holder_in_another_process(directory)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lease.held("cell", directory) as held:
        held.check()


def test_a_reused_process_number_is_not_taken_for_the_holder(directory):
    path = elsewhere(directory, 0, host=os.uname().nodename, pid=os.getpid(), process_started=1)
    assert lease.abandoned(path, lease.read(path)) == "its process is gone"


@pytest.mark.parametrize(
    ("silent", "job", "over", "expected"),
    [
        (0, "7", True, False),  # Slurm has lost the node, but the process writes on
        (lease.SILENT + 5, "7", True, True),
        (lease.SILENT + 5, "7", False, False),
        (lease.SILENT + 5, None, True, False),
        (lease.DEAD + 5, "7", False, True),
        (lease.DEAD + 5, None, False, True),
    ],
)
def test_leases_of_other_machines(directory, monkeypatch, silent, job, over, expected):
    monkeypatch.setattr(lease.slurm, "is_over", lambda _: over)
    path = elsewhere(directory, silent, slurm_job=job)
    assert bool(lease.abandoned(path, lease.read(path))) is expected


def test_a_holder_notices_that_it_lost_the_lease(directory, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.05)
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with lease.held("cell", directory) as held:
            elsewhere(directory, 0)
            assert stopped.wait(5)
            with pytest.raises(lease.LeaseError, match="taken over by process .* on another"):
                held.check()
        assert (directory / "cell.json").exists()  # the other's lease stays
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_lease_is_renewed(directory, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.05)
    with lease.held("cell", directory):
        path = directory / "cell.json"
        os.utime(path, (0, 0))
        end = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.02)
        assert path.stat().st_mtime > 0


def test_a_lease_that_was_never_written_to_its_end_is_removed_in_time(directory):
    path = elsewhere(directory, 0)
    path.write_text('{"host": "ano', encoding="utf-8")
    assert lease.read(path) is None
    assert path.exists()
    os.utime(path, (time.time() - lease.SILENT - 5,) * 2)
    with lease.held("cell", directory) as held:
        held.check()


# --- systems without /proc, file systems without hard links


@pytest.fixture
def no_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(lease, "PROC", tmp_path / "no proc")


def test_without_proc_a_process_is_known_by_its_start(no_proc):
    """psutil's answer to the second; the system's own is ``ps -o etimes``."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        began = lease.started(process.pid)
        assert abs(time.time() - began) < 30
        assert lease.started(process.pid) == began
    finally:
        process.kill()
    while lease.started(process.pid) is not None and process.returncode is None:
        time.sleep(0.01)  # not reaped yet: a zombie, as soon as it has died
    process.wait()
    assert lease.started(process.pid) is None


def test_without_proc_what_a_killed_process_held_is_free_at_once(directory, no_proc):
    holder = get_context("fork").Process(target=_hold, args=(directory,))
    holder.start()
    while not (directory / "cell.json").exists():
        time.sleep(0.01)
    with pytest.raises(lease.LeaseError, match="still running"):
        lease.Lease("cell", directory).acquire(wait=False)
    holder.kill()
    holder.join()
    lease.Lease("cell", directory).acquire(wait=False)


def _hold(directory):
    lease.Lease("cell", directory).acquire()
    time.sleep(60)


def test_where_nothing_tells_a_start_the_number_of_the_process_counts(no_proc, monkeypatch):
    import psutil

    def ignorant(_):
        raise psutil.Error

    monkeypatch.setattr(psutil, "Process", ignorant)
    assert lease.started(os.getpid()) == 0
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert lease.started(gone.pid) is None


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP], ids=["links", "EPERM", "EOPNOTSUPP"])
def links(request, monkeypatch):
    """A file system with hard links, and two kinds without."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr(os, "link", refuse)


def _count(directory, counter):
    for _ in range(20):
        one = lease.Lease("cell", directory)
        one.acquire(poll=0.001)
        value = int(counter.read_text(encoding="utf-8"))
        time.sleep(0.001)
        counter.write_text(str(value + 1), encoding="utf-8")
        one.release()


def counted_by_four(directory, counter):
    """What a counter shows that four processes have each raised, holding the lease."""
    counter.write_text("0", encoding="utf-8")
    processes = [get_context("fork").Process(target=_count, args=(directory, counter)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return counter.read_text(encoding="utf-8")


def test_never_two_holders(directory, tmp_path, links):
    assert counted_by_four(directory, tmp_path / "counter") == "80"


def test_an_abandoned_lease_is_taken_by_one_of_many(directory, tmp_path, links):
    elsewhere(directory, 0, host=os.uname().nodename, process_started=1)
    assert counted_by_four(directory, tmp_path / "counter") == "80"
