"""Write the pages of docs/results, and the README's block of results, from the records in docs/results.

python docs/results.py                              from the records that are there
python docs/results.py --take examples/smollm2 …    first takes those of finished studies
"""

import argparse
from pathlib import Path

from lorastudy.study.settings import REPOSITORY
from sections import alpha, claims, grid, rates, rehearsal, studies

HEAD = """# Results

What the paper claims, and what became of it when this pipeline was run for real. Every page here is written from the records
beside it by `python docs/results.py`; with `--take examples/smollm2` it first takes in what a new run of that study found.
"""
LIMITS = """- The model has 135 million parameters, the paper's 8 billion: what r, alpha, target sets and methods do to a small model
  they need not do to a large one. The accuracies themselves are not the paper's, which are of other texts.
- One learning rate for every cell, as in the paper. Adapters with a large r or alpha want a lower one: what they lose
  is the rate's doing as much as theirs.
- Every study has one set of training texts. Intervals are over seeds and test texts, not over training texts.
- Cells ran side by side on shared GPUs: their times say nothing of LoRA and QLoRA. Those of the rehearsal do, cell by cell alone.
- The rehearsal has the large model's shape and random weights: its times and memory are real, its accuracies nothing.
"""
BEGIN, END = "<!-- written by docs/results.py -->", "<!-- to here -->"
# study → what writes its page
PAGES = dict.fromkeys(studies.NAMES, grid.page) | {
    module.NAME: lambda name, module=module: module.page() for module in (alpha, rates, rehearsal)
}


def index():
    """docs/results/README.md as one string."""
    parts = [
        HEAD.rstrip(),
        "## In short",
        *in_short(""),
        "## How far it goes",
        LIMITS.rstrip(),
        "## Claim by claim",
        claims.how_to_read(),
        claims.one_by_one(),
        *claims.elsewhere(),
        *claims.robust(),
        "## The studies",
        "\n".join(f"- [{studies.settings_of(studies.HERE / name).study.name}]({name}/)" for name in studies.taken())
        + "\n- [`smollm2-earlier-grid/`](smollm2-earlier-grid/): records of an earlier study, alpha fixed at 32 along r, whose "
        "variances `snakemake check` plans with.",
    ]
    return "\n\n".join(parts) + "\n"


def in_short(results):
    """What there is to know, in one screen; ``results``: where their pages are, from this one."""
    names = studies.of_the_papers_grid()
    findings = [*map(claims.counted, names), rates.headline(results), rehearsal.headline(results)]
    return [
        f"The paper's grid with SmolLM2-135M on real texts of five balanced classes: {' and '.join(map(claims.setting, names))}. "
        "Differences are points of accuracy, with 95% intervals over seeds and test texts unless another level is given.",
        claims.in_short(),
        "\n".join(f"- {finding}" for finding in findings),
        *(
            f"![Accuracy and F1 against r, {studies.NAMES[name]}]({results}{name}/figures/r_trend.png)"
            for name in names
        ),
    ]


def pages():
    """Path → text of every page."""
    found = {studies.HERE / name / "README.md": PAGES[name](name) for name in studies.taken()}
    return {studies.HERE / "README.md": index()} | {path: "\n\n".join(parts) + "\n" for path, parts in found.items()}


def block():
    """The README's block of results, without its marks."""
    more = (
        "Claim by claim, with limits, tables and figures: [`docs/results/`](docs/results/). To repeat it: `snakemake -d "
        "examples/smollm2 --profile workstation` on a machine with a GPU."
    )
    return "\n\n".join([*in_short("docs/results/"), more])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--take", nargs="+", default=[], type=Path, help=f"among examples/{{{','.join(studies.TAKEN)}}}"
    )
    for directory in parser.parse_args().take:
        studies.take(directory)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    readme = REPOSITORY / "README.md"
    before, after = readme.read_text(encoding="utf-8").split(BEGIN)[0], readme.read_text(encoding="utf-8").split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{block()}\n{END}{after}", encoding="utf-8")
