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
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "workflow" / "scripts"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from lorastudy import claims, comparisons, paired  # noqa: E402
from scipy.stats import norm  # noqa: E402

STUDIES, TEXTS, MARGIN, BASE = 1000, 400, 0.02, 0.55
SHARED = 0.7  # correlation of two classifiers over the texts
SPREAD = 0.01  # standard deviation of a run around its cell's accuracy
TOGETHER = 0.5  # part of that variance that all runs of a seed share
STATISTICS = {"equivalence_margin": MARGIN, "resamples": 100, "seed": 0}
GRID = {"methods": ["lora", "qlora"], "targets": ["attention", "all-linear"], "r": [4, 8, 16], "alpha": [16, 32, 64]}
LINES = [(4, 32), (8, 32), (16, 32), (8, 16), (8, 64)]


def cells():
    return [
        {"method": method, "targets": targets, "r": r, "alpha": float(alpha), "scaling": "standard"}
        for method in GRID["methods"]
        for targets in GRID["targets"]
        for r, alpha in LINES
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
    """The points of the grid with the ids of their runs, as of ``comparisons.points``."""
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


def wrong(truth, verdicts):
    """Number of wrong verdicts; where the truth is the bound itself either verdict is."""
    return (0 if truth.startswith("true") else verdicts["supported"]) + (
        0 if truth == "false" else verdicts["contradicted"]
    )


def truths(contrasts, of):
    """True value of each contrast, ``of`` a point's runs (seed → id)."""
    values = []
    for contrast in contrasts:
        units = comparisons.trend_units(contrast.units) if contrast.family.endswith("_trend") else contrast.units
        values.append(np.mean([sum(weight * of(runs) for weight, runs in unit) for unit in units]))
    return np.array(values)


def one_study(generator, accuracy, table, contrasts, spread, counts, verdicts):
    """Draw a study, compare, judge; add to the counts (see ``simulate``)."""
    scores, run, point = draw(generator, accuracy, table, spread)
    rows = comparisons.measure(contrasts, {"accuracy": scores}, STATISTICS)
    names = {tuple(runs.values()): name for name, runs in zip(table.point, table.runs)} | {("head",): "head"}
    to_point = truths(contrasts, lambda runs: point[names[tuple(runs.values())]])
    to_run = truths(contrasts, lambda runs: np.mean([run[name] for name in runs.values()]))
    held = (rows.low <= to_point) & (to_point <= rows.high)
    held_runs = (rows.low <= to_run) & (to_run <= rows.high)
    rejected = (np.abs(to_point) < 1e-12) & rows.p_holm.lt(0.05)
    for family, index in rows.groupby("family").groups.items():
        # the groups of a family are corrected one by one
        groups = rejected[index].groupby(rows.group[index]).any()
        counts[family] += [held[index].sum(), held_runs[index].sum(), len(index), groups.sum(), len(groups)]
    for claim in claims.about_accuracy(rows.assign(view="configured"), GRID, MARGIN):
        verdicts.setdefault(claim.claim, dict.fromkeys(("supported", "contradicted", "open"), 0))[claim.verdict] += 1
    for name, runs in zip(table.point, table.runs):
        low, high = paired.estimate(np.array([scores[of] for of in runs.values()])).interval()
        level = np.mean([run[of] for of in runs.values()])
        counts["accuracy of a point"] += [low <= point[name] <= high, low <= level <= high, 1, 0, 0]


def _zeros():
    return np.zeros(5)


def simulate(accuracy, seeds, spread, studies, seed):
    """Many studies.

    Returns:
        (family → numbers of intervals that hold the cells' truth, that hold the truth of these very runs, of intervals,
        of families with a rejected true hypothesis, of families; claim → verdict → number of studies).
    """
    generator = np.random.default_rng(seed)
    counts, verdicts = defaultdict(_zeros), {}
    table = points(seeds)
    contrasts = comparisons.contrasts(table, ["head"])
    for _ in range(studies):
        one_study(generator, accuracy, table, contrasts, spread, counts, verdicts)
    return counts, verdicts


def percent(part, whole):
    return f"{100 * part / whole:.1f}" if whole else "–"


BLOCKS = [
    ("No effect; one seed; runs do not scatter", alike, 1, 0.0),
    ("No effect; one seed; runs scatter", alike, 1, SPREAD),
    ("No effect; three seeds; runs scatter", alike, 3, SPREAD),
    ("Every effect at the margin; one seed; runs scatter", at_the_margin, 1, SPREAD),
    ("Every effect at the margin; three seeds; runs scatter", at_the_margin, 3, SPREAD),
]
HEAD = """# Coverage of intervals, error of tests and verdicts

From `python benchmarks/coverage.py`: {studies:,} simulated studies a section, {texts} texts, 20 points, a margin of
{margin:g} points, runs that scatter by {spread:g} point. In percent; the standard error of a rate of 5% over {studies:,}
studies is {error:.1f}.

The cells' truth is the accuracy that a cell has over all runs (with one seed: all runs with that seed), these runs' truth
the accuracy that the runs at hand have over all texts. With one seed, intervals and tests of single pairs are about these
runs: where runs scatter they fall short of the cells' truth, as the tables say. Family-wise error: share of families with a
true hypothesis rejected after correction. Wrong: share of studies with a verdict that the truth forbids; at the margin
itself either verdict on equality counts as wrong.
"""


def main(studies=STUDIES, processes=1):
    """Print the page. Its numbers do not depend on the number of processes."""
    error = 100 * np.sqrt(0.05 * 0.95 / studies)
    print(HEAD.format(studies=studies, texts=TEXTS, margin=100 * MARGIN, spread=100 * SPREAD, error=error))
    with ProcessPoolExecutor(processes) as pool:
        runs = [
            pool.submit(simulate, accuracy, seeds, spread, studies, number)
            for number, (_, accuracy, seeds, spread) in enumerate(BLOCKS)
        ]
        for (title, accuracy, *_), run in zip(BLOCKS, runs):
            print_block(title, accuracy, *run.result(), studies)


def print_block(title, accuracy, counts, verdicts, studies):
    print(f"## {title}\n")
    print("| family | intervals hold the cells' truth | hold these runs' truth | family-wise error |")
    print("|---|---:|---:|---:|")
    for family, (held, held_runs, all_of, rejected, families) in counts.items():
        error = percent(rejected, families) if accuracy is alike and families and "baseline" not in family else "–"
        print(f"| {family} | {percent(held, all_of)} | {percent(held_runs, all_of)} | {error} |")
    print("\n| claim | truth | supported | contradicted | open | wrong |\n|---|---|---:|---:|---:|---:|")
    for claim, truth in TRUE[accuracy].items():
        rates = [percent(count, studies) for count in (*verdicts[claim].values(), wrong(truth, verdicts[claim]))]
        print(f"| {claim} | {truth} | {' | '.join(rates)} |")
    print(flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
