"""Two processes on a CPU take the same steps as one."""

import pytest
import torch
from lorastudy.engine import parallel
from lorastudy.jobs import logs
from lorastudy.study.settings import REPOSITORY
from safetensors.torch import load_file

SCRIPT = REPOSITORY / "tests" / "train_in_parallel.py"


@pytest.fixture(scope="module")
def alone(tiny_base, tmp_path_factory):
    return outcome(tiny_base, tmp_path_factory.mktemp("alone"), 1)


def outcome(base, directory, processes, **arguments):
    file = directory / "outcome.safetensors"
    parallel.launch(SCRIPT, {"base": str(base), "output": str(file)} | arguments, processes)
    return load_file(file)


def same(found, expected):
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=0)
    for name in expected.keys() - {"losses", "micro_batch_tokens"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_two_processes_follow_the_trajectory_of_one(tiny_base, alone, tmp_path):
    assert len(alone["losses"]) == 10
    same(outcome(tiny_base, tmp_path, 2), alone)


def test_memory_that_runs_out_in_one_process_is_answered_by_both(tiny_base, alone, tmp_path):
    found = outcome(tiny_base, tmp_path, 2, no_memory_above=40)
    assert found["micro_batch_tokens"] < 1000
    same(found, alone)


def test_a_signal_stops_both_and_the_next_run_goes_on(tiny_base, alone, tmp_path):
    store = tmp_path / "checkpoints"
    with pytest.raises(logs.Interrupted):
        outcome(tiny_base, tmp_path, 2, checkpoints=str(store), stop_after=4)
    (kept,) = store.iterdir()  # written by the first process alone
    assert 0 < int(kept.stem.removeprefix("step")) < 10
    same(outcome(tiny_base, tmp_path, 2, checkpoints=str(store)), alone)


def test_a_process_that_fails_ends_the_others(tiny_base, tmp_path):
    with pytest.raises(parallel.ParallelError):
        parallel.launch(SCRIPT, {"base": str(tmp_path / "nowhere"), "output": str(tmp_path / "x")}, 2)
