"""Two studies of known accuracies side by side."""

import math

import pandas as pd
import pytest
import report_study
import synthetic
from lorastudy.presentation import side_by_side, tables
from lorastudy.study import records

TEXTS = {"same": [f"text {index}" for index in range(300)], "other": [f"another {index}" for index in range(300)]}


def study(directory, name, accuracy, texts=None, **changes):
    """A study on disk with its tables of verdicts, as ``side_by_side.Side``."""
    made = synthetic.write(
        directory, synthetic.config(study__name=name, **changes), lambda cell: accuracy, seed=len(name)
    )
    if texts:
        (directory / "results" / "data").mkdir()
        frame = pd.DataFrame(
            {"id": range(len(texts)), "text": texts, "label": [index % 5 for index in range(len(texts))]}
        )
        frame.to_parquet(directory / "results" / "data" / "test.parquet")
    results = synthetic.gather(directory, made)
    (directory / "paper_tables").mkdir()
    report_study._write_parameters(directory / "results" / "parameters.csv")
    for table in ("claims", "questions"):
        paths = {suffix: directory / "paper_tables" / f"{table}.{suffix}" for suffix in tables.FORMATS}
        tables.write(table, results, directory / "results" / "parameters.csv", paths)
    return side_by_side.read(directory, made, name)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    place = tmp_path_factory.mktemp("sides")
    return (
        study(place / "a", "High | up", 0.8, TEXTS["same"]),
        study(place / "b", "Low", 0.25, TEXTS["same"], line__r=[8, 32], training__learning_rate=0.5),
    )


def test_settings_that_differ_and_no_others(sides):
    frame = side_by_side.settings(*sides).frame.set_index("key")
    assert set(frame.index) == {"grid.lines", "training.learning_rate"}
    assert frame.loc["training.learning_rate"].tolist() == ["0.001", "0.5"]
    same = side_by_side.settings(sides[0], sides[0])
    assert not len(same.frame)
    assert same.notes == ["The two are configured alike."]


def test_points_that_both_have(sides):
    """r = 8 at alpha 16, 32 and 64, of two methods and two target sets; r = 4, 16 and 32 are in one of the two."""
    table = side_by_side.points(*sides)
    frame = table.frame
    assert len(frame) == 2 + 3 * 4
    assert set(frame.r[2:]) == {8}
    assert set(frame.alpha[2:]) == {16, 32, 64}
    assert any("8 of High | up and 4 of Low" in note for note in table.notes)
    for side, end in zip(sides, "ab"):
        summary = side.results.summary.set_index("id")
        for row in frame[2:].to_dict("records"):
            cell = summary.loc[f"{row['method']}_{row['targets']}_r8_a{row['alpha']:g}_s0"]
            wanted = cell[["accuracy", "accuracy_low", "accuracy_high"]].tolist()
            assert [row[f"{end}_accuracy"], row[f"{end}_accuracy_low"], row[f"{end}_accuracy_high"]] == wanted
    row = frame.iloc[5]
    assert row.difference == pytest.approx(row.a_accuracy - row.b_accuracy)
    below = (row.a_accuracy - row.a_accuracy_low) ** 2 + (row.b_accuracy_high - row.b_accuracy) ** 2
    assert row.low == pytest.approx(row.difference - math.sqrt(below))
    assert 0.4 < row.low < 0.55 < row.high < 0.7
    assert table.shown.iloc[2, 0] == "LoRA, attention, r = 8, α = 32"
    assert table.shown.iloc[0, 0] == "base model, untrained head"
    assert list(table.shown)[1] == "High \\| up"


def test_verdicts_of_both(sides):
    table = side_by_side.verdicts(*sides)
    frame = table.frame
    for side, end in zip(sides, "ab"):
        own = side.verdicts.set_index(["about", "claim", "view"]).verdict
        assert frame[f"verdict_{end}"].tolist() == [own[key] for key in zip(frame.about, frame.claim, frame["view"])]
    assert {"the paper's claims", "over the whole grid"} == set(frame.about)
    gain = frame[frame.claim.eq("gain_lora_prompt")].iloc[0]
    assert (gain.verdict_a, gain.verdict_b) == ("supported", "contradicted")  # prompting is right in 0.45
    opposite = (frame.verdict_a + frame.verdict_b).isin(["supportedcontradicted", "contradictedsupported"]).sum()
    assert f"{opposite} opposite ones" in table.notes[0]


@pytest.mark.parametrize(
    ("texts", "marks", "said"),
    [
        (("same", "same"), "", "Both were tested on the same texts."),
        (("same", "other"), "", "The test texts differ (of 300 and 300 test texts they share 0)"),
        ((None, "other"), "", "The test texts differ (their data are not the same, or not known to be)"),
        ((None, None), "ff", "Both were tested on the same texts."),
        ((None, None), "fe", "The test texts differ (their data are not the same, or not known to be)"),
    ],
)
def test_what_is_said_of_the_texts(tmp_path, texts, marks, said):
    places = [tmp_path / "one", tmp_path / "two"]
    for place, mark in zip(places, marks):
        records.write_json(
            place / "results" / "data" / "card.json",
            report_study.card(synthetic.settings.load(synthetic.config())) | {"fingerprint": mark},
        )
    found = []
    for place, known in zip(places, texts):
        found.append(study(place, "A study", 0.5, TEXTS.get(known)))
    assert next(side_by_side.same_texts(*found)).startswith(said)


def test_a_study_without_tables_is_told_what_to_make(tmp_path):
    made = synthetic.write(tmp_path)
    with pytest.raises(
        side_by_side.CompareError, match=r"summary\.csv is not there; make it first.* snakemake -d .*paper_tables/"
    ):
        side_by_side.read(tmp_path, made, "x")
