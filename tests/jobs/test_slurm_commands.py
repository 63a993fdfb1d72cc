"""The commands that stand before Slurm's own, on a pretended Slurm that fails as a real one does."""

import json
import os
import subprocess
import time

import pytest
from lorastudy.jobs import slurm
from lorastudy.study.settings import REPOSITORY

COMMANDS = REPOSITORY / "slurm" / "commands"
RUN = "6a1f"


@pytest.fixture
def fake(tmp_path):
    """Function that installs a pretended Slurm command; the others stay away."""

    def install(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    return install


@pytest.fixture
def call(tmp_path):
    """Function that runs one of the commands in a study where jobs 7 and 8 were submitted."""
    place = tmp_path / ".snakemake" / "slurm_jobs" / RUN
    place.mkdir(parents=True)
    (place / "submitted").write_text("7\n8\n", encoding="utf-8")

    def run(name, *arguments, seconds_ago=None, **environment):
        if seconds_ago is not None:
            (place / "doubts.json").write_text(json.dumps({"7": time.time() - seconds_ago}), encoding="utf-8")
        path = f"{COMMANDS}:{tmp_path / 'bin'}:{os.environ['PATH']}"
        notices = tmp_path / "notices"
        notices.touch()
        environment = os.environ | {"PATH": path, "LORASTUDY_NOTICES": str(notices)} | environment
        done = subprocess.run(
            [COMMANDS / name, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return done.returncode, done.stdout, notices.read_text(encoding="utf-8")

    return run


def states(call, name="squeue", **options):
    code, out, notices = call(
        name, "--states=all", "--noheader", "--name", RUN, LORASTUDY_SLURM_PATIENCE="1", **options
    )
    assert code == 0
    return dict(line.split("|") for line in out.splitlines()), notices


@pytest.mark.parametrize("name", ["squeue", "sacct"])
def test_states_that_slurm_gives(fake, call, name):
    fake("squeue", "echo '7|COMPLETED'; echo '8|PENDING'")
    assert states(call, name) == ({"7": "COMPLETED", "8": "RUNNING"}, "")


def test_a_silent_slurm_makes_no_job_fail_and_is_told_once(fake, call):
    fake("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    running = {"7": "RUNNING", "8": "RUNNING"}
    found, notices = states(call)
    assert found == running
    assert "Slurm does not answer; its jobs count as running until it does." in notices
    assert states(call) == (running, notices)
    fake("squeue", "echo '7|COMPLETED'; echo '8|RUNNING'")
    assert "Slurm answers again" in states(call)[1]


@pytest.mark.parametrize(
    ("accounted", "log", "seconds_ago", "expected"),
    [
        (None, "", 10, "RUNNING"),  # it may still appear
        (None, "", 200, "FAILED"),
        (None, "Finished job 0.\n1 of 1 steps (100%) done\n", 0, "COMPLETED"),
        (None, "0 of 1 steps (0%) done\n", 200, "FAILED"),
        ("7|CANCELLED by 0", "", 0, "CANCELLED"),
        ("7|COMPLETED", "", 0, "COMPLETED"),
        ("7|OUT_OF_MEMORY", "", 0, "OUT_OF_MEMORY"),
    ],
)
def test_a_forgotten_job_is_never_taken_for_a_success_without_evidence(
    fake, call, tmp_path, accounted, log, seconds_ago, expected
):
    fake("squeue", "echo '8|RUNNING'")
    fake("sacct", f"echo '{accounted}'" if accounted else "exit 1")
    path = tmp_path / ".snakemake" / "slurm_logs" / "rule_x" / "7.log"
    path.parent.mkdir(parents=True)
    path.write_text(log, encoding="utf-8")
    assert states(call, seconds_ago=seconds_ago)[0] == {"7": expected, "8": "RUNNING"}


@pytest.mark.parametrize(("seconds_ago", "expected"), [(0, "RUNNING"), (60, "CANCELLED")])
def test_a_preempted_job_ends_unless_it_is_requeued(fake, call, seconds_ago, expected):
    fake("squeue", "echo '7|PREEMPTED'; echo '8|RUNNING'")
    assert states(call, seconds_ago=seconds_ago)[0]["7"] == expected


def test_other_calls_go_to_the_real_command(fake, call):
    fake("squeue", 'echo "real $@"')
    assert call("squeue", "--me")[1] == "real --me\n"
    fake("sacct", 'echo "accounts $@"')
    assert call("sacct", "-j", "7.0")[1] == "accounts -j 7.0\n"


def test_submission_waits_for_the_controller_and_remembers_the_job(fake, call, tmp_path):
    fake("sbatch", "if [ -e there ]; then echo 9; else touch there; "
         "echo 'Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2; exit 1; fi")  # fmt: skip
    code, out, notices = call("sbatch", "--parsable", "--job-name", RUN, "--wrap=true")
    assert (code, out) == (0, "9\n")
    assert "submission waits" in notices
    assert (tmp_path / ".snakemake" / "slurm_jobs" / RUN / "submitted").read_text(encoding="utf-8").split() == [
        "7",
        "8",
        "9",
    ]


def test_a_refused_submission_fails_at_once(fake, call):
    fake("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    assert call("sbatch", "--parsable", "--job-name", RUN)[:2] == (1, "")


def test_srun_finds_the_cluster_that_the_job_step_forgot(fake, call):
    fake("srun", 'echo "$SLURM_CONF $@"')
    assert call("srun", "-n1", LORASTUDY_SLURM_CONF="/etc/x.conf")[1] == "/etc/x.conf -n1\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30:00", 1800), ("1-00:00:00", 86400), ("2:03:04", 7384), ("45", 45), ("1-2", 93600), ("UNLIMITED", None), ("INVALID", None)],
)  # fmt: skip
def test_durations(text, seconds):
    assert slurm._seconds(text) == seconds


SINFO = (
    "cpu*|1-00:00:00|256000|(null)\\ngpu|12:00:00|128000|gpu:a100:4(S:0-1)\\ngpu|12:00:00|512000|gpu:h100:8,tmp:1\\n"
)


@pytest.fixture
def known(fake, tmp_path, monkeypatch):
    fake("sinfo", f"printf '{SINFO}'")
    fake("sbatch", "exit 1")
    fake("sacctmgr", "echo lab; echo other")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for function in (slurm.partitions, slurm._account_faults):
        function.cache_clear()
    yield
    for function in (slurm.partitions, slurm._account_faults):
        function.cache_clear()


def test_what_the_partitions_offer(known):
    assert slurm.partitions() == {
        "cpu": slurm.Partition(1440, 256000, {}),
        "": slurm.Partition(1440, 256000, {}),
        "gpu": slurm.Partition(720, 512000, {"a100": 4, "h100": 8}),
    }


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"slurm_partition": "gpx"}, "`slurm_partition` is gpx; this cluster has cpu, gpu."),
        ({"slurm_partition": "cpu", "gpu": 1}, "partition` cpu has no GPU, and a GPU is asked for; partitions that have some: gpu"),
        ({"slurm_partition": "gpu", "gpu": 1, "gpu_model": "v100"}, "`gpu_model` is v100; partition gpu has GPUs of type a100, h100."),
        ({"slurm_account": "lb"}, "`slurm_account` is lb; your accounts are lab, other."),
        ({"mem_mb": 300000}, "asks for 300000 MB of memory, and the largest node of partition the default partition has 256000"),
    ],
)  # fmt: skip
def test_impossible_requests_are_named(known, request_, message):
    with pytest.raises(slurm.SlurmError) as caught:
        slurm.check([request_, request_])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{COMMANDS}:{tmp_path}")
    with pytest.raises(slurm.SlurmError, match="there is no Slurm on this machine .* login node"):
        slurm.check([{}])


def test_possible_requests_pass(known):
    slurm.check(
        [{"slurm_partition": "gpu", "gpu": 1, "gpu_model": "h100", "slurm_account": "lab", "mem_mb": 500000}, {}]
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["77|RUNNING|weights|v2|HERE"], [("77", "RUNNING", "weights|v2")]),
        (["77|RUNNING|a|b|/home/me/other", "78|PENDING||HERE"], [("78", "PENDING", "")]),
        (["77|RUNNING|first line", "second|HERE", "79|RUNNING|rule|x|HERE/inner"], []),
        (["", "77", "a|b"], []),
    ],
)
def test_jobs_of_a_study_whatever_their_comments_hold(fake, tmp_path, monkeypatch, lines, expected):
    """Comments are other people's text; a study is only known by the directory at the end of the line."""
    said = "\n".join(lines).replace("HERE", str(tmp_path))
    (tmp_path / "said").write_text(said + "\n", encoding="utf-8")
    fake("squeue", f"cat '{tmp_path}/said'")
    fake("sinfo", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert [(job.number, job.state, job.comment) for job in slurm.jobs_in(tmp_path)] == expected


def test_the_status_commands_need_no_new_python():
    """A login node's own python3 may be old."""
    for name in ("squeue", "sbatch"):
        text = (COMMANDS / name).read_text(encoding="utf-8")
        compile(text, name, "exec", dont_inherit=True)
        assert "f'" not in text and 'f"' not in text
        assert ":=" not in text
