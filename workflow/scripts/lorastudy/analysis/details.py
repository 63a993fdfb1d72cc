"""What the report shows of each result beside its numbers: where it comes from, and what it got most confidently wrong."""

import json
from pathlib import Path

import pandas as pd

from lorastudy.analysis import collapse
from lorastudy.study import layout, records

ERRORS = 10  # most confident ones, of a cell
TEXT_LENGTH = 1200  # characters that are kept of a text


class Shared:
    """Values that many results have in common, each held once."""

    def __init__(self):
        self.values = []
        self._positions = {}

    def put(self, value):
        """Place of ``value`` (fit for JSON) among ``values``."""
        key = json.dumps(value, sort_keys=True)
        if key not in self._positions:
            self._positions[key] = len(self.values)
            self.values.append(value)
        return self._positions[key]


def build(summary, study_directory="."):
    """Dictionary, fit for JSON, with the keys

    - ``card``: the data card; None where the data is not there any more,
    - ``shared``: list of values,
    - ``results``: id → ``provenance`` (name → index in ``shared``) and ``errors`` (id of the text, true and predicted
      class, probability of the prediction; most confident first), of all that have finished or diverged,
    - ``texts``: id → text of those errors; None where the test texts are not there. Nothing else here holds a text.

    Args:
        summary: data frame of ``summary.build``.
    """
    study, shared, results = Path(study_directory), Shared(), {}
    texts = _test_texts(study)
    for row in summary[summary.status.isin([*collapse.RAN, "diverged"])].itertuples():
        directory = layout.result(row.id, row.kind, study)
        record = directory / "training.json"
        made = records.read_json(record if record.exists() else directory / "metrics.json")["provenance"]
        results[row.id] = {
            "provenance": {name: shared.put(value) for name, value in made.items()},
            "errors": errors(directory / "predictions.parquet"),
        }
    named = sorted({name for result in results.values() for name, *_ in result["errors"]})
    card = study / layout.CARD
    return {
        "card": records.read_json(card) if card.exists() else None,
        "shared": shared.values,
        "results": results,
        "texts": None if texts is None else {name: _excerpt(texts[name]) for name in named if name in texts},
    }


def _test_texts(study):
    """Id → text of the test texts; None where the split is not there."""
    path = study / layout.TEST
    if not path.exists():
        return None
    frame = pd.read_parquet(path, columns=["id", "text"])
    return dict(zip(frame.id, frame.text))


def errors(path):
    """The wrong predictions with the highest probability, as (id of the text, true, predicted, probability), best first.

    Args:
        path: predictions of a result.
    """
    if not path.exists():
        return []
    frame = pd.read_parquet(path)
    wrong = frame[frame.label != frame.prediction] if "prediction" in frame else frame[:0]
    if not len(wrong):
        return []
    wrong = wrong.assign(probability=wrong.filter(like="probability_").max(axis=1))
    wrong = wrong.sort_values("probability", ascending=False, kind="stable").head(ERRORS)
    return [
        [row.id, int(row.label), int(row.prediction), round(float(row.probability), 4)] for row in wrong.itertuples()
    ]


def _excerpt(text):
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}… ({len(text):,} characters in all)"
