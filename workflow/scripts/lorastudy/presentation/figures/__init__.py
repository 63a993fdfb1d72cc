"""The study's figures: which there are, and how one is drawn."""

from lorastudy.presentation.figures import costs, diagnostics, maps, pairs, style, trends
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
}
# what some need of the ``settings.Grid``
NEEDS = {
    "r_trend": lambda grid: _varies(grid, "r"),
    "alpha_trend": lambda grid: _varies(grid, "alpha"),
    "r_alpha_map": lambda grid: _varies(grid, "both"),
    "tuned_r_trend": lambda grid: bool(grid.learning_rates) and _varies(grid, "r"),
    "tuned_alpha_trend": lambda grid: bool(grid.learning_rates) and _varies(grid, "alpha"),
    "lora_against_qlora": lambda grid: len(grid.methods) > 1,
}


def _varies(grid, what):
    """Whether a line of the grid runs along ``r`` or ``alpha``, or has ``both`` vary."""
    lines = cells_of.lines(grid)
    return any(line.varies == what or (what != "both" and line.along(what)) for line in lines)


def names(grid):
    """Figures of a study with this ``settings.Grid``."""
    return [name for name in FIGURES if name not in NEEDS or NEEDS[name](grid)]


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
