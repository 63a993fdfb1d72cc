"""Whether r and alpha matter once the learning rate is tuned, on the small model."""

import pandas as pd
from lorastudy.analysis import tuning
from lorastudy.presentation.figures import panels, style

from sections import studies

NAME = "smollm2-learning-rates"
SETS = ["method", "targets"]


def page():
    """Its paragraphs, tables and figures."""
    study = studies.settings_of(studies.HERE / NAME)
    cells, points = studies.read(NAME, "summary.csv").query("kind == 'cell'"), studies.read(NAME, "points.csv")
    return [
        f"# {study.study.name}",
        f"{studies.state(cells)} Learning rates {', '.join(f'{rate:g}' for rate in rates(study))}; the best one of each point is chosen "
        f"on {study.data.validation_size:,} validation texts, which no figure or verdict uses otherwise. {studies.gpu(NAME)} "
        f"{studies.origin(cells)}",
        f"Accuracy by learning rate, mean over {len(study.grid.seeds)} seeds; with its 95% interval where the rate is the "
        "chosen one:",
        by_rate(cells, points, study),
        "\n".join(f"- {line}" for line in [*(spread(points, study, axis) for axis in ("r", "alpha")), bracketed(cells)]),
        *(f"![Accuracy against {axis}, learning rate tuned](figures/tuned_{axis}_trend.png)" for axis in ("r", "alpha")),
        answers(study),
        "All tables: [`paper_tables/`](paper_tables/); every number: [`summary.csv`](summary.csv).",
    ]  # fmt: skip


def answers(study):
    """What the study asks, at its one learning rate and at the best of each point."""
    names = {"configured": f"{study.training.learning_rate:g} for all", "tuned": "the best of each point"}
    tables = [studies.HERE / NAME / "paper_tables" / f"{table}.csv" for table in ("questions", "claims")]
    asked = pd.read_csv(next(path for path in tables if path.exists()))  # claims: of records of an earlier version
    asked = asked[
        asked.claim.isin(["r", "alpha", "targets", "method_accuracy"]) & ~asked.found.str.startswith("Nothing")
    ]
    return studies.table(
        [
            {"question": row.statement, "learning rate": names[row.view], "verdict": f"**{row.verdict}**", "found": row.found}
            for row in asked.sort_values("claim", kind="stable").itertuples()
        ],
        ["left"] * 4,
    )  # fmt: skip


def bracketed(cells):
    """Whether the best rate of every point lies between two that are worse; else which further ones to try."""
    return " ".join(tuning.edge_notes(cells)) or "The best rate of every point has a lower and a higher one beside it."


def rates(study):
    return sorted({study.training.learning_rate, *study.grid.learning_rates})


def by_rate(cells, points, study):
    """A row per point of the grid, a column per learning rate."""
    tuned = points[points["view"].eq("tuned")]
    finished = cells[cells.status.eq("finished")]
    means = finished.groupby([*SETS, "r", "alpha", "learning_rate"]).accuracy.mean()
    rows = []
    for _, point in tuned.sort_values([*SETS, "r", "alpha"], ascending=[True, False, True, True]).iterrows():
        row = {"": named(study, point.method, point.targets), "r": f"{point.r}", "α": f"{point.alpha:g}"}
        for rate in rates(study):
            mean = means.get((point.method, point.targets, point.r, point.alpha, rate))
            row[f"{rate:g}"] = "–" if mean is None else f"{mean:.3f}"
        row[f"{point.learning_rate:g}"] = f"**{studies.interval(point)}**"
        rows.append(row)
    return studies.table(rows)


def named(study, method, targets):
    """A method and target set, each only where the study has several."""
    of_method = [style.METHODS[method]] * (len(study.grid.methods) > 1 or len(study.grid.targets) == 1)
    return ", ".join([*of_method, *[style.TARGETS[targets]] * (len(study.grid.targets) > 1)])


def spans(points, study, axis):
    """How far apart the best and the worst value of r or alpha are, by method and target set: points of accuracy by view."""
    scores = studies.along(points, axis, study).groupby([*SETS, "view"], sort=False).accuracy
    return (100 * (scores.max() - scores.min())).unstack("view")


def spread(points, study, axis):
    """``spans`` as a sentence."""
    found = spans(points, study, axis)
    values = studies.values(axis, study)
    at_one, tuned = (
        " and ".join(f"{value:.1f} ({named(study, *key)})" for key, value in found[view].items())
        for view in ("configured", "tuned")
    )
    return (
        f"Along {panels.SYMBOLS[axis]}, {min(values):g} to {max(values):g}, the best and the worst point are {at_one} points of "
        f"accuracy apart at one learning rate, {tuned} with the best of {len(rates(study))} rates for each point."
    )


def headline(results):
    """What is said of it in short; ``results``: where its page is."""
    study = studies.settings_of(studies.HERE / NAME)
    found = spread(studies.read(NAME, "points.csv"), study, "alpha")
    return f"[With the learning rate tuned]({results}{NAME}/), film sentences: {found[0].lower()}{found[1:]}"
