"""Bring the labelled texts into the study's directory, in one form. Runs where there is a network."""

from lorastudy.inputs import data
from lorastudy.jobs import running


def main(source, output):
    """``source`` is the rule's plain dictionary of ``data.Source``."""
    data.fetch(data.Source(**source), output)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.params.source, snakemake.output[0])
