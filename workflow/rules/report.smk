"""From tables and figures to what people look at first. Like these it never trains."""


localrules:
    check,
    make_report,


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
    conda:
        "../../envs/train.yaml"
    message:
        "Looking at everything that can be known before a run"
    script:
        "../scripts/check_study.py"
