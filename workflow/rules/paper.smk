"""From records to the paper's tables and figures. No torch from here on, and nothing that takes long."""


report: "../report/study.rst"


RESULTS = {
    "summary": "results/summary.csv",
    "points": "results/points.csv",
    "comparisons": "results/comparisons.csv",
    "curves": "results/curves.csv",
    "confusion": "results/confusion.json",
}
TABLES = [
    *expand(
        "paper_tables/{table}.{format}", table=tables.TABLES, format=tables.FORMATS
    ),
    "paper_tables/numbers.tex",
]
FIGURES = expand(
    "figures/{figure}.{format}",
    figure=figures.names(SETTINGS.grid),
    format=figures.FILES.values(),
)


RECORDS = [
    *expand("results/zero_shot/{name}/metrics.json", name=summary.BASELINES),
    *expand("results/cells/{cell}/metrics.json", cell=CELLS),
]
if ONLY_PAPER and not any(map(os.path.exists, RECORDS)):
    raise WorkflowError(
        "there are no results to draw yet; run the study first: snakemake --cores all, or on a cluster "
        "snakemake --profile slurm -j 20 (and -d DIRECTORY for a study in another directory)."
    )


def records_of_study(wildcards):
    """Records that the summary is made of: all of the grid's, or those that there are when nothing may be trained."""
    return list(filter(os.path.exists, RECORDS)) if AS_IT_IS else RECORDS


def tables_settings(wildcards):
    return {
        name: SETTINGS.block(name)
        for name in (
            "study",
            "model",
            "data",
            "prompt",
            "lora",
            "grid",
            "training",
            "statistics",
        )
    }


def settings_with_cost(wildcards):
    """Apart from the others, so that a new price redraws no figure."""
    return tables_settings(wildcards) | {"cost": SETTINGS.block("cost")}


rule aggregate_results:
    input:
        records_of_study,
    output:
        **RESULTS,
    log:
        "logs/aggregate_results.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        cells={name: cell.as_dict() for name, cell in CELLS.items()},
        specs={name: SETTINGS.cell_spec(cell) for name, cell in CELLS.items()}
        | {name: SETTINGS.baseline_spec() for name in summary.BASELINES},
        statistics=SETTINGS.block("statistics"),
        # so that a newer pipeline, with other columns, gathers again
        columns=summary.COLUMNS,
    message:
        "Gathering the records of the study"
    script:
        "../scripts/aggregate_results.py"


rule make_table:
    input:
        **RESULTS,
        parameters="results/parameters.csv",
    output:
        **{
            format: report(
                f"paper_tables/{{table}}.{format}",
                caption="../report/table.rst",
                category="Tables",
                labels={"table": "{table}", "format": format},
            )
            for format in tables.FORMATS
        },
    log:
        "logs/make_table_{table}.log",
    wildcard_constraints:
        table="|".join(tables.TABLES),
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=settings_with_cost,
    message:
        "Making {wildcards.table}"
    script:
        "../scripts/make_table.py"


rule make_numbers:
    input:
        **RESULTS,
    output:
        report(
            "paper_tables/numbers.tex",
            caption="../report/numbers.rst",
            category="Tables",
            labels={"table": "numbers", "format": "tex"},
        ),
    log:
        "logs/make_numbers.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=tables_settings,
    message:
        "Writing the headline numbers"
    script:
        "../scripts/make_numbers.py"


rule plot_figure:
    input:
        **RESULTS,
    output:
        **{
            name: report(
                f"figures/{{figure}}.{format}",
                caption="../report/figure.rst",
                category="Figures",
                labels={"figure": "{figure}", "format": format},
            )
            for name, format in figures.FILES.items()
        },
    log:
        "logs/plot_{figure}.log",
    wildcard_constraints:
        figure="|".join(figures.names(SETTINGS.grid)),
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=tables_settings,
        look=SETTINGS.block("figures"),
        shows=lambda wildcards: figures.describe(wildcards.figure),
    message:
        "Drawing {wildcards.figure}"
    script:
        "../scripts/plot_figure.py"


rule count_parameters:
    output:
        "results/parameters.csv",
    log:
        "logs/count_parameters.log",
    conda:
        "../../envs/train.yaml"
    message:
        "Counting the trainable parameters of the paper's model"
    script:
        "../scripts/count_parameters.py"
