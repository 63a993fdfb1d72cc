"""Do the intervals, tests and verdicts keep what they promise? Simulated studies with a known truth.

    python benchmarks/coverage.py [STUDIES [PROCESSES]] > benchmarks/results/coverage.md

Each study has the grid of the demo (two methods, two target sets, three r at one alpha, three alpha at one r), 400
test texts of varying difficulty that all classifiers share, and runs that scatter around their cell's accuracy, partly
together with all runs of the same seed. Comparisons and claims are those of the pipeline. Of a study with one seed the
truth is that of all runs with this seed: what another seed would move all cells by together, it cannot know.
"""

import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from lorastudy.analysis import claims, comparisons, contrasts
from lorastudy.statistics import paired
from lorastudy.study import grid
from scipy.stats import binom, norm

STUDIES, TEXTS, MARGIN, BASE = 2000, 400, 0.02, 0.55
SHARED = 0.7  # correlation of two classifiers over the texts
SPREAD = 0.01  # standard deviation of a run around its cell's accuracy
TOGETHER = 0.5  # part of that variance that all runs of a seed share
STATISTICS = {"equivalence_margin": MARGIN, "resamples": 100, "seed": 0}
GRID = {"methods": ["lora", "qlora"], "targets": ["attention", "all-linear"]}
LINES = (
    grid.Line("r", "r", ((4, 32), (8, 32), (16, 32))),
    grid.Line("alpha", "alpha", ((8, 16), (8, 32), (8, 64))),
)
POINTS = list(dict.fromkeys(point for line in LINES for point in line.points))


def cells():
    return [
        {"method": method, "targets": targets, "r": r, "alpha": float(alpha), "scaling": "standard"}
        for method in GRID["methods"]
        for targets in GRID["targets"]
        for r, alpha in POINTS
    ]


def alike(cell):
    """No effect of anything."""
    return BASE


def at_the_margin(cell):
    """Each effect is exactly the margin: the smallest that makes a claim true (for equality: the largest)."""
    return (
        BASE
        + MARGIN * (cell["targets"] == "all-linear")
        + MARGIN * (cell["method"] == "lora")
        + MARGIN * (cell["r"] == 16)
        + MARGIN * (cell["alpha"] == 64)
    )


def points(seeds):
    """The points of the grid with the ids of their runs, as of ``contrasts.points``."""
    rows = []
    for cell in cells():
        point = f"{cell['method']}_{cell['targets']}_r{cell['r']}_a{cell['alpha']:g}"
        runs = {seed: f"{point}_s{seed}" for seed in range(seeds)}
        rows.append({**cell, "learning_rate": 1e-3, "point": point, "runs": runs})
    return pd.DataFrame(rows)


def draw(generator, accuracy, table, spread):
    """One study: scores by id, true accuracy by id of a run and by point (of one seed: of its runs)."""
    text = generator.normal(size=TEXTS)
    seeds = len(table.runs.iloc[0])
    common = generator.normal(size=seeds) * np.sqrt(TOGETHER) * spread
    scores, of_run, of_point = {}, {}, {}
    for cell in table.to_dict("records"):
        of_point[cell["point"]] = accuracy(cell) + (common[0] if seeds == 1 else 0.0)
        for seed, name in cell["runs"].items():
            of_run[name] = accuracy(cell) + common[seed] + generator.normal() * np.sqrt(1 - TOGETHER) * spread
            scores[name] = answers(generator, text, of_run[name])
    # the gain of LoRA over the baseline, which has no seed, is the margin
    base = np.mean([of_point[point] for point in table.point[table.method.eq("lora")]]) - MARGIN
    scores["head"] = answers(generator, text, base)
    of_run["head"] = of_point["head"] = base
    return scores, of_run, of_point


def answers(generator, text, accuracy):
    own = generator.normal(size=TEXTS)
    return (np.sqrt(SHARED) * text + np.sqrt(1 - SHARED) * own < norm.ppf(accuracy)).astype(np.float32)


# claim → whether it is true, where no effect is and where every effect is at the margin
TRUE = {
    alike: {
        "gain_lora_head": "true (at the margin)",
        "gain_qlora_head": "true (at the margin)",
        "r": "false",
        "alpha": "false",
        "targets": "false",
        "method_accuracy": "true",
    },
    at_the_margin: {
        "gain_lora_head": "true (at the margin)",
        "gain_qlora_head": "false",
        "r": "true (at the margin)",
        "alpha": "true (at the margin)",
        "targets": "true (at the margin)",
        "method_accuracy": "at the margin",
    },
}


def wrong(truth, verdict):
    """Whether a verdict is wrong; where the truth is the bound itself either verdict is."""
    return verdict == "supported" and not truth.startswith("true") or verdict == "contradicted" and truth != "false"


def truths(wanted, of):
    """True value of each contrast, ``of`` a point's runs (seed → id)."""
    values = []
    for contrast in wanted:
        values.append(np.mean([sum(weight * of(runs) for weight, runs in unit) for unit in contrast.members()]))
    return np.array(values)


def one_study(generator, accuracy, table, wanted, families, spread, counts, verdicts):
    """Draw a study, compare, judge; add to the counts (see ``simulate``). ``families``: name → group → positions."""
    scores, run, point = draw(generator, accuracy, table, spread)
    rows = comparisons.measure(wanted, table, {"accuracy": scores}, STATISTICS)
    names = {tuple(runs.values()): name for name, runs in zip(table.point, table.runs)} | {("head",): "head"}
    of_cells = truths(wanted, lambda runs: point[names[tuple(runs.values())]])
    of_runs = truths(wanted, lambda runs: np.mean([run[name] for name in runs.values()]))
    about_cells = rows.test.isin([*comparisons.AT_LARGE, comparisons.TESTS["units"]]).to_numpy()
    low, high, difference, p = rows[["low", "high", "difference", "p_holm"]].to_numpy(dtype=float).T
    for name, truth in (("cells", of_cells), ("runs", of_runs)):
        held = (low <= truth) & (truth <= high)
        # what is shown of no difference, or of one that is the other way
        false = (p < 0.05) & (np.where(np.abs(truth) < 1e-12, 0.0, truth) * difference <= 0)
        for family, groups in families.items():
            against = getattr(counts[family], name)
            against.held += sum(held[group].sum() for group in groups.values())
            against.false += sum(false[group].any() for group in groups.values())
    for family, groups in families.items():
        counts[family].about_cells = all(about_cells[group].all() for group in groups.values())
        counts[family].intervals += sum(map(len, groups.values()))
        counts[family].families += len(groups)
    for claim in claims.about_accuracy(rows.assign(view="configured"), GRID, LINES, MARGIN):
        verdicts[claim.claim][claim.verdict] += 1
    tally = counts["accuracy of a point"]
    for name, runs in zip(table.point, table.runs):
        values = np.array([scores[of] for of in runs.values()])
        tally.about_cells = len(runs) > 1
        low, high = paired.estimate(values).interval() if len(runs) > 1 else bootstrap(values.mean())
        tally.intervals += 1
        tally.cells.held += low <= point[name] <= high
        tally.runs.held += low <= np.mean([run[of] for of in runs.values()]) <= high


def bootstrap(accuracy):
    """Limit of the percentile bootstrap of ``metrics.evaluate`` for many resamples: quantiles of a binomial."""
    return binom.ppf([0.025, 0.975], TEXTS, accuracy) / TEXTS


@dataclass
class Against:
    """Counts against one truth: intervals that hold it, families with a false rejection after correction."""

    held: int = 0
    false: int = 0


@dataclass
class Tally:
    """Counts of one family of comparisons; ``about_cells`` says which truth its intervals and tests are about."""

    about_cells: bool = True
    intervals: int = 0
    families: int = 0
    cells: Against = field(default_factory=Against)
    runs: Against = field(default_factory=Against)

    @property
    def stated(self):
        return self.cells if self.about_cells else self.runs


def no_verdicts():
    return dict.fromkeys(("supported", "contradicted", "open"), 0)


def simulate(accuracy, seeds, spread, studies, seed):
    """Many studies.

    Returns:
        (family → ``Tally``; claim → verdict → number of studies).
    """
    generator = np.random.default_rng(seed)
    counts, verdicts = defaultdict(Tally), defaultdict(no_verdicts)
    table = points(seeds)
    wanted = contrasts.build(table, LINES, ["head"])
    families = defaultdict(lambda: defaultdict(list))
    for position, contrast in enumerate(wanted):
        families[contrast.family][contrast.group].append(position)
    for _ in range(studies):
        one_study(generator, accuracy, table, wanted, families, spread, counts, verdicts)
    return counts, verdicts


def percent(part, whole):
    return f"{100 * part / whole:.1f}"


# title, accuracy, seeds, standard deviation of runs
BLOCKS = [
    ("No effect; one seed; runs do not scatter", alike, 1, 0.0),
    ("No effect; one seed; runs scatter", alike, 1, SPREAD),
    ("Every effect at the margin; one seed; runs scatter", at_the_margin, 1, SPREAD),
    ("No effect; three seeds; runs do not scatter", alike, 3, 0.0),
    ("No effect; three seeds; runs scatter", alike, 3, SPREAD),
    ("No effect; three seeds; runs scatter three times as much", alike, 3, 3 * SPREAD),
    ("Every effect at the margin; three seeds; runs scatter", at_the_margin, 3, SPREAD),
    ("No effect; two seeds; runs scatter", alike, 2, SPREAD),
]
HEAD = """# Coverage of intervals, error of tests and verdicts

From `python benchmarks/coverage.py`: {studies:,} simulated studies a section, {texts} texts, 20 points, a margin of
{margin:g} points, runs that scatter by {spread:g} point. In percent; the standard error of a rate of 5% over {studies:,}
studies is {error:.2f}.

| over all sections, that of two seeds apart | lowest | | highest | |
|---|---:|---|---:|---|
"""
TEXT = """
Every interval and test is judged by the statement that it makes, which `about` names. *Cells*: the accuracy that cells
have over all runs (with one seed: over all runs with that seed). *These runs*: the accuracy that the runs at hand have
over all texts; with one seed, comparisons of single pairs and trends of single lines say no more than that. The last two
columns read them as statements about the cells all the same: what they then miss is the scatter of runs, which one seed
does not show, and the reason to run several.

Family-wise error: share of families with a false rejection after correction, that is, a difference shown where the truth
is none or lies the other way. Two runs that scatter are never exactly equal over all texts. Where they do, a statement about
these runs can be false only in its direction; its test of no difference is put to the proof where runs do not scatter.

Wrong: share of studies with a verdict that the truth forbids. At the margin itself either verdict on equality is, each by a
test of its own: *supported* may come in 5% of studies, *contradicted* in 2.5%, together more than either.

With two seeds t has one degree of freedom, and a quantile between the normal's 2.0 and its 12.7 cannot keep to 95% at
every share of runs in the variance: intervals err on the wide side. They have lines of their own above. Three seeds are
the fewest to plan for.
"""


def main(studies=STUDIES, processes=1):
    """Print the page. Its numbers do not depend on the number of processes."""
    with ProcessPoolExecutor(processes) as pool:
        runs = [
            pool.submit(simulate, accuracy, seeds, spread, studies, number)
            for number, (_, accuracy, seeds, spread) in enumerate(BLOCKS)
        ]
        report([run.result() for run in runs], studies)


def report(found, studies):
    """Print the page from what ``simulate`` returns for each block."""
    error = 100 * np.sqrt(0.05 * 0.95 / studies)
    print(HEAD.format(studies=studies, texts=TEXTS, margin=100 * MARGIN, spread=100 * SPREAD, error=error), end="")
    print_summary(found, studies)
    print(TEXT)
    for (title, accuracy, *_), (counts, verdicts) in zip(BLOCKS, found):
        print_block(title, accuracy, counts, verdicts, studies)


def print_summary(found, studies):
    """The lowest and the highest of every rate, each with where it is; two seeds by themselves."""
    several = {"": [], "two seeds: ": []}
    for (title, accuracy, seeds, _), (counts, verdicts) in zip(BLOCKS, found):
        several["two seeds: " if seeds == 2 else ""].append((title, accuracy, counts, verdicts))
    for of, blocks in several.items():
        rates = {
            "coverage of intervals": [],
            "family-wise error": [],
            "wrong *contradicted*": [],
            "wrong *supported*": [],
        }
        for title, accuracy, counts, verdicts in blocks:
            for family, tally in counts.items():
                where = f"{family} ({title})"
                rates["coverage of intervals"].append((tally.stated.held / tally.intervals, where))
                if tally.families:
                    rates["family-wise error"].append((tally.stated.false / tally.families, where))
            for claim, truth in TRUE[accuracy].items():
                for verdict in ("contradicted", "supported"):
                    if wrong(truth, verdict):
                        rates[f"wrong *{verdict}*"].append((verdicts[claim][verdict] / studies, f"{claim} ({title})"))
        errors, chance = rates["family-wise error"], np.sqrt(0.05 * 0.95 / studies)
        above = sum(error > 0.05 + 2 * chance for error, _ in errors)
        for what, values in rates.items():
            ends = (min(values), max(values)) if what.startswith("coverage") else (None, max(values))
            cells = (f"{percent(end[0], 1)} | {end[1]}" if end else "– |" for end in ends)
            print(f"| {of}{what} | {' | '.join(cells)} |")
        print(
            f"| {of}families with an error above 5 by more than two standard errors | – | | {above} | of {len(errors)} |"
        )


def print_block(title, accuracy, counts, verdicts, studies):
    print(f"## {title}\n")
    print("| family | about | intervals hold the truth | family-wise error | read as of cells: hold | error |")
    print("|---|---|---:|---:|---:|---:|")
    for family, tally in counts.items():
        views = (tally.stated,) if tally.about_cells else (tally.stated, tally.cells)
        rates = [
            [percent(view.held, tally.intervals), percent(view.false, tally.families) if tally.families else "–"]
            for view in views
        ]
        rates = sum(rates, []) + ["–", "–"] * tally.about_cells
        print(f"| {family} | {'cells' if tally.about_cells else 'these runs'} | {' | '.join(rates)} |")
    print("\n| claim | truth | supported | contradicted | open | wrong |\n|---|---|---:|---:|---:|---:|")
    for claim, truth in TRUE[accuracy].items():
        shares = [percent(count, studies) for count in verdicts[claim].values()]
        false = sum(count for verdict, count in verdicts[claim].items() if wrong(truth, verdict))
        print(f"| {claim} | {truth} | {' | '.join(shares)} | {percent(false, studies)} |")
    print(flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
