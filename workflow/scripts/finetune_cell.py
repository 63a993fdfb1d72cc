"""Fine-tune one cell of the grid."""

from lorastudy.jobs import running

if __name__ == "__main__":
    resources = snakemake.resources
    with running.of_cell(
        "finetune", snakemake.wildcards.cell, snakemake.log[0], resources.gpu_mem_mb, resources.gpu
    ) as held:
        from lorastudy.engine import finetuning  # CUDA keeps to the GPUs that it sees when it is imported

        finetuning.main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
            held=held,
        )
