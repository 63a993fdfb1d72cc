"""What figures draw: held to the summary by reading the numbers back from the artists."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import synthetic
import yaml
from lorastudy.presentation import figures
from lorastudy.presentation.figures import captions, costs, style
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY

LOOK = settings.Figures("#0072B2", "#D55E00", "#595959", 72)
FULL = synthetic.full([4, 8, 16], [16, 32, 64])
HOLES = {
    "diverged": ["lora_attention_r4_a32_s0"],
    "missing": ["qlora_all-linear_r8_a32_s0"],
    "stale": ["qlora_attention_r8_a64_s0"],
}


def accuracy(cell):
    return 0.5 + 0.01 * np.log2(cell.r) + (0.05 if cell.method == "lora" else 0) - 0.02 * (cell.targets == "attention")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Make and gather a synthetic study; the same arguments give the same one."""
    made = {}

    def make(changes=None, **truth):
        key = repr((changes, sorted(truth.items(), key=str)))
        if key not in made:
            directory = tmp_path_factory.mktemp("study")
            loaded = synthetic.write(
                directory, synthetic.config(**(changes or {})), truth.pop("accuracy", accuracy), **truth
            )
            made[key] = loaded, synthetic.gather(directory, loaded)
        return made[key]

    return make


def drawn(name, results):
    """Figure, its axes with a title (a panel each) or all of them, and its caption."""
    with style.alone():
        figure, caption = figures.FIGURES[name](results, LOOK)
        figure.draw_without_rendering()
    return figure, caption


def line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def intervals(axes):
    """(low, high) of every vertical bar, sorted."""
    bars = [path for lines in axes.collections if hasattr(lines, "get_segments") for path in lines.get_segments()]
    return sorted((float(bar[0][1]), float(bar[1][1])) for bar in bars)


def panel(figure, title, nth=0):
    return [axes for axes in figure.axes if axes.get_title(loc="left") == title][nth]


def of(results, method, targets, **where):
    cells = results.cells[(results.cells.method == method) & (results.cells.targets == targets)]
    for name, value in where.items():
        cells = cells[cells[name] == value]
    return cells


def test_names_follow_the_grid():
    def names(**changes):
        return figures.names(settings.load(synthetic.config(**changes)).grid)

    always = {
        "r_trend", "alpha_trend", "scale", "accuracy_against_parameters", "accuracy_against_cost", "confusion", "loss_curves",
        "variants",
    }  # fmt: skip
    along = {"figure3_alpha_all_linear", "figure4_alpha_attention", "figure5_r_all_linear", "figure6_r_attention"}
    beside = {"figure7_variants", "figure8_variants"}  # of r = 4 and 8, and of 16
    every = always | {"lora_against_qlora"} | along | beside
    assert set(names()) == every
    assert set(names(grid__methods=["lora"])) == always | beside
    assert set(names(grid__methods=["lora"], grid__targets=["attention"])) == always - {"variants"}
    assert set(names(grid__targets=["attention"])) == every - {"figure3_alpha_all_linear", "figure5_r_all_linear"}
    assert set(names(grid__lines=FULL)) == every | {"r_alpha_map"}
    assert set(names(grid__lines={"r": {"r": [4, 8], "alpha_ratio": 2}})) == every - {
        "alpha_trend", "figure3_alpha_all_linear", "figure4_alpha_attention", "figure8_variants",
    }  # fmt: skip
    assert set(names(grid__lines={"alpha": {"r": 8, "alpha": [4, 8]}})) == every - {
        "r_trend", "figure5_r_all_linear", "figure6_r_attention", *beside,
    }  # fmt: skip
    tuned = {"tuned_r_trend", "tuned_alpha_trend"}
    assert set(names(grid__learning_rates=[1e-4])) == every | tuned


def test_a_study_of_its_own_repeats_no_figure_of_the_paper():
    grid_of_it = settings.load(synthetic.config()).grid
    assert [name for name in figures.names(grid_of_it, with_paper=False) if name.startswith("figure")] == []
    assert "variants" in figures.names(grid_of_it, with_paper=False)


def test_every_figure_says_what_it_shows():
    for name in figures.FIGURES:
        assert re.fullmatch(r"[A-Z].*\.", figures.describe(name))
        assert "\n" not in figures.describe(name)


@pytest.mark.parametrize(("name", "axis", "held"), [("r_trend", "r", "alpha"), ("alpha_trend", "alpha", "r")])
@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_trends_draw_the_summary(study, name, axis, held, targets):
    _, results = study()
    figure, _ = drawn(name, results)
    constant = {"alpha": 32, "r": 8}[held]
    column = ["attention", "all-linear"].index(targets)
    main = [axes for axes in figure.axes if axes.get_subplotspec().colspan.start == column and "lora" in labels(axes)]
    for axes, score in zip(main, ("accuracy", "f1"), strict=True):
        expected = []
        for method in ("lora", "qlora"):
            rows = of(results, method, targets, **{held: constant}).sort_values(axis)
            assert list(line(axes, method).get_ydata()) == pytest.approx(list(rows[score]))
            assert list(line(axes, method).get_xdata()) == pytest.approx([float(x) for x in rows[axis]], rel=0.04)
            expected += zip(rows[f"{score}_low"], rows[f"{score}_high"], strict=True)
        assert np.array(intervals(axes)) == pytest.approx(np.array(sorted(expected)))
    bottom = [axes for axes in figure.axes if axes.get_xlabel()]
    assert [text.get_text() for text in bottom[0].get_xticklabels()] == {
        "r": ["4", "8", "16"],
        "alpha": ["16", "32", "64"],
    }[axis]


def labels(axes):
    return [line.get_label() for line in axes.lines]


def test_baselines_are_lines_with_bands_where_they_lie(study):
    _, results = study()
    figure, caption = drawn("r_trend", results)
    for name, row in results.baselines.iterrows():
        shown = [
            axes for axes in figure.axes for found in axes.lines
            if found.get_label() == f"_{name}" and found.get_ydata()[0] == pytest.approx(row.accuracy)
            and axes.get_ylim()[0] < row.accuracy_low and axes.get_ylim()[1] > row.accuracy_high
        ]  # fmt: skip
        assert len(shown) == 2, name  # in view once a panel
        bands = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in shown[0].patches]
        assert (row.accuracy_low, row.accuracy_high) in [pytest.approx(band) for band in bands]
    assert "The axis is cut" in caption


def test_several_seeds_show_mean_interval_and_each_seed(study):
    _, results = study({"grid__seeds": [0, 1, 2]}, seed_spread=0.02)
    figure, caption = drawn("r_trend", results)
    axes = panel(figure, "Attention")
    cells = of(results, "lora", "attention", alpha=32)
    means = cells.groupby("r").accuracy.mean()
    assert list(line(axes, "lora").get_ydata()) == pytest.approx(list(means))
    single = [sorted(found.get_ydata()) for found in axes.lines if found.get_label() == "_seeds"]
    for _, group in cells.groupby("r"):
        assert pytest.approx(sorted(group.accuracy)) in single
    points = results.points[(results.points.targets == "attention") & (results.points.alpha == 32)]
    expected = sorted(zip(points.accuracy_low, points.accuracy_high, strict=True))
    assert np.array(intervals(axes)) == pytest.approx(np.array(expected))
    assert "3 seeds (0, 1, 2)" in caption
    assert "over both texts and seeds" in caption


def test_runs_at_chance_are_crosses_in_the_strip_and_no_bar(study):
    """Two of three seeds collapse at one point: a cross that says 2, a bar for the one that learned."""
    lost = [grid.Cell("lora", "attention", 16, 32, seed) for seed in (1, 2)]
    _, results = study(
        {"grid__seeds": [0, 1, 2]}, accuracy=lambda cell: 0.1 if cell in lost else accuracy(cell), seed_spread=0.01
    )
    figure, _ = drawn("r_trend", results)
    strip = figure.axes[-2]
    assert line(strip, "_collapsed").get_xdata()[0] == 16
    assert [text.get_text() for text in strip.texts] == ["2"]
    assert min(low for low, _ in intervals(panel(figure, "Attention"))) > 0.4


def test_thick_bars_touch_where_points_are_barely_apart(study):
    """Of the three pairs of a line each half-width is the sum of two thick ones: three equations, three unknowns."""
    _, results = study({"grid__seeds": [0, 1, 2]}, seed_spread=0.02)
    figure, caption = drawn("r_trend", results)
    rows = results.comparisons.query("family == 'r_pair' and metric == 'accuracy' and method == 'lora' and targets == 'attention'")  # fmt: skip
    halves = {(float(row.a_value), float(row.b_value)): (row.high - row.low) / 2 for row in rows.itertuples()}
    a, b, c = halves[8, 4], halves[16, 4], halves[16, 8]
    by_hand = [(a + b - c) / 2, (a + c - b) / 2, (b + c - a) / 2]
    centres = line(panel(figure, "Attention"), "lora").get_ydata()
    thick = [found.get_ydata() for found in panel(figure, "Attention").lines if found.get_label() == "_inner"]
    for centre, half in zip(centres, by_hand, strict=True):
        assert half > 0
        assert any(bar == pytest.approx([centre - half, centre + half], abs=1e-6) for bar in thick)
    assert "Thick bars are for comparison along a line" in caption


def test_the_average_is_a_diamond_as_wide_as_its_interval(study):
    _, results = study({"grid__seeds": [0, 1, 2]}, seed_spread=0.01)
    figure, _ = drawn("lora_against_qlora", results)
    row = results.comparisons.query("family == 'pooled_method' and metric == 'accuracy'").iloc[0]
    for axes in figure.axes:
        (diamond,) = [patch for patch in axes.patches if patch.get_label() == "average"]
        x = diamond.get_xy()[:, 0]
        assert (x.min(), x.max()) == pytest.approx((row.low, row.high))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][-1] == "average"


def test_what_is_far_wider_than_the_rest_goes_on_beyond_the_axis(study):
    _, results = study()
    rows = results.comparisons
    here = rows.family.eq("method") & rows.targets.eq("attention") & rows.alpha.eq(64)
    wide = rows.assign(low=rows.low.mask(here, -0.9), high=rows.high.mask(here, 0.95))
    figure, caption = drawn("lora_against_qlora", dataclasses.replace(results, comparisons=wide))
    axes = panel(figure, "Attention")
    low, high = axes.get_xlim()
    assert axes.get_xscale() == "linear" and low > -0.5 and high < 0.5
    arrows = {found.get_marker(): found.get_xdata()[0] for found in axes.lines if found.get_label() == "_beyond"}
    assert arrows == {"<": pytest.approx(low), ">": pytest.approx(high)}
    assert re.search(
        r"Arrows go on beyond the axis: Attention, r = 8, α = 64 \+0\.\d{3} \[−0\.900, \+0\.950\]\.", caption
    )
    assert "_beyond" not in labels(panel(figure, "All linear layers"))
    assert_tidy(figure, "lora_against_qlora")


def test_paired_differences_are_those_of_the_same_texts(study):
    _, results = study()
    figure, caption = drawn("lora_against_qlora", results)
    table = results.comparisons[(results.comparisons.family == "method") & (results.comparisons.metric == "accuracy")]
    for targets, title in (("attention", "Attention"), ("all-linear", "All linear layers")):
        axes = panel(figure, title)
        rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        points = [found for found in axes.lines if found.get_label() == "difference"]
        assert len(points) == 5 and rows.pop() == "average"
        for point in points:
            r, alpha = map(int, re.findall(r"\d+", rows[int(point.get_ydata()[0])]))
            lora, qlora = (
                of(results, method, targets, r=r, alpha=alpha).accuracy.item() for method in ("lora", "qlora")
            )
            assert point.get_xdata()[0] == pytest.approx(lora - qlora)
            row = table[(table.targets == targets) & (table.r == r) & (table.alpha == alpha)].iloc[0]
            assert (point.get_markerfacecolor() != "white") == (row.p_holm < 0.05)
            bars = [path for lines in axes.collections for path in lines.get_segments()]
            assert [[row.low, point.get_ydata()[0]], [row.high, point.get_ydata()[0]]] in [
                pytest.approx(bar) for bar in bars
            ]
    better = ((table.p_holm < 0.05) & (table.difference > 0)).sum()
    assert f"Of 10 pairs LoRA is better in {better} and QLoRA in 0" in caption


def test_an_average_of_few_pairs_of_one_seed_is_about_texts_alone(study):
    _, results = study({"grid__targets": ["attention"], "line__r": [8], "line__alpha": [16, 32]})
    _, caption = drawn("lora_against_qlora", results)
    assert re.search(r"Average over 2 pairs: [+−]0\.\d{3}, 95% interval [+−]0\.\d{3} to [+−]0\.\d{3}\.", caption)
    assert "over texts, for one seed alone" in caption
    assert "nan" not in caption


@pytest.mark.parametrize("width", [0.003, 0.1, 0.6])
@pytest.mark.parametrize("targets", [["attention"], ["attention", "all-linear"]])
def test_differences_of_any_size_have_ticks_with_room(study, targets, width):
    _, results = study({"grid__targets": targets, "line__r": [8], "line__alpha": [32]})
    wide = results.comparisons.assign(low=-1.17 * width, high=0.83 * width)
    figure, _ = drawn("lora_against_qlora", dataclasses.replace(results, comparisons=wide))
    assert_tidy(figure, "lora_against_qlora")


def test_costs_draw_the_summary(study):
    _, results = study()
    figure, _ = drawn("accuracy_against_parameters", results)
    rows = of(results, "qlora", "all-linear")
    points = line(figure.axes[0], "qlora all-linear")
    assert sorted(points.get_xdata()) == sorted(rows.trainable_parameters)
    assert sorted(points.get_ydata()) == pytest.approx(sorted(rows.accuracy))
    figure, caption = drawn("accuracy_against_cost", results)
    memory, time = figure.axes
    assert set(line(memory, "lora attention").get_xdata()) == {20.0}
    assert set(line(time, "lora attention").get_xdata()) == {10.0}
    assert time.get_xlabel() == "Time of training (min)"
    assert "Memory is the CUDA allocator. Measured on Synthetic GPU." in caption


def test_times_side_by_side_on_one_gpu_are_said_to_be_so(study):
    _, results = study()
    assert "at a time" not in drawn("accuracy_against_cost", results)[1]
    summary = results.summary.assign(gpu_processes=8.0)
    _, caption = drawn("accuracy_against_cost", dataclasses.replace(results, summary=summary))
    assert "A GPU had 8 processes at a time" in caption


def test_times_of_different_devices_are_said_not_to_compare(study):
    _, results = study()
    summary = results.summary.copy()
    summary.loc[0, "device"] = "Another GPU"
    _, caption = drawn("accuracy_against_cost", dataclasses.replace(results, summary=summary))
    assert "Measured on Another GPU and on Synthetic GPU; times of different devices do not compare." in caption


def test_pareto_front():
    """By hand: b costs as much as a and is worse, d costs more than c and is no better, f has no cost."""
    table = pd.DataFrame({"id": [*"abcdef"], "cost": [1, 1, 2, 3, 4, None], "accuracy": [0.5, 0.4, 0.6, 0.6, 0.7, 0.9]})
    assert list(costs.pareto(table, "cost").id) == ["a", "c", "e"]


def test_a_front_beyond_noise():
    """c is not shown to be ahead of a, so that e is held against a: by its interval, for the two are not compared."""
    table = pd.DataFrame({"point": [*"ace"], "accuracy_low": [0.45, 0.5, 0.6], "accuracy_high": [0.55, 0.7, 0.8]})
    pair = {"view": "configured", "metric": "accuracy", "a": "c", "b": "a", "difference": 0.1}
    rows = pd.DataFrame([pair | {"family": "method", "p_holm": 0.01}, pair | {"family": "set_pair", "p_holm": 0.2}])

    def kept(rows, front=table):
        return list(costs.beyond_noise(front, costs.shown_ahead(SimpleNamespace(comparisons=rows))).point)

    assert kept(rows) == ["a", "e"]
    assert kept(rows.assign(p_holm=0.01)) == ["a", "c"]  # e overlaps c
    assert kept(rows, table.assign(accuracy_low=[0.45, 0.5, 0.54])) == ["a"]
    assert kept(rows.assign(p_holm=0.01, difference=-0.1)) == ["a", "e"]


@pytest.mark.parametrize(("longest", "unit", "value"), [(200, "s", 200), (3600, "min", 60), (36000, "h", 10)])
def test_times_are_in_a_unit_that_suits(longest, unit, value):
    values, name = costs.in_unit(pd.Series([1.0, longest]))
    assert (name, values.iloc[1]) == (unit, value)


def test_scale_draws_all_cells_at_their_scale(study):
    _, results = study()
    figure, _ = drawn("scale", results)
    for axes, power in zip(figure.axes[:2], (1, 0.5)):
        expected = of(results, "lora", "attention")
        pairs = {
            (round(2 * np.log2(x)), round(y, 6)) for found in axes.lines if found.get_label() == "lora"
            for x, y in zip(found.get_xdata(), found.get_ydata())
        }  # fmt: skip
        scale = expected.alpha / expected.r.astype(float) ** power
        assert pairs == {(round(2 * np.log2(x)), round(y, 6)) for x, y in zip(scale, expected.accuracy)}
    assert [text.get_text() for text in figure.axes[2].get_xticklabels()] == ["2", "4", "8"]


def test_map_of_the_full_grid(study):
    _, results = study({"grid__lines": FULL}, diverged=["lora_attention_r4_a64_s0"])
    figure, caption = drawn("r_alpha_map", results)
    axes = panel(figure, "LoRA, attention")
    values = axes.collections[0].get_array().reshape(3, 3)
    table = of(results, "lora", "attention").pivot(index="r", columns="alpha", values="accuracy").to_numpy()
    assert np.ma.filled(values, np.nan) == pytest.approx(table, nan_ok=True)
    assert np.isnan(table[0, 2])
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[2.5, 0.5] == "D"
    assert texts[0.5, 1.5] == f"{table[1, 0]:.3f}"[1:]
    assert "lora_attention_r4_a64_s0" in caption


def test_confusion_shows_baselines_and_the_best_on_validation(study):
    def validation(cell):
        return 0.9 if (cell.r, cell.alpha) == (8, 64) else 0.3

    _, results = study(validation=validation)
    figure, caption = drawn("confusion", results)
    titles = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}
    assert len(titles) == 6
    cell = of(results, "qlora", "attention", r=8, alpha=64).iloc[0]
    axes = titles[f"QLoRA, attention\nr = 8, α = 64\naccuracy {cell.accuracy:.3f}"]
    counts = np.array(results.confusion[cell.id])
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(counts / counts.sum(axis=1, keepdims=True))
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first class above
    head = titles[f"Base model\nuntrained head\naccuracy {results.baselines.accuracy['head']:.3f}"]
    assert (
        head.texts[0].get_text() == f"{100 * results.confusion['head'][0][0] / sum(results.confusion['head'][0]):.0f}"
    )
    assert "chosen by accuracy on the validation texts" in caption


def test_without_validation_the_best_is_said_to_be_flattered(study):
    _, results = study({"data__validation_size": 0})
    _, caption = drawn("confusion", results)
    assert "chosen by accuracy on these test texts, which flatters it a little" in caption


def test_loss_curves_are_the_logs(study):
    _, results = study(diverged=["lora_attention_r4_a32_s0"])
    curves = results.curves.copy()
    curves["loss"] += curves.id.map({name: 0.01 * index for index, name in enumerate(curves.id.unique())})
    figure, caption = drawn("loss_curves", dataclasses.replace(results, curves=curves))
    axes = panel(figure, "LoRA, attention")
    for r in (4, 8, 16):
        log = curves[curves.id == f"lora_attention_r{r}_a32_s0"]
        assert list(line(axes, f"r = {r}").get_ydata()) == pytest.approx(list(log.loss))
        assert list(line(axes, f"r = {r}").get_xdata()) == list(log.step)
    assert line(axes, "_diverged").get_xdata()[0] == 10
    assert "A cross ends a run that diverged" in caption


def test_tuned_trend_chooses_on_validation_alone(study):
    """On the test texts 1e-3 is best everywhere; on validation 1e-2 at r = 16 and 1e-4 elsewhere."""

    def validation(cell):
        rate = cell.learning_rate or 1e-3
        return 0.5 + 0.1 * (rate == (1e-2 if cell.r == 16 else 1e-4))

    _, results = study(
        {"grid__learning_rates": [1e-4, 1e-2]},
        accuracy=lambda cell: 0.6 if cell.learning_rate is None else 0.5,
        validation=validation,
    )
    figure, caption = drawn("tuned_r_trend", results)
    axes = panel(figure, "Attention")
    cells = of(results, "lora", "attention", alpha=32).sort_values("r")
    fixed = cells[cells.learning_rate == 1e-3]
    assert list(line(axes, "lora pale").get_ydata()) == pytest.approx(list(fixed.accuracy))
    chosen = [
        cells[(cells.r == r) & (cells.learning_rate == rate)].iloc[0] for r, rate in ((4, 1e-4), (8, 1e-4), (16, 1e-2))
    ]
    assert list(line(axes, "lora").get_ydata()) == pytest.approx([cell.accuracy for cell in chosen])
    (rates,) = [axes for axes in figure.axes if axes.get_ylabel() == "Learning rate chosen"]
    assert list(line(rates, "lora rate").get_ydata()) == [1e-4, 1e-4, 1e-2]
    assert "0.0001, 0.001, 0.01" in caption


# which of the holes lie on what a figure draws; all where it is not named
ON = {
    "r_trend": {"diverged", "missing"},
    "alpha_trend": {"missing", "stale"},
    "figure3_alpha_all_linear": {"missing"},
    "figure4_alpha_attention": {"stale"},
    "figure5_r_all_linear": {"missing"},
    "figure6_r_attention": {"diverged"},
    "figure7_variants": {"diverged", "missing"},
    "figure8_variants": set(),
}


@pytest.mark.parametrize("name", figures.names(settings.load(synthetic.config()).grid))
def test_no_hole_is_silent(study, name):
    """Every figure names each cell that it would draw and cannot, with the reason."""
    _, results = study(**HOLES)
    _, caption = drawn(name, results)
    reasons = {
        "diverged": "at step 4, learning rate 0.001",
        "missing": "not run yet",
        "stale": "made with another training.batch_size",
    }
    for status, (cell,) in HOLES.items():
        on = status in ON.get(name, HOLES)
        assert (cell in caption) == on
        assert (reasons[status] in caption) == on


def test_an_interval_far_wider_than_the_others_ends_at_the_edge():
    """Values 0.50 to 0.60, intervals 0.10 wide but for one: the axis reaches 0.10 beyond the values at the most."""
    frame = pd.DataFrame({"x": [0.5, 0.55, 0.6], "x_low": [0.45, 0.0, 0.55], "x_high": [0.55, 1.0, 0.65]})
    assert style.reach(frame, "x") == pytest.approx((0.4, 0.7))
    assert style.reach(frame.drop(index=1), "x") == pytest.approx((0.45, 0.65))
    assert style.reach(frame.drop(index=1), "x", [0.3]) == pytest.approx((0.3, 0.65))
    assert style.reach(frame.iloc[:0], "x") is None
    points = frame.rename(columns=lambda name: name.replace("x", "accuracy"))
    points = points.assign(method="lora", targets="attention", scaling=grid.STANDARD, r=[4, 8, 16], alpha=32)
    assert captions.cut(points, {"accuracy": (0.4, 0.7)}) == (
        "Bars that end at the edge of a panel go beyond it: Accuracy of LoRA, attention, r = 8, α = 32 [0.000, 1.000]."
    )
    assert captions.cut(points.drop(index=1), {"accuracy": (0.4, 0.7)}) == ""


@pytest.mark.parametrize("name", ["r_trend", "scale", "accuracy_against_cost"])
def test_one_seed_that_collapses_does_not_flatten_a_figure(study, name):
    """Of three seeds, one at chance: the point is that of the two runs that learned, and the third is named."""
    collapsed = grid.Cell("lora", "attention", 16, 32, 1)
    _, results = study(
        {"grid__seeds": [0, 1, 2]}, accuracy=lambda cell: 0.1 if cell == collapsed else accuracy(cell), seed_spread=0.01
    )
    point = results.points[results.points.point == "lora_attention_r16_a32"].iloc[0]
    assert (point.seeds, point.collapsed) == (2, 1)
    assert 0.4 < point.accuracy_low < point.accuracy_high < 0.7
    figure, caption = drawn(name, results)
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "Accuracy")
    assert axes.get_ylim()[1] < 1
    assert "At chance (accuracy 0.103, that of the most frequent class is 0.200): lora_attention_r16_a32_s1." in caption


@pytest.mark.parametrize("targets", [["attention"], ["attention", "all-linear"]])
def test_one_seed_that_collapses_leaves_the_other_differences_legible(study, targets):
    collapsed = grid.Cell("lora", "attention", 16, 32, 1)
    _, results = study(
        {"grid__seeds": [0, 1, 2], "grid__targets": targets},
        accuracy=lambda cell: 0.1 if cell == collapsed else accuracy(cell),
        seed_spread=0.01,
    )
    table = results.comparisons[results.comparisons.family.eq("method") & results.comparisons.metric.eq("accuracy")]
    figure, caption = drawn("lora_against_qlora", results)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert low < table.low.min() and table.high.max() < high
    assert axes.get_xscale() == "linear" and high - low < 0.5
    assert "lora_attention_r16_a32_s1" in caption
    assert_tidy(figure, "lora_against_qlora")


def test_differences_of_one_size_have_a_linear_axis(study):
    figure, caption = drawn("lora_against_qlora", study()[1])
    assert figure.axes[0].get_xscale() == "linear"
    assert "logarithmic" not in caption


def test_holes_are_marked_where_they_would_be(study):
    _, results = study(**HOLES)
    figure, _ = drawn("r_trend", results)
    left, right = panel(figure, "Attention"), panel(figure, "All linear layers")
    strips = figure.axes[-2:]  # of their own, below all scores
    assert line(strips[0], "_diverged").get_xdata()[0] == 4
    assert line(strips[1], "_missing").get_xdata()[0] == 8
    assert not {"_diverged", "_missing"} & {label for axes in figure.axes[:-2] for label in labels(axes)}
    assert list(strips[0].get_yticks()) == []
    assert np.isnan(line(left, "lora").get_ydata()[0])
    broken = line(right, "qlora").get_ydata()
    assert np.isnan(broken).tolist() == [False, True, False]  # no line across the hole
    (legend,) = figure.legends
    assert {"diverged (1)", "missing (1)"} <= {text.get_text() for text in legend.get_texts()}
    figure, _ = drawn("lora_against_qlora", results)
    assert [text.get_text() for text in panel(figure, "Attention").texts] == ["LoRA diverged", "QLoRA out of date"]


def test_a_baseline_that_is_not_possible_is_left_out_and_named(study):
    """As prompting of a model without a language-model head."""
    loaded, results = study(baselines=(("head", 0.2), ("prompt", None)))
    for name in figures.names(loaded.grid):
        _, caption = drawn(name, results)
        if name in {"r_trend", "alpha_trend", "confusion"}:
            assert "Not possible (no head): Base model (prompted)" in caption


def test_many_holes_are_counted(study):
    every = [
        f"lora_{targets}_r{r}_a32_s{seed}"
        for targets in ("attention", "all-linear")
        for r in (4, 8)
        for seed in range(3)
    ]
    _, results = study({"grid__seeds": [0, 1, 2]}, missing=every)
    _, caption = drawn("r_trend", results)
    assert "Without a point, 12 of 38 runs." in caption
    assert "and 2 more (see results/summary.csv)" in caption


ODD = {
    "one r": {"line__r": [8]},
    "one point": {"line__r": [8], "line__alpha": [32]},
    "one method": {"grid__methods": ["qlora"]},
    "one target set": {
        "grid__targets": ["all-linear"],
        "line__r": [2**i for i in range(3, 10)],
        "data__test_size": 100,
    },
    "one of all": {"grid__methods": ["lora"], "grid__targets": ["attention"], "line__r": [8], "line__alpha": [32]},
    "fractions": {"line__alpha": [0.5, 3, 1000], "line__r": [1, 7, 4096]},
    "every r with every alpha": {"grid__lines": FULL},
    "alpha follows r": {"grid__lines": {"r": {"r": [1, 2, 4, 8], "alpha_ratio": 2}}},
    "one alpha line": {"grid__lines": {"alpha": {"r": 8, "alpha": [8, 16]}}},
    "two lines of r": {"grid__lines": {"one": {"r": [4, 8], "alpha": 8}, "other": {"r": [4, 8], "alpha_ratio": 4}}},
    "two scalings": {"grid__scaling": ["standard", "rank-stabilised"]},
    "rates": {"grid__learning_rates": [1e-4], "line__r": [8, 16]},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_studies_are_drawn_within_their_bounds(study, odd):
    loaded, results = study(ODD[odd])
    for name in figures.names(loaded.grid):
        figure, _ = drawn(name, results)
        assert_tidy(figure, name)


@pytest.mark.parametrize(
    ("status", "kept"), [("diverged", ()), ("missing", ()), ("missing", ("lora_attention_r8_a32_s0",))]
)
def test_a_study_without_results_is_drawn(study, status, kept):
    changes = {"grid__learning_rates": [1e-4], "grid__lines": synthetic.full([4, 8], [32])}
    cells = grid.cells(settings.load(synthetic.config(**changes)).grid)
    loaded, results = study(changes, baselines=(), **{status: [cell for cell in cells if cell not in kept]})
    for name in figures.names(loaded.grid):
        figure, caption = drawn(name, results)
        assert "Without a point" in caption
        assert "nan" not in caption
        assert_tidy(figure, name)


def assert_tidy(figure, name):
    """No text is cut off at the figure's edge, no two touch, the width is a column's or two, the height a page's."""
    assert figure.get_figwidth() in (style.ONE_COLUMN, style.TWO_COLUMNS), name
    assert figure.get_figheight() <= 9.2, name
    boxes = []

    def record(text, renderer):
        if text.get_visible() and text.get_text():
            boxes.append((text.get_window_extent(renderer), text))

    with style.alone(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.text.Text, "draw", record)
        patch.setattr(matplotlib.text.Annotation, "draw", record)
        figure.set_layout_engine("none")
        figure.draw_without_rendering()
    assert boxes
    for box, text in boxes:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
        assert inside, f"{name}: {text.get_text()!r} is cut off"
    level = [(box.shrunk(0.95, 0.95), text) for box, text in boxes if text.get_rotation() in (0, 90)]
    for (one, text), (other, again) in itertools.combinations(level, 2):
        assert not one.overlaps(other), f"{name}: {text.get_text()!r} and {again.get_text()!r} overlap"


def test_the_papers_grid_is_drawn_within_its_bounds(study):
    papers = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))["grid"] | {"seeds": [0, 1, 2]}
    loaded, results = study({f"grid__{name}": value for name, value in papers.items()}, seed_spread=0.01)
    for name in figures.names(loaded.grid):
        figure, caption = drawn(name, results)
        assert_tidy(figure, name)
        assert "n = 300 test texts" in caption
    assert sum(name.startswith("figure") for name in figures.names(loaded.grid)) == 9


def ticks(results):
    """Labels of the classes in the figure of confusions, and its caption."""
    figure, caption = drawn("confusion", results)
    assert_tidy(figure, "confusion")
    return [text.get_text() for text in figure.axes[0].get_yticklabels()], caption


def test_class_names_are_those_of_the_data_card(study):
    """Neither `labels` nor `class_names` in the configuration: the card has named the classes by their labels."""
    loaded, results = study({"data__labels": None, "data__class_names": None})
    assert ticks(dataclasses.replace(results, classes=("1", "2", "3", "4", "5")))[0] == ["1", "2", "3", "4", "5"]


def test_class_names_go_from_the_card_into_the_figure(tmp_path):
    synthetic.write(tmp_path, synthetic.config(data__class_names=None, data__labels=None), accuracy)
    names = ["awful", "bad", "so-so", "good", "great"]
    (tmp_path / "results" / "data").mkdir()
    (tmp_path / "results" / "data" / "card.json").write_text(json.dumps({"class_names": names}), encoding="utf-8")
    assert ticks(synthetic.gather(tmp_path))[0] == names


@pytest.mark.parametrize(
    "names",
    [
        ["under $10", "$10 to $50", "a_b^$c{$", r"\frac{1}", "100%"],
        [r"$\alpha$", "_", "^", "$", r"\$5"],
        ["Größe", "добро", "αβγ", "عربي", "Việt"],
    ],
)
def test_class_names_are_set_letter_by_letter(study, names):
    _, results = study()
    labels, caption = ticks(dataclasses.replace(results, classes=tuple(names)))
    assert labels == names
    assert "abbreviates" not in caption


def test_class_names_that_the_font_lacks_are_numbered_and_explained(study):
    """DejaVu Sans has neither Chinese nor Devanagari, and no such emoji."""
    _, results = study()
    names = ("很好", "bad", "अच्छा", "🫠", "good")
    labels, caption = ticks(dataclasses.replace(results, classes=names))
    assert labels == ["class 1", "bad", "class 3", "class 4", "good"]
    assert "Names that the figure abbreviates: class 1 is “很好”, class 3 is “अच्छा”, class 4 is “🫠”." in caption


def test_long_class_names_are_cut_where_they_stay_apart(study):
    _, results = study()
    names = ("a rather long name", "customer service good", "customer service bad", "two\nlines", "")
    labels, caption = ticks(dataclasses.replace(results, classes=names))
    assert labels == ["a rather lo…", "class 2", "class 3", "two lines", "(empty)"]
    assert "a rather lo… is “a rather long name”, class 2 is “customer service good”" in caption


def test_of_many_classes_every_so_many_are_named(study):
    """150 classes: every tenth, for 16 names have room at an axis."""
    _, results = study()
    counts = dict.fromkeys(results.confusion, (2 * np.eye(150, dtype=int)).tolist())
    many = dataclasses.replace(results, confusion=counts, classes=tuple(f"c{number}" for number in range(150)))
    assert ticks(many)[0] == [f"c{number}" for number in range(0, 150, 10)]


def test_captions_say_what_one_seed_leaves_open(study):
    _, results = study()
    _, caption = drawn("alpha_trend", results)
    assert "Synthetic study; n = 300 test texts, the same for all; 1 seed (0)." in caption
    assert (
        "95% intervals over the test texts (of accuracy Wilson's, else percentile bootstrap, 200 resamples)" in caption
    )
    assert "how much runs with other seeds would differ is not in them" in caption
    assert "at r = 8, learning rate 0.001" in caption
    assert "Without a point" not in caption


def test_methods_and_target_sets_differ_without_colour():
    one, other = (style.mark(LOOK, method, "attention") for method in ("lora", "qlora"))
    assert one["markerfacecolor"] != "white" == other["markerfacecolor"]
    assert style.LINES["lora"] != style.LINES["qlora"]
    assert len(set(style.MARKERS.values())) == len(style.MARKERS)


def test_colours_are_those_of_the_configuration(study):
    _, results = study()
    with style.alone():
        figure, _ = figures.FIGURES["r_trend"](results, dataclasses.replace(LOOK, lora_colour="#123456"))
    assert line(panel(figure, "Attention"), "lora").get_color() == "#123456"


DRAW = """
import json, sys
from pathlib import Path
import synthetic
from lorastudy.presentation import figures
study, out = map(Path, sys.argv[1:])
results = synthetic.gather(study)
out.mkdir()
for name in ("r_trend", "lora_against_qlora", "r_alpha_map", "confusion", "loss_curves", "variants", "figure7_variants"):
    files = {key: out / f"{name}.{suffix}" for key, suffix in figures.FILES.items()}
    look = {"lora_colour": "#0072B2", "qlora_colour": "#D55E00", "baseline_colour": "#595959", "dpi": 100}
    figures.draw(name, results, look, files)
print(json.dumps([name for name in ("torch", "transformers", "matplotlib.pyplot") if name in sys.modules]))
"""


def test_the_same_bytes_again_without_torch_and_with_embedded_fonts(tmp_path):
    """In two processes, with other hashes and another date."""
    small = synthetic.config(grid__lines=synthetic.full([4, 8], [16, 32]))
    synthetic.write(tmp_path / "study", small, accuracy, missing=HOLES["missing"])
    tests = os.pathsep.join([str(REPOSITORY / "tests"), os.environ["PYTHONPATH"]])
    for seed, date in (("1", "0"), ("2", "1000000000")):
        done = subprocess.run(
            [sys.executable, "-c", DRAW, tmp_path / "study", tmp_path / seed],
            env={"PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": date, "PATH": "/usr/bin:/bin", "PYTHONPATH": tests},
            capture_output=True, encoding="utf-8", check=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == []
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert len(files) == 21
    for name in files:
        first, again = ((tmp_path / seed / name).read_bytes() for seed in ("1", "2"))
        assert first == again, name
    for path in Path(tmp_path / "1").glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content


@pytest.mark.parametrize("spoilt", ["environment", "study", "home"])
def test_settings_of_matplotlib_that_are_the_users_change_no_figure(tmp_path, spoilt):
    """MPLBACKEND as in a notebook, a matplotlibrc beside the study or in the home directory."""
    synthetic.write(tmp_path / "study", synthetic.config(grid__lines=synthetic.full([4, 8], [16, 32])), accuracy)
    tests = os.pathsep.join([str(REPOSITORY / "tests"), os.environ["PYTHONPATH"]])
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": tests, "HOME": str(tmp_path / "home")}
    lines = "backend: nowhere\nfigure.facecolor: black\nsavefig.bbox: tight\nfont.size: 30\n# caf\u00e9\n".encode(
        "latin-1"
    )
    for place in ("beside", "home/.config/matplotlib"):
        (tmp_path / place).mkdir(parents=True)
    own = {
        "environment": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        "study": {"MPLBACKEND": "inline"},
        "home": {"MATPLOTLIBRC": str(tmp_path / "beside")},
    }[spoilt]
    if spoilt != "environment":
        for place in ("beside", "home/.config/matplotlib"):
            (tmp_path / place / "matplotlibrc").write_bytes(lines)
    code = DRAW.replace(
        '("r_trend", "lora_against_qlora", "r_alpha_map", "confusion", "loss_curves")', '("confusion",)'
    )
    runs = {"clean": ({"MPLCONFIGDIR": str(tmp_path / "empty")}, "study"), "own": (own, "beside")}
    for name, (extra, where) in runs.items():
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "study", tmp_path / name],
            env=clean | extra, cwd=tmp_path / where, check=True, capture_output=True,
        )  # fmt: skip
    for path in (tmp_path / "clean").iterdir():
        assert path.read_bytes() == (tmp_path / "own" / path.name).read_bytes(), path.name


def test_every_figure_and_table_is_in_the_report_with_caption_and_labels(copy_study, snakemake):
    snakemake("-d", copy_study, "--report", copy_study / "snakemake_report.html", "figures/", "paper_tables/")
    page = (copy_study / "snakemake_report.html").read_text(encoding="utf-8")
    found, _ = json.JSONDecoder().raw_decode(page[page.index('var results = {"') + len("var results = ") :])
    made = [path for place in ("figures", "paper_tables") for path in (copy_study / place).iterdir() if path.is_file()]
    assert {f"{path.parent.name}/{path.name}" for path in made} == set(found)
    for path, entry in found.items():
        name, suffix = Path(path).stem, Path(path).suffix[1:]
        kind = {"figures": "figure", "paper_tables": "table"}[Path(path).parent.name]
        assert entry["labels"] == {kind: name, "format": suffix}
        assert (figures.describe(name) if kind == "figure" else name) in entry["caption"]


def test_a_study_of_which_nothing_counts_any_more_is_drawn(study):
    """As after a change of a setting, when figures are asked for before anything has run again."""
    loaded = settings.load(synthetic.config())
    cells = list(grid.cells(loaded.grid))
    for status in ("stale", "missing"):
        _, results = study(**{status: cells})
        assert set(results.cells.status) == {status}
        for name in figures.names(loaded.grid, True):
            drawn(name, results)
