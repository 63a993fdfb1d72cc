"""Gather the records of all cells and baselines into what tables, figures and the report are made from."""

from lorastudy.analysis import comparisons as compare
from lorastudy.analysis import details, points, summary
from lorastudy.jobs import running
from lorastudy.study import grid, records, settings


def main(outputs, cells, specs, grid_block, statistics, with_paper, study_directory="."):
    """Arguments are the rule's outputs by name, the grid's cells, what defines the result of each id, and blocks."""
    table = summary.build({name: grid.Cell(**cell) for name, cell in cells.items()}, specs, study_directory)
    summary.write_csv(summary.curves(table, study_directory), outputs["curves"])
    records.write_json(outputs["confusion"], summary.confusion(table, study_directory))
    summary.write_csv(points.build(table, study_directory), outputs["points"])
    lines = grid.lines(settings.Grid(**grid_block))
    summary.write_csv(
        compare.build(table, lines, statistics, study_directory, claims=with_paper), outputs["comparisons"]
    )
    records.write_json(outputs["details"], details.build(table, study_directory))
    summary.write_csv(table, outputs["summary"])


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(
            dict(snakemake.output.items()), snakemake.params.cells, snakemake.params.specs, snakemake.params.grid,
            snakemake.params.statistics, snakemake.params.with_paper,
        )  # fmt: skip
