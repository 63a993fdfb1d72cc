"""Bring the base model into the study's directory. Runs where there is a network."""

from lorastudy.inputs import base_model, linear_layers
from lorastudy.jobs import running
from lorastudy.study import grid, settings


def main(block, output, config):
    """Fetch it, and end here if it has not the linear layers that cells of the configuration are to train."""
    base_model.fetch(settings.Model(**block), output)
    linear_layers.require(base_model.architecture_of(output), grid.cells(settings.load(config).grid).values())


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.params.model, snakemake.output[0], dict(snakemake.config))
