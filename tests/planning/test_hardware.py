"""What a GPU can do, by its name."""

import pytest
from lorastudy.planning import hardware


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A10G", 125),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", 125),
        ("nvidia_h100_80gb_hbm3", 989),
        ("rtx_3090", 71),
        ("gpu:a100", 312),
        ("NVIDIA RTX A6000", 155),
        ("Tesla K80", hardware.UNKNOWN),
        ("", hardware.UNKNOWN),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name, tflops):
    assert hardware.peak(name) == tflops
