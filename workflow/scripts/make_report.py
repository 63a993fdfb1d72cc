"""Write the study's report: one page that holds everything and needs no network."""

import os
import subprocess

from lorastudy.analysis import summary
from lorastudy.jobs import running
from lorastudy.presentation import origin, report, tables
from lorastudy.study import command, records
from lorastudy.study.configuration import Configuration


def main(inputs, output, blocks, options):
    """``inputs`` are the rule's files by name, ``blocks`` the configuration's, ``options`` how the study is configured."""
    configured = Configuration.from_dict(options)
    drawings, parameters = inputs.pop("figures"), inputs.pop("parameters")
    details = records.read_json(inputs.pop("details"))
    for read_beside in ("captions", "tables"):  # by the names of figures and tables
        inputs.pop(read_beside)
    results = summary.load(**inputs, settings=blocks)
    wanted = tables.names(blocks["study"]["paper"], blocks["grid"]["methods"])
    made = {name: tables.make(name, results, parameters) for name in wanted}
    came = origin.Origin.of_bundle() or origin.Origin.of(".", configured, rulegraph(configured))
    report.write(output, results, details, inputs.values(), drawings, made, came)


def rulegraph(configured):
    """The workflow's graph as dot, and why there is none: one of the two is None."""
    graph = [*command.SNAKEMAKE, "all", "--nolock", "--rulegraph", "dot", *configured.arguments()]
    # not this job's arguments and settings: the graph is that of the whole study
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE_")}
    done = subprocess.run(graph, capture_output=True, encoding="utf-8", check=False, env=clean)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return None, said[-1] if said else f"snakemake --rulegraph ended with status {done.returncode}"
    return done.stdout, None


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(
            dict(snakemake.input.items()),
            snakemake.output[0],
            snakemake.params.settings,
            snakemake.params.configuration,
        )
