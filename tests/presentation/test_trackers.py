"""Training logs read back by the trackers themselves, each installed apart; and what is said where one is not."""

import json
import os
import subprocess
import sys
from datetime import datetime

import pandas as pd
import pytest
import synthetic
from lorastudy.presentation import trackers
from lorastudy.study import records
from lorastudy.study.settings import REPOSITORY

CELL, DIVERGED, MISSING = "lora_attention_r8_a32_s0", "lora_attention_r4_a32_s0", "qlora_attention_r4_a32_s0"
TENSORBOARD = ("tensorboard==2.21.0", "protobuf", "absl-py")
MLFLOW = ("mlflow-skinny==3.17.2", "sqlalchemy", "alembic")
READ_TENSORBOARD = """
import json, sys, pathlib
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
(path,) = pathlib.Path(sys.argv[1]).iterdir()
events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
print(json.dumps([[e.wall_time, e.step, {v.tag: v.tensor.float_val[0] for v in e.summary.value}] for e in events]))
"""
READ_MLFLOW = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
home = client.get_experiment_by_name(sys.argv[2])
found = {}
for run in client.search_runs([home.experiment_id]):
    losses = [[m.timestamp, m.step, m.value] for m in client.get_metric_history(run.info.run_id, "training/loss")]
    found[run.info.run_name] = [run.info.status, run.data.params, run.data.metrics, losses]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tracked") / "a study"
    synthetic.write(directory, synthetic.config(study__name="It's mine"), diverged=[DIVERGED], missing=[MISSING])
    return directory


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Function that installs packages apart from the environment and returns where."""

    def install(*packages):
        place = tmp_path_factory.mktemp("packages")
        alone = ["--no-deps"] if packages == TENSORBOARD else []
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", place, *alone, *packages]
        subprocess.run(command, check=True, capture_output=True)
        return place

    return install


def python(place, *arguments, **environment):
    """Run Python, with the packages of ``place`` after its own where that is given."""
    paths = [REPOSITORY / "workflow" / "scripts", *([place] if place else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def export(study, tracker, place):
    return python(place, "workflow/scripts/export_logs.py", study, "--to", tracker)


def test_tensorboard_reads_what_was_logged(study, installed):
    place = installed(*TENSORBOARD)
    for _ in range(2):  # the second export takes the place of the first
        done = export(study, "tensorboard", place)
        assert done.returncode == 0, done.stderr
    runs = sorted(path.name for path in (study / "tracking" / "tensorboard").iterdir())
    assert runs == sorted(path.parent.name for path in study.glob("results/cells/*/training.json"))
    assert MISSING not in runs
    read = python(place, "-c", READ_TENSORBOARD, study / "tracking" / "tensorboard" / CELL)
    events = json.loads(read.stdout)
    log = pd.read_csv(study / "results" / "cells" / CELL / "training_log.csv")
    record = records.read_json(study / "results" / "cells" / CELL / "training.json")
    assert [step for _, step, _ in events] == [*log.step, log.step.iloc[-1]]
    assert [values["training/loss"] for *_, values in events[:-1]] == pytest.approx(log.loss.tolist(), rel=1e-6)
    assert set(events[0][2]) == {f"training/{name}" for name in trackers.LOGGED}
    end = datetime.fromisoformat(record["provenance"]["time_utc"]).timestamp()
    assert [time for time, *_ in events[:-1]] == pytest.approx((end - record["seconds"] + log.seconds).tolist())
    scores = records.read_json(study / "results" / "cells" / CELL / "metrics.json")["metrics"]
    assert events[-1][2]["test/accuracy"] == pytest.approx(scores["accuracy"])


def test_mlflow_reads_what_was_logged(study, installed):
    place = installed(*MLFLOW)
    for _ in range(2):
        done = export(study, "mlflow", place)
        assert done.returncode == 0, done.stderr
    uri = f"sqlite:///{study / 'tracking' / 'mlflow.db'}"
    runs = json.loads(python(place, "-c", READ_MLFLOW, uri, "It's mine").stdout)
    assert set(runs) == {path.parent.name for path in study.glob("results/cells/*/training.json")}
    status, parameters, metrics, losses = runs[CELL]
    log = pd.read_csv(study / "results" / "cells" / CELL / "training_log.csv")
    assert status == "FINISHED"
    assert [parameters[name] for name in ("method", "targets", "r", "seed")] == ["lora", "attention", "8", "0"]
    assert parameters["learning_rate"] == "0.001"
    assert [[step, loss] for _, step, loss in losses] == log[["step", "loss"]].to_numpy().tolist()
    scores = records.read_json(study / "results" / "cells" / CELL / "metrics.json")["metrics"]
    assert metrics["test/accuracy"] == scores["accuracy"]
    assert (runs[DIVERGED][1]["status"], "test/accuracy" in runs[DIVERGED][2]) == ("diverged", False)


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_told_in_a_line(study, tmp_path, tracker):
    (tmp_path / f"{tracker}.py").write_text(
        f'raise ModuleNotFoundError("No module named {tracker!r}")\n', encoding="utf-8"
    )
    done = export(study, tracker, tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"{tracker} cannot be used (No module named {tracker!r}); it is no dependency of the pipeline: "
        f"pip install {tracker}, and run this again.\n"
    )


def test_a_study_without_logs_is_told(tmp_path):
    made = synthetic.write(tmp_path, missing=synthetic.grid.cells(synthetic.settings.load(synthetic.config()).grid))
    with pytest.raises(trackers.TrackerError, match="no cell has a training log yet"):
        trackers.runs(made, tmp_path)


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    made = synthetic.write(tmp_path)
    path = tmp_path / "results" / "cells" / CELL / "training_log.csv"
    log = pd.read_csv(path)
    log.loc[1, "loss"], log.loc[2, "grad_norm"] = float("nan"), float("inf")
    log.to_csv(path, index=False)
    (run,) = (run for run in trackers.runs(made, tmp_path) if run.name == CELL)
    assert ["training/loss" in values for *_, values in run.points[:3]] == [True, False, True]
    assert ["training/grad_norm" in values for *_, values in run.points[:3]] == [True, True, False]
