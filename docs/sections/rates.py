"""Whether r and alpha matter once the learning rate is tuned, on the small model."""

from lorastudy.analysis import tuning
from lorastudy.presentation.figures import panels, style

from sections import studies

NAME = "smollm2-learning-rates"


def section():
    """Its paragraphs, tables and figures."""
    study = studies.settings_of(studies.HERE / NAME)
    cells, points = studies.read(NAME, "summary.csv").query("kind == 'cell'"), studies.read(NAME, "points.csv")
    claims = studies.read(NAME, "paper_tables/claims.csv")
    names = {"configured": f"{study.training.learning_rate:g} for all", "tuned": "the best of each point"}
    return [
        f"## {study.study.name}",
        f"{studies.state(cells)} Learning rates {', '.join(f'{rate:g}' for rate in rates(study))}; the best one of each point is chosen "
        f"on {study.data.validation_size:,} validation texts, which no figure or verdict uses otherwise. {studies.gpu(NAME)}",
        f"Accuracy by learning rate, mean over {len(study.grid.seeds)} seeds; with its 95% interval where the rate is the "
        "chosen one:",
        by_rate(cells, points, study),
        "\n".join(f"- {spread(points, study, axis)}" for axis in ("r", "alpha"))
        + "".join(f"\n- {note}" for note in tuning.edge_notes(cells)),
        *(f"![Accuracy against {axis}, learning rate tuned]({NAME}/figures/tuned_{axis}_trend.png)" for axis in ("r", "alpha")),
        studies.table(
            [
                {"question": row.statement, "learning rate": names[row.view], "verdict": f"**{row.verdict}**", "found": row.found}
                for row in claims[claims.claim.isin(["r", "alpha", "targets"])].itertuples()
            ],
            ["left"] * 4,
        ),
        f"All tables: [`{NAME}/paper_tables/`]({NAME}/paper_tables/); the study is of an earlier version, which judged by a margin "
        "of 2 points.",
    ]  # fmt: skip


def rates(study):
    return sorted({study.training.learning_rate, *study.grid.learning_rates})


def by_rate(cells, points, study):
    """A row per point of the grid, a column per learning rate."""
    tuned = points[points["view"].eq("tuned")]
    finished = cells[cells.status.eq("finished")]
    means = finished.groupby(["targets", "r", "alpha", "learning_rate"]).accuracy.mean()
    rows = []
    for _, point in tuned.sort_values(["targets", "r", "alpha"], ascending=[False, True, True]).iterrows():
        row = {"": style.TARGETS[point.targets], "r": f"{point.r}", "α": f"{point.alpha:g}"}
        for rate in rates(study):
            mean = means.get((point.targets, point.r, point.alpha, rate))
            row[f"{rate:g}"] = "–" if mean is None else f"{mean:.3f}"
        row[f"{point.learning_rate:g}"] = f"**{studies.interval(point)}**"
        rows.append(row)
    return studies.table(rows)


def spans(points, study, axis):
    """How far apart the best and the worst value of r or alpha are, by target set: {view: points of accuracy}."""
    scores = studies.along(points, axis, study).groupby(["targets", "view"], sort=False).accuracy
    return (100 * (scores.max() - scores.min())).unstack("view")


def spread(points, study, axis):
    """``spans`` as a sentence."""
    found = spans(points, study, axis)
    values = studies.values(axis, study)
    at_one, tuned = (
        " and ".join(f"{value:.1f} ({style.TARGETS[targets]})" for targets, value in found[view].items())
        for view in ("configured", "tuned")
    )
    return (
        f"Along {panels.SYMBOLS[axis]}, {min(values):g} to {max(values):g}, the best and the worst point are {at_one} points of "
        f"accuracy apart at one learning rate, {tuned} with the best of {len(rates(study))} rates for each point."
    )


def headline():
    """What the README says of it."""
    study = studies.settings_of(studies.HERE / NAME)
    methods = " and ".join(style.METHODS[method] for method in study.grid.methods)
    found = spread(studies.read(NAME, "points.csv"), study, "alpha")
    return f"{study.study.name} ({methods}): {found[0].lower()}{found[1:]}"
