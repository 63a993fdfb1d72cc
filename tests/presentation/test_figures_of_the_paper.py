"""The paper's figures again: held to the summary by reading the numbers back from the artists, and to the paper's points."""

import matplotlib
import numpy as np
import pytest
import synthetic
import yaml
from lorastudy.presentation import figures
from lorastudy.presentation.figures import of_the_paper, style
from lorastudy.study import grid, paper, settings
from lorastudy.study.settings import REPOSITORY

LOOK = settings.Figures("#0072B2", "#D55E00", "#595959", 72)
LLAMA = {"source": "hub", "name": paper.MODEL, "revision": "0" * 40, "dtype": "bfloat16"}


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """Results of a study on the paper's grid, with its model."""
    directory = tmp_path_factory.mktemp("papers")
    of_grid = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))["grid"]
    changes = {f"grid__{name}": value for name, value in of_grid.items()}
    study = synthetic.config(**changes, **{f"model__{name}": value for name, value in LLAMA.items()})
    loaded = synthetic.write(
        directory, study, lambda cell: 0.6 + 0.01 * np.log2(cell.r) - 0.02 * (cell.method == "qlora"),
        missing=["lora_attention_r8_a64_s0"],
    )  # fmt: skip
    return synthetic.gather(directory, loaded)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Results of a study with other values and another model."""
    directory = tmp_path_factory.mktemp("other")
    lines = {"r": {"r": [4, 8, 16], "alpha": 32}, "again": {"r": [4, 8], "alpha_ratio": 1}}
    loaded = synthetic.write(directory, synthetic.config(grid__lines=lines))
    return synthetic.gather(directory, loaded)


def drawn(name, results):
    with matplotlib.rc_context(style.RC):
        figure, caption = figures.FIGURES[name](results, LOOK)
        figure.draw_without_rendering()
    return figure, caption


def titled(figure, title):
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return found


def series(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


ALONG = {
    "figure3_alpha_all_linear": ("alpha", "all-linear", [(8, 8), (8, 16), (8, 32), (8, 64)]),
    "figure4_alpha_attention": ("alpha", "attention", [(8, 8), (8, 16), (8, 32), (8, 64)]),
    "figure5_r_all_linear": ("r", "all-linear", [(2**i, 2 * 2**i) for i in range(10)]),
    "figure6_r_attention": ("r", "attention", [(2**i, 2 * 2**i) for i in range(10)]),
}


@pytest.mark.parametrize("name", ALONG)
def test_scores_along_a_line_are_those_of_the_cells(papers, name):
    axis, targets, points = ALONG[name]
    figure, caption = drawn(name, papers)
    cells = papers.cells.set_index("id")
    for score, title in style.SCORES.items():
        axes = titled(figure, title)
        for method in ("lora", "qlora"):
            expected = [cells[score][f"{method}_{targets}_r{r}_a{alpha}_s0"] for r, alpha in points]
            x, y = series(axes, method)
            assert y == pytest.approx(expected, nan_ok=True)
            assert x == pytest.approx([{"r": r, "alpha": alpha}[axis] for r, alpha in points], rel=0.11)
    number = name.removeprefix("figure").split("_")[0]
    assert caption.startswith(f"Repeats the paper's Figure {number}: ")
    assert ("lora_attention_r8_a64_s0" in caption) == (name == "figure4_alpha_attention")


@pytest.mark.parametrize(("index", "ranks"), enumerate([(1, 2), (4, 8), (16, 32), (64, 128), (256, 512)]))
def test_variants_stand_side_by_side(papers, index, ranks):
    name = f"figure{7 + index}_variants"
    figure, caption = drawn(name, papers)
    cells = papers.cells.set_index("id")
    for r in ranks:
        axes = titled(figure, f"r = {r}, α = {2 * r}")
        for method in ("lora", "qlora"):
            for targets in ("attention", "all-linear"):
                _, y = series(axes, f"{method} {targets}")
                cell = cells.loc[f"{method}_{targets}_r{r}_a{2 * r}_s0"]
                assert y == pytest.approx([cell[score] for score in ("accuracy", "f1", "precision", "recall")])
    assert caption.startswith(
        f"Repeats the paper's Figure {7 + index}: the variants side by side at r = {ranks[0]} and"
    )


def test_the_papers_accuracies_are_drawn_beside_those_of_its_model(papers, other):
    """0.67 along r, for attention up to 256; at r = 8, alpha = 32 on all linear layers 0.68. Of another model none."""
    figure, caption = drawn("figure3_alpha_all_linear", papers)
    assert series(titled(figure, "Accuracy"), "_paper") == ([16, 32], [0.67, 0.68])
    assert "_paper" not in [line.get_label() for line in titled(figure, "F1, weighted").lines]
    assert "Diamonds" in caption
    figure, _ = drawn("figure6_r_attention", papers)
    assert series(titled(figure, "Accuracy"), "_paper") == ([2**i for i in range(9)], [0.67] * 9)
    figure, caption = drawn("figure5_r_all_linear", other)
    assert "_paper" not in [line.get_label() for axes in figure.axes for line in axes.lines]
    assert "Diamonds" not in caption


def test_a_study_with_other_values_has_figures_of_its_own(other):
    _, caption = drawn("figure6_r_attention", other)
    assert caption.startswith(
        "As the paper's Figure 6: accuracy and weighted F1, precision and recall against r at α = 32"
    )
    assert "The paper's: r = 1, 2, 4, 8, 16, 32, 64, 128, 256, 512 at α = 2 r." in caption
    figure, caption = drawn("figure8_variants", other)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["r = 16, α = 32"]
    assert caption.startswith("As the paper's Figure 8: the variants side by side at r = 16 (α = 32)")
    assert "The paper's: r = 4 and 8, r = 1, 2, 4" in caption


def test_all_variants_on_every_line(other):
    """Two lines of r, four variants: eight panels, each with its own in front and the three others behind it."""
    figure, _ = drawn("variants", other)
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 8
    cells = other.cells.set_index("id")
    first, second = (axes for axes in figure.axes if axes.get_title(loc="left") == "QLoRA, attention")
    assert series(first, "qlora") == (
        [4, 8, 16], pytest.approx([cells.accuracy[f"qlora_attention_r{r}_a32_s0"] for r in (4, 8, 16)]),
    )  # fmt: skip
    assert series(second, "qlora") == (
        [4, 8], pytest.approx([cells.accuracy[f"qlora_attention_r{r}_a{r}_s0"] for r in (4, 8)]),
    )  # fmt: skip
    assert [line.get_label() for line in first.lines].count("_behind") == 3
    _, caption = drawn("r_trend", other)
    assert "Not drawn here: the lines again; the figure of all variants has them." in caption


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([8], [(8,)]),
        ([16, 4, 8], [(4, 8), (16,)]),
        ([2**i for i in range(10)], [(1, 2), (4, 8), (16, 32), (64, 128), (256, 512)]),
        (list(range(1, 13)), [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)]),
    ],
)
def test_values_of_r_that_stand_in_one_figure(ranks, expected):
    line = grid.Line("r", "r", tuple((r, 2 * r) for r in ranks))
    assert of_the_paper.groups(line) == expected
    assert of_the_paper.groups(None) == []
