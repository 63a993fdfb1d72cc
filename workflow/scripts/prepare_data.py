"""Draw the balanced, disjoint splits that every cell sees, and turn them into tokens."""

from pathlib import Path

from lorastudy.inputs import base_model, data
from lorastudy.jobs import running
from lorastudy.study import settings


def main(block, source, base, output_directory):
    """``block`` is the configuration's block ``data``; ``base`` the model directory whose tokenizer is used."""
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in block.items()}
    config = base_model.architecture_of(base)
    # known before any job of a local model; of one from the hub it is known here
    base_model.require_exact(config, "the base model", frozen["max_length"])
    data.prepare(settings.Data(**frozen), source, base, output_directory, config["vocab_size"])


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.params.data, snakemake.input.source, snakemake.input.base, Path(snakemake.output.card).parent)
