"""How far a study is, told from records, logs, leases and notes of attempts."""

import logging
import os
from pathlib import Path

import pytest
import synthetic
import watch
from lorastudy.engine import training
from lorastudy.jobs import attempts, lease, progress
from lorastudy.study import grid

CELL = "lora_attention_r4_a32_s0"
OTHERS = {"diverged": "lora_attention_r16_a32_s0", "stale": "qlora_all-linear_r8_a64_s0"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study on disk in which ``CELL`` has not run, one cell diverged and one is of another configuration."""
    study = synthetic.write(tmp_path, missing=[CELL], **{name: [cell] for name, cell in OTHERS.items()})
    monkeypatch.chdir(tmp_path)
    Path("logs/cells").mkdir(parents=True)
    return study


def state_of(study, cell=CELL):
    return next(state for state in progress.states(study, grid.cells(study.grid)) if state.cell == cell)


def log_of(step, *lines):
    path = Path("logs", "cells", f"{CELL}.{step}.log")
    path.write_text("\n".join(["[transformers] a line of somebody else", *lines]) + "\n", encoding="utf-8")
    return path


def step_line(caplog, step, steps=50):
    """The line that training logs after ``step``, as it really is."""
    row = {"loss": 1.5, "learning_rate": 1e-3, "samples_per_second": 4.0, "tokens_per_second": 100.0}
    state = training.Progress(8192, step=step, rows=[row])
    with caplog.at_level(logging.INFO, "lorastudy"):
        training._tell(state, steps, 2.0)
    return f"12:00:00 {caplog.messages[-1]}"


def test_cells_at_rest(study):
    found = {state.cell: state for state in progress.states(study, grid.cells(study.grid))}
    assert list(found) == list(grid.cells(study.grid))
    assert found[CELL] == progress.State(CELL, progress.WAITING)
    assert found[OTHERS["diverged"]].phase == progress.DIVERGED
    assert found[OTHERS["diverged"]].note == "at step 4, learning rate 0.001"
    assert found[OTHERS["stale"]].phase == progress.WAITING
    assert "another configuration" in found[OTHERS["stale"]].note
    done = [state for state in found.values() if state.phase == progress.DONE]
    assert len(done) == len(found) - 3
    assert all(state.seconds in (610.0, 1210.0) and 0 < state.accuracy < 1 for state in done)


def test_a_cell_in_training_shows_what_training_logs(study, caplog):
    with lease.held(CELL):
        assert (state_of(study).phase, state_of(study).step) == (progress.TRAINING, None)
        log_of("finetune", step_line(caplog, 10), step_line(caplog, 20))
        state = state_of(study)
    assert (state.phase, state.step, state.steps, state.loss) == (progress.TRAINING, 20, 50, 1.5)
    assert (state.samples_per_second, state.left) == (4.0, "0:01:00")
    assert state.location == os.uname().nodename
    assert state_of(study).phase == progress.WAITING  # the lease is gone


def test_a_cell_in_evaluation(study, caplog):
    older = log_of("finetune", step_line(caplog, 50))
    os.utime(older, (0, 0))
    log_of("evaluate", "12:00:01 evaluated 3 of 7 packs, 1.0 s", "12:00:02 evaluated 4 of 7 packs, 1.4 s")
    with lease.held(CELL):
        state = state_of(study)
    assert (state.phase, state.step, state.steps) == (progress.EVALUATING, 4, 7)


def test_a_failed_attempt_shows_its_reason_and_log(study):
    path = log_of("finetune")
    for _ in range(2):
        with pytest.raises(RuntimeError), attempts.noted(f"finetune.{CELL}", path):
            raise RuntimeError("CUDA error: the card fell out\nand more")
    state = state_of(study)
    assert state.phase == progress.FAILED
    assert state.note == "fault (2 attempts): RuntimeError: CUDA error: the card fell out"
    assert state.log == str(path)
    with lease.held(CELL):  # tried again
        assert state_of(study).phase == progress.TRAINING


def test_what_a_waiting_cell_has_already(study):
    directory = Path("results", "checkpoints", CELL)
    directory.mkdir(parents=True)
    for step in (120, 90):
        (directory / f"step{step:08d}.safetensors").touch()
    assert state_of(study).note == "kept a checkpoint after step 120"


def test_the_time_left_by_hand():
    """Two done in 100 s and 200 s, one running and three waiting, one at once: 4 times 150 s."""
    found = [progress.State("a", progress.DONE, seconds=100), progress.State("b", progress.DONE, seconds=200)]
    found += [progress.State("c", progress.TRAINING), *[progress.State("d", progress.WAITING)] * 3]
    assert progress.seconds_left(found) == 600
    assert progress.seconds_left(found[:2]) is None
    assert progress.seconds_left(found[2:]) is None


def test_the_time_left_counts_whole_jobs(study):
    """What a cell's two jobs took: 130 s and 20 s, of which training and evaluation are 610 s of another machine."""
    place = Path("logs", "benchmarks")
    place.mkdir()
    for step, seconds in (("finetune", "130.5"), ("evaluate", "20.0")):
        (place / f"lora_attention_r8_a32_s0.{step}.tsv").write_text(
            f"s\th:m:s\tmax_rss\n{seconds}\t0:02:10\t100\n", encoding="utf-8"
        )
    state = state_of(study, "lora_attention_r8_a32_s0")
    assert (state.seconds, state.job_seconds) == (610.0, 150.5)
    assert progress.seconds_left([state, progress.State("c", progress.TRAINING)]) == 150.5


def test_steps_of_the_workflow(tmp_path):
    log = tmp_path / "snakemake.log"
    assert progress.steps(log) is None
    log.write_text(
        "Building DAG of jobs...\n3 of 46 steps (7%) done\nx\n12 of 46 steps (26%) done\nSelect jobs\n",
        encoding="utf-8",
    )
    assert progress.steps(log) == (12, 46)


def test_what_is_not_there_yet(study, tmp_path):
    assert progress.unmade(study) == ["base model", "data", "NF4 model"]


def test_what_is_seen(study, capsys, caplog):
    log_of("finetune", step_line(caplog, 20))
    with lease.held(CELL):
        watch.main([".", "--once"])
    seen = capsys.readouterr().out
    for text in (
        "18 of 20 cells",
        "17 done",
        "1 diverged",
        "1 training",
        "1 waiting",
        CELL,
        "20/50",
        "1.5000",
        "0:01:00",
    ):
        assert text in seen
    assert "lora_attention_r16_a32_s0  at step 4, learning rate 0.001" in seen


def test_a_directory_without_a_study(tmp_path):
    with pytest.raises(SystemExit) as end:
        watch.main([str(tmp_path / "nowhere"), "--once"])
    assert "there is no such file; name the directory of a study" in str(end.value)
