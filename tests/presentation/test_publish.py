"""A published cell: what the hub expects is there, and the code in its model card gives the study's own predictions."""

import json
import re

import pandas as pd
import pytest
import yaml
from lorastudy.presentation import publish

CELLS = ["lora_all-linear_r1_a2_s0", "qlora_attention_r2_a4_s0"]


@pytest.fixture(scope="module")
def published(finished_study, snakemake):
    snakemake("-d", finished_study, "--cores", 1, *(f"publish/{cell}" for cell in CELLS))
    return finished_study


def metadata(text):
    front, body = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", text, re.DOTALL).groups()
    return yaml.safe_load(front), body


@pytest.mark.parametrize("cell", CELLS)
def test_the_form_that_the_hub_expects(published, cell):
    directory = published / "publish" / cell
    assert {path.name for path in directory.iterdir() if not path.name.startswith(".")} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json", "training.json",
    }  # fmt: skip
    front, body = metadata((directory / "README.md").read_text(encoding="utf-8"))
    assert (front["library_name"], front["pipeline_tag"]) == ("peft", "text-classification")
    measured = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    results = front["model-index"][0]["results"][0]["metrics"]
    assert {one["type"]: one["value"] for one in results}["accuracy"] == measured["metrics"]["accuracy"]
    assert f"| accuracy | {measured['metrics']['accuracy']:.3f} |" in body
    assert str(published) not in (directory / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("cell", CELLS)
def test_the_card_s_code_gives_the_study_s_predictions(published, cell, monkeypatch):
    code = re.search(
        r"```python\n(.*?)```", (published / "publish" / cell / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )[1]
    base = str(published / "results" / "model" / "base")
    assert code.count('BASE, ADAPTER = "tiny", "."') == 1
    code = code.replace('BASE, ADAPTER = "tiny", "."', f'BASE, ADAPTER = {base!r}, "."')
    monkeypatch.chdir(published / "publish" / cell)
    namespace = {}
    exec(code, namespace)
    texts = pd.read_parquet(published / "results" / "data" / "test.parquet").text
    predicted = pd.read_parquet(published / "results" / "cells" / cell / "predictions.parquet").prediction
    wanted = [namespace["CLASSES"][index] for index in predicted]
    assert [namespace["classify"](text) for text in texts] == wanted


def test_a_cell_without_a_result_is_not_trained_for_this(copy_study, snakemake):
    (copy_study / "results" / "cells" / CELLS[0] / "metrics.json").unlink()
    done = snakemake("-d", copy_study, "--cores", 1, f"publish/{CELLS[0]}", check=False)
    assert done.returncode != 0
    assert f"{CELLS[0]} has no result yet; run it first" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_cell_that_diverged_is_refused(tmp_path):
    for name in ("metrics", "training"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"status": "diverged"}), encoding="utf-8")
    with pytest.raises(publish.PublishError, match="is diverged; choose a finished cell"):
        publish.write(tmp_path, tmp_path / "card.json", tmp_path / "out", "A study")
    assert not (tmp_path / "out").exists()


def test_a_model_on_the_hub_is_named_as_its_base():
    revision = "a" * 40
    measured = {
        "cell": {"method": "lora", "targets": "attention", "r": 8, "alpha": 32, "seed": 0},
        "metrics": {f"{name}{end}": 0.5 for name in ("accuracy", "f1", "precision", "recall", "macro_f1", "mae", "nll", "ece") for end in ("", "_low", "_high")},
        "n_test": 10,
        "provenance": {"seed": 0, "config": {
            "model": {"source": "hub", "name": "some/model", "revision": revision, "dtype": "bfloat16"},
            "data": {"template": "{text}", "max_length": 512}, "lora": {"dropout": 0.0}, "training": {"epochs": 1},
        }},
    }  # fmt: skip
    trained = {
        "trainable_parameters": 1, "trainable_percent": 1.0, "steps": 1, "seconds": 1.0, "peak_memory_gib": 1.0,
        "memory_meter": "allocator", "provenance": {"git_commit": "c", "git_dirty": False, "hardware": {"device": "GPU"}},
    }  # fmt: skip
    data = {
        "source": "hub", "name": "some/texts", "revision": revision, "class_names": ["bad", "good"], "max_length": 512,
        "fingerprint": "f" * 64, "splits": {name: {"texts": 10} for name in ("train", "test")},
    }  # fmt: skip
    front, body = metadata(publish.model_card("cell", measured, trained, data, "A study"))
    assert (front["base_model"], front["datasets"]) == ("some/model", ["some/texts"])
    assert front["model-index"][0]["results"][0]["dataset"]["revision"] == revision
    assert f'revision="{revision}"' in body
    assert "A LoRA adapter with a classification head" in body
    assert "attention projections, seed 0. It sorts a text into one of 2 classes: bad, good." in body
    measured["cell"] = {"method": "head", "targets": None, "r": None, "alpha": None, "seed": 0}
    assert "on the base model as it is" in publish.model_card("cell", measured, trained, data, "A study")


def test_full_fine_tuning_has_no_adapter_to_publish(tmp_path):
    for name in ("metrics", "training"):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"status": "finished", "cell": {"method": "full"}}), encoding="utf-8"
        )
    with pytest.raises(publish.PublishError, match="is a whole model and no adapter"):
        publish.write(tmp_path, tmp_path / "card.json", tmp_path / "out", "A study")
    assert not (tmp_path / "out").exists()
