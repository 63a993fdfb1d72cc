"""The files that an evaluation writes."""

import numpy as np
import pandas as pd

from lorastudy.statistics import metrics
from lorastudy.study import records


def write(predictions, metrics_file, texts, probability, statistics, identity, cost, provenance):
    """Write ``predictions.parquet`` and ``metrics.json``.

    Args:
        texts: of ``data.read_split``.
        probability: float64 array, shape (texts, classes); None for a cell that diverged, whose metrics are null.
        statistics: the configuration's block of that name.
        identity: the first keys of the record (cell or baseline, status).
        cost: seconds, tokens_per_second and peak_memory_gib; None with ``probability``.
    """
    classes = None if probability is None else probability.shape[1]
    label = np.asarray(texts.label)
    table = pd.DataFrame({"id": texts.id, "label": label}) if classes else pd.DataFrame({"id": [], "label": []})
    scores = confusion = None
    groups = getattr(texts, "group", None)
    if classes:
        if groups is not None:
            table["group"] = groups
        table["prediction"] = probability.argmax(axis=1)
        for index in range(classes):
            table[f"probability_{index}"] = probability[:, index]
        scores = metrics.evaluate(label, probability, statistics["resamples"], statistics["seed"], groups)
        confusion = metrics.confusion(label, table["prediction"].to_numpy(), classes)
    table.to_parquet(predictions, index=False)
    records.write_json(
        metrics_file,
        {
            **identity,
            "metrics": scores,
            "n_test": len(label),
            "confusion": confusion,
            "evaluation": cost,
            "provenance": provenance,
        },
    )
