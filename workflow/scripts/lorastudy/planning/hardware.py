"""What GPUs can do, by their names."""

import re

# Dense bfloat16 peak with float32 accumulation in TFLOP/s (float16 where there is no bfloat16), NVIDIA's data sheets.
PEAK = {
    "b200": 2250, "h200": 989, "gh200": 989, "h100": 989, "a100": 312, "a800": 312,
    "l40s": 362, "l40": 181, "l4": 121, "a40": 150, "a30": 165, "a10": 125, "v100": 125, "t4": 65,
    "a6000": 155, "a5000": 111, "5090": 210, "4090": 165, "3090": 71, "2080": 54,
}  # fmt: skip
UNKNOWN = 54  # a GPU of unknown type is taken for the slowest


def peak(name):
    """TFLOP/s of a GPU, by the name that its driver, a scheduler or a user gives it; ``UNKNOWN`` if none fits.

    A part of the name has to begin with a known one: ``NVIDIA A100-SXM4-40GB``, ``rtx_4090``, ``h100_nvl``, ``t4``.
    """
    parts = re.split(r"[^a-z0-9]+", str(name).lower())
    known = sorted(PEAK, key=len, reverse=True)  # l40s before l40 before l4
    return next((PEAK[one] for one in known for part in parts if part.startswith(one)), UNKNOWN)
