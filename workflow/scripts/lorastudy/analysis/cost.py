"""What a study costs: hours of its device, energy, CO2e and money, per cell and in all.

Time is measured in every run. Energy is measured where the device has a meter (NVML on NVIDIA GPUs), over training;
without one it is estimated from ``cost.power_watts`` if that is configured, over training and evaluation. CO2e and
money follow from the configured carbon intensity and price. What cannot be known stays empty, with the reason.

A cell that shared its GPU with others counts with an equal part of it, so that the cells of a study add up to what the
GPU did: time by ``gpu_processes`` (that of evaluation too, where it is not read), energy as its record has it
(``energy``).
"""

import pandas as pd

from lorastudy.analysis import collapse
from lorastudy.study.grid import METHODS

MEASURED = "measured"
ESTIMATED = "estimated from cost.power_watts"
COLUMNS = [
    "id", "kind", "method", "targets", "r", "alpha", "seed", "device", "gpu_processes", "hours", "energy_kwh", "co2e_kg", "money",
]  # fmt: skip
AMOUNTS = ("hours", "energy_kwh", "co2e_kg", "money")


def hours(summary):
    """Hours of whole devices that each row of a summary took, training (on ``gpus`` of them) and evaluation together."""
    training = summary.seconds.astype("Float64").fillna(0) * summary.gpus.astype("Float64").fillna(1)
    both = training + summary.evaluation_seconds.astype("Float64").fillna(0)
    return both / summary.gpu_processes.astype("Float64").fillna(1) / 3600


def table(summary, cost):
    """Cost of every result that there is.

    Args:
        summary: data frame with the columns ``summary.COLUMNS``.
        cost: the configuration's block of that name.

    Returns:
        Data frame with ``COLUMNS``, ``energy_source`` (measured, estimated, or why there is none) and the index of
        ``summary``. ``hours`` are those of ``hours``; ``money`` is in ``cost["currency"]``.
    """
    done = summary[summary.status.isin([*collapse.RAN, "diverged"])]
    frame = done[COLUMNS[:9]].assign(hours=hours(done))
    measured = done.energy_kwh.astype("Float64")
    watts = cost["power_watts"]
    estimated = pd.Series(pd.NA, frame.index, dtype="Float64") if watts is None else frame.hours * watts / 1000
    frame["energy_kwh"] = measured.fillna(estimated)
    frame["co2e_kg"] = _times(frame.energy_kwh, cost["carbon_intensity"], 1 / 1000)
    frame["money"] = _times(frame.hours, cost["price_per_hour"], 1)
    noted = done.energy_reason.astype("str").where(done.energy_reason.notna())
    unmetered = done.kind.map({"cell": "no meter", "control": "no meter", "baseline": "not metered in evaluation"})
    frame["energy_source"] = noted.fillna(unmetered) + ", and `cost.power_watts` is empty"
    frame.loc[estimated.notna(), "energy_source"] = ESTIMATED
    frame.loc[measured.notna(), "energy_source"] = MEASURED
    shared = measured.notna() & noted.notna()
    frame.loc[shared, "energy_source"] = f"{MEASURED}: " + noted[shared]
    return frame


def _times(amount, factor, scale):
    return pd.Series(pd.NA, amount.index, dtype="Float64") if factor is None else amount * factor * scale


def totals(table):
    """Sums by method, of the baselines, and of the study.

    Returns:
        Data frame with the columns ``of``, ``results`` (how many), ``AMOUNTS`` and ``<amount>_known``: over how many
        of the results the sum goes. A sum over none is empty, not 0.
    """
    groups = [(name, table[table.method == name]) for name in METHODS]
    groups += [("base model", table[table.kind == "baseline"]), ("study", table)]
    rows = []
    for name, part in groups:
        if len(part):
            row = {"of": name, "results": len(part)}
            for amount in AMOUNTS:
                row |= {amount: part[amount].sum(min_count=1), f"{amount}_known": int(part[amount].notna().sum())}
            rows.append(row)
    columns = ["of", "results", *(f"{amount}{end}" for amount in AMOUNTS for end in ("", "_known"))]
    return pd.DataFrame(rows, columns=columns)


def gaps(table, cost):
    """One line for each amount that is empty or covers less than it seems to."""
    lines = []
    for reason, part in table[table.energy_kwh.isna()].groupby("energy_source", sort=False):
        lines.append(f"Energy of {_results(len(part))} is empty: {reason}.")
    for reason, part in table[table.energy_source.str.startswith(f"{MEASURED}: ")].groupby("energy_source", sort=False):
        lines.append(f"Energy of {_results(len(part))} is {reason}.")
    if table.energy_source.str.startswith(MEASURED).any():
        lines.append(
            "Measured energy is that of the GPU in training; the rest of the machine and evaluation are not in it."
        )
    if table.gpu_processes.gt(1).any():
        lines.append(
            f"Hours of {_results(int(table.gpu_processes.gt(1).sum()))} are an equal part of those of a GPU that several "
            "processes used at once."
        )
    if (table.energy_source == ESTIMATED).any():
        lines.append(
            f"Energy without a meter is an estimate: hours times `cost.power_watts`, {cost['power_watts']:g} W."
        )
    if cost["carbon_intensity"] is None:
        lines.append("CO2e is empty: `cost.carbon_intensity` (grams a kWh) is not configured.")
    if cost["price_per_hour"] is None:
        lines.append("Money is empty: `cost.price_per_hour` is not configured.")
    return lines


def _results(count):
    return "1 result" if count == 1 else f"{count} results"
