"""Energy of the GPU that a process computes on, by the counter in its driver (NVML)."""


class Meter:
    """Counts from its making on.

    Attributes:
        reason: why there is nothing to read, in a few words; None where there is.
    """

    def __init__(self):
        import torch

        self.handle, self.reason = None, None
        if not torch.cuda.is_available():
            self.reason = "no GPU"
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            # by its UUID: CUDA_VISIBLE_DEVICES renumbers devices for CUDA, not for NVML
            identity = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(identity)
            self.begun = pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        except ImportError:
            self.reason = "the package nvidia-ml-py is not installed"
        except pynvml.NVMLError as fault:
            self.handle, self.reason = None, f"the GPU's energy counter cannot be read: {fault}"

    def joules(self):
        """Energy since the meter was made, of the whole GPU; None without a counter."""
        if self.handle is None:
            return None
        import pynvml

        return (pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) - self.begun) / 1000

    def others(self):
        """How many other processes compute on the same GPU now; None where that cannot be seen."""
        if self.handle is None:
            return None
        import pynvml

        try:
            return max(0, len(pynvml.nvmlDeviceGetComputeRunningProcesses(self.handle)) - 1)
        except pynvml.NVMLError:
            return None
