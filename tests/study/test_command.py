"""What a command asks for is recognised however it is written."""

import argparse
import getpass
import os
import pwd
import subprocess
import sys

import pytest
from lorastudy.study import command, settings
from lorastudy.study.settings import REPOSITORY


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["figures/"], True),
        (["./figures/"], True),
        (["./figures/r_trend.pdf", "paper_tables"], True),
        (["./report.html"], True),
        (["figures/../report.html"], True),
        (["HERE/figures/r_trend.pdf"], True),
        (["HERE/link/figures/r_trend.pdf", "link/report.html", "HERE/link/./paper_tables"], True),
        (["HERE/link/results/summary.csv"], False),
        (["make_report"], True),
        (["make_numbers"], True),
        ([], False),
        (["results/summary.csv"], False),
        (["./figures/r_trend.pdf", "all"], False),
        (["figures/../results/summary.csv"], False),
        (["../figures/r_trend.pdf"], False),
    ],
)
def test_whether_nothing_is_trained_for_it(tmp_path, monkeypatch, targets, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    assert command.only_paper([target.replace("HERE", str(tmp_path)) for target in targets]) is expected


def test_cells_that_are_asked_for():
    targets = ["./results/cells/a/metrics.json", "publish/b/", "./publish/c", "figures/", "results/cells/d/../e/x"]
    assert command.cells(targets) == (["a", "e"], ["b", "c"])


def test_names_that_snakemake_would_not_find(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    targets = ["figures/", "figures", "./figures/", "./paper_tables", f"{tmp_path}/report.html", "./report.html", "all"]
    targets += ["make_report", "link/figures/", f"{tmp_path}/link/report.html"]
    assert command.other_names(targets) == {
        "link/figures/": "figures",
        f"{tmp_path}/link/report.html": "report.html",
        "./figures/": "figures",
        "./paper_tables": "paper_tables",
        f"{tmp_path}/report.html": "report.html",
    }


@pytest.mark.parametrize(
    "path", ["report.html", "./report.html", "figures/r_trend.pdf", "results/x.html", "config.yaml"]
)
def test_snakemakes_report_does_not_replace_files_of_the_study(path):
    with pytest.raises(settings.ConfigError, match=r"--report snakemake_report.html"):
        command.require_own_report(path)


@pytest.mark.parametrize("path", [None, "snakemake_report.html", "../report.html", "other.zip"])
def test_snakemakes_report_elsewhere(path):
    command.require_own_report(path)


@pytest.fixture
def profile(tmp_path):
    """Function that writes a profile of these lines and returns its path."""

    def write(*lines):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "config.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "mine"

    return write


def test_profiles_are_found_where_snakemake_finds_them(profile, monkeypatch, tmp_path):
    mine = profile("cores: 1")
    asked = argparse.Namespace(profile=["mine", "slurm"], workflow_profile=None)
    monkeypatch.setenv("PWD", str(tmp_path))
    assert command.profiles(asked) == [
        mine / "config.yaml",
        REPOSITORY / "slurm" / "config.yaml",
        REPOSITORY / "profiles" / "default" / "config.yaml",
    ]
    asked = argparse.Namespace(profile=None, workflow_profile="none")
    assert command.profiles(asked) == []


PARSE = "import sys; from snakemake.cli import parse_args; a = parse_args(sys.argv[1:])[1]; print(a.cores, a.jobs, len(a.rerun_triggers))"


def parsed(*arguments, **environment):
    """(cores, jobs, number of rerun triggers) as Snakemake understands a command in the clone."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PARSE, *arguments],
        cwd=REPOSITORY, env=os.environ | environment, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_what_a_named_profile_sets_is_not_overridden(profile):
    """The clone's own default outranks named profiles; its four triggers are all but `code`."""
    everything = str(os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)))
    assert parsed("-n") == [everything, "None", "4"]
    assert parsed("--profile", str(profile("cores: 1"))) == ["1", "None", "4"]
    assert parsed(SNAKEMAKE_PROFILE=str(profile("cores: 1", "rerun-triggers: [mtime]"))) == ["1", "None", "1"]
    assert parsed("--profile", str(profile("jobs: 3", "executor: local"))) == ["None", "3", "4"]
    assert parsed("--profile", str(profile("keep-going: true"))) == [everything, "None", "4"]
    assert parsed("-j", "2") == ["None", "2", "4"]
    assert parsed("--profile", "slurm") == ["None", "20", "4"]


def test_a_user_whom_the_system_does_not_know_has_a_name(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    known = getpass.getuser()
    command.name_the_user()
    assert getpass.getuser() == known
    assert "LOGNAME" not in os.environ

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("LOGNAME", "")  # so that what is set now is undone
    command.name_the_user()
    assert getpass.getuser() == os.environ["LOGNAME"] == str(os.getuid())
