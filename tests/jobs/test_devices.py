"""Jobs of one machine share its GPUs by memory."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from lorastudy.jobs import devices


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch):
    monkeypatch.delenv("LORASTUDY_EXECUTOR", raising=False)
    monkeypatch.delenv(devices.VISIBLE, raising=False)


def start(directory, memory_mb, gpus, seconds):
    """A process that claims a share, says which and when, and holds it."""
    code = (
        f"import time, os, json\n"
        f"from lorastudy.jobs import devices\n"
        f"with devices.claimed({memory_mb}, {str(directory)!r}, poll=0.05):\n"
        f"    gpu = os.environ['CUDA_VISIBLE_DEVICES']; begun = time.monotonic(); print(gpu, flush=True)\n"
        f"    time.sleep({seconds}); print(json.dumps([gpu, {memory_mb}, begun, time.monotonic()]), flush=True)"
    )
    environment = os.environ | {devices.PRETENDED: gpus}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


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
        assert free.name == "0"
    assert gpu in "0123"


class devices_of:  # noqa: N801
    def __init__(self, sizes):
        self.sizes = sizes

    def __enter__(self):
        os.environ[devices.PRETENDED] = self.sizes

    def __exit__(self, *_):
        del os.environ[devices.PRETENDED]


def test_without_a_gpu_the_cpu_with_a_warning(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(devices, "gpus", list)
    with devices.claimed(1000, tmp_path) as gpu:
        assert gpu is None
        assert devices.VISIBLE not in os.environ
    assert "computing on the CPU" in caplog.text


def test_slurm_hands_out_gpus_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("LORASTUDY_EXECUTOR", "slurm")
    with devices_of("8192"), devices.claimed(1000, tmp_path) as gpu:
        assert gpu is None


def test_the_gpus_that_nvidia_smi_lists(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0, GPU-aa, 81559\\n1, GPU-bb, 40960\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert devices.gpus() == [devices.Gpu("GPU-aa", 81559), devices.Gpu("GPU-bb", 40960)]
    for allowed in ("1", "GPU-b", "1,"):
        monkeypatch.setenv(devices.VISIBLE, allowed)
        assert devices.gpus() == [devices.Gpu("GPU-bb", 40960)]
    monkeypatch.setenv(devices.VISIBLE, "")
    assert devices.gpus() == []
