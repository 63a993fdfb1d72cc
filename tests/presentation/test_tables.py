"""Tables: every number of the paper, computed differences, marks, holes, formats; the assumptions; the macros."""

import re
import runpy
import shutil
import string
import subprocess

import count_parameters
import debian
import numpy as np
import pandas as pd
import pytest
import synthetic
import yaml
from lorastudy.presentation import numbers, tables
from lorastudy.presentation.tables import baseline, formatting
from lorastudy.statistics import metrics
from lorastudy.study import assumptions, paper
from lorastudy.study.settings import REPOSITORY

HOLES = {
    "diverged": ["lora_attention_r4_a32_s0"],
    "missing": ["lora_all-linear_r16_a32_s0"],
    "stale": ["qlora_attention_r8_a64_s0"],
}

NAMES = tables.names(True, ("lora", "qlora"))


@pytest.fixture(scope="session")
def parameters(tmp_path_factory):
    """The file of ``count_parameters``: the paper's model, built without weights."""
    path = tmp_path_factory.mktemp("parameters") / "parameters.csv"
    count_parameters.main(path)
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    synthetic.write(directory, accuracy=lambda cell: 0.5 + 0.2 * (cell.r == 16), energy=lambda cell: 0.25)
    return synthetic.gather(directory)


@pytest.fixture(scope="module")
def with_holes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("holes")
    synthetic.write(directory, **HOLES)
    return synthetic.gather(directory)


def write(name, results, parameters, place, directory=paper.DIRECTORY):
    """Write a table; returns (data frame of the CSV, Markdown, LaTeX)."""
    paths = {suffix: place / f"{name}.{suffix}" for suffix in tables.FORMATS}
    tables.write(name, results, parameters, paths, directory)
    return pd.read_csv(paths["csv"]), paths["md"].read_text(encoding="utf-8"), paths["tex"].read_text(encoding="utf-8")


# The paper's numbers


def test_table2_every_digit(results, parameters, tmp_path):
    frame, _, _ = write("table2_memory_by_dtype", results, parameters, tmp_path)
    assert frame.paper.notna().sum() == 8
    assert (frame.difference == 0).all()


def test_table3_every_digit(results, parameters, tmp_path):
    frame, _, _ = write("table3_memory_by_method", results, parameters, tmp_path)
    stated = frame[frame.paper.notna()]
    assert len(stated) == 15
    assert (stated.difference == 0).all()
    total = frame[frame.component.eq("total")].set_index("type").allocated
    parts = frame[frame.component.ne("total")].groupby("type").allocated.sum()
    assert total.to_dict() == pytest.approx(parts.to_dict())


@pytest.mark.parametrize(
    ("name", "known"), [("meta-llama/Meta-Llama-3-8B", True), ("llama-3-8b", True), ("tiny", False)]
)
def test_table3_has_what_cells_of_the_papers_shape_measured(parameters, tmp_path, name, known):
    """8.0 and 20.0 GiB are the peaks of tests/synthetic.py; the formats are bfloat16."""
    source = "hub" if "/" in name else "random"
    study = synthetic.config(
        model__source=source,
        model__name=name,
        model__revision="0" * 40 if source == "hub" else None,
        grid__lines={"r": {"r": [8, 512], "alpha_ratio": 2}},
    )
    synthetic.write(tmp_path, study)
    frame, shown, _ = write("table3_memory_by_method", synthetic.gather(tmp_path), parameters, tmp_path)
    measured = frame[frame.component.eq("total")].set_index("type").measured
    expected = {"LoRA (FP16)": 20.0, "QLoRA (NF4)": 8.0} if known else {}
    assert measured.dropna().to_dict() == expected
    assert ("with random weights" in shown) == (name == "llama-3-8b")
    assert ("nothing yet" in shown) != known


def test_table4_every_count_and_percentage_from_the_built_model(results, parameters, tmp_path):
    frame, markdown, _ = write("table4_trainable_parameters", results, parameters, tmp_path)
    stated = frame[frame.paper.notna()]
    assert stated.quantity.value_counts().to_dict() == {"trainable parameters": 14, "percent of all": 14}
    assert (stated.difference == 0).all()
    assert set(stated.paper[stated.quantity.eq("trainable parameters")]) == {
        *paper.table(4).all_linear,
        *paper.table(4).attention,
    }
    assert "21,024,808" in markdown
    counted = pd.read_csv(parameters)
    assert counted.trainable_parameters.equals(counted.formula_trainable)


def test_table4_shows_that_the_paper_leaves_out_ranks_that_it_trains(results, parameters, tmp_path):
    """By hand: 2,621,440 r + 4,101 r + 20,480 for all linear layers, 425,984 r x 2 + 20,480 for attention."""
    frame, markdown, latex = write("table4_trainable_parameters", results, parameters, tmp_path)
    of_paper = frame[frame.model.str.endswith("Llama-3-8B") & frame.r.isin([1, 2, 4])]
    counts = of_paper[of_paper.quantity.eq("trainable parameters")].set_index(["targets", "r"])
    assert counts.paper.isna().all() and counts.difference.isna().all()
    assert counts.reproduced.to_dict() == {
        (targets, r): per_rank * r + 20_480
        for targets, per_rank in (("attention", 851_968), ("all-linear", 2_625_541))
        for r in (1, 2, 4)
    }
    rows = [
        line for line in markdown.splitlines() if re.search(r"\| +[124] \|.*Meta-Llama|Meta-Llama.*\| +[124] \|", line)
    ]
    assert len(rows) == 6
    assert all(row.count("—") == 4 for row in rows)
    assert "—: the paper trains r = 1, 2, 4 too (section 2.7), but its table does not have them." in markdown
    assert latex.count("---") == 6 * 4 + 1


@pytest.mark.parametrize("name", tables.WITHOUT_RESULTS)
def test_tables_that_need_no_result_are_made_without_any(name, tmp_path, parameters, results):
    """Nothing of the study has run, and the table says of the paper what it says beside results."""
    loaded = synthetic.write(tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "results")
    frame, markdown, _ = write(name, synthetic.gather(tmp_path / "study", loaded), parameters, tmp_path)
    beside, _, _ = write(name, results, parameters, tmp_path)
    if name == "assumptions":
        pd.testing.assert_frame_equal(frame, beside)
    else:
        assert frame.paper.notna().sum() == beside.paper.notna().sum() > 0
        assert (frame.difference.dropna() == 0).all()
    assert "nan" not in markdown


def test_table4_has_the_counts_of_the_studys_own_cells(results, parameters, tmp_path):
    frame, _, _ = write("table4_trainable_parameters", results, parameters, tmp_path)
    own = frame[frame.model.eq("tiny") & frame.quantity.eq("trainable parameters")]
    assert own.set_index(["targets", "r"]).reproduced.to_dict() == {
        (targets, r): r * width + 80 for targets, width in (("attention", 64), ("all-linear", 160)) for r in (4, 8, 16)
    }
    assert own.paper.isna().all()


def test_table5_has_both_baselines_and_guessing(results, parameters, tmp_path):
    frame, markdown, _ = write("table5_zero_shot", results, parameters, tmp_path)
    for name, title in (("head", "untrained head"), ("prompt", "prompting")):
        row = results.baselines.loc[name]
        of = frame[frame.classifier.eq(title)].set_index(["average", "score"], drop=False)
        assert len(of) == 7
        assert of.reproduced["weighted", "f1"] == pytest.approx(row.f1)
        assert of.reproduced["macro", "recall"] == pytest.approx(row.macro_recall)
        accuracy = frame[frame.classifier.eq(title) & frame.score.eq("accuracy")].iloc[0]
        assert (accuracy.paper, accuracy.difference) == pytest.approx((0.2191, row.accuracy - 0.2191))
        assert (accuracy.low, accuracy.high) == pytest.approx((row.accuracy_low, row.accuracy_high))
    assert "majority class" in markdown
    assert "n = 300 test texts; one seed (0)" in markdown


def test_guessing_by_hand():
    """Classes of 30, 10 and 10 texts. Always the first: accuracy 0.6, its precision 0.6, recall 1, F1 0.75."""
    confusion = {"head": [[10, 10, 10], [5, 5, 0], [0, 5, 5]]}
    found = baseline._guessing(confusion)
    majority = found["majority class"]
    assert majority["accuracy"] == pytest.approx(0.6)
    assert majority["f1"] == pytest.approx(0.6 * 0.75)
    assert majority["macro_f1"] == pytest.approx(0.75 / 3)
    assert majority["macro_recall"] == pytest.approx(1 / 3)
    assert found["chance"]["accuracy"] == pytest.approx(1 / 3)


def test_table1_is_made_of_the_cells_records(results, parameters, tmp_path):
    frame, markdown, _ = write("table1_hardware", results, parameters, tmp_path)
    rows = frame.set_index(["quantity", "method", "targets"])
    time = rows.loc["fine-tuning time per cell", "qlora", "attention"]
    assert (time.reproduced, time.paper, time.difference, time.runs) == (20, 300, -280, 5)
    memory = rows.loc["peak memory per cell", "lora", "all-linear"]
    assert (memory.reproduced, memory.paper, memory.difference) == (20, 16, 4)
    ratio = rows.loc["time, QLoRA / LoRA", "both", "all"]
    assert (ratio.reproduced, ratio.paper, ratio.runs) == (pytest.approx(2), 10, 10)
    assert rows.loc["peak memory, QLoRA / LoRA", "both", "all"].reproduced == pytest.approx(0.4)
    assert rows.loc["energy per cell", "lora", "attention"].reproduced == pytest.approx(0.25)
    # 10 cells of 600 s and 10 of 1200 s, 22 evaluations of 10 s
    assert rows.loc["device hours, whole study", "both", "all"].reproduced == pytest.approx((18000 + 220) / 3600)
    assert "Synthetic GPU" in markdown
    assert "CUDA allocator" in markdown
    assert "at a time" not in markdown


def test_cells_that_shared_a_gpu_say_so_and_count_a_part_of_it(tmp_path, parameters):
    synthetic.write(tmp_path / "study", processes=lambda cell: 4.0 if cell.method == "lora" else 12.4)
    frame, markdown, _ = write("table1_hardware", synthetic.gather(tmp_path / "study"), parameters, tmp_path)
    rows = frame.set_index(["quantity", "method", "targets"])
    # 10 cells of 600 s and 10 of 1200 s, each with 10 s of evaluation; two baselines of 10 s
    hours = rows.loc["device hours, whole study", "both", "all"].reproduced
    assert hours == pytest.approx((6100 / 4 + 12100 / 12.4 + 20) / 3600)
    assert rows.loc["fine-tuning time per cell", "qlora", "attention"].reproduced == 20
    assert "A GPU had 4 to 12 processes at a time" in markdown
    found = numbers.numbers(synthetic.gather(tmp_path / "study"))
    assert found["StudyDeviceHours"] == f"{(6100 / 4 + 12100 / 12.4) / 3600:.3f}"  # of the cells


@pytest.mark.parametrize(
    ("name", "old", "new", "moved"),
    [
        ("table1_hardware", "300,6", "310,6", 3 + 2),  # time of QLoRA's two target sets, and three time ratios
        ("table2_memory_by_dtype", "29.80,", "29.90,", 1),
        ("table3_memory_by_method", ",30.113,", ",30.213,", 1),
        ("table4_trainable_parameters", "21024808", "21024809", 1),
        ("table4_trainable_parameters", "5.4932", "5.4933", 1),
        ("table5_zero_shot", ",0.181,", ",0.182,", 4),  # weighted and macro F1 of two baselines
    ],
)
def test_differences_are_computed(results, parameters, tmp_path, name, old, new, moved):
    """A change of one stated value moves the differences that it is part of, and no other."""
    before, _, _ = write(name, results, parameters, tmp_path)
    directory = tmp_path / "paper"
    shutil.copytree(paper.DIRECTORY, directory)
    path = directory / paper.FILES[int(name[5])]
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    after, _, _ = write(name, results, parameters, tmp_path, directory)
    assert after.reproduced.equals(before.reproduced)
    assert (~np.isclose(after.difference, before.difference, equal_nan=True)).sum() == moved


# Result tables


def test_scores_stand_in_their_cells(results, parameters, tmp_path):
    frame, markdown, _ = write("results_3_2_constant_alpha", results, parameters, tmp_path)
    assert len(frame) == 2 * 3 * 4
    assert frame.alpha.eq(32).all()
    cells = results.cells.set_index("id")
    for row in frame.itertuples():
        cell = cells.loc[f"{row.point}_s0"]
        assert (row.value, row.low, row.high) == pytest.approx(
            (cell[row.score], cell[f"{row.score}_low"], cell[f"{row.score}_high"])
        )
    cell = cells.loc["qlora_all-linear_r8_a32_s0"]
    assert f"{cell.accuracy:.3f} [{cell.accuracy_low:.3f}, {cell.accuracy_high:.3f}]" in markdown
    frame, _, _ = write("results_3_1_constant_r", results, parameters, tmp_path)
    assert frame.r.eq(8).all()
    assert sorted(set(frame.alpha)) == [16, 32, 64]


def test_best_is_marked_only_where_it_is_distinguishable(results, parameters, tmp_path):
    """r = 16 is 20 points better than the others in every column; nothing else differs."""
    frame, markdown, latex = write("results_3_2_constant_alpha", results, parameters, tmp_path)
    accuracy = frame[frame.score.eq("accuracy")]
    assert accuracy[accuracy.best_in_column].r.tolist() == [16] * 4
    assert not accuracy.best_in_row.any()
    for text in (markdown, latex):
        bold = re.findall(r"\*\*(0\.\d+ \[[^\]]*\])\*\*" if text is markdown else r"\\textbf\{(0\.\d+)", text)
        assert len(bold) == frame.best_in_column.sum() == 8
    frame, markdown, _ = write("results_3_1_constant_r", results, parameters, tmp_path)
    assert not frame.best_in_column.any()
    assert "None is." in markdown


def test_best_of_a_row(tmp_path, parameters):
    synthetic.write(tmp_path, accuracy=lambda cell: 0.5 + 0.2 * (cell.method == "lora" and cell.targets == "attention"))
    frame, markdown, _ = write("results_3_1_constant_r", synthetic.gather(tmp_path), parameters, tmp_path)
    marked = frame[frame.best_in_row]
    assert set(marked.method + marked.targets) == {"loraattention"}
    assert len(marked) == 6
    assert markdown.count("]*") == 6


def of_the_papers_points(tmp_path):
    """Results of a study with points that the paper states an accuracy of, and a second line of r."""
    lines = {
        "r": {"r": [8, 512], "alpha_ratio": 2}, "alpha": {"r": 8, "alpha": [8, 32]}, "other": {"r": [8, 16], "alpha": 8},
    }  # fmt: skip
    synthetic.write(tmp_path / "study", synthetic.config(grid__lines=lines))
    return synthetic.gather(tmp_path / "study")


def test_the_papers_accuracies_stand_beside_ours(tmp_path, parameters):
    """Along r about 0.67, but for attention at r = 512; at r = 8, alpha = 32 the peak of 0.68 on all linear layers."""
    results = of_the_papers_points(tmp_path)
    frame, markdown, _ = write("results_3_2_constant_alpha", results, parameters, tmp_path)
    of_accuracy = frame[frame.score.eq("accuracy") & frame.line.eq("r")]
    stated = of_accuracy[of_accuracy.paper.notna()]
    assert {(row.targets, row.r, row.paper) for row in stated.itertuples()} == {
        ("attention", 8, 0.67), ("all-linear", 8, 0.67), ("all-linear", 512, 0.67),
    }  # fmt: skip
    assert (stated.paper_difference - (stated.value - 0.67)).abs().max() < 1e-9
    assert frame[frame.score.eq("f1") | frame.line.eq("other")].paper.isna().all()
    assert "0.67 (all-linear)" in next(line for line in markdown.splitlines() if "| 512 |" in line)
    assert "The paper states about 67% for all four variants along r" in markdown
    frame, markdown, _ = write("results_3_1_constant_r", results, parameters, tmp_path)
    stated = frame[frame.paper.notna()].set_index(["method", "targets"])
    assert stated.paper.to_dict() == {("lora", "all-linear"): 0.68, ("qlora", "all-linear"): 0.68}
    assert stated.alpha.eq(32).all() and stated.r.eq(8).all()
    lora = stated.value["lora", "all-linear"]
    assert "a peak of 68% at r = 8, alpha = 32 on all linear layers (section 3.1); here LoRA all-linear " in markdown
    assert f"LoRA all-linear {lora:.3f} ({lora - 0.68:+.3f})".replace("-0", "−0") in markdown
    frame, _, _ = write("results_3_3_lora_against_qlora", results, parameters, tmp_path)
    both = frame.set_index(["targets", "r", "alpha"])
    assert both.paper["all-linear", 8, 32] == 0.68
    assert both.paper["attention", 8, 16] == 0.67
    assert both.paper[["attention"]].notna().sum() == 1
    assert both.line["attention", 8, 8] == "alpha, other"


def test_every_line_of_r_has_its_rows(tmp_path, parameters):
    results = of_the_papers_points(tmp_path)
    frame, markdown, _ = write("results_3_2_constant_alpha", results, parameters, tmp_path)
    points = frame[frame.score.eq("accuracy") & frame.method.eq("lora") & frame.targets.eq("attention")]
    assert list(zip(points.line, points.r, points.alpha)) == [
        ("r", 8, 16), ("r", 512, 1024), ("other", 8, 8), ("other", 16, 8),
    ]  # fmt: skip
    assert "- Lines: r, α = 2 r; other, α = 8." in markdown


def test_a_grid_without_a_line_of_alpha_says_so(tmp_path, parameters):
    synthetic.write(tmp_path / "study", synthetic.config(grid__lines={"r": {"r": [4, 8], "alpha": 8}}))
    frame, markdown, latex = write("results_3_1_constant_r", synthetic.gather(tmp_path / "study"), parameters, tmp_path)
    assert frame.empty
    assert "No line of this study's grid has alpha vary." in markdown
    assert "No line of this study" in latex


def test_a_pair_with_too_few_seeds_in_common_has_no_interval(parameters, tmp_path):
    """At r = 64 one seed of three learned with both methods: the table has its difference, and the other pairs' tests."""
    study = synthetic.config(line__r=[1, 2, 4, 8, 16, 32, 64], grid__seeds=[0, 1, 2])
    synthetic.write(tmp_path / "study", study, lambda cell: 0.15 if cell.r == 64 and cell.seed else 0.65)
    frame, markdown, _ = write(
        "results_3_3_lora_against_qlora", synthetic.gather(tmp_path / "study"), parameters, tmp_path
    )
    pair = frame[frame.r.eq(64) & frame.targets.eq("attention")].iloc[0]
    assert pair.reason.startswith("1 seed in common") and np.isnan(pair.low)
    assert "p (Holm): t over seeds and texts, variance over seeds shared over the grid, corrected" in markdown


def test_pairs_of_the_methods(results, parameters, tmp_path):
    frame, markdown, _ = write("results_3_3_lora_against_qlora", results, parameters, tmp_path)
    assert len(frame) == 10 + 1
    cells = results.cells.set_index("id")
    for row in frame.iloc[:10].itertuples():
        lora, qlora = (cells.loc[f"{m}_{row.targets}_r{row.r:.0f}_a{row.alpha:g}_s0"] for m in ("lora", "qlora"))
        assert row.difference == pytest.approx(lora.accuracy - qlora.accuracy, abs=1e-6)
        assert row.difference == pytest.approx((row.only_a - row.only_b) / 300, abs=1e-6)
        assert (row.time_ratio, row.memory_ratio) == pytest.approx((2.0, 0.4))
    assert frame.iloc[10].difference == pytest.approx(frame.iloc[:10].difference.mean(), abs=1e-6)
    assert "average of 10 pairs" in markdown


def test_an_average_of_few_pairs_is_about_these_runs(parameters, tmp_path):
    study = synthetic.config(grid__targets=["attention"], line__r=[8], line__alpha=[16, 32])
    synthetic.write(tmp_path, study)
    frame, markdown, _ = write("results_3_3_lora_against_qlora", synthetic.gather(tmp_path), parameters, tmp_path)
    average = frame.iloc[2]
    assert average.difference == pytest.approx(frame.difference[:2].mean())
    assert average[["low", "high", "p", "p_holm", "p_equivalent"]].notna().all()
    assert "average of 2 pairs" in markdown


def test_holes_are_shown_with_their_reason(with_holes, parameters, tmp_path):
    _, markdown, _ = write("results_3_2_constant_alpha", with_holes, parameters, tmp_path)
    row = next(line for line in markdown.splitlines() if line.startswith("| accuracy |   4 |      32 |"))
    assert "diverged" in row
    assert "- lora_attention_r4_a32: diverged, diverged at step 4, learning rate 0.001 (0 of 1 seeds)." in markdown
    assert "- lora_all-linear_r16_a32: missing, not run yet (0 of 1 seeds)." in markdown
    _, markdown, _ = write("results_3_1_constant_r", with_holes, parameters, tmp_path)
    assert "- qlora_attention_r8_a64: stale, made with another training.batch_size" in markdown
    frame, markdown, _ = write("results_3_3_lora_against_qlora", with_holes, parameters, tmp_path)
    assert frame.iloc[:10].difference.isna().sum() == 3
    assert "average of 7 pairs" in markdown
    _, markdown, _ = write("table1_hardware", with_holes, parameters, tmp_path)
    assert "Left out: 1 diverged, 1 missing, 1 stale of 20 cells." in markdown


def test_seeds_that_are_missing_are_marked(tmp_path, parameters):
    synthetic.write(
        tmp_path, synthetic.config(grid__seeds=[0, 1, 2]), missing=["lora_attention_r4_a32_s1"], seed_spread=0.01
    )
    _, markdown, _ = write("results_3_2_constant_alpha", synthetic.gather(tmp_path), parameters, tmp_path)
    assert markdown.count("]†") == 2
    assert (
        "mean over 3 seeds (0, 1, 2), fewer at 1 points with a hole. Intervals: 95%, over test texts and seeds; "
        in (markdown)
    )
    assert "(2 of 3 seeds)" in markdown


def test_tuned_and_untuned_stand_side_by_side(tmp_path, parameters):
    study = synthetic.config(grid__learning_rates=[3e-3], grid__scaling=["standard", "rank-stabilised"])
    synthetic.write(tmp_path, study, validation=lambda cell: 0.6 + (cell.learning_rate or 0))
    results = synthetic.gather(tmp_path)
    for name, points in (("results_3_1_constant_r", 24), ("results_3_3_lora_against_qlora", 40)):
        frame, markdown, _ = write(name, results, parameters, tmp_path)
        assert set(frame["view"]) == {"configured", "tuned"}
        assert set(frame.scaling.dropna()) == {"standard", "rank-stabilised"}
        assert f"(0.003 at {points} points)" in markdown
    frame, _, _ = write("questions", results, parameters, tmp_path)
    assert frame["view"].value_counts().to_dict() == {"configured": 10, "tuned": 8}


# Formats


@pytest.fixture(scope="module", params=["plain", "holes", "awkward", "nothing", "without the paper"])
def written(request, tmp_path_factory, results, with_holes, parameters):
    """(kind, directory) of all tables and the macros of a study."""
    place = tmp_path_factory.mktemp("tables")
    if request.param == "plain":
        found = results
    elif request.param == "holes":
        found = with_holes
    else:
        changes = {
            "awkward": {"study__name": r"50% of R&D_x #1 {a} \b ^c ~d $e$ <f> | g"},
            "nothing": {},
            "without the paper": {"study__paper": False},
        }
        loaded = synthetic.write(place / "study", synthetic.config(**changes[request.param]))
        if request.param == "nothing":
            for cell in synthetic.grid.cells(loaded.grid):
                shutil.rmtree(place / "study" / "results" / "cells" / cell)
        found = synthetic.gather(place / "study")
    for name in NAMES:
        write(name, found, parameters, place)
    numbers.write(place / "numbers.tex", found)
    return request.param, place


def test_a_study_of_its_own_is_not_said_to_be_the_papers(written):
    """It is named in the tables of the shape that it is about alone, and as a value of ``lora.head``."""
    kind, place = written
    names = tables.names(kind != "without the paper", ["lora", "qlora"])
    said = {name: re.search(r"\bpaper\b", (place / f"{name}.md").read_text(encoding="utf-8")) for name in names}
    if kind == "without the paper":
        about_llama = {"table2_memory_by_dtype", "table3_memory_by_method", "table4_trainable_parameters"}
        assert [name for name in said if said[name] and name not in about_llama] == ["assumptions"]
        assert (
            (place / "table5_zero_shot.md")
            .read_text(encoding="utf-8")
            .startswith("**The base model before fine-tuning.**")
        )
        settings_of_it = (place / "assumptions.md").read_text(encoding="utf-8")
        assert "| training.learning_rate" in settings_of_it and "reason" not in settings_of_it
    else:
        assert all(said[name] for name in said if name not in ("cost", "questions"))


def test_there_is_one_table_a_number(written):
    _, place = written
    for number in range(1, 6):
        for suffix in tables.FORMATS:
            assert len(list(place.glob(f"table{number}_*.{suffix}"))) == 1
    for section in ("3_1", "3_2", "3_3"):
        assert len(list(place.glob(f"results_{section}_*.md"))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_markdown_is_rectangular(written, name):
    _, place = written
    lines = [line for line in (place / f"{name}.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(lines) > 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "nan" not in "\n".join(lines).lower().replace("finance", "")


def check_latex(text):
    """A strict reading of a table in LaTeX. Raises AssertionError.

    Every environment is closed in its turn, braces balance, every row has as many cells as the column specification,
    no special character is left unescaped, and all is ASCII.
    """
    assert text.isascii(), set(filter(lambda c: not c.isascii(), text))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    bare = re.sub(r"\\[\\{}&%$#_]", "", body)
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[#~^\"]|(?<!\\)%", bare)
    assert bare.count("$") % 2 == 0
    specification = re.search(r"\\begin\{(?:tabular|longtable)\}\{(.*)\}\n", body)[1]
    columns = re.sub(r">\{[^{}]*\}|@\{\}|p\{[^{}]*\}", lambda m: "p" if m[0][0] == "p" else "", specification)
    assert set(columns) <= set("lrp")
    rows = [line for line in body.splitlines() if line.rstrip().endswith("\\\\") and "multicolumn" not in line]
    rows = [line for line in rows if not line.startswith("\\caption")]
    assert len(rows) > 1
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1, row
    # an underscore outside of mathematics is an error
    for row in rows:
        assert "_" not in re.sub(r"\$[^$]*\$|\\_", "", row), row


@pytest.mark.parametrize("name", NAMES)
def test_latex_is_well_formed(written, name):
    _, place = written
    check_latex((place / f"{name}.tex").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("a & b \\\\", "a & b & c \\\\"),
        ("a & b \\\\", "a & b_c \\\\"),
        ("a & b \\\\", "a & 5% \\\\"),
        ("a & b \\\\", "a & {b \\\\"),
        ("\\end{tabular}", "\\end{table}"),
        ("a & b \\\\", "a & − \\\\"),
    ],
)
def test_the_reading_of_latex_finds_faults(good, bad):
    text = "\\begin{table}\n\\begin{tabular}{@{}lr@{}}\nx & y \\\\\na & b \\\\\n\\end{tabular}\n\\end{table}\n"
    check_latex(text)
    with pytest.raises((AssertionError, IndexError)):
        check_latex(text.replace(good, bad))


def test_latex_compiles(written, tmp_path):
    _, place = written
    inputs = "".join(f"\\input{{{place}/{name}.tex}}\\clearpage\n" for name in NAMES)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage[margin=2cm]{geometry}\\usepackage{array,booktabs,longtable}\n"
        f"\\begin{{document}}\n\\input{{{place}/numbers.tex}}\n\\StudyName: \\StudyVerdictTargets\n{inputs}\\end{{document}}\n",
        encoding="utf-8",
    )
    command = [debian.pdflatex(), "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_without_the_paper_no_column_is_its(written):
    kind, place = written
    has = {
        path.stem: [column for column in pd.read_csv(path) if column.startswith(("paper", "difference"))]
        for path in place.glob("table*.csv")
    }
    assert len(has) == 5
    if kind == "without the paper":
        assert not any(has.values())
        for path in place.glob("*.md"):
            if path.stem in tables.OF_PAPER:
                continue
            header = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
            assert "paper" not in header
    else:
        assert all({"paper", "difference"} <= set(columns) for columns in has.values())


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "0.500"), (-0.0001, "0.000"), (-1.25, "−1.250"), (1234.5, "1,234.500"), (float("nan"), "–")],
)
def test_numbers(value, expected):
    assert formatting.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0051, "+0.005"), (-0.0051, "−0.005"), (0.0001, "0.000"), (1234.5, "+1,234.500")]
)
def test_signed_numbers(value, expected):
    assert formatting.signed(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(300, "300"), (12.345, "12.3"), (0.001234, "0.00123"), (0, "0"), (1234.5, "1,234"), (99.96, "100.0")],
)
def test_three_digits(value, expected):
    assert formatting.significant(value) == expected


# Assumptions


def test_the_page_is_that_of_the_list():
    page = runpy.run_path(str(REPOSITORY / "docs" / "paper.py"))["page"]
    assert (REPOSITORY / "docs" / "paper.md").read_text(encoding="utf-8") == page(), "run python docs/paper.py"


def test_the_table_of_assumptions_has_the_studys_values(results, parameters, tmp_path):
    frame, _, _ = write("assumptions", results, parameters, tmp_path)
    values = frame.set_index("key").value
    assert (values["training.learning_rate"], values["data.train_size"]) == ("0.001", "100")
    assert values["data.train_file"] == "reviews.csv"  # the data set has no name here
    assert len(frame) == len(yaml.safe_load(assumptions.FILE.read_text(encoding="utf-8")))


# Macros


def test_macros_are_the_numbers_of_the_summary(results, tmp_path):
    numbers.write(tmp_path / "numbers.tex", results)
    found = dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", (tmp_path / "numbers.tex").read_text(encoding="utf-8")))
    assert all(set(name) <= set(string.ascii_letters) for name in found)
    cells = results.cells
    best = cells[cells.method.eq("qlora")].accuracy.max()
    assert found["StudyBestQloraAccuracy"] == f"{best:.3f}"
    assert found["StudyBestQloraRank"] == "16"
    assert (found["StudyCellsPlanned"], found["StudyCellsFinished"], found["StudyTestTexts"]) == ("20", "20", "300")
    assert (found["StudyTimeRatio"], found["StudyMemoryRatio"]) == ("2.00", "0.40")
    assert found["StudyBaseHeadAccuracy"] == f"{results.baselines.accuracy['head']:.3f}"
    assert found["StudyVerdictTime"] == "supported"
    assert found["StudyQloraAllLinearMemoryGiB"] == "8.00"
    assert found["StudyDeviceHours"] == "5.06"  # 10 cells of 600 s, 10 of 1200 s, 20 evaluations of 10 s
    assert {name for name in metrics.NAMES if name in found} == set()


def test_a_macro_is_letters_alone(results, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "numbers", lambda results, directory: {"StudyF1": "0.5"})
    with pytest.raises(ValueError, match="StudyF1"):
        numbers.write(tmp_path / "numbers.tex", results)
