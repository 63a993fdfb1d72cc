"""Best learning rates at the edge of what was tried."""

import pytest
import synthetic
from lorastudy.analysis import tuning

RATES = [3e-4, 3e-3]  # beside 1e-3, the configured one


def study(directory, best, **more):
    """A study in which ``best`` (cell → rate) has the highest validation accuracy."""
    config = synthetic.config(
        grid__learning_rates=RATES, grid__methods=["lora"], grid__targets=["attention"],
        grid__lines=synthetic.full([4, 8], [32]),
    )  # fmt: skip

    def validation(cell):
        return 0.7 if (cell.learning_rate or 1e-3) == best(cell) else 0.6

    synthetic.write(directory, config, validation=validation, **more)
    return synthetic.gather(directory)


def test_a_rate_within_the_grid_is_not_at_its_edge(tmp_path):
    assert tuning.at_edge(study(tmp_path, lambda cell: 1e-3).summary).empty


@pytest.mark.parametrize(
    ("best", "side", "beyond"),
    [(3e-3, "highest", 9e-3), (3e-4, "lowest", 9e-5)],  # 3e-3 is three times 1e-3; 3e-4 is 0.3 times 1e-3
)
def test_a_rate_at_the_edge_and_the_one_to_try_next(tmp_path, best, side, beyond):
    summary = study(tmp_path, lambda cell: best if cell.r == 4 else 1e-3).summary
    (row,) = tuning.at_edge(summary).to_dict("records")
    assert (row["r"], row["learning_rate"], row["side"]) == (4, best, side)
    assert row["beyond"] == pytest.approx(beyond)
    (note,) = tuning.edge_notes(summary)
    assert note.startswith(f"1 of 2 points is best at the {side} learning rate tried, {best:g};")
    assert f"add {beyond:g} to `grid.learning_rates`" in note


def test_a_rate_below_one_that_diverged_is_not_at_the_edge(tmp_path):
    """What lies beyond the best one has been tried, and was too much."""
    names = [f"lora_attention_r{r}_a32_lr0.003_s0" for r in (4, 8)]
    summary = study(tmp_path, lambda cell: 1e-3, diverged=names).summary
    assert summary.status.eq("diverged").sum() == 2
    assert tuning.at_edge(summary).empty


def test_a_single_rate_with_a_result_is_no_choice(tmp_path):
    names = [f"lora_attention_r{r}_a32_lr{rate:g}_s0" for r in (4, 8) for rate in RATES]
    summary = study(tmp_path, lambda cell: 1e-3, missing=names).summary
    assert summary.status.eq("missing").sum() == 4
    assert tuning.at_edge(summary).empty


def test_one_rate_has_no_edge(tmp_path):
    synthetic.write(tmp_path)
    assert tuning.at_edge(synthetic.gather(tmp_path).summary).empty
    assert not list(tuning.edge_notes(synthetic.gather(tmp_path).summary))
