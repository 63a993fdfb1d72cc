"""Measure the base model before fine-tuning."""

from lorastudy.jobs import running

if __name__ == "__main__":
    name = f"zero_shot.{snakemake.wildcards.baseline}"
    with running.on_gpu(name, snakemake.log[0], snakemake.resources.gpu_mem_mb):
        from lorastudy.engine import baselines  # CUDA keeps to the GPUs that it sees when it is imported

        baselines.main(
            snakemake.wildcards.baseline,
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
        )
