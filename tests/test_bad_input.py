"""What a user can get wrong, through the command: found before any training, one or two lines, nothing half-written.

The single faults of the configuration and of the data are tested beside their modules; here each kind is followed
to what a user sees.
"""

import os
import re
import shutil

import pytest
import yaml
from lorastudy.settings import REPOSITORY


@pytest.fixture
def study(tmp_path):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path / name)
    return tmp_path


def configure(study, key, value):
    path = study / "config.yaml"
    config = yaml.safe_load(path.read_text())
    block = config
    *parents, last = key.split(".")
    for parent in parents:
        block = block.setdefault(parent, {})
    block[last] = value
    path.write_text(yaml.safe_dump(config))


def rows(study, text):
    (study / "reviews.csv").write_text(text)


def short_of_text(study):
    lines = (study / "reviews.csv").read_text().splitlines()
    rows(study, "\n".join([lines[0], ",3", *lines[1:]]) + "\n")


def relabelled(study, label):
    with (study / "reviews.csv").open("a") as file:
        file.write(f"a good film indeed,{label}\n")


def one_class_missing(study):
    lines = (study / "reviews.csv").read_text().splitlines()
    rows(study, "\n".join(line for line in lines if not line.endswith(",5")) + "\n")


def empty_model(study):
    (study / "model").mkdir()
    (study / "model" / "config.json").write_text("{}")
    configure(study, "model", {"source": "directory", "name": "model"})


def unreadable(study):
    (study / "reviews.csv").write_bytes(b"\x93\x00\xff\xfe\x00binary" * 50)


# what is done to the study, what the message must name, whether it is found before any job
FAULTS = {
    "unknown key": (lambda s: configure(s, "trainig", {}), r"unknown key `trainig`; did you mean `training`", True),
    "wrong type": (lambda s: configure(s, "training.epochs", "two"), r"`training.epochs` is 'two'; allowed: integer", True),
    "r = 0": (lambda s: configure(s, "grid.r", [0]), r"`grid.r.0` is 0; allowed: a value >= 1", True),
    "negative alpha": (lambda s: configure(s, "grid.alpha", [-1]), r"`grid.alpha.0` is -1; allowed: a value > 0", True),
    "empty grid": (lambda s: configure(s, "grid.r", []), r"`grid.r` is \[\]", True),
    "duplicate values": (lambda s: configure(s, "grid.r", [2, 2]), r"`grid.r` names 2 more than once", True),
    "unknown method": (lambda s: configure(s, "grid.methods", ["dora"]), r"`grid.methods.0` is 'dora'; allowed: lora, qlora", True),
    "unknown target set": (lambda s: configure(s, "grid.targets", ["all"]), r"`grid.targets.0` is 'all'; allowed: attention, all-linear", True),
    "missing file": (lambda s: (s / "reviews.csv").unlink(), r"`data.train_file`.*reviews.csv", True),
    "missing column": (lambda s: configure(s, "data.text_column", "review"), r"`data.text_column`.*'?review'?.*text", True),
    "empty file": (lambda s: rows(s, ""), r"reviews.csv.*empty", True),
    "unreadable file": (unreadable, r"reviews.csv", True),
    "no weights": (empty_model, r"`model.name` is 'model', a directory without weights", True),
    "no model directory": (lambda s: configure(s, "model", {"source": "directory", "name": "nowhere"}), r"there is no directory .*nowhere", True),
    "unpinned hub model": (lambda s: configure(s, "model", {"source": "hub", "name": "a/b"}), r"`model.revision` is empty; a hub source needs", True),
    "label missing": (lambda s: relabelled(s, ""), r"reviews.csv.*label", False),
    "label fractional": (lambda s: relabelled(s, "2.5"), r"2\.5", False),
    "label outside": (lambda s: relabelled(s, "6"), r"6.*data.labels", False),
    "class absent": (one_class_missing, r"5", False),
    "too few rows": (lambda s: configure(s, "data.train_size", 5000), r"data.train_size|need", False),
    "empty text": (short_of_text, r"reviews.csv.*empty|empty.*text", False),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_end_in_a_line_or_two(fault, study, snakemake):
    spoil, message, at_once = FAULTS[fault]
    spoil(study)
    target = () if at_once else ("results/data/train.parquet",)
    done = snakemake("-d", study, *(("-n",) if at_once else ("--cores", 2)), *target, check=False)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(message, output), output
    assert "Traceback" not in output
    said = [line for line in output.splitlines() if re.search(message, line)]
    assert said
    assert len(said[0]) < 600
    assert not list(study.glob("results/data/train.parquet"))
    assert not list(study.glob("results/cells/*"))


def test_a_learning_rate_that_yaml_takes_for_a_string_is_accepted(study, snakemake):
    text = (study / "config.yaml").read_text().replace("learning_rate: 5.0e-3", "learning_rate: 5e-3")
    (study / "config.yaml").write_text(text)
    assert isinstance(yaml.safe_load(text)["training"]["learning_rate"], str)
    snakemake("-n", "-d", study)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_results_directory_that_may_not_be_written(study, snakemake):
    (study / "results").mkdir(mode=0o555)
    done = snakemake("-d", study, "--cores", 1, check=False)
    assert done.returncode != 0
    assert "results" in done.stdout + done.stderr


def test_results_that_is_a_file(study, snakemake):
    (study / "results").write_text("in the way")
    done = snakemake("-n", "-d", study, check=False)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "results" in output
    assert "Traceback" not in output
