"""From tables and figures to what people look at first. Like these it never trains."""


localrules:
    check,
    make_report,
    publish_cell,


rule make_report:
    input:
        **RESULTS,
        figures=expand("figures/{figure}.png", figure=figures.names(SETTINGS.grid)),
        parameters="results/parameters.csv",
        tables=expand("paper_tables/{table}.csv", table=tables.TABLES),
    output:
        "report.html",
    log:
        "logs/make_report.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=settings_with_cost,
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


def finished_cell(wildcards):
    """Records of a cell that is there; an error for one that is not, since nothing is trained for this."""
    place = f"results/cells/{cell_of(wildcards).id}"
    if not Path(place, "metrics.json").exists():
        raise WorkflowError(
            f"{wildcards.cell} has no result yet; run it first: snakemake --cores all {place}/metrics.json"
        )
    return {
        "adapter": f"{place}/adapter",
        "training": f"{place}/training.json",
        "metrics": f"{place}/metrics.json",
        "card": "results/data/card.json",
    }


rule publish_cell:
    input:
        unpack(finished_cell),
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
