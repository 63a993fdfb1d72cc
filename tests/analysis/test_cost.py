"""Cost against hand arithmetic."""

import pandas as pd
import pytest
from lorastudy.analysis import cost

UNSET = {"price_per_hour": None, "currency": "USD", "carbon_intensity": None, "power_watts": None}


def summary(**columns):
    """Two finished cells of one and two hours of training and half an hour of evaluation, a baseline, a missing cell."""
    return pd.DataFrame(
        {
            "id": ["a", "b", "c", "head"],
            "kind": ["cell", "cell", "cell", "baseline"],
            "method": ["lora", "qlora", "qlora", None],
            "targets": ["attention"] * 3 + [None],
            "r": [8, 8, 16, None],
            "alpha": [32, 32, 32, None],
            "seed": [0, 0, 0, None],
            "device": ["GPU", "GPU", None, "GPU"],
            "status": ["finished", "diverged", "missing", "finished"],
            "seconds": [3600.0, 7200.0, None, None],
            "evaluation_seconds": [1800.0, None, None, 1800.0],
            "gpus": [1, 1, None, None],
            "gpu_processes": [1, None, None, None],
            "energy_kwh": [0.4, None, None, None],
            "energy_reason": [None, "no GPU", None, None],
        }
        | columns
    )


def test_hours_are_training_and_evaluation_of_what_has_run():
    table = cost.table(summary(), UNSET).set_index("id")
    assert table.hours.to_dict() == {"a": 1.5, "b": 2.0, "head": 0.5}


def test_every_gpu_of_a_cell_counts_in_training():
    table = cost.table(summary(gpus=[4, 1, None, None]), UNSET).set_index("id")
    assert table.hours["a"] == 4 * 1.0 + 0.5


def test_a_cell_that_shared_its_gpu_counts_with_a_part_of_it():
    table = cost.table(summary(gpu_processes=[4, 1, None, None]), UNSET | {"power_watts": 300}).set_index("id")
    assert table.hours.to_dict() == {"a": 1.5 / 4, "b": 2.0, "head": 0.5}
    said = "Hours of 1 result are an equal part of those of a GPU that several processes used at once."
    assert said in cost.gaps(table, UNSET | {"power_watts": 300})
    assert not any(line.startswith("Hours") for line in cost.gaps(cost.table(summary(), UNSET), UNSET))


def test_measured_energy_goes_before_an_estimate():
    table = cost.table(summary(), UNSET | {"power_watts": 300, "carbon_intensity": 200}).set_index("id")
    assert table.energy_kwh.to_dict() == pytest.approx({"a": 0.4, "b": 2.0 * 0.3, "head": 0.5 * 0.3})
    assert table.energy_source.to_dict() == {"a": cost.MEASURED, "b": cost.ESTIMATED, "head": cost.ESTIMATED}
    assert table.co2e_kg.to_dict() == pytest.approx({"a": 0.08, "b": 0.12, "head": 0.03})


def test_what_a_measurement_includes_besides_is_said():
    table = cost.table(summary(energy_reason=["which 2 others used", None, None, None]), UNSET)
    assert table.energy_source.iloc[0] == "measured: which 2 others used"
    assert "Energy of 1 result is measured: which 2 others used." in cost.gaps(table, UNSET)


def test_money_is_hours_times_price():
    table = cost.table(summary(), UNSET | {"price_per_hour": 2.5}).set_index("id")
    assert table.money.to_dict() == {"a": 3.75, "b": 5.0, "head": 1.25}


def test_what_is_not_known_is_empty_and_says_why():
    table = cost.table(summary(), UNSET)
    assert table[["co2e_kg", "money"]].isna().all(axis=None)
    assert table.energy_kwh.isna().sum() == 2
    lines = "\n".join(cost.gaps(table, UNSET))
    for reason in (
        "Energy of 1 result is empty: no GPU, and `cost.power_watts` is empty",
        "not metered in evaluation",
        "`cost.carbon_intensity`",
        "`cost.price_per_hour`",
        "in training",
    ):
        assert reason in lines


def test_totals_say_over_how_many_results_they_go():
    totals = cost.totals(cost.table(summary(), UNSET | {"price_per_hour": 2})).set_index("of")
    assert list(totals.index) == ["lora", "qlora", "base model", "study"]
    assert totals.loc["study", ["results", "hours", "money", "energy_kwh", "energy_kwh_known"]].tolist() == [
        3, 4.0, 8.0, 0.4, 1,
    ]  # fmt: skip
    assert pd.isna(totals.loc["qlora", "energy_kwh"])


def test_a_study_without_results_costs_nothing_known():
    table = cost.table(summary(status=["missing"] * 4), UNSET)
    assert not len(table)
    totals = cost.totals(table)
    assert totals.of.tolist() == ["study"] or not len(totals)
