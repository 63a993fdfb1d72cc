"""A bundle of the tiny study, made by its command and used in a fresh clone where torch cannot be imported."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from lorastudy.study.settings import REPOSITORY
from test_workflow import CELL, change, planned, without_torch

TOP = "tiny-study-of-the-tests"
ANALYSIS = {"aggregate_results", "make_table", "make_numbers", "plot_figure", "make_report"}
PLACE = re.compile("<!-- (?:end of )?texts -->")


def bundle(study, *arguments):
    command = [sys.executable, "workflow/scripts/bundle.py", study, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def study(finished_study, tmp_path_factory):
    """The tiny study, finished, in a directory with a space in its name."""
    directory = tmp_path_factory.mktemp("bundled") / "a study"
    shutil.copytree(finished_study, directory, symlinks=True)
    return directory


@pytest.fixture(scope="module", params=[False, True], ids=["without texts", "with texts"])
def bundled(request, study, tmp_path_factory):
    """Whether the bundle has texts, and where it was unpacked."""
    done = bundle(study, *(["--texts"] if request.param else []))
    assert done.returncode == 0, done.stderr
    place = tmp_path_factory.mktemp("reviewer") / "un packed"
    with tarfile.open(study / "bundle.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return request.param, place / TOP


def files(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_it_rebuilds_everything_bit_for_bit(bundled, study, clone, tmp_path):
    """In a clone that has nothing else, by the command that the archive's README gives."""
    texts, unpacked = bundled
    environment = os.environ | without_torch(tmp_path)

    def snakemake(*arguments):
        command = [sys.executable, "-m", "snakemake", "-d", unpacked, *arguments]
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return done

    assert "snakemake -d DIRECTORY figures/ paper_tables/ report.html" in (unpacked / "README.md").read_text(
        encoding="utf-8"
    )
    for targets in ((), ("figures/", "paper_tables/", "report.html")):
        assert set(planned(snakemake("-n", *targets))) == ANALYSIS
    snakemake("figures/", "paper_tables/", "report.html")
    for name in ("figures", "paper_tables"):
        assert files(unpacked / name) == files(study / name)
        assert len(files(unpacked / name)) > 30
        for file in files(study / name):
            assert (unpacked / name / file).read_bytes() == (study / name / file).read_bytes(), file
    original, rebuilt = ((place / "report.html").read_text(encoding="utf-8") for place in (study, unpacked))
    parts = [PLACE.split(page) for page in (original, rebuilt)]
    assert parts[0][::2] == parts[1][::2]
    assert ("The texts are not in this page" in parts[1][1]) == (not texts)
    assert (original == rebuilt) == texts
    subprocess.run(["sha256sum", "--check", "--strict", "products.sha256"], cwd=unpacked, check=True)
    assert "Nothing to be done" in snakemake("-n").stdout


def test_what_is_in_it(bundled, study):
    """No weights; of the data's texts none unless they are asked for: each of the splits is looked for everywhere."""
    texts, unpacked = bundled
    held = {name for name in files(unpacked) if not name.startswith(("figures/", "paper_tables/", "logs/", "."))}
    splits = {f"results/data/{split}.parquet" for split in ("train", "validation", "test")}
    assert held & splits == (splits if texts else set())
    assert not [name for name in held if "adapter" in name or "model" in name or name.endswith(".safetensors")]
    for name in ("metrics.json", "training.json", "training_log.csv", "predictions.parquet"):
        kept = (unpacked / "results" / "cells" / CELL / name).read_bytes()
        assert kept == (study / "results" / "cells" / CELL / name).read_bytes()
    assert (unpacked / "config.yaml").read_bytes() == (study / "config.yaml").read_bytes()
    assert f"pandas=={pd.__version__}" in (unpacked / "environment.txt").read_text(encoding="utf-8").splitlines()
    with tarfile.open(study / "bundle.tar.gz") as archive:
        contents = {entry.name.removeprefix(f"{TOP}/"): archive.extractfile(entry).read() for entry in archive}
        assert all((entry.uid, entry.gid, entry.mtime, entry.mode) == (0, 0, 315532800, 0o644) for entry in archive)
    said = pd.read_csv(REPOSITORY / ".test" / "reviews.csv").text
    assert len(said) == 160
    for name in contents.keys() - splits:
        content = pd.read_parquet(unpacked / name).to_string() if name.endswith(".parquet") else contents[name].decode()
        assert not [text for text in said if text in content], name


def test_the_same_study_gives_the_same_bytes(study):
    digests = []
    for time in (1_000_000_000, 1_100_000_000):
        for path in (study / "results").rglob("*.*"):
            os.utime(path, (time, time))
        assert bundle(study).returncode == 0
        digests.append(hashlib.sha256((study / "bundle.tar.gz").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_a_study_that_is_not_finished_is_refused(copy_study):
    for name, lost in ((CELL, "metrics.json"), ("qlora_attention_r1_a2_s0", "metrics.json")):
        (copy_study / "results" / "cells" / name / lost).unlink()
    done = bundle(copy_study)
    assert done.returncode == 1
    assert done.stderr.startswith(f"2 of 10 results are still to come ({CELL}: not run yet; qlora_attention_r1_a2_s0:")
    assert len(done.stderr.splitlines()) == 1
    assert not (copy_study / "bundle.tar.gz").exists()


def test_results_of_another_configuration_are_refused(copy_study):
    change(copy_study, training__learning_rate=1e-3)
    done = bundle(copy_study)
    assert done.stderr.startswith("8 of 10 results are still to come")
    assert "training.learning_rate" in done.stderr
    assert "; and 5 more)" in done.stderr


def test_texts_that_are_gone_cannot_be_bundled(copy_study):
    (copy_study / "results" / "data" / "validation.parquet").unlink()
    done = bundle(copy_study, "--texts")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("results/data/validation.parquet is not there")


def test_nothing_is_trained_or_published_in_a_bundle(bundled, snakemake, tmp_path):
    """Not even where its grid is made larger: the new cells are missing ones."""
    copy = Path(shutil.copytree(bundled[1], tmp_path / "copy"))
    change(copy, grid__seeds=[0, 1])
    assert set(planned(snakemake("-n", "-d", copy))) <= ANALYSIS
    done = snakemake("-n", "-d", copy, f"publish/{CELL}", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("a bundle has no weights to publish")


def test_the_configuration_of_a_command_line_is_in_its_config(copy_study):
    """And the page keeps saying how the study was called."""
    given = "execution={log_every_steps: 3}"
    done = bundle(copy_study, "--config", given)
    assert done.returncode == 0, done.stderr
    with tarfile.open(copy_study / "bundle.tar.gz") as archive:
        configured, manifest = (
            yaml.safe_load(archive.extractfile(f"{TOP}/{name}").read()) for name in ("config.yaml", "bundle.json")
        )
    own = yaml.safe_load((copy_study / "config.yaml").read_text(encoding="utf-8"))
    assert configured == own | {"execution": {"log_every_steps": 3}}
    assert manifest["origin"]["options"] == ["--config", given]
