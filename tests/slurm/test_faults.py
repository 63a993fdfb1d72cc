"""Whatever breaks: the same bits as without it, nothing trained twice, and the fault named to the user.

All scenarios start with the module and share the machine; each test waits for its own. A scenario that disturbs the
whole cluster has a cluster of its own.
"""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pytest
import slurm_cluster
from slurm_studies import CELL, TRAINED, Run, losses, process

pytestmark = pytest.mark.slurm

FINETUNE = "rule_finetune_cell"


class Bench:
    """What a scenario works with: a fresh study, a cluster to run it on, the pipeline."""

    def __init__(self, clone, cluster, study):
        self.clone, self.cluster, self.study = clone, cluster, study

    def run(self, *arguments, **options):
        return Run(self.clone, self.cluster, self.study.directory, *(arguments or (TRAINED,)), **options)

    def jobs(self):
        return self.cluster.jobs(self.study.directory, FINETUNE)

    def job(self):
        """Number of the training job that was submitted last."""
        return self.jobs()[-1]["JobId"]

    def resume(self, *arguments):
        return self.run(*arguments, TRAINED, script="workflow/scripts/resume.py")


@contextmanager
def paused(pid):
    """Nothing happens in a process meanwhile, so that what happens around it surely happens in the middle of it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def was_warned(pid, number=signal.SIGTERM):
    """Whether a signal waits for a paused process, or has ended it: Slurm wakes a process before it signals it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return True
    lines = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    return bool((int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)) >> (number - 1) & 1)


@contextmanager
def told_to_stop(bench):
    """In the middle of training, whatever is done in the block reaches the process as SIGTERM."""
    pid = process(bench.study.until_training())
    with paused(pid):
        yield
        bench.study.until(lambda: was_warned(pid), "SIGTERM", 150)


def time_limit(bench):
    run = bench.run()
    with told_to_stop(bench):
        bench.cluster.run("scontrol", "update", f"JobId={bench.job()}", "TimeLimit=2")
    run.succeed()
    first, second = bench.jobs()
    assert first["JobState"] == "FAILED"
    minutes = [
        int(job["TimeLimit"].split(":")[0]) * 60 + int(job["TimeLimit"].split(":")[1]) for job in (first, second)
    ]
    assert minutes == [2, 41]  # the estimate, 20.01 minutes, doubled; and the memory as it was
    assert first["MinMemoryNode"] == second["MinMemoryNode"]
    return {"resumes": 1, "told": "stopped by SIGTERM"}


def cancelled(bench):
    run = bench.run()
    with told_to_stop(bench):
        bench.cluster.run("scancel", bench.job())
    run.succeed()
    first, second = bench.jobs()
    assert first["JobState"] == "CANCELLED"
    assert first["TimeLimit"] == second["TimeLimit"]
    return {"resumes": 1, "told": "SLURM status is: 'CANCELLED'"}


def training_killed(bench):
    run = bench.run()
    os.kill(process(bench.study.until_training()), signal.SIGKILL)
    run.succeed()
    assert [job["JobState"] for job in bench.jobs()] == ["FAILED", "COMPLETED"]
    return {"resumes": 1, "told": "SLURM status is: 'FAILED'"}


def step_killed(bench):
    run = bench.run()
    bench.study.until_training()
    bench.cluster.run("scancel", "--signal=KILL", f"{bench.job()}.0")
    run.succeed()
    return {"resumes": 1, "told": "failed, SLURM status is"}


def slurmd_killed(bench):
    run = bench.run()
    with paused(process(bench.study.until_training())):
        bench.cluster.stop_daemon("slurmd", signal.SIGKILL)
        time.sleep(5)
        bench.cluster.start_daemon("slurmd")
        bench.study.until(bench.cluster.idle, "node")
    run.succeed()
    assert len(bench.jobs()) == 1
    return {"resumes": 0, "told": ""}


def controller_away(bench):
    run = bench.run()
    with paused(process(bench.study.until_training())):
        bench.cluster.stop_daemon("slurmctld")
        time.sleep(60)
    time.sleep(5)
    bench.cluster.start_daemon("slurmctld")
    run.succeed()
    assert len(bench.jobs()) == 1
    return {"resumes": 0, "told": "Slurm does not answer; its jobs count as running until it does."}


def interrupted(bench):
    run = bench.run()
    with told_to_stop(bench):
        run.signal(signal.SIGINT)
    assert run.wait() != 0
    bench.study.until(lambda: bench.jobs()[-1]["JobState"] == "CANCELLED", "cancelled job")
    bench.run().succeed()
    return {"resumes": 1, "told": "Terminating processes on user request"}


def terminated(bench):
    run = bench.run()
    with paused(process(bench.study.until_training())):
        run.signal(signal.SIGTERM)
        time.sleep(2)
    assert run.wait() != 0
    bench.run().succeed()
    assert len(bench.jobs()) == 1  # it was waited for
    return {"resumes": 0, "told": "Will exit after finishing currently running jobs"}


def killed_and_taken_up(bench):
    run = bench.run()
    with paused(process(bench.study.until_training())):
        run.signal(signal.SIGKILL)
        run.wait()
        up = bench.resume()
        bench.study.until(lambda: f"Waiting for Slurm job {bench.job()}" in up.output(), "wait for the orphan")
    up.succeed()
    assert len(bench.jobs()) == 1
    return {"resumes": 0, "told": "Waiting for Slurm job"}


def killed_and_cancelled(bench):
    run = bench.run()
    with told_to_stop(bench):
        run.signal(signal.SIGKILL)
        run.wait()
        up = bench.resume("--cancel")
    up.succeed()
    assert [job["JobState"] for job in bench.jobs()] == ["CANCELLED", "COMPLETED"]
    return {"resumes": 1, "told": "Ending Slurm job"}


def killed_and_restarted_beside_its_job(bench):
    """What nobody should do: unlock and start again while the old job runs. The new job waits for the lease."""
    run = bench.run()
    with paused(process(bench.study.until_training())):
        run.signal(signal.SIGKILL)
        run.wait()
        bench.run("--unlock").succeed()
        again = bench.run()
        bench.study.until(lambda: "is being written by Slurm job" in bench.study.told(), "second job")
    again.succeed()
    assert [job["JobState"] for job in bench.jobs()] == ["COMPLETED", "COMPLETED"]
    return {"resumes": 0, "told": "waiting until it ends"}


def node_drained(bench):
    run = bench.run(f"results/cells/{CELL}/metrics.json")
    with paused(process(bench.study.until_training())):
        bench.cluster.run("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
    waiting = "rule_evaluate_cell"
    bench.study.until(lambda: bench.cluster.jobs(bench.study.directory, waiting), "job that waits for the node")
    bench.cluster.run("scontrol", "update", "NodeName=n1", "State=RESUME")
    run.succeed()
    assert len(bench.jobs()) == 1
    return {"resumes": 0, "told": ""}


def memory_exceeded(bench):
    """The job really uses more memory than it may: Slurm ends it, and the next attempt asks for more."""
    use_too_much_memory(bench)
    return {"resumes": 0, "told": "Exceeded job memory limit"}


def memory_exceeded_in_a_cgroup(bench):
    """The same where the kernel ends it."""
    use_too_much_memory(bench)
    return {"resumes": 0, "told": "oom"}


def use_too_much_memory(bench):
    """Let the first job of a cell have much less memory than it asked for; the next one asks for more than that."""
    bench.cluster.run("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
    run = bench.run()
    (job,) = bench.study.until(bench.jobs, "job that waits for the node")
    asked = job["MinMemoryNode"]
    bench.cluster.run("scontrol", "update", f"JobId={job['JobId']}", "MinMemoryNode=300")
    bench.cluster.run("scontrol", "update", "NodeName=n1", "State=RESUME")
    run.succeed()
    first, second = bench.jobs()
    assert (asked, second["MinMemoryNode"]) == ("6001M", "9601M")
    assert first["TimeLimit"] == second["TimeLimit"]
    # of the job; OUT_OF_MEMORY is the state of its step alone
    assert [first["JobState"], second["JobState"]] == ["FAILED", "COMPLETED"]


def node_lost(bench):
    """A node goes down with all that runs on it: the cell goes on on the other one, from its checkpoint."""
    run = bench.run()
    pid = process(bench.study.until_training())
    bench.cluster.kill_node(bench.jobs()[-1]["NodeList"])
    bench.study.until(lambda: not Path(f"/proc/{pid}").exists(), "end of the training", 20)
    run.succeed()
    first, second = bench.jobs()
    assert first["JobState"] == "NODE_FAIL"
    assert {first["NodeList"], second["NodeList"]} == {"n1", "n2"}
    bench.cluster.start_daemon(bench.cluster.daemons[first["NodeList"]])
    return {"resumes": 1, "told": "NODE_FAIL"}


def preempted(bench):
    run = bench.run()
    with told_to_stop(bench):
        bench.cluster.run("sbatch", "-p", "urgent", "--gres=gpu:4", "-t", "1", "-o", "/dev/null", "--wrap", "sleep 2")
    bench.study.until(lambda: bench.jobs()[0]["JobState"] == "PREEMPTED", "preemption")
    run.succeed()
    return {"resumes": 1, "told": "SLURM status is: 'CANCELLED'"}


def requeued(bench):
    override = bench.study.directory / "profile" / "config.yaml"
    override.parent.mkdir()
    text = (bench.clone / "slurm" / "config.yaml").read_text(encoding="utf-8")
    override.write_text(text.replace("\nslurm-no-requeue: true\n", "\nslurm-requeue: true\n"), encoding="utf-8")
    run = bench.run(profile=override.parent)
    with told_to_stop(bench):
        bench.cluster.run("scontrol", "requeue", bench.job())
    run.succeed()
    (job,) = bench.jobs()
    assert job["Restarts"] == "1"
    return {"resumes": 1, "told": ""}


def output_hidden(bench):
    run = bench.run()
    bench.study.until_training()
    record = bench.study.cell / "training.json"
    hidden = record.with_name("hidden")
    while not record.exists():
        time.sleep(0.002)
    os.rename(record, hidden)
    time.sleep(20)
    os.rename(hidden, record)
    run.succeed()
    assert len(bench.jobs()) == 1
    return {"resumes": 0, "told": ""}


def disk_full(bench):
    place = bench.study.directory / "results" / "checkpoints"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=False).returncode:
        pytest.skip("this user may not mount a file system of limited size")
    try:
        run = bench.run()
        bench.study.until_training()
        filler = place / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        message = "no room left on the disk, or no quota, for what this job writes"
        bench.study.until(lambda: message in bench.study.told(), "message")
        assert not list(place.rglob("*.tmp"))
        filler.unlink()
        run.succeed()
        return {"resumes": 1, "told": message}
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


SHARED = [
    time_limit, cancelled, training_killed, step_killed, interrupted, terminated, killed_and_taken_up,
    killed_and_cancelled, killed_and_restarted_beside_its_job, requeued, output_hidden, disk_full,
]  # fmt: skip
# One after the other on clusters of their own, which they disturb
ALONE = [
    [controller_away, node_drained],
    [preempted, slurmd_killed],
    [node_lost],
    [memory_exceeded],
    [memory_exceeded_in_a_cgroup],
]
NODES = {node_lost: 2}
CGROUPS = {memory_exceeded_in_a_cgroup}


@pytest.fixture(scope="module")
def outcomes(request, start_cluster, clone, new_study):
    """Future of each scenario's outcome: the bench and what it returns. Only those run that a test waits for."""
    without = set() if slurm_cluster.may_use_cgroups() else CGROUPS
    wanted = {
        item.callspec.params["scenario"] for item in request.session.items if item.module is request.module
    } - without

    def play(scenario, cluster):
        bench = Bench(clone, cluster, new_study())
        return bench, scenario(bench)

    pools, futures = [], {}
    for index, (scenarios, workers) in enumerate([(SHARED, 6), *((sequence, 1) for sequence in ALONE)]):
        chosen = [scenario for scenario in scenarios if scenario in wanted]
        if chosen:
            nodes = max(NODES.get(scenario, 1) for scenario in chosen)
            options = {"nodes": nodes, "cgroups": not CGROUPS.isdisjoint(chosen)}
            cluster = start_cluster(26700 + 10 * index, gpus=max(workers, 4), **options)
            pools.append(ThreadPoolExecutor(workers))
            futures |= {scenario: pools[-1].submit(play, scenario, cluster) for scenario in chosen}
    yield futures
    for pool in pools:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("scenario", [*SHARED, *chain(*ALONE)], ids=lambda scenario: scenario.__name__)
def test_a_fault_changes_no_bit_and_trains_nothing_twice(outcomes, scenario, prepared):
    if scenario not in outcomes:
        pytest.skip("this user may not make control groups here")
    bench, expected = outcomes[scenario].result()
    undisturbed = prepared[1]
    wanted = undisturbed.files()
    for name, content in bench.study.files().items():
        if not name.endswith(".csv"):
            assert content == wanted[name], name
    assert "adapter/adapter_model.safetensors" in bench.study.files()
    assert losses(bench.study).equals(losses(undisturbed))
    training = bench.study.training()
    assert (training["status"], training["resumes"]) == ("finished", expected["resumes"])
    assert training["samples"] == undisturbed.training()["samples"]
    assert expected["told"] in bench.study.told()
    assert not (bench.study.directory / "results" / "leases").exists()
    assert not list((bench.study.directory / "logs" / "attempts").glob("finetune.*"))
