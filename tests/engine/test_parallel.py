"""Two processes on a CPU take the same steps as one."""

import pytest
import torch
import train_in_parallel
from lorastudy.engine import parallel
from lorastudy.jobs import logs
from lorastudy.study.settings import REPOSITORY
from safetensors.torch import load_file

SCRIPT = REPOSITORY / "tests" / "train_in_parallel.py"


@pytest.fixture(scope="module")
def alone(tiny_base, tmp_path_factory):
    """Outcome of one process, this one."""
    file = tmp_path_factory.mktemp("alone") / "outcome.safetensors"
    train_in_parallel.train(str(tiny_base), str(file))
    return load_file(file)


@pytest.fixture(scope="module")
def together(tiny_base, tmp_path_factory):
    """Outcomes of two processes: of a run that nothing disturbs, and of one in which the second runs out of memory."""
    directory = tmp_path_factory.mktemp("together")
    return launch(tiny_base, {"output": str(directory / "x")}, {"output": str(directory / "y"), "no_memory_above": 40})


def launch(base, *runs):
    parallel.launch(SCRIPT, {"base": str(base), "runs": runs}, 2)
    return [load_file(run["output"]) for run in runs]


def same(found, expected):
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=0)
    for name in expected.keys() - {"losses", "micro_batch_tokens"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_two_processes_follow_the_trajectory_of_one(alone, together):
    assert len(alone["losses"]) == 10
    same(together[0], alone)


def test_memory_that_runs_out_in_one_process_is_answered_by_both(alone, together):
    assert together[1]["micro_batch_tokens"] < 1000
    same(together[1], alone)


def test_a_signal_stops_both_and_the_next_run_goes_on(tiny_base, alone, tmp_path):
    store = tmp_path / "checkpoints"
    run = {"output": str(tmp_path / "outcome"), "checkpoints": str(store)}
    with pytest.raises(logs.Interrupted):
        launch(tiny_base, run | {"stop_after": 4})
    (kept,) = store.iterdir()  # written by the first process alone
    assert 0 < int(kept.stem.removeprefix("step")) < 10
    (found,) = launch(tiny_base, run)
    same(found, alone)


def test_a_process_that_fails_ends_the_others(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "import time\nfrom lorastudy.engine import parallel\n"
        "def main(): assert parallel.rank_and_size()[0] == 0; time.sleep(600)\n",
        encoding="utf-8",
    )
    with pytest.raises(parallel.ParallelError):
        parallel.launch(script, {}, 2)
