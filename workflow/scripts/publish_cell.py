"""Put a cell into the form that the hub expects. Nothing is uploaded."""

from pathlib import Path

from lorastudy.engine import exchange
from lorastudy.jobs import running
from lorastudy.presentation import publish


def main(record, card, output, study_name):
    """Arguments are the rule's files and the title of the study."""
    cell = Path(record).parent
    publish.write(cell, card, output, study_name)
    exchange.write(cell / "adapter", output)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.input.metrics, snakemake.input.card, snakemake.output[0], snakemake.params.study)
