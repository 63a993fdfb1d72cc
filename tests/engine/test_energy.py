"""The energy meter, with a counter of our own in the driver's place."""

from types import SimpleNamespace

import pytest
import torch
from lorastudy.engine import energy


class NVMLError(Exception):
    pass


@pytest.fixture
def counter(monkeypatch):
    """A GPU whose driver counts millijoules in ``counter.value``."""
    state = SimpleNamespace(value=5_000, processes=1)
    driver = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: state.value,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [None] * state.processes,
        NVMLError=NVMLError,
    )
    monkeypatch.setattr(energy, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234"))
    state.driver = driver
    return state


def test_joules_since_the_meter_was_made(counter):
    meter = energy.Meter()
    counter.value = 8_500
    assert meter.joules() == 3.5
    assert meter.reason is None


def test_processes_on_the_gpu_are_counted(counter):
    counter.processes = 3
    assert energy.Meter().processes() == 3


def test_a_gpu_without_a_counter_gives_the_reason(counter):
    def unsupported(_):
        raise NVMLError("Not Supported")

    counter.driver.nvmlDeviceGetTotalEnergyConsumption = unsupported
    meter = energy.Meter()
    assert meter.joules() is None
    assert "Not Supported" in meter.reason


def test_without_a_gpu_there_is_nothing_to_read():
    meter = energy.Meter()
    assert (meter.joules(), meter.processes(), meter.reason) == (None, None, "no GPU")
