"""A trained cell's files appear whole, survive the loss of the declared outputs, and are staged once."""

import json
import os

import pytest
from lorastudy.jobs import outputs, staging

SPEC, INPUTS = {"training": {"epochs": 1}}, {"model": "m"}


@pytest.fixture
def places(tmp_path):
    cell = tmp_path / "results" / "cells" / "c"
    return {
        "adapter": cell / "adapter",
        "training_log.csv": cell / "training_log.csv",
        outputs.RECORD: cell / "training.json",
    }


@pytest.fixture
def finished(tmp_path):
    return outputs.Finished("c", tmp_path / "results" / "checkpoints")


def train(finished):
    own = finished.begin()
    (own / "adapter").mkdir()
    (own / "adapter" / "weights").write_text("w", encoding="utf-8")
    (own / "training_log.csv").write_text("l", encoding="utf-8")
    (own / outputs.RECORD).write_text(json.dumps({"provenance": {"config": SPEC, "inputs": INPUTS}}), encoding="utf-8")
    finished.keep()


def test_a_finished_cell_is_put_in_place_again_without_training(finished, places):
    train(finished)
    finished.put(places)
    (places["adapter"] / "weights").unlink()
    places["training_log.csv"].unlink()
    assert finished.matches(SPEC, INPUTS)
    finished.put(places)
    assert (places["adapter"] / "weights").read_text(encoding="utf-8") == "w"
    assert places["training_log.csv"].read_text(encoding="utf-8") == "l"
    assert sorted(path.name for path in places["adapter"].parent.iterdir()) == [
        "adapter",
        "training.json",
        "training_log.csv",
    ]


@pytest.mark.parametrize(("spec", "inputs"), [({"training": {"epochs": 2}}, INPUTS), (SPEC, {"model": "n"})])
def test_other_settings_or_data_train_anew(finished, spec, inputs):
    train(finished)
    assert not finished.matches(spec, inputs)


def test_outputs_are_new_even_if_the_files_are_old(finished, places):
    train(finished)
    os.utime(finished.kept / "training_log.csv", (0, 0))
    finished.put(places)
    assert places["training_log.csv"].stat().st_mtime > 1e9


def test_what_a_killed_job_left_half_written_is_not_taken_for_the_cell(finished, places):
    own = finished.begin()
    (own / outputs.RECORD).write_text("{", encoding="utf-8")
    assert not finished.matches(SPEC, INPUTS)
    train(finished)
    assert [path.name for path in finished.kept.parent.iterdir()] == ["finished"]
    finished.put(places)


def test_no_trace_once_it_is_evaluated(finished, tmp_path):
    train(finished)
    finished.remove()
    assert list((tmp_path / "results").iterdir()) == []


@pytest.fixture
def base(tmp_path):
    directory = tmp_path / "results" / "model" / "base"
    directory.mkdir(parents=True)
    (directory / "origin.json").write_text('{"name": "x"}', encoding="utf-8")
    (tmp_path / "weights").write_bytes(b"12345")
    (directory / "model.safetensors").symlink_to(tmp_path / "weights")
    return directory


def test_the_base_is_staged_once_and_whole(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path / "node"))
    monkeypatch.setenv(staging.VARIABLE, "$SOMEWHERE/stage")
    copy = staging.local(base)
    assert copy.is_relative_to(tmp_path / "node" / "stage")
    assert (copy / "model.safetensors").read_bytes() == b"12345"
    assert not (copy / "model.safetensors").is_symlink()
    made = (copy / "model.safetensors").stat().st_ino
    assert staging.local(base) == copy
    assert (copy / "model.safetensors").stat().st_ino == made
    (base / "origin.json").write_text('{"name": "another"}', encoding="utf-8")
    assert staging.local(base) != copy


def test_without_a_place_or_room_the_base_is_read_where_it_is(base, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv(staging.VARIABLE, raising=False)
    assert staging.local(base) == base
    monkeypatch.setenv(staging.VARIABLE, str(tmp_path / "stage"))
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert staging.local(base) == base
    assert "not staged" in caplog.text
    assert not [
        path for path in (tmp_path / "stage").rglob("*") if path.is_dir() and not path.name.startswith("lorastudy-")
    ]
