"""Jobs of one machine share its GPUs by memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from lorastudy.jobs import devices, nvidia


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch):
    monkeypatch.delenv("LORASTUDY_EXECUTOR", raising=False)
    monkeypatch.delenv(nvidia.VISIBLE, raising=False)


def start(directory, memory_mb, gpus, seconds):
    """A process that claims a share, says which and when, and holds it."""
    code = (
        f"import time, os, json\n"
        f"from lorastudy.jobs import devices\n"
        f"with devices.claimed({memory_mb}, {str(directory)!r}, poll=0.05):\n"
        f"    gpu = os.environ['CUDA_VISIBLE_DEVICES']; begun = time.monotonic(); print(gpu, flush=True)\n"
        f"    time.sleep({seconds}); print(json.dumps([gpu, {memory_mb}, begun, time.monotonic()]), flush=True)"
    )
    environment = os.environ | {nvidia.PRETENDED: gpus}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, encoding="utf-8")


def test_shares_on_one_gpu_never_exceed_it(tmp_path):
    needs = [3000, 3000, 5000, 8000, 1000, 2000, 9000, 4000] * 2
    running = [start(tmp_path, need, "8192,8192,8192,8192", 0.4) for need in needs]
    spans = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    assert {gpu for gpu, *_ in spans} == {"0", "1", "2", "3"}
    for gpu in "0123":
        for _, _, moment, _ in spans:
            used = sum(min(-(-mb // 1024), 8) for g, mb, begun, end in spans if g == gpu and begun <= moment < end)
            assert used <= 8


def test_no_gpu_is_idle_while_a_cell_waits(tmp_path):
    running = [start(tmp_path, 8000, "8192,8192,8192,8192", 30) for _ in range(4)]
    assert sorted(process.stdout.readline().strip() for process in running) == ["0", "1", "2", "3"]
    fifth = start(tmp_path, 8000, "8192,8192,8192,8192", 0)
    time.sleep(0.5)
    assert fifth.poll() is None
    victim = running.pop(2)
    victim.send_signal(signal.SIGKILL)  # nothing of it can tidy up
    victim.wait()
    gpu = fifth.stdout.readline().strip()
    fifth.wait()
    for process in running:
        process.kill()
        process.wait()
    with devices_of("8192,8192,8192,8192"), devices.claimed(8000, tmp_path) as free:
        assert [gpu.name for gpu in free] == ["0"]
    assert gpu in "0123"


class devices_of:  # noqa: N801
    def __init__(self, sizes):
        self.sizes = sizes

    def __enter__(self):
        os.environ[nvidia.PRETENDED] = self.sizes

    def __exit__(self, *_):
        del os.environ[nvidia.PRETENDED]


def test_a_cell_on_two_gpus_sees_both_and_shares_each(tmp_path):
    """Of three GPUs the two that are free; a fourth that needs a whole one waits for neither of them in vain."""
    with devices_of("8192,8192,8192"), devices.claimed(8000, tmp_path) as first:
        assert [gpu.name for gpu in first] == ["0"]
        os.environ.pop(nvidia.VISIBLE)  # as another process
        with devices.claimed(3000, tmp_path, count=2) as pair:
            assert [gpu.name for gpu in pair] == ["1", "2"]
            assert os.environ[nvidia.VISIBLE] == "1,2"
            os.environ.pop(nvidia.VISIBLE)
            with devices.claimed(5000, tmp_path, count=2) as beside:
                assert [gpu.name for gpu in beside] == ["1", "2"]
                waiting = start(tmp_path, 1000, "8192,8192,8192", 0)
                time.sleep(0.5)
                assert waiting.poll() is None
                waiting.kill()
                waiting.wait()
            os.environ[nvidia.VISIBLE] = "1,2"
        os.environ[nvidia.VISIBLE] = "0"


def test_a_cell_that_wants_more_gpus_than_there_are_gets_all(tmp_path):
    """And says so itself, by the key of the configuration."""
    with devices_of("8192,8192"), devices.claimed(3000, tmp_path, count=4) as all_of_them:
        assert len(all_of_them) == 2


def test_without_a_gpu_the_cpu_with_a_warning(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(nvidia, "gpus", list)
    with devices.claimed(1000, tmp_path) as gpu:
        assert gpu is None
        assert nvidia.VISIBLE not in os.environ
    assert "computing on the CPU" in caplog.text


def test_slurm_hands_out_gpus_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("LORASTUDY_EXECUTOR", "slurm")
    with devices_of("8192"), devices.claimed(1000, tmp_path) as gpu:
        assert gpu is None


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """Function that puts a ``nvidia-smi`` with these answers first on the path: list of GPUs (-L), name → query's rows."""

    def install(listed="", **answers):
        cases = "".join(f"*{fields.replace('__', ',')}*) printf '{rows}' ;;\n" for fields, rows in answers.items())
        tool = tmp_path / "nvidia-smi"
        tool.write_text(
            f"#!/bin/sh\ncase \"$*\" in\n-L) printf '{listed}' ;;\n{cases}*) exit 6 ;;\nesac\n", encoding="utf-8"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


ALL = "uuid__memory.total"


def test_the_gpus_that_nvidia_smi_lists(monkeypatch, nvidia_smi):
    nvidia_smi(**{ALL: "0, GPU-aa, 81559\\n1, GPU-bb, 40960\\n"})
    assert nvidia.gpus() == [nvidia.Gpu("GPU-aa", 81559), nvidia.Gpu("GPU-bb", 40960)]
    for allowed in ("1", "GPU-b", "1,"):
        monkeypatch.setenv(nvidia.VISIBLE, allowed)
        assert nvidia.gpus() == [nvidia.Gpu("GPU-bb", 40960)]
    monkeypatch.setenv(nvidia.VISIBLE, "")
    assert nvidia.gpus() == []


@pytest.mark.parametrize(
    "unknown", ["[N/A]", "[Not Supported]", "N/A", "[Insufficient Permissions]", "ERR!", "Unknown Error", "0"]
)
def test_a_gpu_that_does_not_report_its_memory_has_the_machines(nvidia_smi, monkeypatch, tmp_path, unknown):
    """An NVIDIA GB10 shares the memory of its CPU."""
    nvidia_smi(**{ALL: f"0, GPU-2d, {unknown}\\n"})
    monkeypatch.setattr(nvidia, "machine_memory_mb", lambda: 122_570)
    assert nvidia.gpus() == [nvidia.Gpu("GPU-2d", 122_570)]
    with devices.claimed(8000, tmp_path / "locks") as (gpu,):
        assert os.environ[nvidia.VISIBLE] == gpu.name == "GPU-2d"


@pytest.mark.parametrize(
    "script",
    [
        "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
        "echo 'No devices were found'",
        "printf '\\n\\n'",
        "printf '\\377\\376'; exit 1",
        "kill -9 $$",
    ],
)
def test_without_an_answer_there_is_no_gpu(monkeypatch, tmp_path, script):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert nvidia.gpus() == []


def test_a_driver_that_hangs_is_not_waited_for(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(nvidia, "TIMEOUT", 0.2)
    assert nvidia.query("name") == []


def test_the_memory_of_the_machine():
    total = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    assert nvidia.machine_memory_mb() == total // 1024


LISTED = (
    "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa)\\n"
    "  MIG 3g.20gb     Device  0: (UUID: MIG-11)\\n"
    "  MIG 1g.5gb+me   Device  1: (UUID: MIG-22)\\n"
    "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bb)\\n"
)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, ["MIG-11", "MIG-22", "GPU-bb"]),
        ("MIG-22", ["MIG-22"]),
        ("0", ["MIG-11", "MIG-22"]),
        ("GPU-bb", ["GPU-bb"]),
    ],
)
def test_a_partitioned_gpu_is_its_instances(nvidia_smi, monkeypatch, allowed, expected):
    nvidia_smi(LISTED, **{ALL: "0, GPU-aa, [N/A]\\n1, GPU-bb, 40960\\n"})
    if allowed:
        monkeypatch.setenv(nvidia.VISIBLE, allowed)
    sizes = {"MIG-11": 20_000, "MIG-22": 5000, "GPU-bb": 40_960}
    assert [(gpu.name, gpu.memory_mb) for gpu in nvidia.gpus()] == [(name, sizes[name]) for name in expected]


def test_a_whole_gpu_is_asked_about_once(nvidia_smi):
    """``nvidia-smi`` takes a good part of a second where jobs begin one after another."""
    nvidia_smi(LISTED, **{f"{ALL},mig.mode.current": "0, GPU-aa, 40960, Disabled\\n1, GPU-bb, 40960, [N/A]\\n"})
    assert nvidia.gpus() == [nvidia.Gpu("GPU-aa", 40960), nvidia.Gpu("GPU-bb", 40960)]


def test_a_gpu_that_says_it_is_partitioned_is_its_instances(nvidia_smi):
    nvidia_smi(LISTED, **{f"{ALL},mig.mode.current": "0, GPU-aa, [N/A], Enabled\\n1, GPU-bb, 40960, Disabled\\n"})
    assert [gpu.name for gpu in nvidia.gpus()] == ["MIG-11", "MIG-22", "GPU-bb"]


@pytest.mark.parametrize("shown", [True, False])
def test_the_version_of_the_driver(nvidia_smi, monkeypatch, tmp_path, shown):
    monkeypatch.setattr(nvidia, "LOADED", tmp_path / "version")
    assert nvidia.driver() is None
    nvidia_smi(driver_version="580.1.2\\n")
    if shown:
        (tmp_path / "version").write_text("580.3.4\n", encoding="utf-8")
    assert nvidia.driver() == ("580.3.4" if shown else "580.1.2")


def modes(directory):
    return {oct(path.stat().st_mode & 0o7777) for path in directory.iterdir()}


def test_shares_are_open_to_every_user_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        with devices_of("2048,2048"), devices.claimed(1000, tmp_path / "locks"):
            pass
    finally:
        os.umask(before)
    assert oct((tmp_path / "locks").stat().st_mode & 0o7777) == "0o1777"
    assert modes(tmp_path / "locks") == {"0o666"}


def test_shares_of_all_users_are_in_one_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    code = "from lorastudy.jobs import devices; print(devices.LOCKS)"
    command = [sys.executable, "-c", code]
    said = [
        subprocess.check_output(command, env=os.environ | {"TMPDIR": str(tmp_path / name)}, encoding="utf-8")
        for name in ("a", "b")
    ]
    assert said[0] == said[1]


@pytest.fixture
def open_place():
    """A directory that every user may write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users")
@pytest.mark.parametrize(("mask", "first", "second"), [(0o077, "2048", "2048"), (0o022, "2048", "2048,2048")])
def test_two_users_share_a_gpu(open_place, mask, first, second):
    """One after the other, whatever umask they have; the second may use a GPU that the first does not know."""
    locks = open_place / "locks"
    had = []
    for user, gpus in ((2001, first), (2002, second)):
        process = os.fork()
        if not process:
            try:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                os.umask(mask)
                with devices_of(gpus), devices.claimed(2000, locks) as (gpu,):
                    (open_place / f"{user}").write_text(gpu.name, encoding="utf-8")
            finally:
                os._exit(0)
        os.waitpid(process, 0)
        had.append((open_place / f"{user}").read_text(encoding="utf-8"))
    assert had == ["0", "0"]


def test_a_place_that_another_user_closed_is_named(tmp_path, monkeypatch):
    """Root may open everything, so the system's answer is imitated."""

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(time, "monotonic", iter(range(0, 1000, 10)).__next__)
    with (
        devices_of("2048"),
        pytest.raises(devices.DeviceError, match="queue is not open to this user.*; remove"),
        devices.claimed(1000, tmp_path / "locks"),
    ):
        pass
