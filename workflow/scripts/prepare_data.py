"""Draw the balanced, disjoint splits that every cell sees, and turn them into tokens."""

from pathlib import Path

from lorastudy.inputs import data
from lorastudy.jobs import running
from lorastudy.study import settings


def main(block, source, base, output_directory):
    """``block`` is the configuration's block ``data``; ``base`` the model directory whose tokenizer is used."""
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in block.items()}
    data.prepare(settings.Data(**frozen), source, base, output_directory)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.params.data, snakemake.input.source, snakemake.input.base, Path(snakemake.output.card).parent)
