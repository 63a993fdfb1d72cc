"""A synthetic study with its report, for the tests of the page: every status, and texts that mean harm."""

import dataclasses

import pandas as pd
import synthetic
from lorastudy.presentation import figures, report, tables
from lorastudy.presentation.origin import Origin
from lorastudy.study import paper, records, settings
from lorastudy.study.configuration import Configuration

HOSTILE = [
    "</script><script>window.harmed = 1</script>",
    '<img src=x onerror="window.harmed = 1"> and <b>bold</b> & more',
    "control \x00 \x07 \x1b[31m characters, \u202eright to left\u2028 and {{ 7 * 7 }}",
    "an ordinary review of a film that was neither good nor bad " + "at all " * 400,
    '\'; alert(1); // " onmouseover="window.harmed = 1',
]
CLASS_NAMES = ["1 star", "2 stars", "3 stars", "4 <i>stars</i>", "5 stars"]
DIVERGED, MISSING, STALE = "lora_attention_r16_a32_s0", "qlora_attention_r4_a32_s0", "qlora_all-linear_r8_a64_s0"
DOT = """digraph snakemake_dag {
	0[label = "all", color = "0.04 0.6 0.85", style="rounded"];
	1[label = "finetune_cell", color = "0.12 0.6 0.85", style="rounded"];
	2[label = "prepare_data", color = "0.21 0.6 0.85", style="rounded"];
	1 -> 0
	2 -> 1
	2 -> 0
}"""


def write(directory, drawn=("r_trend", "lora_against_qlora"), **changes):
    """Write a study and its ``report.html``; returns the page's path and the ``summary.Results``."""
    return draw(directory, run(directory, **changes), drawn)


def run(directory, texts=HOSTILE, **changes):
    """Write the records of a study, with ``texts`` over and over as its test texts; returns its ``settings.Settings``."""
    config = synthetic.config(study__name="A study <b>of</b> & more", data__class_names=CLASS_NAMES, **changes)
    accuracy = {"lora": 0.6, "qlora": 0.5}
    study = synthetic.write(
        directory,
        config,
        lambda cell: accuracy[cell.method],
        diverged=[DIVERGED],
        missing=[MISSING],
        stale=[STALE],
        energy=lambda cell: 0.5 if cell.method == "lora" else None,
    )
    number = study.data.test_size
    (directory / "results" / "data").mkdir()
    ids = [f"test-{index:06d}" for index in range(number)]
    frame = pd.DataFrame({"id": ids, "text": [texts[index % len(texts)] for index in range(number)]})
    frame.to_parquet(directory / "results" / "data" / "test.parquet")
    records.write_json(directory / "results" / "data" / "card.json", card(study))
    return study


def draw(directory, study, drawn):
    """Draw the figures ``drawn`` of a study, make its tables and its page; returns as ``write``."""
    found = synthetic.gather(directory, study)
    for name in ("figures", "paper_tables"):
        (directory / name).mkdir()
    look = dataclasses.asdict(settings.Figures("#0072B2", "#D55E00", "#595959", 100))
    for name in drawn:
        outputs = {suffix: directory / "figures" / f"{name}.{suffix}" for suffix in figures.FORMATS}
        figures.draw(name, found, look, outputs | {"caption": directory / "figures" / f"{name}.txt"})
    _write_parameters(directory / "results" / "parameters.csv")
    for name in tables.names(study.study.paper, study.grid.methods):
        paths = {suffix: directory / "paper_tables" / f"{name}.{suffix}" for suffix in tables.FORMATS}
        tables.write(name, found, directory / "results" / "parameters.csv", paths)
    return page(directory, found), found


def page(directory, found):
    """Write the page of a study whose figures and tables are there; returns its path."""
    files = [f"results/{name}.csv" for name in ("summary", "points", "comparisons", "curves")]
    drawn = [str(path.relative_to(directory)) for path in sorted((directory / "figures").glob("*.png"))]
    made = {
        name: tables.make(name, found, directory / "results" / "parameters.csv")
        for name in tables.names(found.settings["study"]["paper"], found.settings["grid"]["methods"])
    }
    details = records.read_json(directory / "results" / "details.json")
    report.write(
        directory / "report.html",
        found,
        details,
        [*files, "results/confusion.json"],
        drawn,
        made,
        Origin.of(directory, Configuration(), (DOT, None)),
        directory,
    )
    return directory / "report.html"


def _write_parameters(path):
    """The counts of Table 4 by formula, in place of counting on a built model."""
    architecture = records.read_json(settings.ARCHITECTURES / "llama-3-8b.json")
    rows = []
    for targets, head in (("attention", "plain"), ("all-linear", "paper"), ("all-linear", "plain")):
        for r in paper.TRAINED:
            count = paper.trainable_parameters(architecture, 5, targets, head, r)
            everything = 7_504_924_672 + count
            shares = {"trainable_percent": 100 * count / everything, "paper_percent": 100 * count / everything}
            counts = {"all_parameters": everything, "paper_all_parameters": everything}
            rows.append({"targets": targets, "r": r, "head": head, "trainable_parameters": count, **counts, **shares})
    pd.DataFrame(rows).assign(formula_trainable=[row["trainable_parameters"] for row in rows]).to_csv(path, index=False)


def card(study):
    """A data card, as ``data.prepare`` writes it."""
    lengths = {"mean": 60.4, "min": 35, "p5": 40.9, "p25": 64.0, "p50": 64.0, "p75": 64.0, "p95": 64.0, "max": 64}
    splits = {
        name: {
            "texts": size,
            "asked_for": size,
            "rounded": False,
            "texts_by_label": {str(label): size // 5 for label in study.data.labels},
            "tokens": 60 * size,
            "length_tokens": lengths,
            "truncated": 3,
            "longest_characters": 119,
        }
        for name, size in (("train", study.data.train_size), ("test", study.data.test_size))
    }
    return {
        "source": "files",
        "name": None,
        "revision": None,
        "files": {"reviews <1>.csv": "f" * 64},
        "dropped_incomplete": 0,
        "fingerprint": "c" * 64,
        "labels": study.data.labels,
        "class_names": study.data.class_names,
        "rows": {"any": 1600},
        "removed": {
            "contradictory_copies": 0,
            "repeated_copies": 1,
            "near_duplicates": 2,
            "near_duplicates_among": 160,
            "near_duplicate_threshold": 0.8,
        },
        "seed": 0,
        "template": "{text}",
        "max_length": 64,
        "tokenizer_fingerprint": "d" * 64,
        "splits": splits,
    }
