"""Scores of a classifier, with intervals that resample its test texts."""

import numpy as np

from lorastudy.statistics import proportions

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
PROPORTIONS = ("accuracy", "recall")  # shares of texts; weighted by its texts, recall is the accuracy
BINS = 15
COVERAGE = 0.95


def evaluate(label, probabilities, resamples, seed, groups=None):
    """Scores of one classifier, each with a 95% interval over the test texts.

    The prediction is the class of the highest probability, the lowest class on a tie. ``precision``, ``recall`` and
    ``f1`` are averages over classes weighted by their number of texts, ``macro_*`` plain averages; a ratio with
    nothing below the line counts as 0, as in scikit-learn. ``mae`` is the mean distance between predicted and true
    class, in classes (stars). ``nll`` is the mean negative natural logarithm of the true class's probability, floored
    at the machine epsilon of a double. ``ece`` is the expected calibration error over 15 bins of equal width of the
    highest probability (Guo et al. 2017, equation 3).

    Intervals are percentiles of the bootstrap over the texts, but for those it does not hold for: of ``accuracy`` and
    of ``recall``, which weighted by the texts is the same, it is Wilson's (``proportions.wilson``), of ``ece`` see
    ``calibration``. Where every text is right, or none, the others are widened by what so many texts cannot rule
    out (``widened``).

    Memory grows with resamples times classes and with texts.

    Args:
        label: true class of each text, int, shape (n,).
        probabilities: probability of each class, shape (n, classes).
        resamples: bootstrap resamples of the texts. They depend on n and ``seed`` alone: two classifiers measured on
            the same texts are resampled alike.
        seed: seed of the resampling.
        groups: of each text, whatever names which belong together; None if each stands for itself. Then groups are
            what is resampled, and Wilson's interval is that of as many texts as would make the same standard error
            (Korn and Graubard 1998).

    Returns:
        name → fraction (``mae`` classes, ``nll`` nats), with ``<name>_low`` and ``<name>_high`` beside each.

    Raises:
        ValueError: for no texts, lengths that differ, labels outside of the classes or probabilities that are not
            finite.
    """
    label, probabilities = np.asarray(label), np.asarray(probabilities, dtype=np.float64)
    _check(label, probabilities)
    n, classes = probabilities.shape
    prediction, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    groups = None if groups is None else np.unique(groups, return_inverse=True)[1]
    drawn = _resampled(label, prediction, _surprise(label, probabilities), classes, resamples, seed, groups)
    hits, true, predicted = np.split(drawn[:, :-2], 3, axis=1)
    scores = margin_scores(hits, true, predicted, drawn[:, -2])
    scores["nll"] = drawn[:, -1] / true.sum(axis=1)
    tails = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    found = {name: (spread[0], *np.quantile(spread[1:], tails)) for name, spread in scores.items()}
    right = prediction == label
    alone = n if groups is None else independent(right, groups)
    for name in PROPORTIONS:
        found[name] = (
            found[name][0],
            *proportions.wilson(right.mean() * alone if groups is not None else int(right.sum()), alone),
        )
    found["ece"] = calibration(right, top, groups)
    result = {}
    for name in NAMES:
        value, low, high = found[name]
        low, high = widened(name, value, low, high, label, right, classes, alone)
        result |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return result


def independent(right, groups):
    """How many texts that stand for themselves would tell as much of a share as these do in their groups.

    Their number over the design effect; no more than there are texts, and where all are right or wrong, which tells
    nothing of the effect, as many as there are groups.

    Args:
        right: bool, shape (n,).
        groups: number of each text's group, from 0, shape (n,).
    """
    number, share = groups.max() + 1, right.mean()
    if share in (0, 1) or number < 2:
        return int(number)
    of_groups = np.bincount(groups, right - share)
    error = (of_groups**2).sum() * number / (number - 1) / len(right) ** 2
    return float(min(len(right), share * (1 - share) / error)) if error else len(right)


def _resampled(label, prediction, surprise, classes, resamples, seed, groups=None):
    """Sums over the texts and over each resample of them that every score is a function of.

    Returns:
        float array, shape (1 + resamples, 3 classes + 2): right texts, true texts and predicted texts of each class,
        sum of the distances in classes, sum of ``surprise``.
    """
    from scipy.sparse import csr_array, vstack

    n = len(label)
    items, ones, shape = np.arange(n), np.ones(n), (classes, n)
    sums = vstack(
        [
            csr_array(((label == prediction).astype(float), (label, items)), shape=shape),
            csr_array((ones, (label, items)), shape=shape),
            csr_array((ones, (prediction, items)), shape=shape),
            csr_array(np.abs(label - prediction).astype(float)[None]),
            csr_array(surprise[None]),
        ]
    ).tocsr()
    if groups is not None:
        sums = (sums @ csr_array((ones, (items, groups)))).tocsr()
        n, ones = sums.shape[1], np.ones(sums.shape[1])
    drawn = np.empty((1 + resamples, sums.shape[0]))
    drawn[0] = sums @ ones
    generator = np.random.default_rng(seed)
    for row in range(1, 1 + resamples):
        drawn[row] = sums @ np.bincount(generator.integers(0, n, n), minlength=n)
    return drawn


def calibration(right, top, groups=None):
    """Expected calibration error over ``BINS`` bins (Guo et al. 2017, equation 3) with an interval that covers.

    The value is that of these texts, sum over bins of abs(S_b), where S_b is the mean over all texts of right minus
    confidence within the bin. Chance only adds to it: E abs(S_b) is at least abs(E S_b), and exceeds it by no more
    than sqrt(2 / pi) s_b, the mean of abs(S_b) where E S_b is 0, with s_b the standard error of S_b (Kumar, Liang and
    Ma 2019, section 4, on the same bias). A bootstrap adds it once more, and its interval lies above the truth of a
    calibrated classifier. So the interval reaches from the value less the most that chance can have added and 1.96
    standard errors, to the value and 1.96 standard errors: of a calibrated classifier it reaches 0, and it covers
    the true value in at least 95% of samples.

    Args:
        right: whether each text's prediction is right, bool, shape (n,).
        top: probability of each prediction, shape (n,).
        groups: number of each text's group, from 0, shape (n,); None if each stands for itself.

    Returns:
        (value, low, high), fractions.
    """
    from scipy.special import ndtri

    gap = right - top
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    value = np.abs(np.bincount(bins, gap, BINS)).sum() / len(gap)
    groups = np.arange(len(gap)) if groups is None else groups
    pairs, index = np.unique(groups * BINS + bins, return_inverse=True)  # of a group and a bin
    of_bins = np.sqrt(np.bincount(pairs % BINS, np.bincount(index, gap) ** 2, BINS)) / len(gap)
    reach = ndtri((1 + COVERAGE) / 2) * np.sqrt((of_bins**2).sum())
    added = np.sqrt(2 / np.pi) * of_bins.sum()
    return value, max(0.0, value - added - reach), min(1.0, value + reach)


def widened(name, value, low, high, label, right, classes, alone=None):
    """An interval of a score that is no narrower than the texts can show where all are right, or all wrong.

    Texts that are all alike do not differ between resamples or runs, but others like them may: so many leave room for
    a share of them that is otherwise (``proportions.wilson``). That share is the room of every score that weighs
    texts alike, in ``mae`` at the largest distance there is; in an average over classes it is taken to be in the
    smallest class, where it weighs most.

    Args:
        name: of the score, one of ``NAMES``.
        value, low, high: the score and its interval.
        label: true class of each text, int, shape (n,).
        right: whether each text is right, of several runs in which share of them, shape (n,).
        alone: how many texts stand for themselves, if they are fewer (``independent``).
    """
    all_right, all_wrong = np.min(right) == 1, np.max(right) == 0
    if name == "nll" or not (all_right or all_wrong):  # nll has no bound to reach
        return low, high
    room = proportions.wilson(0, alone or len(label))[1]
    least, most = bounds(name, classes)
    down, up = room * all_right, room * all_wrong
    if name == "mae":
        down, up = room * (value - least), room * (most - value)
    elif name == "ece":
        down = up = room
    elif name.startswith("macro_"):
        count = np.bincount(label, minlength=classes)
        down, up = (side * len(label) / count[count > 0].min() / classes for side in (down, up))
    return max(least, min(low, value - down)), min(most, max(high, value + up))


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
    classes = np.arange(table.shape[1])
    distance = (table * np.abs(classes[:, None] - classes)).sum(axis=(1, 2))
    return margin_scores(np.diagonal(table, axis1=1, axis2=2), table.sum(axis=2), table.sum(axis=1), distance)


def margin_scores(hits, true, predicted, distance):
    """The same from what they need of the matrices.

    Args:
        hits, true, predicted: texts of each class that are right, that are of the class, that are predicted to be,
            shape (matrices, classes).
        distance: sum over the texts of their distance in classes, shape (matrices,).
    """
    n = true.sum(axis=1)
    of_class = _of_class(hits, true, predicted)
    weight = true / n[:, None]
    scores = {"accuracy": hits.sum(axis=1) / n}
    scores |= {name: (weight * values).sum(axis=1) for name, values in of_class.items()}
    scores |= {f"macro_{name}": values.mean(axis=1) for name, values in of_class.items()}
    return scores | {"mae": distance / n}


def _of_class(hits, true, predicted):
    """Precision, recall and F1 of each class."""
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, true + predicted),
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
    kept, index = np.unique(label * classes + prediction, return_inverse=True)
    whole, left = _left_out(*np.divmod(kept, classes), label, prediction, classes)
    values = {name: (n * whole[name] - (n - 1) * left[name])[index] for name in whole}
    values = {name: value - value.mean() + whole[name] for name, value in values.items()}
    distance = np.abs(label - prediction).astype(float)
    return values | {"accuracy": (label == prediction).astype(float), "mae": distance}


def _left_out(true_class, predicted_class, label, prediction, classes):
    """Averages over classes with all texts, and without one text of each kind.

    Leaving a text out changes no more than the terms of its true and of its predicted class.

    Args:
        true_class, predicted_class: the kinds, int, shape (kinds,).

    Returns:
        (name → float; name → float array, shape (kinds,)).
    """
    t, p, n = true_class, predicted_class, len(label)
    hits = np.bincount(label[label == prediction], minlength=classes).astype(float)
    true, predicted = (np.bincount(values, minlength=classes).astype(float) for values in (label, prediction))
    right, wrong = t == p, t != p
    at_true = _of_class(hits[t] - right, true[t] - 1, predicted[t] - right)
    at_predicted = _of_class(hits[p], true[p], predicted[p] - 1)  # counts for wrong ones alone
    whole, left = {}, {}
    for name, values in _of_class(hits, true, predicted).items():
        plain = values.sum() + at_true[name] - values[t] + wrong * (at_predicted[name] - values[p])
        weighted = (true * values).sum() + (true[t] - 1) * at_true[name] - (true * values)[t]
        weighted += wrong * true[p] * (at_predicted[name] - values[p])
        whole |= {name: (true * values).sum() / n, f"macro_{name}": values.mean()}
        left |= {name: weighted / max(n - 1, 1), f"macro_{name}": plain / classes}
    return whole, left
