"""The study's headline numbers as LaTeX macros, so that a manuscript can cite the run."""

import itertools
import string
from pathlib import Path

from lorastudy.analysis import collapse, cost, ratios, tuning
from lorastudy.analysis.claims import judging, questions, verdicts
from lorastudy.presentation.tables import formatting, layout
from lorastudy.study import paper

PREFIX = "Study"


def numbers(results, directory=paper.DIRECTORY):
    """The macros of a study.

    Args:
        results: ``summary.Results``.
        directory: where the paper's values are.

    Returns:
        name (letters only, with the prefix) → text for LaTeX, escaped. Accuracies are fractions with three decimals,
        differences percentage points with one; what has no value yet is ``--``.
    """
    found = _study(results)
    for name, row in results.baselines.iterrows():
        found |= _score(f"Base{name.capitalize()}", row)
    found |= _best(results) | _requirements(results) | _ratios(results) | _questions(results, directory)
    if results.settings["study"]["paper"]:
        found |= _claims(judging.table(results, directory))
    return {f"{PREFIX}{name}": layout.tex(text) for name, text in found.items()}


def _study(results):
    """What was run, on what, and how much of it."""
    cells, texts = results.cells, results.summary.n_test.dropna()
    return {
        "Name": results.settings["study"]["name"],
        "Model": results.settings["model"]["name"],
        "Device": " and ".join(sorted(set(results.summary.device.dropna()))) or "–",
        "TestTexts": formatting.whole(texts.iloc[0] if len(texts) else None),
        "Seeds": str(len(results.settings["grid"]["seeds"])),
        "CellsPlanned": str(len(cells)),
        "CellsFinished": str(int(cells.status.isin(collapse.RAN).sum())),
        "CellsCollapsed": str(int(cells.status.eq(collapse.COLLAPSED).sum())),
        "CellsDiverged": str(int(cells.status.eq("diverged").sum())),
        "Margin": f"{100 * results.settings['statistics']['equivalence_margin']:g}",
        "DeviceHours": formatting.significant(float(cost.hours(cells).sum())),
    }


def _configured(results):
    """The points at the configured learning rate."""
    return results.points[results.points.view.eq(tuning.CONFIGURED)]


def _best(results):
    """The best point of each method."""
    found, points = {}, _configured(results)
    for method, group in points[points.seeds.gt(0)].groupby("method", sort=False):
        best = group.loc[group.accuracy.astype(float).idxmax()]
        title = f"Best{method.capitalize()}"
        found |= _score(title, best)
        found |= {f"{title}Targets": best.targets, f"{title}Rank": str(best.r), f"{title}Alpha": f"{best.alpha:g}"}
    return found


def _requirements(results):
    """Time and memory of each method and target set."""
    found, points = {}, _configured(results)
    grid = results.settings["grid"]
    for method, targets in itertools.product(grid["methods"], grid["targets"]):
        title = method.capitalize() + "".join(part.capitalize() for part in targets.split("-"))
        of_set = points[points.method.eq(method) & points.targets.eq(targets)]
        found[f"{title}Minutes"] = formatting.significant(of_set.seconds.mean() / 60)
        found[f"{title}MemoryGiB"] = formatting.significant(of_set.peak_memory_gib.mean())
    return found


def _ratios(results):
    """QLoRA over LoRA."""
    found, cells = {}, tuning.views(results.summary)[tuning.CONFIGURED]
    for title, column in (("TimeRatio", "seconds"), ("MemoryRatio", "peak_memory_gib")):
        ratio = ratios.ratio(cells, column)
        found |= {
            title: formatting.number(ratio.value, 2),
            f"{title}Low": formatting.number(ratio.low, 2),
            f"{title}High": formatting.number(ratio.high, 2),
        }
    return found


def _questions(results, directory):
    """The verdict on each question that the study asks itself, and the difference that it is about."""
    found = {}
    for claim in questions.table(results, directory).itertuples():
        if claim.view != tuning.CONFIGURED:
            continue
        title = "".join(part.capitalize() for part in claim.claim.split("_"))
        found[f"Verdict{title}"] = claim.verdict
        if claim.unit == "accuracy":
            found |= {
                f"Difference{title}": formatting.signed(100 * claim.value, 1),
                f"Difference{title}Low": formatting.signed(100 * claim.low, 1),
                f"Difference{title}High": formatting.signed(100 * claim.high, 1),
            }
    return found


DIGITS = dict(zip("0123456789", ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"]))


def _claims(table):
    """The verdict on each of the paper's claims, and how many there are of each kind."""
    counts = table.verdict.value_counts()
    found = {"Claims": str(len(table))}
    for verdict in (verdicts.SUPPORTED, verdicts.CONTRADICTED, verdicts.UNDECIDED, verdicts.NOT_COVERED):
        found[f"Claims{_title(verdict.replace(' ', '_'))}"] = str(int(counts.get(verdict, 0)))
    return found | {f"Claim{_title(row.claim)}": row.verdict for row in table.itertuples()}


def _title(name):
    """``targets_r1`` as ``TargetsROne``: LaTeX takes letters only in the name of a macro."""
    parts = ["".join(DIGITS.get(letter, letter) for letter in part) for part in name.split("_")]
    return "".join(part[:1].upper() + part[1:] for part in parts)


def _score(title, row):
    return {
        f"{title}{score}{side}": formatting.number(row[f"{column}{end}"])
        for score, column in (("Accuracy", "accuracy"), ("FOne", "f1"))
        for side, end in (("", ""), ("Low", "_low"), ("High", "_high"))
    }


def write(path, results, directory=paper.DIRECTORY):
    r"""Write the macros as ``\newcommand`` lines, sorted as they were made.

    Raises:
        ValueError: a name holds anything but letters, which LaTeX would not read as one macro.
    """
    lines = ["% Headline numbers of the study; differences are percentage points of accuracy. \\input this file."]
    for name, text in numbers(results, directory).items():
        if set(name) - set(string.ascii_letters):
            raise ValueError(f"{name} is no name of a LaTeX macro: letters only")
        lines.append(f"\\newcommand{{\\{name}}}{{{text}}}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
