"""The paper's grid on the small model."""

import pandas as pd
from lorastudy.analysis import ratios
from lorastudy.presentation.figures import panels, style
from lorastudy.statistics import equivalence

from sections import studies

NAME = "smollm2"
VERDICTS = ("supported", "contradicted", "undecided", "not covered")
FIGURES = {"r_trend": "Accuracy and F1 against r", "alpha_trend": "Accuracy and F1 against alpha"}


def section():
    """Its paragraphs, tables and figures."""
    study = studies.settings_of(studies.HERE / NAME)
    summary, points = studies.read(NAME, "summary.csv"), studies.read(NAME, "points.csv")
    cells, points = summary[summary.kind.eq("cell")], points[points["view"].eq("configured")]
    done = cells[cells.status.eq("finished")]
    claims, questions = (studies.read(NAME, f"paper_tables/{name}.csv") for name in ("claims", "questions"))
    figures = FIGURES | {
        "variants": "The four variants against r, side by side", "lora_against_qlora": "Paired differences of LoRA and QLoRA"
    }  # fmt: skip
    processes = ratios.processes_per_gpu(done)
    return [
        f"## {study.study.name}",
        f"{studies.state(cells)} {int(done.n_test.iloc[0]):,} test texts of five balanced classes, "
        f"{len(study.grid.seeds)} seeds, batches of {study.training.batch_size}, learning rate "
        f"{study.training.learning_rate:g}, on {' and '.join(done.device.unique())}. {baselines(summary, study)} {best(points)}",
        studies.gpu(NAME)
        + f" {processes} processes were on it at a time: times of cells are those of running side by side." * bool(processes),
        f"Accuracy against r at {studies.line('r', study).words}, mean over the seeds with its 95% interval:",
        trend("r", points, study),
        f"Against α at {studies.line('alpha', study).words}:",
        trend("alpha", points, study),
        *(f"![{what}]({NAME}/figures/{name}.png)" for name, what in figures.items()),
        "### What a study asks",
        studies.table(
            [
                {"question": row.statement, "verdict": f"**{row.verdict}**", "found": row.found, "decided": _beside(row)}
                for row in questions[questions["view"].eq("configured")].itertuples()
            ],
            ["left"] * 4,
        ),
        "### What the paper claims",
        f"{counted(claims)} Its numbers are those of Llama-3-8B on Yelp reviews: another model on other texts need not have "
        "them, and what is asked here is whether what it says about r, α, target sets and methods holds elsewhere too.",
        studies.table(
            [
                {"section": row.section, "claim": row.statement, "verdict": f"**{row.verdict}**", "found": row.found}
                for row in claims.itertuples()
            ],
            ["left"] * 4,
        ),
        "### What holds across seeds",
        robust(studies.read(NAME, "comparisons.csv"), study),
        f"All tables: [`{NAME}/paper_tables/`]({NAME}/paper_tables/); every number: [`{NAME}/summary.csv`]({NAME}/summary.csv); "
        f"the whole study on one page, to be opened from the file: [`{NAME}/report.html`]({NAME}/report.html).",
    ]  # fmt: skip


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


def robust(comparisons, study):
    """What holds across seeds, in numbers."""
    cells = studies.read(NAME, "summary.csv").query("kind == 'cell'")
    done = cells[cells.status.eq("finished")]
    scatter = done.groupby(["method", "targets", "r", "alpha"]).accuracy.agg(["std", "size"]).query("size > 1")
    worst = scatter["std"].idxmax()
    lines = [
        f"Runs that differ in the seed alone scatter by {100 * scatter['std'].median():.1f} points of accuracy (median of "
        f"the standard deviations of {len(scatter)} points of the grid); at r = {worst[2]:g}, α = {worst[3]:g}, "
        f"{style.METHODS[worst[0]]} on {style.TARGETS[worst[1]]}, by {100 * scatter['std'].max():.1f}.",
        at_chance(cells, study),
    ]
    margin = 100 * study.statistics.equivalence_margin
    names = {
        "r_step": "neighbouring values of r", "alpha_step": "neighbouring values of α", "method": "LoRA and QLoRA",
        "targets": "the two target sets",
    }  # fmt: skip
    accuracy = comparisons[comparisons.metric.eq("accuracy") & comparisons["view"].eq("configured")]
    for family, what in names.items():
        part = accuracy[accuracy.family.eq(family)]
        lines.append(
            f"Of {len(part)} pairs of {what}, all else equal, {part.p_holm.lt(0.05).sum()} differ after Holm's correction, "
            f"and {part.answer.isin([equivalence.EQUIVALENT, equivalence.WITHIN]).sum()} are equal within {margin:g} point{'s' * (margin != 1)} by their 95% intervals."
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


def at_chance(cells, study):
    """The runs that did not diverge and yet learned nothing."""
    lost = cells[cells.status.eq("collapsed")]
    places = lost.groupby(["method", "targets", "r", "alpha"], sort=False).size()
    named = "; ".join(
        f"{count} of {len(study.grid.seeds)} of {style.METHODS[method]} on {style.TARGETS[targets]}, r = {r:g}, α = {alpha:g}"
        for (method, targets, r, alpha), count in places.items()
    )
    return f"{len(lost)} of {len(cells)} runs end no better than chance{': ' * bool(named)}{named}."


def headline():
    """What the README shows of it: the ends of both trends with intervals, the verdicts, both figures."""
    study = studies.settings_of(studies.HERE / NAME)
    summary, points = studies.read(NAME, "summary.csv"), studies.read(NAME, "points.csv")
    points, cells = points[points["view"].eq("configured")], summary[summary.kind.eq("cell")]
    places = [(axis, studies.values(axis, study)[end]) for axis in ("r", "alpha") for end in (0, -1)]
    rows = []
    for (method, targets), part in points.groupby(["method", "targets"], sort=False):
        row = {"": f"{style.METHODS[method]}, {style.TARGETS[targets]}"}
        for axis, value in places:
            found = studies.point(part, axis, value, study)
            row[f"r = {found.r}, α = {found.alpha:g}"] = scored(found)
        rows.append(row)
    return [
        f"{study.study.name}: accuracy on {int(cells.n_test.max()):,} test texts of five balanced classes, mean of "
        f"{len(study.grid.seeds)} seeds with its 95% interval. {studies.state(cells)} {baselines(summary, study)}",
        studies.table(rows),
        *(f"![{what}](docs/results/{NAME}/figures/{name}.png)" for name, what in FIGURES.items()
          if not cells.status.eq("missing").any()),
        verdicts(),
    ]  # fmt: skip


def verdicts():
    """The questions with what was found, a sentence each; and how the paper's claims came out."""
    questions = studies.read(NAME, "paper_tables/questions.csv")
    lines = [
        f"- {row.statement.rstrip('.')}: **{row.verdict}**. {_effect(row.found)}"
        for row in questions[questions["view"].eq("configured")].itertuples()
    ]
    return "What this study says, with 95% intervals unless told otherwise:\n\n" + "\n".join(lines) + "\n\n" + counted(
        studies.read(NAME, "paper_tables/claims.csv")
    )  # fmt: skip


def _without(row):
    """Which points an average goes without; records of earlier versions do not say."""
    left = getattr(row, "left_out", None)
    return "" if pd.isna(left) else f" (without {left}, where runs scatter far more than elsewhere)"


def _effect(found):
    """Effect and interval out of what was found, and the points that it goes without, if any."""
    rest, _, without = found.partition(" Without ")
    effect = rest.split(" Over ")[0].split("; ")[0].rstrip(".") + "."
    return f"{effect} Without {without}" if without else effect


def counted(claims):
    """How many of the paper's claims came out how, those that were decided by name."""
    counts = claims.verdict.value_counts()
    text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    return f"Of the paper's {len(claims)} claims, judged on these cells: {text}."


def _beside(row):
    """What other tests say of a question."""
    return "" if pd.isna(row.beside) else row.beside
