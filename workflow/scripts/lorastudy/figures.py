"""The study's figures."""

FORMATS = ("pdf", "png")


def r_trend(results, style):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    cells = results.cells
    axes.plot(cells.r, cells.accuracy, "o")
    return figure, "Accuracy against r."


FIGURES = {"r_trend": r_trend}


def names(grid):
    """Figures of a study with this ``settings.Grid``."""
    return list(FIGURES)


def draw(name, results, style, outputs):
    figure, caption = FIGURES[name](results, style)
    for suffix in FORMATS:
        figure.savefig(outputs[suffix])
    with open(outputs["caption"], "w") as file:
        file.write(caption + "\n")
