"""The alpha line beyond the paper's, to both sides, on the small model."""

from sections import grid, studies

NAME = "smollm2-alpha"


def page():
    """Its paragraphs, table and figures."""
    study = studies.settings_of(studies.HERE / NAME)
    cells, points = studies.read(NAME, "summary.csv").query("kind == 'cell'"), studies.read(NAME, "points.csv")
    asked = studies.read(NAME, "paper_tables/questions.csv").set_index("claim").loc["alpha"]
    low, *_, high = studies.values("alpha", study)
    return [
        f"# {study.study.name}",
        f"{studies.state(cells)} The paper's α goes from 8 to 64 at r = 8; here it goes from {low:g} to {high:g}, at the learning "
        f"rate {study.training.learning_rate:g} throughout. {grid.at_chance(cells, study)} {studies.gpu(NAME)} "
        f"{studies.origin(cells)}",
        f"Accuracy against α at {studies.line('alpha', study).words}, mean over {len(study.grid.seeds)} seeds with its 95% interval:",
        grid.trend("alpha", points, study),
        "![Accuracy and F1 against alpha](figures/alpha_trend.png)",
        f"{asked.statement.rstrip('.')}: **{asked.verdict}**. {asked.found}",
        "All tables: [`paper_tables/`](paper_tables/); every number: [`summary.csv`](summary.csv).",
    ]
