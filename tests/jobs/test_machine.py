"""What a record says of the machine."""

from types import SimpleNamespace

import torch
from lorastudy.jobs import machine, nvidia


def test_a_gpu_is_named_with_its_driver(monkeypatch):
    properties = SimpleNamespace(name="NVIDIA A100", total_memory=40 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(nvidia, "_lines", lambda command: ["580.65"] if "--id=0" in command else ["580.65", "535.1"])
    found = machine.hardware()
    assert (found["device"], found["device_memory_gib"], found["driver"]) == ("NVIDIA A100", 40.0, "580.65")


def test_without_nvidia_smi_the_driver_is_unknown_and_without_a_gpu_the_cpu_is_the_device(monkeypatch):
    monkeypatch.setattr(nvidia, "_lines", lambda command: [])
    properties = SimpleNamespace(name="NVIDIA A100", total_memory=40 * 2**30)
    with monkeypatch.context() as gpu:
        gpu.setattr(torch.cuda, "is_available", lambda: True)
        gpu.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        assert machine.hardware()["driver"] is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = machine.hardware()
    assert found["device"] == found["cpu"] == machine.cpu_name()
    assert found["device_memory_gib"] is None
