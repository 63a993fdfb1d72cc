"""Scores of a classifier, with intervals that resample its test texts."""

import numpy as np

NAMES = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "mae",
    "nll",
    "ece",
)
BINS = 15
COVERAGE = 0.95


def evaluate(label, probabilities, resamples, seed):
    """Scores of one classifier, each with a 95% percentile bootstrap interval over the test texts.

    The prediction is the class of the highest probability, the lowest class on a tie. ``precision``, ``recall`` and
    ``f1`` are averages over classes weighted by their number of texts, ``macro_*`` plain averages; a ratio with
    nothing below the line counts as 0, as in scikit-learn. ``mae`` is the mean distance between predicted and true
    class, in classes (stars). ``nll`` is the mean negative natural logarithm of the true class's probability, floored
    at the machine epsilon of a double. ``ece`` is the expected calibration error over 15 bins of equal width of the
    highest probability (Guo et al. 2017, equation 3); resampling adds to it, so that the interval of a
    well-calibrated classifier may lie above its value.

    Args:
        label: true class of each text, int, shape (n,).
        probabilities: probability of each class, shape (n, classes).
        resamples: bootstrap resamples of the texts. They depend on n and ``seed`` alone: two classifiers measured on
            the same texts are resampled alike.
        seed: seed of the resampling.

    Returns:
        name → fraction (``mae`` classes, ``nll`` nats), with ``<name>_low`` and ``<name>_high`` beside each.

    Raises:
        ValueError: for no texts, lengths that differ, labels outside of the classes or probabilities that are not
            finite.
    """
    from scipy.sparse import csr_array, vstack

    label, probabilities = np.asarray(label), np.asarray(probabilities, dtype=np.float64)
    _check(label, probabilities)
    n, classes = probabilities.shape
    items = np.arange(n)
    prediction, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)

    # Every score is a function of sums over texts; a resample only changes how often each text is counted.
    sums = vstack(
        [
            csr_array((np.ones(n), (label * classes + prediction, items)), shape=(classes**2, n)),
            csr_array((np.where(prediction == label, 1.0, 0.0) - top, (bins, items)), shape=(BINS, n)),
            csr_array(_surprise(label, probabilities)[None]),
        ]
    ).tocsr()
    drawn = np.empty((1 + resamples, sums.shape[0]))
    drawn[0] = sums @ np.ones(n)
    generator = np.random.default_rng(seed)
    for row in range(1, 1 + resamples):
        drawn[row] = sums @ np.bincount(generator.integers(0, n, n), minlength=n)
    table = drawn[:, : classes**2].reshape(-1, classes, classes)
    scores = confusion_scores(table)
    scores["nll"] = drawn[:, -1] / n
    scores["ece"] = np.abs(drawn[:, classes**2 : -1]).sum(axis=1) / n
    result = {}
    for name in NAMES:
        value, spread = scores[name][0], scores[name][1:]
        low, high = np.quantile(spread, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        result |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return result


def bounds(name, classes):
    """Lowest and highest value that a score can have; an interval made with t may not end beyond."""
    return (0.0, {"mae": classes - 1.0, "nll": np.inf}.get(name, 1.0))


def summary(label, probabilities):
    """Number of texts, accuracy (a fraction) and nll (nats) of one classifier, without intervals."""
    label, probabilities = np.asarray(label), np.asarray(probabilities, dtype=np.float64)
    _check(label, probabilities)
    right = probabilities.argmax(axis=1) == label
    return {"n": len(label), "accuracy": float(right.mean()), "nll": float(_surprise(label, probabilities).mean())}


def _check(label, probabilities):
    if probabilities.ndim != 2 or label.shape != probabilities.shape[:1] or not len(label):
        raise ValueError(f"labels of shape {label.shape} do not go with probabilities of shape {probabilities.shape}")
    if label.min() < 0 or label.max() >= probabilities.shape[1]:
        raise ValueError(f"labels from {label.min()} to {label.max()} for {probabilities.shape[1]} classes")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities are not all finite")


def _surprise(label, probabilities):
    return -np.log(np.clip(probabilities[np.arange(len(label)), label], np.finfo(np.float64).eps, 1.0))


def confusion_scores(table):
    """Scores that follow from confusion matrices alone.

    Args:
        table: counts, shape (matrices, classes, classes), rows true. Expected counts need not be whole.

    Returns:
        name → float array, shape (matrices,).
    """
    n = table.sum(axis=(1, 2))
    hits = np.diagonal(table, axis1=1, axis2=2)
    true, predicted = table.sum(axis=2), table.sum(axis=1)
    recall, precision = _ratio(hits, true), _ratio(hits, predicted)
    f1 = _ratio(2 * hits, true + predicted)
    weight = true / n[:, None]
    classes = np.arange(table.shape[1])
    distance = np.abs(classes[:, None] - classes)
    return {
        "accuracy": hits.sum(axis=1) / n,
        "precision": (weight * precision).sum(axis=1),
        "recall": (weight * recall).sum(axis=1),
        "f1": (weight * f1).sum(axis=1),
        "macro_precision": precision.mean(axis=1),
        "macro_recall": recall.mean(axis=1),
        "macro_f1": f1.mean(axis=1),
        "mae": (table * distance).sum(axis=(1, 2)) / n,
    }


def _ratio(above, below):
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def confusion(label, prediction, classes):
    """Confusion matrix as a list of rows of counts: rows true, columns predicted, both 0 … ``classes`` - 1."""
    label, prediction = np.asarray(label), np.asarray(prediction)
    return np.bincount(label * classes + prediction, minlength=classes**2).reshape(classes, classes).tolist()


def per_text(label, probabilities):
    """What each text contributes to each score: jackknife pseudo-values, moved so that their mean is the score.

    For ``accuracy`` it is 1 for a right prediction and 0 for a wrong one, exactly. ``ece`` has none.

    Returns:
        name → float array, shape (n,).
    """
    label, probabilities = np.asarray(label), np.asarray(probabilities, dtype=np.float64)
    values = per_text_of_predictions(label, probabilities.argmax(axis=1), probabilities.shape[1])
    return values | {"nll": _surprise(label, probabilities)}


def per_text_of_predictions(label, prediction, classes):
    """The same of the scores that need no probabilities."""
    n = len(label)
    table = np.asarray(confusion(label, prediction, classes), dtype=float)
    without = table - np.eye(classes**2).reshape(-1, classes, classes)  # one text of each kind left out in turn
    whole = confusion_scores(table[None])
    kept, place = np.unique(label * classes + prediction, return_inverse=True)
    left = confusion_scores(without[kept])
    values = {name: (n * whole[name][0] - (n - 1) * left[name])[place] for name in whole}
    values = {name: value - value.mean() + whole[name][0] for name, value in values.items()}
    return values | {"accuracy": (label == prediction).astype(float)}
