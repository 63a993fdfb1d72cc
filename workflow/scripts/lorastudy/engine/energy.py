"""Energy of the GPU that a process computes on, by the counter in its driver (NVML).

The counter is the whole GPU's. Where several processes compute on it at once, each counts as an equal part of it, of its
energy and of its time, so that the parts add up to the GPU's own; what each of them really used cannot be told.
"""

import time

import pynvml
import torch

EVERY = 5.0  # seconds: the driver takes milliseconds to list a GPU's processes, which is nothing for every step

PART = "an equal part of the energy of a GPU that several processes used at once"


class Meter:
    """Counts from its making on.

    Attributes:
        reason: why there is nothing to read, in a few words; None where there is.
    """

    def __init__(self):
        self.handle, self.reason, self.asked = None, None, None
        if not torch.cuda.is_available():
            self.reason = "no GPU"
            return
        try:
            pynvml.nvmlInit()
            # by its UUID: CUDA_VISIBLE_DEVICES renumbers devices for CUDA, not for NVML
            identity = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(identity)
            self.begun = pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        except pynvml.NVMLError as fault:
            self.handle, self.reason = None, f"the GPU's energy counter cannot be read: {fault}"

    def joules(self):
        """Energy since the meter was made, of the whole GPU; None without a counter."""
        if self.handle is None:
            return None
        return (pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) - self.begun) / 1000

    def processes(self):
        """How many processes compute on the GPU now, this one among them; None where that cannot be seen, and where it
        was asked for less than ``EVERY`` seconds ago."""
        if self.handle is None or (self.asked is not None and time.monotonic() < self.asked + EVERY):
            return None
        self.asked = time.monotonic()
        try:
            return max(1, len(pynvml.nvmlDeviceGetComputeRunningProcesses(self.handle)))
        except pynvml.NVMLError:
            return None
