"""The study in one table: a row per cell and one per baseline, whatever became of it; and what tables and figures read."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lorastudy.analysis import collapse
from lorastudy.analysis import comparisons as of_comparisons
from lorastudy.analysis import points as of_points
from lorastudy.jobs import attempts
from lorastudy.statistics import metrics
from lorastudy.study import grid, layout, measurements, records, settings
from lorastudy.study.errors import StudyError

BASELINES = ("head", "prompt")

IDENTITY = ["id", "kind", "method", "targets", "r", "alpha", "scaling", "learning_rate", "seed", "status", "reason"]
SCORES = [f"{name}{end}" for name in metrics.NAMES for end in ("", "_low", "_high")]
FROM_TRAINING = [name for name in measurements.names(measurements.Training) if name != "status"]
FROM_EVALUATION = measurements.names(measurements.Evaluation)
COLUMNS = [
    *IDENTITY,
    "n_test",
    "chance",
    *SCORES,
    "validation_accuracy",
    "validation_nll",
    *FROM_TRAINING,
    *(f"evaluation_{name}" for name in FROM_EVALUATION),
    "device",
    "git_commit",
    "git_dirty",
    "time_utc",
]
WHOLE = ["r", "seed", "n_test", *measurements.of_type(measurements.Training, int)]
TEXT = ["method", "targets", "scaling", "status", "reason", *measurements.of_type(measurements.Training, str), "device"]


class ResultsError(StudyError):
    """Gathered results that another version of this pipeline wrote."""


@dataclass(frozen=True)
class Results:
    """All that tables, figures and the report are made from.

    Attributes:
        summary: data frame with the columns ``COLUMNS``, a row per cell or control (in the grid's order) and one per
            baseline (last).
        points: data frame of ``points.build``: a row per point of the grid, over its seeds.
        comparisons: data frame of paired comparisons on the same texts.
        curves: data frame, the training logs of all cells one below the other, with the cell's ``id`` in front.
        confusion: id → confusion matrix (list of rows, rows true), of all that have one.
        classes: names of the classes, in their order; empty where neither data card nor configuration has them.
        settings: the configuration's blocks that tables and figures depend on, by name.
    """

    summary: "pd.DataFrame"
    points: "pd.DataFrame"
    comparisons: "pd.DataFrame"
    curves: "pd.DataFrame"
    confusion: dict
    classes: tuple
    settings: dict

    @property
    def lines(self):
        """The lines of the study's grid (``grid.lines``)."""
        return grid.lines(settings.Grid(**self.settings["grid"]))

    @property
    def cells(self):
        return self.summary[self.summary.kind == "cell"]

    @property
    def controls(self):
        """Rows of what was trained without adapters: the head alone, all weights."""
        return self.summary[self.summary.kind == "control"]

    @property
    def baselines(self):
        """Rows of the base model before fine-tuning, by name (``head``, ``prompt``)."""
        return self.summary[self.summary.kind == "baseline"].set_index("id")


def load(summary, points, comparisons, curves, confusion, settings):
    """``Results`` from the files that ``aggregate_results`` wrote.

    Raises:
        ResultsError: another version of this pipeline wrote them.
    """
    matrices = records.read_json(confusion)
    if matrices.keys() != {"classes", "counts"}:
        raise ResultsError(_REMADE.format(path=confusion, lack="names of the classes"))
    return Results(
        summary=_table(summary, COLUMNS, WHOLE, TEXT),
        points=_table(points, of_points.COLUMNS, of_points.WHOLE),
        comparisons=_table(comparisons, of_comparisons.COLUMNS, of_comparisons.WHOLE),
        curves=pd.read_csv(curves),
        confusion=matrices["counts"],
        classes=tuple(matrices["classes"] or settings_names(settings)),
        settings=settings | {"grid": _of_adapters(settings["grid"])},
    )


_REMADE = (
    "{path} has no {lack}: another version of this pipeline wrote it. "
    "Delete it and run the same command again; no cell is trained for it."
)


def settings_names(blocks):
    """The configuration's names of the classes, as strings; empty without any."""
    data = blocks.get("data", {})
    return [str(name) for name in data.get("class_names") or data.get("labels") or ()]


def _of_adapters(block):
    """The configuration's grid as tables and figures of its points read it: controls are no points of it."""
    return block | {"methods": [name for name in block["methods"] if name in grid.ADAPTERS]}


def _table(path, columns, whole, text=()):
    """A CSV that has all of ``columns``, those in ``whole`` of integers, those in ``text`` of strings."""
    frame = pd.read_csv(path, dtype=dict.fromkeys(whole, "Int64") | dict.fromkeys(text, "str"))
    if lost := [column for column in columns if column not in frame]:
        raise ResultsError(_REMADE.format(path=path, lack=f"column `{lost[0]}`"))
    return frame


def build(cells, specs, study_directory="."):
    """The summary as a data frame.

    A result that does not belong to the study's present configuration is not mixed with the others: its row has the
    status ``stale`` and no numbers. A run that ended at chance while others learned has ``collapsed`` (``collapse``).

    Args:
        cells: the grid's cells by id.
        specs: what defines the result of each cell and baseline by id, as its record says it.
    """
    rows = [_cell_row(cell, specs[name], Path(study_directory)) for name, cell in cells.items()]
    rows += [_baseline_row(name, specs[name], Path(study_directory)) for name in BASELINES]
    summary = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64") | {"reason": object})
    lost = collapse.find(summary)
    summary.loc[lost, "status"] = collapse.COLLAPSED
    summary.loc[lost, "reason"] = [
        f"accuracy {row.accuracy:.3f}, that of the most frequent class is {row.chance:.3f}"
        for row in summary[lost].itertuples()
    ]
    return summary


def _cell_row(cell, spec, study):
    directory = layout.cell(cell.id, study)
    row = {
        "id": cell.id,
        "kind": cell.kind,
        **cell.as_dict(),
        "scaling": cell.scaling,
        "learning_rate": spec["training"]["learning_rate"],
    }
    return row | _result(directory, spec, study, [f"evaluate.{cell.id}", f"finetune.{cell.id}"])


def _baseline_row(name, spec, study):
    directory = layout.baseline(name, study)
    return {"id": name, "kind": "baseline"} | _result(directory, spec, study, [f"zero_shot.{name}"])


def _result(directory, spec, study, jobs):
    """Status, reason and, of a result that belongs to ``spec``, every number. ``jobs`` make it, the last one first."""
    measured = _read(directory / "metrics.json")
    if measured is None:
        return {"status": "missing", "reason": _why_missing(jobs, study)}
    if changed := _difference(*map(settings.with_defaults, (measured["provenance"]["config"], spec))):
        return {"status": "stale", "reason": f"made with another {changed}; run it again"}
    trained = _read(directory / "training.json") or {}
    row = {"status": measured["status"], "reason": measured.get("reason"), "n_test": measured["n_test"]}
    if measured["confusion"]:
        row["chance"] = max(map(sum, measured["confusion"])) / measured["n_test"]
    if row["status"] == "diverged":
        row["reason"] = (
            f"diverged at step {trained['diverged_step']}, learning rate {trained['diverged_learning_rate']:.3g}"
        )
    row |= {name: trained.get(name) for name in FROM_TRAINING} | (measured["metrics"] or {})
    if measured.get("validation"):
        row |= {f"validation_{name}": measured["validation"][name] for name in ("accuracy", "nll")}
    row |= {f"evaluation_{name}": (measured["evaluation"] or {}).get(name) for name in FROM_EVALUATION}
    provenance = (trained or measured)["provenance"]
    row |= {name: provenance[name] for name in ("git_commit", "git_dirty", "time_utc")}
    return row | {"device": provenance["hardware"]["device"]}


def _read(path):
    return records.read_json(path) if path.exists() else None


def _why_missing(jobs, study):
    """What the notes of the jobs' attempts say."""
    for job in jobs:
        if attempts.running(job, study):
            return "running"
        if failures := attempts.failures_of(job, study):
            last = failures[-1]
            return f"{job.split('.')[0]} failed, {last['cause']}: {last['reason']} (log: {last['log']})"
    return "not run yet"


def _difference(one, other, path=""):
    """Name of the first key in which two nested dictionaries differ; empty if they are equal."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return "" if one == other else path
    for key in dict.fromkeys([*one, *other]):
        if found := _difference(one.get(key), other.get(key), f"{path}.{key}".lstrip(".")):
            return found
    return ""


def curves(summary, study_directory="."):
    """Training logs of all cells of the summary that have one, as a data frame."""
    parts = []
    for name in summary.id[summary.kind.ne("baseline") & summary.status.isin([*collapse.RAN, "diverged"])]:
        part = pd.read_csv(layout.cell(name, study_directory) / "training_log.csv")
        part.insert(0, "id", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["id", "step", "loss"])


def confusion(summary, study_directory="."):
    """``counts``: confusion matrix by id of all cells and baselines that have one; ``classes``: the data card's names."""
    card = Path(study_directory, layout.CARD)
    names = records.read_json(card)["class_names"] if card.exists() else None
    matrices = {}
    for row in summary[summary.status.isin(collapse.RAN)].itertuples():
        record = layout.result(row.id, row.kind, study_directory) / "metrics.json"
        matrices[row.id] = records.read_json(record)["confusion"]
    return {"classes": names, "counts": matrices}


def write_csv(frame, path):
    """Write a data frame as CSV, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(path) as temporary:
        frame.to_csv(temporary, index=False)
