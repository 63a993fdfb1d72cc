"""What QLoRA costs beside LoRA: ratios of time and memory over runs that differ in the method alone."""

from dataclasses import dataclass

import numpy as np

from lorastudy.analysis import collapse

MATCHED = ["targets", "r", "alpha", "scaling", "learning_rate", "seed", "device", "memory_meter"]


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios QLoRA / LoRA.

    Attributes:
        value: the mean; NaN without a pair.
        low, high: its 95% interval (t on logarithms); NaN for fewer than two pairs.
        p: two-sided p of the mean being 1; NaN for fewer than two pairs.
        pairs: number of pairs.
    """

    value: float
    low: float
    high: float
    p: float
    pairs: int


def matched(cells, column):
    """Finished LoRA and QLoRA runs that agree in all but the method, on the same kind of device.

    Returns:
        data frame with the columns ``MATCHED``, ``lora`` and ``qlora`` (values of ``column``).
    """
    finished = cells[cells.status.isin(collapse.RAN) & cells[column].notna()]
    sides = [finished[finished.method.eq(name)][[*MATCHED, column]] for name in ("lora", "qlora")]
    return sides[0].merge(sides[1], on=MATCHED).rename(columns={f"{column}_x": "lora", f"{column}_y": "qlora"})


def crowd(cells):
    """How many processes were on the GPU of each of these cells at once, as "4 to 20"; None where each had it alone."""
    counts = cells.gpu_processes.astype("Float64").fillna(1)
    if not len(counts) or counts.max() <= 1:
        return None
    low, high = (f"{round(count)}" for count in (counts.min(), counts.max()))
    return high if low == high else f"{low} to {high}"


def ratio(cells, column):
    """Ratio QLoRA / LoRA of a column of the summary (``seconds``, ``peak_memory_gib``)."""
    from scipy.stats import ttest_1samp

    pairs = matched(cells, column)
    logs = np.log(pairs.qlora.to_numpy(dtype=float) / pairs.lora.to_numpy(dtype=float))
    if len(logs) < 2:
        return Ratio(float(np.exp(logs.mean())) if len(logs) else np.nan, np.nan, np.nan, np.nan, len(logs))
    value = np.exp(logs.mean())
    if np.ptp(logs) == 0:  # without any spread the test has nothing to divide by
        return Ratio(float(value), float(value), float(value), 1.0 if value == 1 else 0.0, len(logs))
    test = ttest_1samp(logs, 0)
    low, high = np.exp(test.confidence_interval())
    return Ratio(float(value), float(low), float(high), float(test.pvalue), len(logs))
