"""The workflow through its command: what is planned, what reruns, how it fails."""

import itertools
import json
import re
import shutil

import pandas as pd
import pytest
import yaml
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY

CELL = "lora_attention_r2_a4_s0"
CELLS = 8  # two methods, two target sets, two points


def planned(done):
    """Jobs that a dry run announces, by rule, without the target rules."""
    stats = re.search(r"Job stats:\njob +count\n-+ +-+\n(.*?)\ntotal ", done.stdout, re.DOTALL)
    jobs = {} if stats is None else {line.split()[0]: int(line.split()[1]) for line in stats[1].splitlines()}
    return {
        rule: count
        for rule, count in jobs.items()
        if rule not in {"all", "figures", "paper_tables", "figures/", "paper_tables/"}
    }


def change(study, **changes):
    """Change keys of a study's configuration, ``block__key=value``."""
    path = study / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        block, key = name.split("__")
        config.setdefault(block, {})[key] = value
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def test_a_finished_study_has_everything(finished_study):
    cells = grid.cells(settings.load(yaml.safe_load((finished_study / "config.yaml").read_text(encoding="utf-8"))).grid)
    assert len(cells) == CELLS
    for cell in cells:
        directory = finished_study / "results" / "cells" / cell
        assert {path.name for path in directory.iterdir()} == {
            "adapter", "training.json", "training_log.csv", "predictions.parquet", "metrics.json",
        }  # fmt: skip
    assert not (finished_study / "results" / "checkpoints").exists()
    for number in range(1, 6):
        for suffix in ("csv", "md", "tex"):
            assert len(list((finished_study / "paper_tables").glob(f"table{number}_*.{suffix}"))) == 1
    for figure in ("r_trend", "alpha_trend", "lora_against_qlora"):
        for suffix in ("pdf", "png"):
            assert (finished_study / "figures" / f"{figure}.{suffix}").stat().st_size > 1000
    assert len(pd.read_csv(finished_study / "results" / "summary.csv")) == CELLS + 2


def test_cells_are_evaluated_before_others_are_trained(finished_study):
    """A study that is broken off has results and not a grid of adapters: of two jobs at a time, two cells wait at most."""
    cells = finished_study / "results" / "cells"
    made = sorted(
        (file.stat().st_mtime_ns, waiting)
        for name, waiting in (("training.json", 1), ("metrics.json", -1))
        for file in cells.glob(f"*/{name}")
    )
    assert len(made) == 2 * CELLS
    assert max(itertools.accumulate(waiting for _, waiting in made)) <= 2


def test_records_have_the_keys_that_others_rely_on(finished_study):
    directory = finished_study / "results" / "cells" / CELL
    metrics, training = (
        json.loads((directory / name).read_text(encoding="utf-8")) for name in ("metrics.json", "training.json")
    )
    assert (
        metrics["cell"] == training["cell"] == {"method": "lora", "targets": "attention", "r": 2, "alpha": 4, "seed": 0}
    )
    scores = {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "mae",
        "nll",
        "ece",
    }
    assert set(metrics["metrics"]) == {f"{name}{end}" for name in scores for end in ("", "_low", "_high")}
    assert metrics["n_test"] == 50 == sum(map(sum, metrics["confusion"]))
    assert set(metrics["evaluation"]) >= {"seconds", "tokens_per_second", "peak_memory_gib"}
    assert set(training) >= {
        "status", "trainable_parameters", "all_parameters", "trainable_percent", "steps", "samples", "tokens", "seconds",
        "samples_per_second", "tokens_per_second", "peak_memory_gib", "peak_reserved_gib", "resumes", "micro_batch_tokens",
        "energy_kwh", "final_loss",
    }  # fmt: skip
    assert (training["status"], training["steps"], training["samples"]) == ("finished", 6, 60)
    for record in (metrics, training):
        assert set(record["provenance"]) >= {
            "git_commit",
            "git_dirty",
            "config",
            "inputs",
            "packages",
            "hardware",
            "seed",
            "time_utc",
        }
        assert record["provenance"]["config"]["training"]["learning_rate"] == 5e-3
        assert record["provenance"]["seed"] == 42  # training.seed and the cell's own, which is 0
    predictions = pd.read_parquet(directory / "predictions.parquet")
    assert list(predictions) == ["id", "label", "prediction", *(f"probability_{i}" for i in range(5))]
    assert metrics["metrics"]["accuracy"] == pytest.approx((predictions.label == predictions.prediction).mean())
    assert predictions.filter(like="probability").sum(axis=1).to_numpy() == pytest.approx(1)


def test_progress_is_visible_in_the_log(finished_study):
    log = (finished_study / "logs" / "cells" / f"{CELL}.finetune.log").read_text(encoding="utf-8")
    assert re.search(r"step 6/6  loss \d\.\d+  lr \S+  [\d.]+ samples/s  \d+ tokens/s  0:00:00 left", log)


def test_after_a_complete_run_there_is_nothing_to_do(finished_study, snakemake):
    for target in ("all", "figures", "figures/", "paper_tables", "paper_tables/"):
        assert "Nothing to be done" in snakemake("-n", "-d", finished_study, target).stdout


def test_a_new_r_adds_only_the_new_cells(copy_study, snakemake):
    change(copy_study, grid__lines={"r": {"r": [1, 2, 4], "alpha_ratio": 2}})
    jobs = planned(snakemake("-n", "-d", copy_study))
    assert (jobs["finetune_cell"], jobs["evaluate_cell"], jobs["aggregate_results"]) == (4, 4, 1)
    assert not set(jobs) & {"fetch_model", "fetch_data", "prepare_data", "quantize_model", "zero_shot"}


def test_a_new_seed_adds_only_the_new_cells(copy_study, snakemake):
    change(copy_study, grid__seeds=[0, 1])
    assert planned(snakemake("-n", "-d", copy_study))["finetune_cell"] == CELLS


def test_a_changed_learning_rate_reruns_all_cells_and_nothing_of_the_data(copy_study, snakemake):
    change(copy_study, training__learning_rate=1e-3)
    jobs = planned(snakemake("-n", "-d", copy_study))
    assert (jobs["finetune_cell"], jobs["evaluate_cell"]) == (CELLS, CELLS)
    assert not set(jobs) & {"fetch_model", "fetch_data", "prepare_data", "quantize_model", "zero_shot"}


def test_a_changed_colour_redraws_figures_and_the_page_that_shows_them(copy_study, snakemake):
    change(copy_study, figures__lora_colour="#123456")
    jobs = planned(snakemake("-n", "-d", copy_study))
    assert jobs
    assert all(rule.startswith("plot") or rule == "make_report" for rule in jobs)


def test_another_margin_judges_anew_and_evaluates_nothing_again(copy_study, snakemake):
    change(copy_study, statistics__equivalence_margin=0.03)
    jobs = planned(snakemake("-n", "-d", copy_study))
    assert jobs.pop("aggregate_results") == 1
    assert set(jobs) == {"make_numbers", "make_report", "make_table", "plot_figure"}


def test_how_it_is_executed_reruns_nothing(copy_study, snakemake):
    change(copy_study, execution__micro_batch_tokens=100)
    assert "Nothing to be done" in snakemake("-n", "-d", copy_study).stdout


def test_comments_and_docstrings_retrain_nothing(copy_study, snakemake, tmp_path):
    pipeline = tmp_path / "pipeline"
    keep = shutil.ignore_patterns(".git", ".venv", ".snakemake", "results", "__pycache__", "demo")
    shutil.copytree(REPOSITORY, pipeline, ignore=keep)
    command = ("--snakefile", pipeline / "Snakefile", "-n", "-d", copy_study)
    assert "Nothing to be done" in snakemake(*command).stdout
    for module in (pipeline / "workflow" / "scripts" / "lorastudy").rglob("*.py"):
        text = module.read_text(encoding="utf-8")
        module.write_text(text.replace('"""', '"""Changed. ', 1) + "\n# a comment more\n", encoding="utf-8")
    assert "Nothing to be done" in snakemake(*command).stdout


def test_one_cell_by_its_name(copy_study, snakemake):
    shutil.rmtree(copy_study / "results" / "cells" / CELL)
    target = f"results/cells/{CELL}/metrics.json"
    assert planned(snakemake("-n", "-d", copy_study, target)) == {"finetune_cell": 1, "evaluate_cell": 1}


def test_a_cell_outside_the_grid_names_the_nearest(copy_study, snakemake):
    done = snakemake("-n", "-d", copy_study, "results/cells/lora_attention_r3_a4_s0/metrics.json", check=False)
    assert done.returncode != 0
    message = done.stdout + done.stderr
    assert "lora_attention_r3_a4_s0 is not a cell of this study's grid; the nearest are" in message
    assert "lora_attention_r2_a4_s0" in message
    assert "Traceback" not in message


def test_the_same_cell_again_gives_the_same_bits(copy_study, snakemake):
    directory = copy_study / "results" / "cells" / "qlora_all-linear_r2_a4_s0"
    files = ("predictions.parquet", "adapter/adapter_model.safetensors")
    before = [(directory / name).read_bytes() for name in files]
    shutil.rmtree(directory)
    snakemake("-d", copy_study, "--cores", 2, f"results/cells/{directory.name}/metrics.json")
    assert [(directory / name).read_bytes() for name in files] == before


def without_torch(tmp_path):
    """An environment in which importing torch or transformers fails, and that has another clone's library installed."""
    for name in ("torch", "transformers", "peft", "datasets", "lorastudy"):
        (tmp_path / "blocked").mkdir(exist_ok=True)
        (tmp_path / "blocked" / f"{name}.py").write_text(
            f"raise ImportError('{name} is not to be imported here')\n", encoding="utf-8"
        )
    return {"PYTHONPATH": str(tmp_path / "blocked")}


@pytest.mark.parametrize(
    ("target", "deleted", "rule"),
    [("figures/", "figures/r_trend.pdf", "plot_"), ("paper_tables/", "paper_tables/table5_zero_shot.md", "make_table")],
)
def test_a_deleted_figure_or_table_alone_is_rebuilt_without_torch(
    copy_study, snakemake, tmp_path, target, deleted, rule
):
    before = (copy_study / deleted).read_bytes()
    (copy_study / deleted).unlink()
    jobs = planned(snakemake("-n", "-d", copy_study, target))
    assert len(jobs) == 1
    assert next(iter(jobs)).startswith(rule)
    assert sum(jobs.values()) == 1
    snakemake("-d", copy_study, "--cores", 1, target, **without_torch(tmp_path))
    assert (copy_study / deleted).read_bytes() == before


def test_tables_that_need_no_result_in_a_fresh_clone(tmp_path, snakemake):
    """Of the paper's own study, in a directory with nothing but its configuration; the others say what to do first."""
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    wanted = [
        "paper_tables/table2_memory_by_dtype.md", "paper_tables/table3_memory_by_method.tex",
        "paper_tables/table4_trainable_parameters.csv",
    ]  # fmt: skip
    snakemake("-d", tmp_path, "--cores", 1, *wanted)
    assert all((tmp_path / name).stat().st_size for name in wanted)
    counted = pd.read_csv(tmp_path / "paper_tables" / "table4_trainable_parameters.csv")
    assert counted.r.nunique() == 10
    assert counted.difference.dropna().eq(0).all()
    for refused in ("paper_tables/table5_zero_shot.csv", "paper_tables/"):
        done = snakemake("-d", tmp_path, "-n", wanted[0], refused, check=False)
        assert done.returncode != 0
        assert "there are no results to draw yet" in done.stderr
        assert "Traceback" not in done.stderr


def test_tables_and_figures_of_a_part_of_the_grid(copy_study, snakemake, tmp_path):
    """On request they are built with a hole; nothing is trained."""
    shutil.rmtree(copy_study / "results" / "cells" / CELL)
    jobs = planned(snakemake("-n", "-d", copy_study, "figures/", "paper_tables/"))
    assert not set(jobs) & {"finetune_cell", "evaluate_cell"}
    snakemake("-d", copy_study, "--cores", 2, "figures/", "paper_tables/", **without_torch(tmp_path))
    summary = pd.read_csv(copy_study / "results" / "summary.csv").set_index("id")
    assert summary.loc[CELL, "status"] == "missing"
    assert "not run yet" in summary.loc[CELL, "reason"]
    assert planned(snakemake("-n", "-d", copy_study))["finetune_cell"] == 1


def test_figures_before_any_result_say_what_to_run(tmp_path, snakemake):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path / name)
    done = snakemake("-n", "-d", tmp_path, "figures/", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr


def test_a_diverged_cell_is_shown_and_stops_nothing(copy_study, snakemake):
    change(
        copy_study,
        training__learning_rate=1e30,
        training__max_grad_norm=None,
        grid__targets=["attention"],
        grid__lines={"r": {"r": 2, "alpha": 4}},
        grid__methods=["lora"],
    )
    snakemake("-d", copy_study, "--cores", 2)
    record = json.loads((copy_study / "results" / "cells" / CELL / "training.json").read_text(encoding="utf-8"))
    assert record["status"] == "diverged"
    assert record["diverged_step"] >= 1
    summary = pd.read_csv(copy_study / "results" / "summary.csv").set_index("id")
    assert summary.loc[CELL, "status"] == "diverged"
    assert pd.isna(summary.loc[CELL, "accuracy"])


def test_the_slurm_profile_is_found(finished_study, snakemake):
    done = snakemake("--profile", "slurm", "-n", "-d", finished_study)
    assert "Nothing to be done" in done.stdout
