"""Two studies side by side: settings that differ, accuracies of what both have, verdicts."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lorastudy.analysis import scatter, summary
from lorastudy.analysis.tuning import POINT
from lorastudy.presentation.tables.formatting import interval, signed
from lorastudy.presentation.tables.layout import Table
from lorastudy.statistics import independent
from lorastudy.study import layout, records
from lorastudy.study.errors import StudyError
from lorastudy.study.grid import METHODS

RESULTS = {
    "summary": "results/summary.csv",
    "points": "results/points.csv",
    "comparisons": "results/comparisons.csv",
    "curves": "results/curves.csv",
    "confusion": "results/confusion.json",
}
VERDICTS = {"claims": "the paper's claims", "questions": "over the whole grid"}  # tables that have some
VIEWS = {"configured": "", "tuned": ", best learning rate"}
BASELINES = {"head": "base model, untrained head", "prompt": "base model, prompted"}
KEY = ["view", *POINT]
SCORE = ["accuracy", "accuracy_low", "accuracy_high"]


class CompareError(StudyError):
    """Studies that cannot be set side by side."""


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        name: what it is called in the tables.
        settings: ``settings.Settings``.
        results: ``summary.Results``.
        verdicts: data frame with the columns ``about``, ``claim``, ``view``, ``statement``, ``verdict`` and ``found``.
        card: its data card; None where it has none.
        texts: sorted (text, label) of its test texts; None where they are not there.
    """

    name: str
    settings: object
    results: summary.Results
    verdicts: "pd.DataFrame"
    card: dict | None
    texts: list | None


def read(directory, study, name):
    """The ``Side`` of the study in ``directory`` with the ``settings.Settings`` ``study``.

    Raises:
        CompareError: its results were not gathered, or its tables not made yet.
    """
    location = Path(directory)
    tables = {
        about: location / f"paper_tables/{table}.csv"
        for table, about in VERDICTS.items()
        if study.study.paper or table != "claims"
    }
    for path in [*(location / file for file in RESULTS.values()), *tables.values()]:
        if not path.exists():
            raise CompareError(
                f"{path} is not there; make it first, which trains nothing: snakemake -d {directory} paper_tables/"
            )
    blocks = {name: study.block(name) for name in vars(study)}
    verdicts = [pd.read_csv(path).assign(about=about) for about, path in tables.items()]
    card, test = location / layout.CARD, location / layout.TEST
    texts = pd.read_parquet(test, columns=["text", "label"]) if test.exists() else None
    return Side(
        name,
        study,
        summary.load(**{key: location / file for key, file in RESULTS.items()}, settings=blocks),
        pd.concat(verdicts, ignore_index=True),
        records.read_json(card) if card.exists() else None,
        None if texts is None else sorted(zip(texts["text"], texts["label"])),
    )


def tables(one, other):
    """``Table`` by name: ``settings``, ``points``, ``verdicts``."""
    return {"settings": settings(one, other), "points": points(one, other), "verdicts": verdicts(one, other)}


def settings(one, other):
    """Keys of the configuration in which the two differ, defaults included."""
    values = [_flat({name: side.settings.block(name) for name in vars(side.settings)}) for side in (one, other)]
    keys = [key for key in dict.fromkeys([*values[0], *values[1]]) if values[0].get(key) != values[1].get(key)]
    keys = [key for key in keys if key != "study.name"]
    frame = pd.DataFrame(
        {"key": keys} | {side.name: [found.get(key, "") for key in keys] for side, found in zip((one, other), values)}
    )
    notes = [] if keys else ["The two are configured alike."]
    return Table(
        "Settings that differ.", frame, _headed(frame.map(lambda text: text or "–")), notes, tuple(_headed(frame))
    )


def points(one, other):
    """Accuracy of each point of the grid that both have, and of the base model, with the difference."""
    sides = [_scores(side) for side in (one, other)]
    shared = sides[0].merge(sides[1], on=KEY, suffixes=("_a", "_b"), how="inner")
    rows = []
    for row in shared.to_dict("records"):
        both = [[float(row[f"{name}{end}"]) for name in SCORE] for end in ("_a", "_b")]
        found = dict(zip(("difference", "low", "high"), independent.difference(*both)))
        rows.append({name: row[name] for name in KEY} | {
            f"{side}_{name}": row[f"{name}{end}"]
            for side, end in (("a", "_a"), ("b", "_b")) for name in ("accuracy", "accuracy_low", "accuracy_high", "seeds", "status", "learning_rate")
        } | found)  # fmt: skip
    frame = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "": [_called(row) for row in rows],
            one.name: [_accuracy(row, "a") for row in rows],
            other.name: [_accuracy(row, "b") for row in rows],
            "difference": [interval(row["difference"], row["low"], row["high"], form=signed) for row in rows],
        }
    )
    left = [
        f"{len(side) - len(shared)} of {name}"
        for side, name in zip(sides, (one.name, other.name))
        if len(side) > len(shared)
    ]
    notes = [
        f"Difference: {one.name} less {other.name}. Brackets hold 95% intervals.",
        *([f"Not shown, since only one of the two has them: {' and '.join(left)}."] if left else []),
        *same_texts(one, other),
        *_few_seeds(shared),
    ]
    return Table("Accuracy of what both have.", frame, _headed(shown), notes, ("",))


def verdicts(one, other):
    """The verdicts on claims and questions that both were asked."""
    key = ["about", "claim", "view"]
    both = one.verdicts.merge(other.verdicts, on=key, suffixes=("_a", "_b"))
    frame = both[[*key, "statement_a", "verdict_a", "verdict_b", "found_a", "found_b"]].rename(
        columns={"statement_a": "statement"}
    )
    shown = pd.DataFrame(
        {
            "": [f"{row.statement.rstrip('.')}{VIEWS.get(row.view, '')}" for row in frame.itertuples()],
            one.name: frame.verdict_a,
            other.name: frame.verdict_b,
        }
    )
    told = ["supported", "contradicted"]
    against = frame.verdict_a.isin(told) & frame.verdict_b.isin(told) & frame.verdict_a.ne(frame.verdict_b)
    covered = ~(frame.verdict_a.eq("not covered") & frame.verdict_b.eq("not covered"))
    notes = [
        f"{int((frame.verdict_a.eq(frame.verdict_b) & covered).sum())} of {int(covered.sum())} have the same verdict, "
        f"{int(against.sum())} opposite ones. Undecided in one of them says that it was too small to tell, not that the two differ.",
        *([f"{int((~covered).sum())} more are about cells that neither has."] if (~covered).any() else []),
    ]  # fmt: skip
    return Table("Verdicts.", frame, _headed(shown[covered.to_numpy()]), notes, tuple(_headed(shown)))


def same_texts(one, other):
    """Sentences on whether the two were tested on the same texts, and what follows for the differences."""
    if one.results.classes != other.results.classes:
        yield (
            f"Their classes differ ({', '.join(one.results.classes)} and {', '.join(other.results.classes)}): the "
            "accuracies are those of two tasks."
        )
    if one.texts is not None and other.texts is not None:
        same = one.texts == other.texts
        shared = len(set(one.texts) & set(other.texts))
        told = f"of {len(one.texts)} and {len(other.texts)} test texts they share {shared}"
    else:
        marks = [side.card and side.card["fingerprint"] for side in (one, other)]
        same = None not in marks and marks[0] == marks[1]
        told = "their data are not the same, or not known to be"
    if same:
        yield (
            "Both were tested on the same texts. The intervals of the differences take the two for independent, which "
            "makes them too wide rather than too narrow here."
        )
    else:
        yield f"The test texts differ ({told}): a difference is one between the texts too."


def _few_seeds(shared):
    if (shared.seeds_a.lt(scatter.SEEDS) | shared.seeds_b.lt(scatter.SEEDS)).any():
        yield (
            f"With fewer than {scatter.SEEDS} seeds an interval is over the texts alone: the difference is that of these "
            "runs, and other seeds may give another."
        )


def _scores(side):
    """Points and baselines of a study, one below the other."""
    base = side.results.baselines.reset_index().assign(view="configured")
    base = base.assign(method=base.id, targets="", r=0, alpha=0.0, scaling="", seeds=pd.NA)
    columns = [*KEY, *SCORE, "seeds", "status", "learning_rate"]
    return pd.concat([base[columns], side.results.points[columns]], ignore_index=True)


def _called(row):
    if row["method"] in BASELINES:
        return BASELINES[row["method"]]
    scaling = "" if row["scaling"] == "standard" else f", {row['scaling']}"
    return f"{METHODS[row['method']]}, {row['targets']}, r = {row['r']}, α = {row['alpha']:g}{scaling}{VIEWS.get(row['view'], '')}"


def _accuracy(row, side):
    found = interval(row[f"{side}_accuracy"], row[f"{side}_accuracy_low"], row[f"{side}_accuracy_high"])
    return found if row[f"{side}_status"] == "finished" else f"{found} ({row[f'{side}_status']})"


def _flat(value, path=""):
    """Nested settings as dotted keys; lists and lines of a grid as JSON."""
    if not isinstance(value, dict) or path == "grid.lines":
        return {path: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
    return {
        key: text for name, inner in value.items() for key, text in _flat(inner, f"{path}.{name}".lstrip(".")).items()
    }


def _headed(frame):
    """``frame`` with heads that Markdown takes for text."""
    return frame.rename(columns=lambda name: name.replace("|", "\\|"))
