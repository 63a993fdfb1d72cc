"""The study's figures: which there are, and how one is drawn."""

from lorastudy import records, settings, style, trends

FORMATS = ("pdf", "png")

# name of the figure's files → what draws it, from ``summary.Results`` and ``settings.Figures``: figure and caption
FIGURES = {
    "r_trend": trends.r_trend,
    "alpha_trend": trends.alpha_trend,
    "scale": trends.scale,
    "r_alpha_map": trends.r_alpha_map,
    "tuned_r_trend": trends.tuned_r_trend,
    "tuned_alpha_trend": trends.tuned_alpha_trend,
}
OF_FULL_GRID = {"r_alpha_map"}
OF_LEARNING_RATES = {"tuned_r_trend", "tuned_alpha_trend"}


def names(grid):
    """Figures of a study with this ``settings.Grid``."""
    left_out = set() if grid.design == "full" else OF_FULL_GRID
    left_out |= set() if grid.learning_rates else OF_LEARNING_RATES
    return [name for name in FIGURES if name not in left_out]


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
    import matplotlib

    look = settings.Figures(**look)
    with matplotlib.rc_context(style.RC):
        figure, caption = FIGURES[name](results, look)
        for suffix in FORMATS:
            with records.replacing(outputs[suffix]) as temporary:
                style.save(figure, temporary, suffix, look.dpi)
    with records.replacing(outputs["caption"]) as temporary:
        temporary.write_text(caption + "\n", encoding="utf-8")
