"""From tables and figures to what people look at first. Like these it never trains."""


localrules:
    check,
    make_report,
    publish_cell,


rule make_report:
    input:
        **RESULTS,
        captions=expand("figures/{figure}.txt", figure=FIGURE_NAMES),
        details="results/details.json",
        figures=expand("figures/{figure}.png", figure=FIGURE_NAMES),
        parameters="results/parameters.csv",
        tables=expand(
            "paper_tables/{table}.csv",
            table=tables.names(SETTINGS.study.paper, SETTINGS.grid.methods),
        ),
    output:
        "report.html",
    log:
        "logs/make_report.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=settings_with_cost,
        configuration=CONFIGURED.as_dict(),
        code=code_of_library,
        page=templates_of_page,
    message:
        "Writing the report"
    script:
        "../scripts/make_report.py"


rule check:
    log:
        "logs/check.log",
    conda:
        "../../envs/train.yaml"
    message:
        "Looking at everything that can be known before a run"
    script:
        "../scripts/check_study.py"


if IS_BUNDLE and PUBLISHED:
    raise SystemExit(
        "a bundle has no weights to publish; run this where the study was run."
    )

for name in PUBLISHED:
    record = f"results/cells/{name}/metrics.json"
    if not Path(record).exists():
        raise SystemExit(
            f"{name} has no result yet; run it first: snakemake --cores all {record}"
        )


rule publish_cell:
    input:
        adapter="results/cells/{cell}/adapter",
        training="results/cells/{cell}/training.json",
        metrics="results/cells/{cell}/metrics.json",
        card="results/data/card.json",
    output:
        directory("publish/{cell}"),
    log:
        "logs/publish_{cell}.log",
    conda:
        "../../envs/train.yaml"
    params:
        study=SETTINGS.study.name,
    message:
        "Making a model card for {wildcards.cell}"
    script:
        "../scripts/publish_cell.py"
