"""The machine that a job runs on, as records name it."""

import os
import platform
from pathlib import Path

from lorastudy.jobs import nvidia


def hardware():
    """Device, driver and memory of this machine. Sizes in GiB."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = {
        "node": platform.node(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "memory_gib": round(memory, 1),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {
            "device": properties.name,
            "device_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "driver": nvidia.driver(),
            **machine,
        }
    return {"device": cpu_name(), "device_memory_gib": None, "cuda": None, "driver": None, **machine}


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
