"""Write the study's headline numbers as LaTeX macros."""

from lorastudy.analysis import summary
from lorastudy.jobs import running
from lorastudy.presentation import numbers


def main(inputs, output, settings):
    """``inputs`` are the rule's files by name; ``settings`` the configuration's blocks by name."""
    numbers.write(output, summary.load(**inputs, settings=settings))


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(dict(snakemake.input.items()), snakemake.output[0], snakemake.params.settings)
