"""Write the base model in NF4 with double quantization, once for all QLoRA cells."""

from lorastudy.engine import model
from lorastudy.inputs import base_model
from lorastudy.jobs import running


def main(base, output, dtype):
    base_model.offline()
    model.quantize(base, output, dtype)


if __name__ == "__main__":
    with running.on_gpu("quantize_model", snakemake.log[0], snakemake.resources.gpu_mem_mb):
        main(snakemake.input.base, snakemake.output[0], snakemake.params.dtype)
