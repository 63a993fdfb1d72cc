"""What QLoRA costs beside LoRA: ratios of time and memory over runs that differ in the method alone.

Runs of one condition (all but the seed) repeat it: they share settings, device and code, and their times scatter by what
the machine did rather than by what the seed changed. They are averaged first, and an interval goes over conditions.
"""

from dataclasses import dataclass

import numpy as np

from lorastudy.analysis import collapse

CONDITION = ["targets", "r", "alpha", "scaling", "learning_rate", "device", "memory_meter", "gpus"]
TIMES = ("seconds",)  # a run slows those beside it on a GPU down, it does not add to their own memory


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios QLoRA / LoRA.

    Attributes:
        value: the mean; NaN without a pair.
        low, high: its 95% interval (t on logarithms over conditions); NaN for fewer than two pairs, or ``shared``.
        p: two-sided p of the mean being 1; NaN where there is no interval.
        pairs: conditions that both methods have run in.
        seeds: seeds that these have, together.
        shared: None, or of a time of which no pair was taken alone on its GPUs, how many processes were beside each other
            ("4 to 20"): it says how long runs took side by side, which also depends on what was beside them, and
            decides nothing.
    """

    value: float
    low: float
    high: float
    p: float
    pairs: int
    seeds: int
    shared: str | None = None


def matched(cells, column):
    """Finished LoRA and QLoRA runs that agree in all but the method, on the same kind of device.

    Of a time, only pairs of which both runs had their GPUs to themselves, if there are any.

    Returns:
        data frame with the columns ``CONDITION``, ``seed``, ``lora`` and ``qlora`` (values of ``column``) and ``alone``.
    """
    finished = cells[cells.status.isin(collapse.RAN) & cells[column].notna()]
    finished = finished.assign(gpus=finished.gpus.astype("Float64").fillna(1), alone=_processes(finished).le(1))
    keys = [*CONDITION, "seed"]
    sides = [finished[finished.method.eq(name)][[*keys, column, "alone"]] for name in ("lora", "qlora")]
    pairs = sides[0].merge(sides[1], on=keys).rename(columns={f"{column}_x": "lora", f"{column}_y": "qlora"})
    pairs = pairs.assign(alone=pairs.alone_x & pairs.alone_y).drop(columns=["alone_x", "alone_y"])
    return pairs[pairs.alone] if column in TIMES and pairs.alone.any() else pairs


def _processes(cells):
    return cells.gpu_processes.astype("Float64").fillna(1)


def processes_per_gpu(cells):
    """How many processes were on the GPU of each of these cells at once, as "4 to 20"; None where each had it alone."""
    counts = _processes(cells)
    if not len(counts) or counts.max() <= 1:
        return None
    low, high = (f"{round(count)}" for count in (counts.min(), counts.max()))
    return high if low == high else f"{low} to {high}"


def ratio(cells, column):
    """Ratio QLoRA / LoRA of a column of the summary (``seconds``, ``peak_memory_gib``)."""
    from scipy.stats import ttest_1samp

    pairs = matched(cells, column)
    logs = np.log(pairs.qlora.astype(float) / pairs.lora.astype(float))
    of_condition = logs.groupby([pairs[name] for name in CONDITION], sort=False, dropna=False).mean().to_numpy()
    value = float(np.exp(of_condition.mean())) if len(of_condition) else np.nan
    count, seeds = len(of_condition), int(pairs.seed.nunique())
    if column in TIMES and count and not pairs.alone.any():
        shared = processes_per_gpu(cells[cells.status.isin(collapse.RAN)])
        return Ratio(value, np.nan, np.nan, np.nan, count, seeds, shared)
    if count < 2:
        return Ratio(value, np.nan, np.nan, np.nan, count, seeds)
    if np.ptp(of_condition) == 0:  # without any spread the test has nothing to divide by
        return Ratio(value, value, value, 1.0 if value == 1 else 0.0, count, seeds)
    test = ttest_1samp(of_condition, 0)
    low, high = np.exp(test.confidence_interval())
    return Ratio(value, float(low), float(high), float(test.pvalue), count, seeds)
