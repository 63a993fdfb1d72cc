"""Write resources/variances.yaml, what a study's power is planned with, from the records of docs/results/smollm2.

python docs/variances.py
"""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from lorastudy.analysis import contrasts, scatter, sensitivity
from lorastudy.study import grid, settings

REPOSITORY = Path(__file__).resolve().parents[1]

RECORDS = REPOSITORY / "docs" / "results" / "smollm2"
HEAD = """# Variances of a run's accuracy (fractions squared) that power is planned with until a study has its own, by what the
# chance falls on: runs, between seeds; texts, between texts; both, what is left of one text with one seed. Written by
# `python docs/variances.py` from the records of the study named as their source; the fields are those of
# `lorastudy.analysis.sensitivity.Variances`.
"""


def variances():
    """The ``sensitivity.Variances`` of the records."""
    study = settings.load(yaml.safe_load((RECORDS / "config.yaml").read_text(encoding="utf-8")))
    summary = pd.read_csv(RECORDS / "summary.csv", dtype={"r": "Int64", "seed": "Int64"})
    cells = summary[summary.kind.eq("cell")]
    rows = pd.read_csv(RECORDS / "comparisons.csv")
    table = contrasts.points(cells)
    accuracies = {row.id: np.array([row.accuracy]) for row in cells.itertuples() if row.status == "finished"}
    source = (
        f"{study.study.name}: {len(accuracies)} cells, {len(study.grid.seeds)} seeds, "
        f"{int(cells.n_test.max()):,} test texts, median accuracy {cells.accuracy.median():.2f}"
    )
    return sensitivity.measured(
        table,
        scatter.fit(table, accuracies),
        rows[rows.metric.eq("accuracy") & rows["view"].eq("configured")],
        contrasts.build(table, grid.lines(study.grid), []),
        source,
    )


def page():
    """The file as one string, variances with three digits."""
    found = variances()
    parts = {
        name: {stratum: float(f"{value:.3g}") for stratum, value in getattr(found, name).items()}
        for name in ("runs", "texts", "both")
    }
    return HEAD + yaml.safe_dump({"source": found.source, **parts}, sort_keys=False, width=120)


if __name__ == "__main__":
    sensitivity.DEFAULT.write_text(page(), encoding="utf-8")
