"""Write the base model in NF4 with double quantization, once for all QLoRA cells."""

from lorastudy import jobs, model


def main(base, output, dtype):
    model.offline()
    model.quantize(base, output, dtype)


if __name__ == "__main__":
    with jobs.on_gpu("quantize_model", snakemake.log[0], snakemake.resources.gpu_mem_mb):
        main(snakemake.input.base, snakemake.output[0], snakemake.params.dtype)
