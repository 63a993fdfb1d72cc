"""From records to the paper's tables and figures. No torch from here on, and nothing that takes long."""


report: "../report/study.rst"


localrules:
    aggregate_results,
    make_table,
    make_numbers,
    plot_figure,


rule aggregate_results:
    input:
        records_of_study,
        data=data_of_study,
    output:
        **RESULTS,
        details="results/details.json",
    log:
        "logs/aggregate_results.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        cells=all_cells,
        specs=all_specs,
        grid=SETTINGS.block("grid"),
        statistics=SETTINGS.block("statistics"),
        with_paper=SETTINGS.study.paper,
        code=code_of_library,
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
        code=code_of_library,
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
        code=code_of_library,
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
        figure="|".join(FIGURE_NAMES),
    conda:
        "../../envs/analysis.yaml"
    params:
        settings=tables_settings,
        code=code_of_library,
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
