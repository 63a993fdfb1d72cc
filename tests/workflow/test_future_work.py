"""What the paper names as future work, from a configuration to tables and figures, on the tiny model."""

import json
import re
import shutil

import pandas as pd
import pytest
import yaml
from lorastudy.study.settings import REPOSITORY

EXAMPLES = {  # fine-tuning jobs, by hand: methods x target sets x points x learning rates x seeds, and the controls
    "alpha-below-r": 2 * 2 * 9 * 3,
    "five-epochs": 2 * 2 * 4 * 5,
    "methods": (4 * 2 * 3 + 2) * 3 * 3,
    "target-sets": 10 * 3 * 3,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, snakemake):
    """A study of two methods of future work and both controls, on a target set of its own and the MLP, run to its end."""
    directory = tmp_path_factory.mktemp("future")
    shutil.copy(REPOSITORY / ".test" / "reviews.csv", directory)
    config = yaml.safe_load((REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8"))
    config["grid"] = {
        "methods": ["lora", "dora", "adalora", "head", "full"],
        "targets": ["q-v", "mlp"],
        "target_sets": {"q-v": ["q_proj", "v_proj"]},
        "lines": {"r": {"r": 2, "alpha": 1}},  # alpha below r
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    # two cells by their names, then the rest
    snakemake("-d", directory, "--cores", 2, *(f"results/cells/{name}/metrics.json" for name in NAMED))
    assert {path.name for path in (directory / "results" / "cells").iterdir()} == set(NAMED)
    snakemake("-d", directory, "--cores", 2)
    return directory


NAMED = ("dora_q-v_r2_a1_s0", "adalora_mlp_r2_a1_s0")


def test_every_cell_is_trained_and_evaluated(study):
    summary = pd.read_csv(study / "results" / "summary.csv").set_index("id")
    cells = [f"{method}_{targets}_r2_a1_s0" for method in ("lora", "dora", "adalora") for targets in ("q-v", "mlp")]
    assert set(summary.index) == {*cells, "head_s0", "full_s0", "head", "prompt"}
    assert set(summary.status) <= {"finished", "collapsed"}  # weights are random, so that some are at chance
    assert summary.accuracy.between(0, 1).all()


@pytest.mark.parametrize(
    ("cell", "parameters"),
    [
        # the head, 64 x 5; two layers of 64 wide q and 32 wide v, or of gate, up and down between 64 and 128
        ("lora_q-v_r2_a1_s0", 320 + 2 * 2 * ((64 + 64) + (64 + 32))),
        ("lora_mlp_r2_a1_s0", 320 + 2 * 2 * 3 * (64 + 128)),
        ("dora_q-v_r2_a1_s0", 320 + 2 * 2 * ((64 + 64) + (64 + 32)) + 2 * (64 + 32)),  # and a magnitude for each output
        ("head_s0", 320),
    ],
)
def test_trainable_parameters_by_hand(study, cell, parameters):
    shape = json.loads((study / "results" / "model" / "base" / "config.json").read_text(encoding="utf-8"))
    assert (shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]) == (64, 128, 2)
    record = json.loads((study / "results" / "cells" / cell / "training.json").read_text(encoding="utf-8"))
    assert record["trainable_parameters"] == parameters


def test_tables_and_figures_name_them(study):
    parameters = (study / "paper_tables" / "table4_trainable_parameters.md").read_text(encoding="utf-8")
    assert "q-v" in parameters
    report = (study / "report.html").read_text(encoding="utf-8")
    for name in ("DoRA", "AdaLoRA", "head alone", "full fine-tuning", "q-v"):
        assert name in report
    assert (study / "figures" / "r_trend.pdf").stat().st_size > 1000


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_papers_future_work_is_planned(snakemake, example):
    done = snakemake("-n", "-d", REPOSITORY / "examples" / example)
    assert int(re.search(r"^finetune_cell +(\d+)$", done.stdout, re.MULTILINE)[1]) == EXAMPLES[example]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"targets": ["q_v"]}, "`grid.targets` names 'q_v'"),
        ({"targets": ["o"], "target_sets": {"o": ["out_proj"]}}, "out_proj"),
        ({"methods": ["qdora"]}, "`grid.methods.0` is 'qdora'"),
    ],
)
def test_what_a_model_has_not_is_refused_in_a_line(tmp_path, snakemake, grid, said):
    shutil.copy(REPOSITORY / ".test" / "reviews.csv", tmp_path)
    config = yaml.safe_load((REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8"))
    config["grid"] |= grid
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    done = snakemake("-d", tmp_path, "--cores", 2, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "cells").exists()
