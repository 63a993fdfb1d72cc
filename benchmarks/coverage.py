"""Do intervals, tests and verdicts keep what they promise? Simulated studies with a known truth.

    python benchmarks/coverage.py [--worlds NAME ...] [--studies 1000] [--processes 2] [--anew]

Draws studies of each world (``WORLDS``), compares and judges them as the pipeline does, and counts: how often an interval
holds the truth that it is about, how often a family of corrected tests shows a difference where there is none, how often
a claim's verdict is right, wrong or undecided. Counts go to benchmarks/results/coverage.json, world by world; the page
benchmarks/results/coverage.md is made of all that are there. A world goes on from the studies that it has; after a change of
the statistics start it ``--anew``.
"""

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import simulation
from lorastudy.analysis import comparisons, contrasts
from lorastudy.analysis.claims import catalogue, checks, judging, measuring, questions, stated
from lorastudy.statistics import permutation
from lorastudy.study import grid, records
from simulation import INTERACTING, NO_SCATTER, World

REPOSITORY = Path(__file__).resolve().parents[1]

RESULTS = REPOSITORY / "benchmarks" / "results"
TIE = 1e-9
HEAD = """# Coverage of intervals, error of tests and verdicts

Written by `python benchmarks/coverage.py` from `coverage.json`; its worlds are described in the script. An interval is
judged by what it is about: all runs of the cells, all runs with these seeds, or these runs. What no seed of a study
shows, that some seeds fail in part, no interval of it can hold; such intervals are judged by the runs that do not fail,
and once more by all (`cells, of which some fail as no seed here did`). Those about less than all runs are judged once
more as if they were about them (`cells, which it is not about`): that is what taking them for it would cost.
Family-wise error: families with a difference shown where there is none or the other way, in percent. Behind ± is the
standard error of a share, from what studies differ by (the intervals of one study go together); of none or all it is
that of one study more which is otherwise.
"""
UNSEEN = "cells, of which some fail as no seed here did"
AS_IF = "cells, which it is not about"
PART = 25  # studies between two looks at the counts
LEVELS = {
    comparisons.TESTS["shared"]: "cells",
    comparisons.TESTS["own"]: "cells",
    comparisons.TESTS["units"]: "seeds",
    comparisons.TESTS["texts"]: "runs",
}
SLICES = {
    "r": {"r": [8, 16, 32, 64, 128, 256, 512], "alpha": 32},
    "alpha": {"r": 16, "alpha": [16, 32, 128, 512]},
}
PAPER = {
    "r": {"r": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "alpha_ratio": 2},
    "alpha": {"r": 8, "alpha": [8, 16, 32, 64]},
}
BASE = 0.58


def alike(cell):
    """Nothing matters."""
    return BASE


def at_the_margin(cell):
    """Each effect is exactly the margin of 1 point: the largest at which cells count as equal."""
    return BASE + 0.01 * (
        (cell.method == "lora")
        + (cell.targets == "all-linear")
        + (cell.r == 16 and cell.alpha == 32)
        + (cell.alpha == 128)
    )


def one_lower(cell):
    """One r of seven is 1.5 points lower than the others, in all sets."""
    return BASE - 0.015 * (cell.r == 64)


def as_the_paper_says(cell):
    """Most of what the paper says and no contradiction: falls at high r, QLoRA as LoRA, all linear layers ahead at low r."""
    beyond = max(0.0, np.log2(cell.r / 64)) if cell.targets == "all-linear" else max(0.0, np.log2(cell.r / 256))
    scale = abs(np.log2(cell.alpha / 32)) if cell.r == 8 else 1.0
    return 0.67 - 0.03 * beyond - 0.02 * (scale - 1.0) + 0.02 * (cell.targets == "all-linear" and cell.r < 16)


def by_product(cell):
    """Alpha times the learning rate is all that matters."""
    return BASE - 0.01 * abs(np.log2(cell.alpha / 16 * (cell.learning_rate or 1e-3) / 1e-3))


def from_alpha(least, chance):
    return lambda cell: chance * (cell.alpha >= least)


WORLDS = {
    "flat": World("nothing matters, three seeds", alike, SLICES),
    "still": World("nothing matters, three seeds, runs do not scatter", alike, SLICES, scatter=NO_SCATTER),
    "margin": World("every effect is the margin, three seeds", at_the_margin, SLICES),
    "interaction": World("nothing matters, three seeds, seeds act on methods, targets and sets", alike, SLICES, scatter=INTERACTING),
    "five seeds": World("nothing matters, five seeds, seeds act on methods, targets and sets", alike, SLICES, 5, scatter=INTERACTING),
    "unstable": World("runs at alpha = 512 lose up to 20 points each", alike, SLICES, loses=from_alpha(512, 0.2)),
    **{
        f"collapse {100 * chance:.0f}%": World(
            f"{100 * chance:.0f}% of runs at alpha of 128 and more collapse, the others at 512 lose up to 20 points",
            alike, SLICES, collapses=from_alpha(128, chance), loses=from_alpha(512, 0.2),
        )
        for chance in (0.05, 0.15, 0.33)
    },
    "rare failure": World("a seed fails in part at alpha = 512, all of its runs there, with a chance of 15%", alike, SLICES,
                          fails=from_alpha(512, 0.15)),
    "one seed": World("nothing matters, one seed", alike, SLICES, 1, scatter=INTERACTING),
    "two seeds": World("nothing matters, two seeds", alike, SLICES, 2, scatter=INTERACTING),
    "one lower": World("one r of seven is 1.5 points lower, three seeds", one_lower, SLICES),
    "claims flat": World("the paper's grid, nothing matters", alike, PAPER, claims=True),
    "claims true": World("the paper's grid, most of its claims true", as_the_paper_says, PAPER, claims=True, ratios=(10.0, 0.375)),
    "claims collapse": World("the paper's grid, nothing matters, 15% of runs at alpha of 256 and more collapse", alike, PAPER,
                             claims=True, collapses=from_alpha(256, 0.15)),
    "claims one seed": World("the paper's grid, nothing matters, one seed", alike, PAPER, 1, claims=True, scatter=INTERACTING),
    "claims rates": World("alpha times learning rate is all that matters", by_product, {"alpha": {"r": 8, "alpha": [8, 16, 32]}},
                          claims=True, rates=(0.5, 2.0)),
    "more seeds": World("the paper's grid, most of its claims true: three seeds, then six", as_the_paper_says, PAPER, 6, claims=True),
    "more seeds, flat": World("nothing matters, seeds act on methods, targets and sets: three seeds, then six", alike, SLICES, 6, scatter=INTERACTING),
    "more seeds, one lower": World("one r of seven is 1.5 points lower: three seeds, then six", one_lower, SLICES, 6),
}  # fmt: skip
MORE = "more seeds"  # how worlds are called that are judged with their first three seeds, too
SUMS = ("part", "whole", "part²", "part whole", "whole²")
DECIDED = ("supported", "contradicted")


# --- truth


def true_differences(rows, wanted, of_runs, study):
    """True value of each row of the comparisons, at the level that its test is about, over the runs that it is made of.

    Returns:
        two arrays: the first has the truth that a row is about, of runs at large that of the level ``seen`` of
        ``simulation.Study``; the second has that of ``cells``.
    """
    found, means = {}, study.truth
    for contrast in wanted:
        units, seeds = contrasts.complete(contrast.members(of_runs))
        share = 1 / (len(units) * len(seeds)) if units else 0.0
        runs = [(weight * share, of.get(seed, of.get(None))) for unit in units for weight, of in unit for seed in seeds]
        found[_key(contrast, contrast.common)] = (runs, contrast.offset)
    values = []
    for row in rows[["family", "group", "line", "a", "b", "method", "targets", "test"]].itertuples():
        runs, offset = found[_key(row, {"method": row.method, "targets": row.targets})]
        level = LEVELS.get(row.test, "cells")
        of_row = ("seen" if level == "cells" else level, "cells")
        values.append([sum(weight * means[name][run] for weight, run in runs) - offset for name in of_row])
    return np.transpose(values)


def _key(of, common):
    """What tells a row, or a contrast, from all others: trends of two sets have the same ends, those of one may move."""
    sets = ("" if pd.isna(level := common.get(name)) else level for name in ("method", "targets"))
    ends = () if of.family.endswith("_trend") else (of.a, of.b)
    return of.family, of.group, of.line, *ends, *sets


def holds(required, difference, margin):
    """Whether what is required of a true difference is met, and whether it fails; both can be (a small lead)."""
    return {
        "ahead": (difference > TIE, difference < margin - TIE),
        "beyond": (difference > margin + TIE, difference < margin - TIE),
        "equal": (abs(difference) < margin - TIE, abs(difference) > margin + TIE),
        "not_below": (difference > -margin + TIE, difference < -margin - TIE),
    }[required]


def may_be(world, level="cells"):
    """Claim or question → (whether it may be supported, whether it may be contradicted) in a world.

    Of a study of one seed the runs' own truth would decide, which differs from study to study: then None.
    """
    cells = {(c.method, c.targets, c.r, float(c.alpha)): world.mean(c) for c in grid.cells(world.settings().grid).values()
             if c.learning_rate is None}  # fmt: skip
    found = {}
    for claim in catalogue.load() if world.claims else ():
        parts = [
            holds(check.required, _difference(check, cells, world), world.margin)
            for check in measuring.of_claim(claim, list(cells))
            if check.cells and all(cell in cells for cell in check.cells)
        ]
        if parts:
            found[claim.id] = (all(met for met, _ in parts), any(failed for _, failed in parts))
    return found | _questions(cells, world) | (_other_claims(world) if world.claims else {})


def _difference(check, cells, world):
    base = {"head": world.head, "prompt": simulation.PROMPT}.get(check.baseline, 0.0)
    return (
        np.mean([sum(weight * cells[cell] for weight, cell in unit) for unit in check.sides])
        - base
        - (check.number or 0.0)
    )


def _questions(cells, world):
    def mean(**fields):
        return np.mean(
            [value for cell, value in cells.items() if fields.items() <= dict(zip(checks.FIELDS, cell)).items()]
        )

    found = {
        "targets": holds("ahead", mean(targets="all-linear") - mean(targets="attention"), world.margin),
        "method_accuracy": holds("equal", mean(method="lora") - mean(method="qlora"), world.margin),
    }
    for method in ("lora", "qlora"):
        for name, base in (("head", world.head), ("prompt", simulation.PROMPT)):
            found[f"gain_{method}_{name}"] = holds("ahead", mean(method=method) - base, world.margin)
    for line in grid.lines(world.settings().grid):
        for axis in ("r", "alpha"):
            for part in line.along(axis):
                values = [mean(r=r, alpha=float(alpha)) for r, alpha in part.points]
                found[axis] = (np.ptp(values) > TIE, np.ptp(values) < world.margin - TIE)
    time, memory = world.ratios
    return found | {"memory": (memory < 1, memory > 1), "time": (time > 1, time < 1)}


def _other_claims(world):
    """Claims that are no contrasts of cells; ``time`` and ``memory`` are there as the paper's, not as questions."""
    close = {name: abs(np.log(ratio / papers)) < np.log(stated.RATIO_MARGIN)
             for name, ratio, papers in zip(("time", "memory"), world.ratios, (10.0, 0.375))}  # fmt: skip
    near = abs(world.head - 1 / simulation.CLASSES) < abs(0.2191 - 1 / simulation.CLASSES) + world.margin
    found = {f"claim {name}": (good, not good) for name, good in close.items()} | {"base": (near, not near)}
    return found | ({"alpha_is_learning_rate": (True, False)} if world.rates else {})


# --- counting


def count(study):
    """A ``Counter`` of what became of one study."""
    results, wanted, of_runs = study.results()
    rows = results.comparisons
    rows = rows[rows.line.ne(measuring.RATES) & rows["view"].eq("configured")]
    truth, every = true_differences(rows, wanted, of_runs, study)
    counts = Counter({("studies",): 1})
    known = rows.low.notna().to_numpy()
    held, held_by_all = ((rows.low <= of + TIE) & (of - TIE <= rows.high) for of in (truth, every))
    unseen = pd.Series(np.abs(truth - every) > TIE, rows.index)
    false = rows.p_holm.lt(0.05) & (np.where(np.abs(truth) < TIE, 0.0, truth) * rows.difference <= 0)
    for (family, test), part in rows[known].groupby(["family", "test"], sort=False):
        tally(counts, ("held", family, LEVELS[test]), held[part.index])
        if LEVELS[test] != "cells":
            tally(counts, ("held", family, AS_IF), held_by_all[part.index])
        elif (others := unseen[part.index]).any():
            tally(counts, ("held", family, UNSEEN), held_by_all[part.index][others])
    for family, part in rows[known & rows.family.ne(measuring.FAMILY)].groupby("family", sort=False):
        tally(counts, ("false", family), false[part.index].groupby(part.group.fillna("")).any())
    for name, verdict in verdicts_of(results).items():
        counts["verdict", name, verdict] += 1
    return counts


def tally(counts, key, found):
    """Add what one study found, a bool of each member, with the squares that a share's standard error is made of."""
    part, whole = int(found.sum()), len(found)
    for name, amount in zip(SUMS, (part, whole, part * part, part * whole, whole * whole)):
        counts[*key, name] += amount


def share(counts, key, studies):
    """A share as text, in percent, with its standard error: that of a ratio over studies."""
    part, whole, square, cross, size = (counts[*key, name] for name in SUMS)
    ratio = part / whole
    error = np.sqrt(max(0.0, square - 2 * ratio * cross + ratio**2 * size)) / whole
    if part in (0, whole):
        error = np.sqrt((studies + 1) / (studies + 2) ** 3)
    return f"{100 * ratio:.1f} ± {100 * error:.1f}"


def verdicts_of(results):
    """Claim or question → verdict, at the configured learning rate."""
    with mock.patch.object(permutation, "spread", lambda *_: np.nan):  # shown beside a verdict, and slow
        tables = [questions.table(results)] + ([judging.table(results)] if results.settings["study"]["paper"] else [])
    return {
        f"claim {row.claim}" if place and row.claim in ("time", "memory") else row.claim: row.verdict
        for place, table in enumerate(tables)
        for row in table[table["view"].eq("configured")].itertuples()
    }


def turned(study):
    """Pairs of verdicts with the first three seeds and with all, and whether any turned, as a ``Counter``."""
    before, after = (verdicts_of(one.results()[0]) for one in (study.with_seeds(3), study))
    may = may_be(study.world)
    counts = Counter({("studies",): 1})
    for claim, verdict in before.items():
        counts["turns", claim, verdict, after[claim]] += 1
    opposite = [is_opposite(verdict, after[claim], may[claim]) for claim, verdict in before.items() if claim in may]
    tally(counts, ("any turned",), np.array([any(opposite)]))
    return counts


def is_opposite(before, after, may):
    """Whether a right answer became its opposite, which is wrong."""
    allowed = dict(zip(DECIDED, may))
    return before in DECIDED and after in DECIDED and after != before and allowed[before] and not allowed[after]


def run(name, studies, seed):
    """Counts over so many studies of a world, drawn from ``seed``."""
    world, generator, counts = WORLDS[name], np.random.default_rng(seed), Counter()
    for _ in range(studies):
        study = simulation.draw(generator, world)
        counts += turned(study) if name.startswith(MORE) else count(study)
    return counts


def load(path):
    """World → ``Counter`` of what has been counted so far."""
    saved = records.read_json(path) if path.exists() else {}
    return {
        name: Counter({tuple(key.split(" | ")): value for key, value in counts.items()})
        for name, counts in saved.items()
    }


def simulate(names, studies, processes, anew):
    """Bring worlds to so many studies, in parts that run side by side; saved part by part."""
    path = RESULTS / "coverage.json"
    found = load(path)
    found |= {name: Counter() for name in names if anew or name not in found}
    with ProcessPoolExecutor(processes) as pool:
        for name in names:
            while (done := found[name]["studies",]) < studies:
                parts = [min(PART, -(-(studies - done) // processes))] * processes
                seeds = [
                    np.random.SeedSequence([*WORLDS[name].title.encode(), done, place]) for place in range(processes)
                ]
                found[name] = sum(pool.map(run, [name] * processes, parts, seeds), found[name])
                saved = {
                    of: {" | ".join(key): found[of][key] for key in sorted(found[of])} for of in WORLDS if of in found
                }
                records.write_json(path, saved)
                print(name, found[name]["studies",], flush=True)


def page(found):
    """The counts as a page in Markdown, in percent."""
    parts = [HEAD, *_in_short(found)]
    for name, counts in found.items():
        title, studies = WORLDS[name].title, counts["studies",]
        parts.append(f"## {name}\n\n{title[0].upper()}{title[1:]}. {studies} studies.\n")
        parts += [
            *_intervals(counts, studies),
            *_verdicts(WORLDS[name], counts),
            *_turns(WORLDS[name], counts, studies),
            "",
        ]
    return "\n".join(parts)


def _in_short(found):
    """All worlds with three seeds and more together: what holds the truth, errors, power, answers that turned."""
    kinds = {False: Counter(), True: Counter()}
    for name, counts in found.items():
        if WORLDS[name].seeds >= 3:
            kinds[_loses_runs(WORLDS[name])].update(counts)
    yield "## In short\n\nWorlds with three seeds and more, in percent: in which all runs learn, and in which some do not.\n"
    yield "| family | all learn: hold the truth | family-wise error | some do not: hold the truth | family-wise error |"
    yield "|---|---:|---:|---:|---:|"
    for family in dict.fromkeys(key[1] for counts in kinds.values() for key in counts if key[0] == "held"):
        shares = [
            share(counts, (what, family, *level), counts["studies",]) if counts[what, family, *level, "whole"] else "–"
            for counts in kinds.values()
            for what, level in (("held", ("cells",)), ("false", ()))
        ]
        yield f"| {family} | {' | '.join(shares)} |"
    seen = Counter(found.get("one lower", {}))
    if studies := seen["studies",]:
        power = 100 * seen["verdict", "r", "supported"] / studies
        yield f"\nOne value of r of seven that is 1.5 points lower is seen in {power:.1f} percent of {studies} studies (three seeds, 1,600 texts)."
    turned = Counter()
    for name, counts in found.items():
        if name.startswith(MORE):
            turned.update(counts)
    if turned["studies",]:
        turns = share(turned, ("any turned",), turned["studies",])
        yield f"\nIn {turns} percent of {turned['studies',]} studies a right answer turned into its opposite with three more seeds."
    yield ""


def _loses_runs(world):
    return any(
        chance(cell) > 0
        for cell in grid.cells(world.settings().grid).values()
        for chance in (world.collapses, world.loses, world.fails)
    )


def _intervals(counts, studies):
    families = [key[1:3] for key in counts if key[0] == "held" and key[3] == "whole"]
    if families:
        yield "| family | about | intervals | hold the truth | family-wise error |\n|---|---|---:|---:|---:|"
    for family, level in families:
        tested = counts["false", family, "whole"] and level not in (UNSEEN, AS_IF)
        error = share(counts, ("false", family), studies) if tested else "–"
        held = share(counts, ("held", family, level), studies)
        yield f"| {family} | {level} | {counts['held', family, level, 'whole']} | {held} | {error} |"


def _verdicts(world, counts):
    may, named = may_be(world), sorted({key[1] for key in counts if key[0] == "verdict"})
    if named:
        yield "\n| question | supported | contradicted | undecided | wrong |\n|---|---:|---:|---:|---:|"
    for claim in named:
        kinds = [counts["verdict", claim, kind] for kind in (*DECIDED, "undecided")]
        wrong = "–"
        if claim in may and world.seeds >= 3:
            wrong = sum(number for number, allowed in zip(kinds, may[claim]) if not allowed)
        yield f"| {claim} | {' | '.join(map(str, kinds))} | {wrong} |"


def _turns(world, counts, studies):
    may, named = may_be(world), sorted({key[1] for key in counts if key[0] == "turns"})
    if not named:
        return
    yield "| question | right with three | right with six | wrong with three | wrong with six | turned into the opposite |"
    yield "|---|---:|---:|---:|---:|---:|"
    for claim in (claim for claim in named if claim in may):
        allowed = dict(zip(DECIDED, may[claim]))
        pairs = {key[2:]: number for key, number in counts.items() if key[:2] == ("turns", claim)}
        columns = [
            sum(number for pair, number in pairs.items() if allowed.get(pair[which]) == right)
            for right in (True, False)
            for which in (0, 1)
        ]
        columns.append(sum(number for pair, number in pairs.items() if is_opposite(*pair, may[claim])))
        yield f"| {claim} | {' | '.join(map(str, columns))} |"
    yield f"\nIn {share(counts, ('any turned',), studies)} percent of the studies a right answer turned into its opposite."


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--anew", action="store_true")
    arguments = parser.parse_args()
    simulate(arguments.worlds, arguments.studies, arguments.processes, arguments.anew)
    (RESULTS / "coverage.md").write_text(page(load(RESULTS / "coverage.json")), encoding="utf-8")


if __name__ == "__main__":
    main()
