"""The base model: fetched, quantized once for all QLoRA cells, measured before any fine-tuning."""


localrules:
    fetch_model,


rule fetch_model:
    output:
        directory("results/model/base"),
    log:
        "logs/fetch_model.log",
    conda:
        "../../envs/train.yaml"
    params:
        model=SETTINGS.block("model"),
    message:
        "Fetching the base model {params.model[name]}"
    script:
        "../scripts/fetch_model.py"


rule quantize_model:
    input:
        base="results/model/base",
    output:
        directory("results/model/nf4"),
    log:
        "logs/quantize_model.log",
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=1,
        gpu_mem_mb=base_gpu_memory,
        mem_mb=quantize_memory,
        runtime=quantize_minutes,
    params:
        dtype=SETTINGS.model.dtype,
    message:
        "Quantizing the base model to NF4"
    script:
        "../scripts/quantize_model.py"


rule zero_shot:
    input:
        base="results/model/base",
        card="results/data/card.json",
        test="results/data/test.parquet",
    output:
        predictions="results/zero_shot/{baseline}/predictions.parquet",
        metrics="results/zero_shot/{baseline}/metrics.json",
    log:
        "logs/zero_shot_{baseline}.log",
    benchmark:
        "logs/benchmarks/zero_shot_{baseline}.tsv"
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=1,
        gpu_mem_mb=base_gpu_memory,
        mem_mb=baseline_memory,
        runtime=baseline_minutes,
    params:
        spec=SETTINGS.baseline_spec(),
        statistics=SETTINGS.scoring(),
        seed=SETTINGS.training.seed + SETTINGS.grid.seeds[0],
    message:
        "Measuring the base model ({wildcards.baseline})"
    script:
        "../scripts/zero_shot.py"
