"""The summary of a study that was really run, against an independent computation."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from lorastudy.analysis import summary
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


def test_results_of_another_version_are_refused_by_file_and_column(tmp_path):
    synthetic.write(tmp_path)
    synthetic.gather(tmp_path)
    names = {name: tmp_path / "results" / f"{name}.csv" for name in ("summary", "points", "comparisons", "curves")}
    files = names | {"confusion": tmp_path / "results" / "confusion.json"}
    for name, column in (("summary", "gpu_processes"), ("points", "seeds"), ("comparisons", "reason")):
        kept = names[name].read_text(encoding="utf-8")
        pd.read_csv(names[name]).drop(columns=column).to_csv(names[name], index=False)
        with pytest.raises(summary.ResultsError, match=rf"{name}\.csv has no column `{column}`.* Delete it") as fault:
            summary.load(**files, settings={"grid": {"methods": ["lora", "qlora"]}})
        assert str(fault.value).count("\n") == 0
        names[name].write_text(kept, encoding="utf-8")
    summary.load(**files, settings={"grid": {"methods": ["lora", "qlora"]}})
