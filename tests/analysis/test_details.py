"""What is gathered for the report beside the numbers."""

import pandas as pd
import synthetic
from lorastudy.analysis import details
from lorastudy.study import records


def test_the_most_confident_errors(tmp_path):
    """By hand: rows 1, 3 and 4 are wrong, with probabilities 0.6, 0.9 and 0.6."""
    pd.DataFrame(
        {
            "id": list("abcde"),
            "label": [0, 0, 1, 1, 0],
            "prediction": [0, 1, 1, 0, 1],
            "probability_0": [0.99, 0.4, 0.2, 0.9, 0.4],
            "probability_1": [0.01, 0.6, 0.8, 0.1, 0.6],
        }
    ).to_parquet(tmp_path / "predictions.parquet")
    found = details.errors(tmp_path / "predictions.parquet")
    assert found == [["d", 1, 0, 0.9], ["b", 0, 1, 0.6], ["e", 0, 1, 0.6]]


def test_what_results_have_in_common_is_held_once(tmp_path):
    study = synthetic.write(tmp_path)
    results = synthetic.gather(tmp_path, study)
    found = records.read_json(tmp_path / "results" / "details.json")
    assert list(found["results"]) == list(results.summary.id)
    assert len({detail["provenance"]["packages"] for detail in found["results"].values()}) == 1
    for name, detail in found["results"].items():
        kind = "zero_shot" if name in ("head", "prompt") else "cells"
        made = records.read_json(tmp_path / "results" / kind / name / "metrics.json")["provenance"]
        assert {key: found["shared"][place] for key, place in detail["provenance"].items()}["config"] == made["config"]
        assert len(detail["errors"]) == details.ERRORS
    assert found["card"] is None
    assert found["texts"] is None


def test_the_texts_of_errors_are_apart_and_no_others_are_kept(tmp_path):
    study = synthetic.write(tmp_path)
    names = [f"test-{index:06d}" for index in range(study.data.test_size)]
    (tmp_path / "results" / "data").mkdir()
    frame = pd.DataFrame({"id": names, "text": [f"Said in {name}." for name in names]})
    frame[1:].to_parquet(tmp_path / "results" / "data" / "test.parquet")
    synthetic.gather(tmp_path, study)
    found = records.read_json(tmp_path / "results" / "details.json")
    wrong = {name for result in found["results"].values() for name, *_ in result["errors"]}
    assert found["texts"] == {name: f"Said in {name}." for name in sorted(wrong - {names[0]})}
    assert "Said in" not in str([found["results"], found["shared"], found["card"]])
