"""Write one table in all its formats."""

from lorastudy.analysis import summary
from lorastudy.jobs import running
from lorastudy.presentation import tables


def main(name, inputs, outputs, settings):
    """``inputs`` and ``outputs`` are the rule's files by name; ``settings`` the configuration's blocks by name."""
    parameters = inputs.pop("parameters")
    tables.write(name, summary.load(**inputs, settings=settings), parameters, outputs)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        inputs, outputs = dict(snakemake.input.items()), dict(snakemake.output.items())
        main(snakemake.wildcards.table, inputs, outputs, snakemake.params.settings)
