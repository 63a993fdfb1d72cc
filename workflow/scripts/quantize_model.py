"""Write the base model in NF4 with double quantization, once for all QLoRA cells."""

from lorastudy.inputs import base_model
from lorastudy.jobs import running

if __name__ == "__main__":
    with running.on_gpu("quantize_model", snakemake.log[0], snakemake.resources.gpu_mem_mb):
        from lorastudy.engine import model  # CUDA keeps to the GPUs that it sees when it is imported

        base_model.offline()
        model.quantize(snakemake.input.base, snakemake.output[0], snakemake.params.dtype)
