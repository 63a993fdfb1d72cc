"""The study's figures: which there are, and how one is drawn."""

from lorastudy.presentation.figures import costs, diagnostics, maps, of_the_paper, pairs, style, trends
from lorastudy.study import grid as cells_of
from lorastudy.study import records, settings

FORMATS = ("pdf", "png")
FILES = dict(zip(FORMATS, FORMATS)) | {"caption": "txt"}  # name of an output → its suffix

# name of the figure's files → what draws it, from ``summary.Results`` and ``settings.Figures``: figure and caption
FIGURES = {
    "r_trend": trends.r_trend,
    "alpha_trend": trends.alpha_trend,
    "tuned_r_trend": trends.tuned_r_trend,
    "tuned_alpha_trend": trends.tuned_alpha_trend,
    "scale": maps.scale,
    "r_alpha_map": maps.r_alpha_map,
    "lora_against_qlora": pairs.lora_against_qlora,
    "accuracy_against_parameters": costs.accuracy_against_parameters,
    "accuracy_against_cost": costs.accuracy_against_cost,
    "confusion": diagnostics.confusion,
    "loss_curves": diagnostics.loss_curves,
    "variants": of_the_paper.variants,
    "figure3_alpha_all_linear": of_the_paper.along(3, "alpha", "all-linear"),
    "figure4_alpha_attention": of_the_paper.along(4, "alpha", "attention"),
    "figure5_r_all_linear": of_the_paper.along(5, "r", "all-linear"),
    "figure6_r_attention": of_the_paper.along(6, "r", "attention"),
    **{
        f"figure{of_the_paper.FIRST + index}_variants": of_the_paper.side_by_side(index)
        for index in range(of_the_paper.SIDE_BY_SIDE)
    },
}
# what some need of the ``settings.Grid``
NEEDS = {
    "r_trend": lambda grid: _varies(grid, "r"),
    "alpha_trend": lambda grid: _varies(grid, "alpha"),
    "r_alpha_map": lambda grid: _varies(grid, "both"),
    "tuned_r_trend": lambda grid: bool(grid.learning_rates) and _varies(grid, "r"),
    "tuned_alpha_trend": lambda grid: bool(grid.learning_rates) and _varies(grid, "alpha"),
    "lora_against_qlora": lambda grid: len(grid.methods) > 1,
    "variants": lambda grid: len(grid.methods) * len(grid.targets) > 1,
    "figure3_alpha_all_linear": lambda grid: of_the_paper.has_line(grid, "alpha", "all-linear"),
    "figure4_alpha_attention": lambda grid: of_the_paper.has_line(grid, "alpha", "attention"),
    "figure5_r_all_linear": lambda grid: of_the_paper.has_line(grid, "r", "all-linear"),
    "figure6_r_attention": lambda grid: of_the_paper.has_line(grid, "r", "attention"),
    **{
        f"figure{of_the_paper.FIRST + index}_variants": lambda grid, index=index: of_the_paper.has_group(grid, index)
        for index in range(of_the_paper.SIDE_BY_SIDE)
    },
}
OF_PAPER = tuple(name for name in FIGURES if name.startswith("figure"))  # that repeat one of the paper's


def _varies(grid, what):
    """Whether a line of the grid runs along ``r`` or ``alpha``, or has ``both`` vary."""
    lines = cells_of.lines(grid)
    return any(line.varies == what or (what != "both" and line.along(what)) for line in lines)


def names(grid, with_paper=True):
    """Figures of a study with this ``settings.Grid``, by whether it is about the paper."""
    left_out = () if with_paper else OF_PAPER
    return [name for name in FIGURES if name not in left_out and (name not in NEEDS or NEEDS[name](grid))]


def describe(name):
    """One line that says what a figure shows in any study."""
    return FIGURES[name].__doc__.strip()


def draw(name, results, look, outputs):
    """Draw one figure.

    Args:
        name: key of ``FIGURES``.
        results: ``summary.Results``.
        look: the configuration's block ``figures`` as a dictionary.
        outputs: path by format, and of the ``caption``.
    """
    look = settings.Figures(**look)
    with style.alone():
        figure, caption = FIGURES[name](results, look)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, so that all formats are alike
        for suffix in FORMATS:
            with records.replacing(outputs[suffix]) as temporary:
                style.save(figure, temporary, suffix, look.dpi)
    with records.replacing(outputs["caption"]) as temporary:
        temporary.write_text(caption + "\n", encoding="utf-8")
