"""The paper's grid on the small model: a page for each data set."""

import pandas as pd
from lorastudy.analysis import comparisons, ratios, sensitivity
from lorastudy.analysis.claims import words
from lorastudy.presentation.figures import panels, style
from lorastudy.statistics import equivalence, paired, power
from lorastudy.study import grid

from sections import claims, studies

EQUAL = (equivalence.EQUIVALENT, equivalence.WITHIN)
FIGURES = {
    "r_trend": "Accuracy and F1 against r",
    "alpha_trend": "Accuracy and F1 against alpha",
    "variants": "The four variants against r and alpha, side by side",
    "lora_against_qlora": "Paired differences of LoRA and QLoRA",
}
OF_THE_PAPER = {
    "figure3_alpha_all_linear": "Figure 3: scores against alpha, all linear layers",
    "figure4_alpha_attention": "Figure 4: scores against alpha, attention",
    "figure5_r_all_linear": "Figure 5: scores against r, all linear layers",
    "figure6_r_attention": "Figure 6: scores against r, attention",
    "figure7_variants": "Figure 7: the variants at r = 1 and 2",
    "figure8_variants": "Figure 8: the variants at r = 4 and 8",
    "figure9_variants": "Figure 9: the variants at r = 16 and 32",
    "figure10_variants": "Figure 10: the variants at r = 64 and 128",
    "figure11_variants": "Figure 11: the variants at r = 256 and 512",
}


def page(name):
    """Paragraphs, tables and figures of one study."""
    study = studies.settings_of(studies.HERE / name)
    summary, points = studies.read(name, "summary.csv"), studies.read(name, "points.csv")
    cells, points = summary[summary.kind.eq("cell")], points[points["view"].eq("configured")]
    done = cells[cells.status.eq("finished")]
    questions, found = (studies.read(name, f"paper_tables/{table}.csv") for table in ("questions", "claims"))
    processes = ratios.processes_per_gpu(done)
    return [
        f"# {study.study.name}",
        f"{studies.state(cells)} {int(done.n_test.iloc[0]):,} test texts of five balanced classes, "
        f"{len(study.grid.seeds)} seeds, batches of {study.training.batch_size}, learning rate "
        f"{study.training.learning_rate:g}, on {' and '.join(done.device.unique())}. {baselines(summary, study)} {best(points)}",
        studies.gpu(name)
        + f" {processes} processes were on it at a time: times of cells are those of running side by side." * bool(processes)
        + f" {studies.origin(cells)}",
        "Every number: [`summary.csv`](summary.csv); all tables: [`paper_tables/`](paper_tables/); the whole study on one page, "
        "to be opened from the file: [`report.html`](report.html).",
        f"Accuracy against r at {studies.line('r', study).words}, mean over the seeds with its 95% interval:",
        trend("r", points, study),
        f"Against α at {studies.line('alpha', study).words}:",
        trend("alpha", points, study),
        *(f"![{what}](figures/{figure}.png)" for figure, what in FIGURES.items()),
        "## What a study asks",
        studies.table(
            [
                {"question": row.statement, "verdict": f"**{row.verdict}**", "found": row.found, "beside": _beside(row)}
                for row in questions[questions["view"].eq("configured")].itertuples()
            ],
            ["left"] * 4,
        ),
        "## What the paper claims",
        f"{claims.counted(name)} [`paper_tables/claims.md`](paper_tables/claims.md) says how each was decided.",
        studies.table(
            [
                {"section": row.section, "claim": row.statement, "verdict": f"**{row.verdict}**", "found": row.found}
                for row in found.itertuples()
            ],
            ["left"] * 4,
        ),
        "## What holds across seeds",
        robust(name, study),
        "## What the plan said, and what came out",
        *planned(name, study, int(done.n_test.iloc[0])),
        "## The paper's figures, repeated",
        *(f"![{what}](figures/{figure}.png)" for figure, what in OF_THE_PAPER.items()),
    ]  # fmt: skip


def planned(name, study, texts):
    """Power as `check` predicted it before the run, beside what the errors that came out make of it."""
    rows = studies.read(name, "comparisons.csv").query("metric == 'accuracy' and view == 'configured'")
    seeds = len(study.grid.seeds)
    plan = sensitivity.plan(study.grid, grid.lines(study.grid), sensitivity.default(), seeds, texts)
    families = [family for family in sensitivity.FAMILIES if rows.family.eq(family).any()]
    shown = []
    for family, row in zip(families, plan, strict=True):
        known = rows[rows.family.eq(family) & rows.low.notna()]
        found = sorted(map(comparisons.estimate_of, known.itertuples()), key=paired.Estimate.half_width)
        if not found:
            continue
        middle = found[len(found) // 2]
        shown.append(
            {
                "comparison of accuracies": row.what, "tests": str(row.tests),
                "shown, planned": _points(row.difference),
                "shown, came out": _points(power.smallest_difference(middle, power.LEVEL / row.tests)),
                "equal within, planned": _points(row.margin), "equal within, came out": _points(power.smallest_margin(middle)),
            }
        )  # fmt: skip
    return [
        studies.table(shown),
        f"Points of accuracy, each with a chance of {power.POWER:.0%}: the smallest true difference that is shown after correction "
        "for so many tests, and the smallest margin within which equal ones are shown to be. Planned: what `check` says before "
        f"anything has run, with the variances of {sensitivity.default().source}. Came out: the comparison of middling error of each kind; "
        "points whose runs scatter far more than the others' make it larger.",
    ]


def _points(fraction):
    return f"{100 * fraction:.1f}" if fraction < power.LONGEST else "never"


def baselines(summary, study):
    """What the base model reaches, and on what if that is not the cells' device; and what chance does."""
    base = summary[summary.kind.eq("baseline")].set_index("id")
    known = [f"{base.accuracy[name]:.3f} by {how}" for name, how in (("head", "its untrained head"), ("prompt", "prompting"))
             if base.status.get(name) == "finished"]  # fmt: skip
    if not known:
        return "The base model has not been measured."
    other = sorted(set(base.device.dropna()) - set(summary[summary.kind.eq("cell")].device.dropna()))
    elsewhere = f" (on {' and '.join(other)})" * bool(other)
    return f"The base model's accuracy is {' and '.join(known)}{elsewhere}; chance is {1 / len(study.data.labels):.3f}."


def best(points):
    """The best point of the grid."""
    row = points.loc[points.accuracy.idxmax()]
    return (
        f"Best point of the grid: {style.METHODS[row.method]} on {style.TARGETS[row.targets]}, r = {row.r}, α = {row.alpha:g}: "
        f"{studies.interval(row)} (the best of many is flattered by choosing it)."
    )


def trend(axis, points, study):
    """Accuracy along r or alpha, a row per method and target set: mean over the seeds with its 95% interval."""
    rows = []
    for (method, targets), part in points.groupby(["method", "targets"], sort=False):
        row = {"": f"{style.METHODS[method]}, {style.TARGETS[targets]}"}
        for value in studies.values(axis, study):
            row[f"{panels.SYMBOLS[axis]} = {value:g}"] = scored(studies.point(part, axis, value, study))
        rows.append(row)
    return studies.table(rows)


def scored(point):
    """A point's accuracy with its interval, and how many of its runs learned if that is not all."""
    few = f" ({point.seeds} of {point.seeds_planned} learned)" if point.seeds < point.seeds_planned else ""
    return studies.interval(point) + few


def robust(name, study):
    """What holds across seeds, in numbers."""
    cells = studies.read(name, "summary.csv").query("kind == 'cell'")
    done = cells[cells.status.eq("finished")]
    scatter = done.groupby(["method", "targets", "r", "alpha"]).accuracy.agg(["std", "size"]).query("size > 1")
    worst = scatter["std"].idxmax()
    lines = [
        f"Runs that differ in the seed alone scatter by {100 * scatter['std'].median():.1f} points of accuracy (median of "
        f"the standard deviations of {len(scatter)} points of the grid); at r = {worst[2]:g}, α = {worst[3]:g}, "
        f"{style.METHODS[worst[0]]} on {style.TARGETS[worst[1]]}, by {100 * scatter['std'].max():.1f}.",
        at_chance(cells, study),
    ]
    margin = study.statistics.equivalence_margin
    found = studies.read(name, "comparisons.csv")
    families = {
        "r_step": "neighbouring values of r", "alpha_step": "neighbouring values of α", "method": "LoRA and QLoRA",
        "targets": "the two target sets",
    }  # fmt: skip
    accuracy = found[found.metric.eq("accuracy") & found["view"].eq("configured")]
    for family, what in families.items():
        part = accuracy[accuracy.family.eq(family)]
        lines.append(
            f"Of {len(part)} pairs of {what}, all else equal, {part.p_holm.lt(0.05).sum()} differ after Holm's correction, "
            f"and {part.answer.isin(EQUAL).sum()} are equal within {words.margin(margin)} by their 95% intervals."
        )
    for family, what in (
        ("pooled_method", "LoRA minus QLoRA"),
        ("pooled_targets", "All linear layers minus attention"),
    ):
        for row in accuracy[accuracy.family.eq(family)].itertuples():
            sign = 1 if (row.a, row.b) in {("lora", "qlora"), ("all-linear", "attention")} else -1
            low, high = sorted((sign * row.low, sign * row.high))
            lines.append(
                f"{what}, over {row.units:.0f} matched pairs{_without(row)}: {100 * sign * row.difference:+.1f} points "
                f"[{100 * low:+.1f}, {100 * high:+.1f}].".replace("-", "−")
            )
    return "\n".join(f"- {line}" for line in lines)


def _without(row):
    """Which points an average goes without; records of earlier versions do not say."""
    left = getattr(row, "left_out", None)
    return "" if pd.isna(left) else f" (without {left}, where runs scatter far more than elsewhere)"


def at_chance(cells, study):
    """The runs that did not diverge and yet learned nothing."""
    lost = cells[cells.status.eq("collapsed")]
    places = lost.groupby(["method", "targets", "r", "alpha"], sort=False).size()
    named = "; ".join(
        f"{count} of {len(study.grid.seeds)} of {style.METHODS[method]} on {style.TARGETS[targets]}, r = {r:g}, α = {alpha:g}"
        for (method, targets, r, alpha), count in places.items()
    )
    return f"{len(lost)} of {len(cells)} runs end no better than chance{': ' * bool(named)}{named}."


def _without(row):
    """Which points an average goes without; records of earlier versions do not say."""
    left = getattr(row, "left_out", None)
    return "" if pd.isna(left) else f" (without {left}, where runs scatter far more than elsewhere)"


def _beside(row):
    """What other tests say of a question."""
    return "" if pd.isna(row.beside) else row.beside
