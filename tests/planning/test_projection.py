"""Projected hours against arithmetic by hand."""

import pandas as pd
import pytest
from lorastudy.planning import check, projection
from lorastudy.study import grid
from lorastudy.study.records import read_json
from lorastudy.study.settings import ARCHITECTURES

H100 = check.Device("H100 80 GB", 74.5, 989e12, 700)
HALF = check.Device("half as fast", 74.5, 989e12 / 2, 400)
SMALL = check.Device("20 GiB", 20.0, 989e12, 400)


def rehearsal(*rows):
    """method, targets, trainable parameters, seconds for 1,000 tokens, evaluation at 100 tokens a second."""
    columns = ["method", "targets", "trainable_parameters", "seconds"]
    return pd.DataFrame(rows, columns=columns).assign(tokens=1000, evaluation_tokens_per_second=100.0)


MEASURED = rehearsal(
    ("lora", "all-linear", 10e6, 2.0), ("lora", "all-linear", 110e6, 3.0), ("lora", "attention", 5e6, 1.5),
    ("qlora", "all-linear", 10e6, 2.5),
)  # fmt: skip


def test_the_time_of_a_token_is_linear_in_the_trainable_parameters():
    base, slopes = projection.token_seconds(MEASURED)
    assert base["lora", "attention"] == (5e6, pytest.approx(1.5e-3))
    assert base["qlora", "all-linear"] == (10e6, pytest.approx(2.5e-3))
    assert slopes == {
        "lora": pytest.approx(1e-11),
        "qlora": pytest.approx(1e-11),
    }  # 1e-3 s a token over 100e6 parameters


def table(cells, devices):
    return projection.hours(
        MEASURED, {"lora": 10.0, "qlora": 20.0}, cells, read_json(ARCHITECTURES / "llama-3-8b.json"), devices,
        trained=(100.0, 36), evaluated=1800, batch_size=16,
    )  # fmt: skip


def test_hours_of_a_cell_are_those_of_its_tokens_texts_and_starts():
    """LoRA: 3,600 tokens at 2e-3 + 50e6 · 1e-11 s, 1,800 at 100 a second and two starts of 10 s together: 9 + 18 + 10 s."""
    cells = {grid.Cell("lora", "all-linear", 64, 32, 0): 60e6, grid.Cell("qlora", "all-linear", 8, 32, 0): 10e6}
    assert table(cells, [H100, HALF]).hours.tolist() == pytest.approx([s / 3600 for s in (37, 47, 64, 74)])


def test_what_is_computed_again_to_fit_costs_time_and_what_never_fits_has_none():
    cells = {grid.Cell("lora", "all-linear", 8, 32, 0): 10e6, grid.Cell("lora", "all-linear", 512, 32, 0): 110e6}
    plain, _, tight, never = (row for _, row in table(cells, [H100, SMALL]).iterrows())
    assert 0 < tight.checkpointed_layers <= 32
    assert tight.hours - plain.hours == pytest.approx(7.2 * tight.checkpointed_layers / 32 / 2 / 3600)
    assert pd.isna(never.hours) and pd.isna(never.checkpointed_layers)


def test_cells_of_one_size_alone_are_refused():
    with pytest.raises(projection.ProjectionError, match="two ranks"):
        projection.token_seconds(MEASURED[MEASURED.trainable_parameters.lt(100e6)])
