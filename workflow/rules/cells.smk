"""One fine-tuning job and one evaluation job per cell."""


rule finetune_cell:
    input:
        base=base_of,
        card="results/data/card.json",
        train="results/data/train.parquet",
    output:
        adapter=directory("results/cells/{cell}/adapter"),
        log="results/cells/{cell}/training_log.csv",
        record="results/cells/{cell}/training.json",
    log:
        "logs/cells/{cell}.finetune.log",
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=SETTINGS.execution.gpus_per_cell,
        gpu_mem_mb=finetune_gpu_memory,
        mem_mb=finetune_memory,
        runtime=finetune_minutes,
    params:
        spec=spec_of,
    message:
        "Fine-tuning {wildcards.cell}"
    script:
        "../scripts/finetune_cell.py"


rule evaluate_cell:
    input:
        base=base_of,
        card="results/data/card.json",
        validation="results/data/validation.parquet",
        test="results/data/test.parquet",
        adapter="results/cells/{cell}/adapter",
        record="results/cells/{cell}/training.json",
    output:
        predictions="results/cells/{cell}/predictions.parquet",
        metrics="results/cells/{cell}/metrics.json",
    log:
        "logs/cells/{cell}.evaluate.log",
    # a study that is interrupted has finished cells then, and not a grid of adapters that nothing is known about
    priority: 1
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=1,
        gpu_mem_mb=evaluate_gpu_memory,
        mem_mb=evaluate_memory,
        runtime=evaluate_minutes,
    params:
        spec=spec_of,
        statistics=SETTINGS.scoring(),
    message:
        "Evaluating {wildcards.cell}"
    script:
        "../scripts/evaluate_cell.py"
