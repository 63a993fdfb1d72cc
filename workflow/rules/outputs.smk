"""What is made from results, and what it is made of."""

RESULTS = {
    "summary": "results/summary.csv",
    "points": "results/points.csv",
    "comparisons": "results/comparisons.csv",
    "curves": "results/curves.csv",
    "confusion": "results/confusion.json",
}
TABLES = [
    *expand(
        "paper_tables/{table}.{format}",
        table=tables.names(SETTINGS.study.paper, SETTINGS.grid.methods),
        format=tables.FORMATS,
    ),
    "paper_tables/numbers.tex",
]
FIGURE_NAMES = figures.names(SETTINGS.grid, SETTINGS.study.paper)
FIGURES = expand(
    "figures/{figure}.{format}",
    figure=FIGURE_NAMES,
    format=figures.FILES.values(),
)


RECORDS = [
    *expand("results/zero_shot/{name}/metrics.json", name=summary.BASELINES),
    *expand("results/cells/{cell}/metrics.json", cell=CELLS),
]
if (
    ONLY_PAPER
    and not command.only_tables(ASKED.targets, tables.WITHOUT_RESULTS)
    and not any(map(os.path.exists, RECORDS))
):
    raise SystemExit(
        "there are no results to draw yet; run the study first: snakemake --cores all, or on a cluster "
        "snakemake --profile slurm -j 20 (and -d DIRECTORY for a study in another directory). "
        f"Without results there are paper_tables/ {', '.join(tables.WITHOUT_RESULTS)} (.csv, .md, .tex)."
    )


def records_of_study(wildcards):
    """Records that the summary is made of: all of the grid's, or those that there are when nothing may be trained."""
    return list(filter(os.path.exists, RECORDS)) if AS_IT_IS else RECORDS


def data_of_study(wildcards):
    """The data card and the test texts, for the report; like the records where nothing may be made."""
    files = ["results/data/card.json", "results/data/test.parquet"]
    return list(filter(os.path.exists, files)) if AS_IT_IS else files


def all_cells(wildcards):
    return {name: cell.as_dict() for name, cell in CELLS.items()}


def all_specs(wildcards):
    """What defines the result of each cell and baseline, to find results of another configuration."""
    cells = {name: SETTINGS.cell_spec(cell) for name, cell in CELLS.items()}
    return cells | {name: SETTINGS.baseline_spec() for name in summary.BASELINES}


def code_of_library(wildcards):
    """Tables and figures, which take seconds, are made anew when the code does something else; comments do not count."""
    return records.code_fingerprint()


def templates_of_page(wildcards):
    """The report follows its templates too. By contents, because a clone elsewhere has them at other paths."""
    page = Path(workflow.basedir, "workflow/report/page")
    return [records.file_fingerprint(path) for path in sorted(page.iterdir())]


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
