"""The summary of a study that was really run, against an independent computation."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference


def independent(predictions):
    """Scores of one predictions.parquet by scikit-learn."""
    label, prediction = predictions.label, predictions.prediction
    probabilities = predictions.filter(like="probability_").to_numpy()
    found = {
        "accuracy": reference.accuracy_score(label, prediction),
        "mae": reference.mean_absolute_error(label, prediction),
        "nll": reference.log_loss(label, probabilities, labels=range(probabilities.shape[1])),
    }
    for prefix, average in (("", "weighted"), ("macro_", "macro")):
        scores = reference.precision_recall_fscore_support(
            label, prediction, labels=range(probabilities.shape[1]), average=average, zero_division=0
        )
        found |= {prefix + name: value for name, value in zip(("precision", "recall", "f1"), scores, strict=False)}
    return found


def test_every_cell_and_baseline_against_scikit_learn(finished_study):
    summary = pd.read_csv(finished_study / "results" / "summary.csv").set_index("id")
    assert summary.status.eq("finished").all()
    for name, row in summary.iterrows():
        place = finished_study / "results" / ("cells" if row.kind == "cell" else "zero_shot") / name
        predictions = pd.read_parquet(place / "predictions.parquet")
        assert row.n_test == len(predictions)
        for score, value in independent(predictions).items():
            assert row[score] == pytest.approx(value, abs=1e-9), (name, score)
            assert row[f"{score}_low"] <= value <= row[f"{score}_high"] or np.isclose(value, row[f"{score}_low"])


def test_comparisons_are_differences_of_the_summary(finished_study):
    accuracy = pd.read_csv(finished_study / "results" / "summary.csv").set_index("id").accuracy
    rows = pd.read_csv(finished_study / "results" / "comparisons.csv")
    rows = rows[rows.metric.eq("accuracy") & rows.family.isin(["method", "targets", "baseline"])]
    assert len(rows) == 4 + 4 + 16
    for row in rows.itertuples():
        other = row.b if row.family == "baseline" else f"{row.b}_s0"
        assert row.difference == pytest.approx(accuracy[f"{row.a}_s0"] - accuracy[other], abs=1e-6)
