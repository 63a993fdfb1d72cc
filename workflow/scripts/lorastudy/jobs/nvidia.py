"""The NVIDIA GPUs of this machine, as their driver lists them (``nvidia-smi``)."""

import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PART_MB = 1024  # what a GPU is shared in
PRETENDED = "LORASTUDY_PRETENDED_GPUS"  # for tests: megabytes of each pretended GPU, for instance 8192,8192
VISIBLE = "CUDA_VISIBLE_DEVICES"
LOADED = Path("/sys/module/nvidia/version")  # of the driver, where the system shows it
TIMEOUT = 60  # seconds that nvidia-smi may take

_GPU = re.compile(r"GPU \d+: .*UUID: (?P<name>GPU-[^)]+)\)")  # lines of nvidia-smi -L
_MIG = re.compile(r"MIG (?P<profile>\S+)\s.*UUID: (?P<name>MIG-[^)]+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one that is partitioned (MIG): what CUDA calls it, and its memory in MB."""

    name: str
    memory_mb: int

    @property
    def parts(self):
        return max(1, self.memory_mb // PART_MB)


def gpus():
    """The GPUs that this process may use, in the driver's order; empty if there are none."""
    if pretended := os.environ.get(PRETENDED):
        return [Gpu(str(index), int(size)) for index, size in enumerate(pretended.split(","))]
    fields = ("index", "uuid", "memory.total")
    known = query(*fields, "mig.mode.current") or [[*row, "unknown"] for row in query(*fields)]
    instances = _instances() if any(mode not in (None, "Disabled") for *_, mode in known) else {}
    allowed = os.environ.get(VISIBLE)
    names = None if allowed is None else [name for name in map(str.strip, allowed.split(",")) if name]

    def visible(index, *names_of_it):
        return names is None or index in names or any(own.startswith(tuple(names)) for own in names_of_it)

    found = []
    for index, uuid, size, _ in known:
        if uuid in instances:
            found += [gpu for gpu in instances[uuid] if visible(index, uuid, gpu.name)]
        elif visible(index, uuid):
            found.append(Gpu(uuid, int(number(size) or machine_memory_mb())))
    return found


def query(*fields, gpu=None):
    """What ``nvidia-smi`` says: a row per GPU, None for what it does not know; no row without it.

    Args:
        fields: as of its option ``--query-gpu``; memory in MB, power in watts (``number``).
        gpu: number of the one that is asked about; all if None.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    rows = [re.split(r",\s*", line.strip()) for line in _lines([*command, *([] if gpu is None else [f"--id={gpu}"])])]
    # [N/A], [Not Supported], [Insufficient Permissions], N/A
    return [
        [None if value.startswith("[") or value == "N/A" else value for value in row]
        for row in rows
        if len(row) == len(fields)
    ]


def driver():
    """Version of the driver; None where nothing says it."""
    with suppress(OSError):
        return LOADED.read_text(encoding="utf-8").strip()
    return next((version for (version,) in query("driver_version", gpu=0)), None)


def number(said):
    """What ``query`` found in a field of a number; None for words, of which drivers have many (``ERR!``, ``Unknown Error``)."""
    found = re.match(r"\d+(\.\d+)?", said or "")
    return float(found[0]) if found else None


def machine_memory_mb():
    """Memory of this machine, which is also that of a GPU that has none of its own to report (NVIDIA GB10)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _instances():
    """UUID of each GPU that is partitioned → its instances."""
    found = {}
    for line in _lines(["nvidia-smi", "-L"]):
        if whole := _GPU.search(line):
            uuid = whole["name"]
        elif (part := _MIG.search(line)) and (size := re.search(r"(\d+)gb", part["profile"])):
            found.setdefault(uuid, []).append(Gpu(part["name"], int(size[1]) * 1000))
    return found


def _lines(command):
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=TIMEOUT
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
