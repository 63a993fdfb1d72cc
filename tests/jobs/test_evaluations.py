"""The files of an evaluation."""

import numpy as np
import pandas as pd
import pytest
from lorastudy.inputs import data
from lorastudy.jobs import evaluations
from lorastudy.statistics import metrics
from lorastudy.study import records

PROBABILITY = np.eye(2)[[0, 0, 1, 1, 0, 1]] * 0.8 + 0.1


@pytest.mark.parametrize("group", [None, ["b", "b", "b", "a", "a", "c"]], ids=["texts", "groups"])
def test_groups_go_with_the_predictions_and_into_the_intervals(tmp_path, group):
    texts = data.Texts([f"test-{i}" for i in range(6)], ["text"] * 6, np.array([0, 0, 1, 0, 0, 0]), [[1]] * 6, group)
    files = tmp_path / "predictions.parquet", tmp_path / "metrics.json"
    evaluations.write(*files, texts, PROBABILITY, {"resamples": 200, "seed": 0}, {"status": "finished"}, None, None)
    written = pd.read_parquet(files[0])
    expected = ["id", "label"] + ["group"] * bool(group) + ["prediction", "probability_0", "probability_1"]
    assert list(written.columns) == expected
    assert group is None or written.group.tolist() == group
    assert records.read_json(files[1])["metrics"] == metrics.evaluate(texts.label, PROBABILITY, 200, 0, group)
    assert (metrics.evaluate(texts.label, PROBABILITY, 200, 0) == records.read_json(files[1])["metrics"]) == (
        group is None
    )
