"""Bring the base model into the study's directory. Runs where there is a network."""

from lorastudy.inputs import base_model
from lorastudy.jobs import running
from lorastudy.study import settings


def main(block, output):
    base_model.fetch(settings.Model(**block), output)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.params.model, snakemake.output[0])
