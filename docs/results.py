"""Write docs/results/README.md, and the README's block of results, from the records in docs/results.

python docs/results.py                              from the records that are there
python docs/results.py --take examples/smollm2 …    first takes those of finished studies
"""

import argparse
from pathlib import Path

from lorastudy.study.settings import REPOSITORY
from sections import grid, rates, rehearsal, studies

HEAD = """# Results

What this pipeline found when it was run for real. The pages are written from the records beside them by
`python docs/results.py`; with `--take examples/smollm2` it first takes in what a new run of that study found.
[`smollm2-earlier-grid/`](smollm2-earlier-grid/) has the records of an earlier study, alpha fixed at 32 along r: `snakemake
check` plans with the variances that its runs had.
"""
BEGIN, END = "<!-- written by docs/results.py -->", "<!-- to here -->"


def page():
    """docs/results/README.md as one string."""
    return "\n\n".join([HEAD.rstrip(), *grid.section(), *rates.section(), *rehearsal.section()]) + "\n"


def block():
    """The README's block of results, without its marks."""
    more = "With intervals, verdicts and their tests, all tables, and how it was projected: [`docs/results/`](docs/results/)."
    return "\n\n".join([*grid.headline(), rates.headline(), rehearsal.headline(), more])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--take", nargs="+", default=[], type=Path, help=f"among examples/{{{','.join(studies.TAKEN)}}}"
    )
    for directory in parser.parse_args().take:
        studies.take(directory)
    (studies.HERE / "README.md").write_text(page(), encoding="utf-8")
    readme = REPOSITORY / "README.md"
    before, after = readme.read_text(encoding="utf-8").split(BEGIN)[0], readme.read_text(encoding="utf-8").split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{block()}\n{END}{after}", encoding="utf-8")
