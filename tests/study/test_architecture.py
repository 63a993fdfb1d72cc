"""One answer to what shape the base model has, for the plan, the check and the tables."""

import json
import os

import pytest
import yaml
from lorastudy.planning import resources
from lorastudy.study import architecture, grid, settings


def model(source, name):
    return settings.Model(source=source, name=name, revision=None, dtype="bfloat16")


def test_a_local_directory_is_asked_itself(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps({"hidden_size": 64}), encoding="utf-8")
    found = architecture.of_study(model("directory", "mine"), tmp_path)
    assert (found.config["hidden_size"], found.assumed) == (64, False)


@pytest.mark.parametrize(
    ("source", "name", "width", "assumed"),
    [
        ("hub", "meta-llama/Meta-Llama-3-8B", 4096, False),
        ("hub", "someone/else", 4096, True),
        ("packaged", "smollm2-135m-instruct", 576, False),
        ("random", "tiny", 64, False),
    ],
)
def test_a_model_that_is_not_there_yet(tmp_path, source, name, width, assumed):
    found = architecture.of_study(model(source, name), tmp_path)
    assert (found.config["hidden_size"], found.assumed) == (width, assumed)


def test_a_fetched_model_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "results" / "model" / "base" / "config.json"
    path.parent.mkdir(parents=True)
    for time, width in enumerate((64, 128)):
        path.write_text(json.dumps({"hidden_size": width}), encoding="utf-8")
        os.utime(path, (time, time))
        assert architecture.of_study(model("hub", "a/b"), tmp_path).config["hidden_size"] == width


def test_the_plan_asks_for_the_memory_of_a_local_model(tmp_path, monkeypatch):
    """The tiny model in a directory must not be planned as if it were the paper's, 40 GB and more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(architecture.named("tiny")), encoding="utf-8")
    config = yaml.safe_load((settings.REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8"))
    study = settings.load(config | {"model": {"source": "directory", "name": "mine"}})
    cells = grid.cells(study.grid)
    assert resources.Estimate(study, cells).gpu_memory_mb(next(iter(cells)), "finetune") < 1000
