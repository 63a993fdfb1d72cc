"""Gather the records of all cells and baselines into what tables, figures and the report are made from."""

from lorastudy import comparisons as compare
from lorastudy import grid, logs, records, summary


def main(outputs, cells, specs, statistics):
    """Arguments are the rule's outputs by name, the grid's cells, and what defines the result of each id."""
    table = summary.build({name: grid.Cell(**cell) for name, cell in cells.items()}, specs)
    summary.write_csv(summary.curves(table), outputs["curves"])
    records.write_json(outputs["confusion"], summary.confusion(table))
    summary.write_csv(compare.build(table, statistics), outputs["comparisons"])
    summary.write_csv(table, outputs["summary"])


if __name__ == "__main__":
    with logs.to_file(snakemake.log[0]):
        main(
            dict(snakemake.output.items()), snakemake.params.cells, snakemake.params.specs, snakemake.params.statistics
        )
