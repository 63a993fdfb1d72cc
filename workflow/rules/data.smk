"""The labelled texts: fetched where there is a network, then drawn into splits."""


localrules:
    fetch_data,


rule fetch_data:
    input:
        # the study's own files, so that an edited one is read again
        study_data.Source.of(SETTINGS.data).paths(),
    output:
        "results/data/source.parquet",
    log:
        "logs/fetch_data.log",
    conda:
        "../../envs/train.yaml"
    params:
        # not the whole block: another seed or size must not fetch again
        source=study_data.Source.of(SETTINGS.data).as_dict(),
    message:
        "Fetching the labelled texts"
    script:
        "../scripts/fetch_data.py"


rule prepare_data:
    input:
        source="results/data/source.parquet",
        base="results/model/base",
    output:
        train="results/data/train.parquet",
        validation="results/data/validation.parquet",
        test="results/data/test.parquet",
        card="results/data/card.json",
    log:
        "logs/prepare_data.log",
    benchmark:
        "logs/benchmarks/prepare_data.tsv"
    conda:
        "../../envs/train.yaml"
    params:
        data=SETTINGS.baseline_spec()["data"],
    message:
        "Drawing the training, validation and test texts"
    script:
        "../scripts/prepare_data.py"
