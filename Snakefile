from snakemake.utils import min_version

min_version("9.1")


include: "workflow/rules/library.smk"


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/execution.smk"
include: "workflow/rules/outputs.smk"


if not ONLY_PAPER:

    include: "workflow/rules/data.smk"
    include: "workflow/rules/baseline.smk"
    include: "workflow/rules/cells.smk"


include: "workflow/rules/paper.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        records_of_study,
        "results/summary.csv",
        FIGURES,
        TABLES,
        "report.html",


rule figures:
    input:
        FIGURES,


rule:
    name:
        "figures/"
    input:
        FIGURES,


rule paper_tables:
    input:
        TABLES,


rule:
    name:
        "paper_tables/"
    input:
        TABLES,


# Targets by another name: ./figures/, or with their whole path.
for target, meant in command.other_names(ASKED.targets).items():

    rule:
        name:
            target
        input:
            {"figures": FIGURES, "paper_tables": TABLES}.get(meant, meant),
