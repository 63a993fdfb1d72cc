"""Write the base model in NF4 with double quantization, once for all QLoRA cells."""

from lorastudy import logs, model


def main(base, output, dtype):
    model.offline()
    model.quantize(base, output, dtype)


if __name__ == "__main__":
    with logs.to_file(snakemake.log[0]):
        main(snakemake.input.base, snakemake.output[0], snakemake.params.dtype)
