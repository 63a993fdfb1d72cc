"""What the repository says in two places agrees."""

import ast
import re
import runpy
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from lorastudy.inputs import base_model
from lorastudy.inputs.sources import packaged
from lorastudy.planning import check, resources
from lorastudy.study import grid, settings
from lorastudy.study.records import read_json
from lorastudy.study.settings import REPOSITORY


def test_the_page_of_the_configuration_is_up_to_date():
    page = runpy.run_path(str(REPOSITORY / "docs" / "configuration.py"))["page"]()
    assert (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8") == page, (
        "run: python docs/configuration.py"
    )


def test_the_page_of_the_configuration_names_every_key():
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = {part.split("`")[0]: part for part in page.split("\n## `")[1:]}
    assert list(sections) == list(settings.schema()["properties"])
    for name, block in settings.schema()["properties"].items():
        rows = [line.split("`")[1] for line in sections[name].splitlines() if line.startswith("| `")]
        assert [row for row in rows if "." not in row] == list(block["properties"])
    assert {"lines.NAME.r", "lines.NAME.alpha", "lines.NAME.alpha_ratio"} <= {
        line.split("`")[1] for line in sections["grid"].splitlines() if line.startswith("| `")
    }


def requirements(name):
    """Lines of a requirements file, those of the files that it includes in their place."""
    for line in (REPOSITORY / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from requirements(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            yield line


@pytest.mark.parametrize(
    ("environment", "file"), [("train", "requirements.txt"), ("analysis", "requirements-analysis.txt")]
)
def test_environments_pin_what_the_requirements_pin(environment, file):
    dependencies = yaml.safe_load((REPOSITORY / "envs" / f"{environment}.yaml").read_text(encoding="utf-8"))[
        "dependencies"
    ]
    pinned = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pinned == list(requirements(file))


def test_every_requirement_is_pinned():
    assert [one for one in requirements("requirements-dev.txt") if one.partition(";")[0].count("==") != 1] == []


def test_git_ignores_no_file_of_the_repository():
    """What it ignores, static checks skip, and a new file beside it is left out of a commit."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a clone: there is no .git")
    listed = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(listed, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=True).stdout == ""


def test_no_function_has_more_than_60_lines():
    """Those of the pipeline, and the programs that write the documents and benchmarks."""
    long = []
    for path in (path for where in ("workflow", "docs", "benchmarks") for path in (REPOSITORY / where).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}")
    assert long == []


def test_the_packaged_names_of_the_settings_are_those_that_can_be_fetched():
    assert tuple(packaged.PACKAGES) == settings.PACKAGED_DATA
    assert tuple(base_model.PACKAGED) == settings.PACKAGED_MODELS


def test_the_readmes_numbers_are_those_of_the_demos_record():
    """Each row of its table of the demo, and the sentence below, against docs/demo/summary.csv."""
    summary = pd.read_csv(REPOSITORY / "docs" / "demo" / "summary.csv", dtype={"r": "Int64"})
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## On a laptop")[1]
    header = next(line for line in readme.splitlines() if line.startswith("| | r = "))
    points = [tuple(map(int, point)) for point in re.findall(r"r = (\d+), α = (\d+)", header)]
    names = {"LoRA": "lora", "QLoRA": "qlora", "attention": "attention", "all linear layers": "all-linear"}
    rows = re.findall(r"^\| (Q?LoRA), (attention|all linear layers) \| (.*) \|$", readme, re.MULTILINE)
    assert len(rows) == 4
    for method, targets, values in rows:
        cells = summary[summary.method.eq(names[method]) & summary.targets.eq(names[targets])].set_index(["r", "alpha"])
        assert values.split(" | ") == [f"{cells.accuracy[point]:.3f}" for point in points]
    scores = summary.set_index("id")
    best = scores.loc[scores[scores.kind.eq("cell")].accuracy.idxmax()]
    assert (
        f"has {scores.accuracy['head']:.3f} by its untrained head and {scores.accuracy['prompt']:.3f} by prompting; the "
        f"best cell {best.accuracy:.3f} [{best.accuracy_low:.3f}, {best.accuracy_high:.3f}]."
    ) in readme


def turns(setting, dropout, peer=None):
    """Rows of benchmarks/contenders.py, LoRA's and QLoRA's."""
    rows = read_json(REPOSITORY / "benchmarks" / "results" / "contenders.json")["rows"]
    return [
        next(
            row
            for row in rows
            if row["setting"].startswith(setting)
            and (row["method"], row["dropout"], row["peer"]) == (method, dropout, peer)
        )
        for method in ("lora", "qlora")
    ]


def test_the_readmes_speeds_are_those_of_the_benchmarks_records():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for label, rows in (
        ("dropout 0.05", turns("The paper's", 0.05)),
        ("packed, in the same loop", turns("The paper's", 0.05, "Liger")),
        ("512 tokens a step, no dropout", turns("16 texts, peers", 0.0)),
        ("packed, in the same loop", turns("16 texts, peers", 0.0, "Liger")),
        ("48 texts, no dropout", turns("8,192 tokens:", 0.0)),
    ):
        lora, qlora = (row["tokens_per_second"] for row in rows)
        assert f"{label} | {lora:,.0f} | {qlora:,.0f} | {lora / qlora:.2f} |" in text
    seconds = {row["key"]: row["seconds_a_step"] for row in paper_code()["rows"]}
    tokens = 8 * paper_code()["setting"]["mean_tokens"]
    lora, qlora = seconds["lora_bfloat16"], seconds["qlora_prepared"]
    assert f"reconstructed | {tokens / lora:,.0f} | {tokens / qlora:,.0f} | {qlora / lora:.2f} |" in text


def paper_code():
    return read_json(REPOSITORY / "benchmarks" / "results" / "paper_code.json")


def test_the_turns_in_the_documents_are_those_of_the_benchmarks_record():
    """docs/performance.md: medians and ranges, QLoRA's time over LoRA's, and the paper's own code beside them."""
    text = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    for label, rows in (
        ("dropout 0.05", turns("The paper's", 0.05)),
        ("Liger and PEFT", turns("The paper's", 0.05, "Liger")),
        ("512 tokens", turns("16 texts, peers", 0.0)),
        ("Liger and PEFT", turns("16 texts, peers", 0.0, "Liger")),
        ("four models in memory", turns("16 texts:", 0.0)),
        ("dropout 0.05", turns("16 texts:", 0.05)),
        ("a step", turns("8,192 tokens:", 0.0)),
        ("dropout 0.05", turns("8,192 tokens, dropout", 0.05)),
    ):
        shown = [f"{row['tokens_per_second']:,.0f} ({row['lowest']:,.0f} to {row['highest']:,.0f})" for row in rows]
        times = rows[0]["tokens_per_second"] / rows[1]["tokens_per_second"]
        assert f"{label} | {shown[0]} | {shown[1]} | {times:.2f} |" in text
    ours = [row["tokens_a_step"] / row["tokens_per_second"] for row in turns("The paper's", 0.05)]
    theirs = {row["key"]: row["seconds_a_step"] for row in paper_code()["rows"]}
    theirs = [theirs["lora_bfloat16"], theirs["qlora_prepared"]]
    assert "{:.3f} s for LoRA and {:.3f} s for QLoRA".format(*ours) in text
    assert "takes {:.2f} and {:.2f} s".format(*theirs) in text
    assert "{:.1f} and {:.1f} times as long".format(*(a / b for a, b in zip(theirs, ours))) in text


def test_the_speeds_in_the_documents_are_those_of_the_benchmarks_record():
    """docs/performance.md: rows of its table of results."""
    record = read_json(next((REPOSITORY / "benchmarks" / "results").glob("throughput_nvidia-h100-*.json")))
    rows = {row["name"]: row for row in record["rows"]}

    def tokens(name):
        return f"{rows[name]['tokens_per_second']:,.0f}"

    def samples(name):
        return rows[name]["samples_per_second"]

    lora, qlora = (f"{method}, 8192 tokens, 140 texts a step" for method in ("lora", "qlora"))
    lean, leaner, large = "LoRA r = 8 within 16 GiB", "QLoRA r = 8 within 6 GB", "LoRA r = 512 within 40 GB"
    evaluation = "{}, adapters not merged, 16384 tokens a pass (earlier run)"
    users = {method: samples(f"{method}, padded to 512") for method in ("lora", "qlora")}
    text = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    for row in (
        f"| LoRA, micro-batches of 8,192 tokens | {tokens(lora)} tokens/s, {samples(lora):.0f} samples/s |",
        f"| QLoRA, the same | {tokens(qlora)} tokens/s, {samples(qlora) / samples(lora):.2f} of LoRA |",
        "| the same, 16,384 tokens | {} and {} tokens/s |".format(
            *(tokens(f"{method}, 16384 tokens, 190 texts a step") for method in users)
        ),
        f"| LoRA against users' code, padded | {samples(lora) / users['lora']:.1f} times in that run",
        f"| QLoRA against users' code, padded | {samples(qlora) / users['qlora']:.1f} times in that run",
        "| LoRA {}, QLoRA {} tokens/s |".format(*(tokens(evaluation.format(method)) for method in users)),
        f"| {rows[lean]['peak_allocated_gib']:.2f} GiB, {samples(lean) / users['lora']:.1f} times users' code |",
        f"| {rows[leaner]['peak_allocated_gib']:.2f} GiB = {rows[leaner]['peak_allocated_gib'] * 1.024**3:.2f} GB, "
        f"{samples(leaner) / users['qlora']:.1f} times users' QLoRA |",
        f"| {rows[large]['peak_allocated_gib']:.2f} GiB = {rows[large]['peak_allocated_gib'] * 1.024**3:.1f} GB allocated |",
        "| 16 texts a step, as in the paper's study | LoRA {}, QLoRA {} tokens/s |".format(
            *(tokens(f"{method}, 8192 tokens, 16 texts a step") for method in users)
        ),
    ):
        assert row in text


def test_the_trajectories_in_the_documents_are_those_of_the_benchmarks_record():
    """docs/performance.md: distances of loss curves from float32, mean of the runs of a form and lowest to highest."""
    text = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    for place, name in (("H100", "trajectory_nvidia-h100-80gb-hbm3"), ("CPU", "trajectory_cpu")):
        curves = read_json(REPOSITORY / "benchmarks" / "results" / f"{name}.json")["curves"]
        for form in ("transformers and PEFT", "engine"):
            parts = []
            for method in ("lora", "qlora"):
                exact = np.array(curves[f"{method}: transformers and PEFT, float32"])
                runs = [curve for run, curve in curves.items() if run.startswith(f"{method}: {form}, micro")]
                apart = [np.abs(np.array(run) - exact).mean() for run in runs]
                assert len(apart) == 3
                power = 10.0 ** np.floor(np.log10(np.mean(apart)))
                shown = f"{np.mean(apart) / power:.1f}e{np.log10(power):.0f}"
                parts.append(f"{shown} ({min(apart) / power:.1f} to {max(apart) / power:.1f})")
            assert f"| {place}: {form} | {parts[0]} | {parts[1]} |" in text


def test_the_hours_of_the_check_are_about_those_of_the_readme(tmp_path, monkeypatch):
    """One from arithmetic alone, the other from measured cells: the same within half, in a clone without any data."""
    monkeypatch.chdir(tmp_path)
    study = settings.load(yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8")))
    estimate = resources.Estimate(study, grid.cells(study.grid))
    predicted = {row.device.name: row.hours for row in check.predictions(study, estimate, set(), check.known_gpus())}
    projected, _ = runpy.run_path(str(REPOSITORY / "docs" / "results.py"))["rehearsal"].projected_hours()
    for device, hours in projected.groupby("device").hours.sum().items():
        assert f"{hours:.1f}" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
        assert 1 / 1.5 < predicted[device] / hours < 1.5


@pytest.mark.parametrize(
    ("example", "cells"),
    [
        ("smollm2", 520),
        ("clothing", 156),
        ("smollm2-alpha", 60),
        ("smollm2-learning-rates", 120),
        ("llama3-8b-rehearsal", 8),
    ],
)
def test_examples_are_valid_studies_of_so_many_cells(example, cells):
    config = yaml.safe_load((REPOSITORY / "examples" / example / "config.yaml").read_text(encoding="utf-8"))
    assert len(grid.cells(settings.load(config).grid)) == cells
