"""Set two studies side by side: python workflow/scripts/compare.py ONE OTHER [--output DIRECTORY]

Writes comparison.md (settings that differ, accuracies of what both have with differences, verdicts) and a CSV file of
each of these tables. Unpacked bundles are studies too.
"""

import argparse
import sys
from pathlib import Path

import watch
from lorastudy.jobs import logs
from lorastudy.presentation import side_by_side
from lorastudy.presentation.tables import layout
from lorastudy.study import configuration, records
from lorastudy.study.errors import StudyError


def main(directories, output):
    """Write the comparison of the studies in two directories into the directory ``output``.

    Raises:
        CompareError: a study has no tables yet.
        ResultsError: another version of this pipeline gathered its results.
    """
    studies = []
    for directory in directories:
        configured = configuration.Configuration().or_last(directory)
        studies.append(watch.study_in(directory, configured))
    names = [study.study.name for study in studies]
    names = names if names[0] != names[1] else directories
    sides = [side_by_side.read(*of_study) for of_study in zip(directories, studies, names)]
    output.mkdir(parents=True, exist_ok=True)
    made = side_by_side.tables(*sides)
    for name, table in made.items():
        table.frame.to_csv(output / f"{name}.csv", index=False)
    title = f"# {sides[0].name} beside {sides[1].name}\n"
    with records.replacing(output / "comparison.md") as temporary:
        temporary.write_text("\n".join([title, *map(layout.markdown, made.values())]), encoding="utf-8")
    print(f"{output / 'comparison.md'}, and {', '.join(f'{name}.csv' for name in made)} beside it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="directories of two studies")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="where to write (default: comparison/)")
    chosen = parser.parse_args()
    logs.any_terminal()
    if len(chosen.studies) != 2:
        sys.exit(f'compare sets two studies side by side and was given {len(chosen.studies)}: STUDIES="demo mine".')
    try:
        main(chosen.studies, chosen.output)
    except StudyError as fault:
        sys.exit(str(fault))
