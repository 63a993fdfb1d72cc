"""Draw one figure, with its caption."""

from lorastudy.analysis import summary
from lorastudy.jobs import running
from lorastudy.presentation import figures


def main(name, inputs, outputs, settings, look):
    """``inputs`` and ``outputs`` are the rule's files by name; ``settings`` the configuration's blocks by name."""
    figures.draw(name, summary.load(**inputs, settings=settings), look, outputs)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        inputs, outputs = dict(snakemake.input.items()), dict(snakemake.output.items())
        main(snakemake.wildcards.figure, inputs, outputs, snakemake.params.settings, snakemake.params.look)
