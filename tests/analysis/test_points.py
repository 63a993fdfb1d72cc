"""The points of the grid where intervals have the least to go by."""

import pytest
import synthetic


@pytest.mark.parametrize(("accuracy", "value"), [(1.0, 1.0), (0.0, 0.0)], ids=["right", "wrong"])
def test_several_runs_that_are_all_right_or_all_wrong_are_not_certain(tmp_path, accuracy, value):
    """300 texts, three runs: Wilson's bound at none of 300 is 1.26%, whatever the number of runs."""
    study = synthetic.config(grid__seeds=[0, 1, 2], grid__methods=["lora"], grid__targets=["attention"])
    synthetic.write(tmp_path, study, accuracy=lambda cell: accuracy)
    points = synthetic.gather(tmp_path).points
    room = 1.959964**2 / (300 + 1.959964**2)
    for name in ("accuracy", "f1", "macro_recall"):
        assert points[name].to_numpy() == pytest.approx(value)
        assert points[f"{name}_low"].to_numpy() == pytest.approx(max(0.0, value - room), abs=1e-9)
        assert points[f"{name}_high"].to_numpy() == pytest.approx(min(1.0, value + room), abs=1e-9)
