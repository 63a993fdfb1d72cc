"""Scores against scikit-learn, intervals and tests against references."""

import numpy as np
import pytest
from lorastudy.statistics import metrics
from sklearn import metrics as reference


@pytest.fixture(scope="module", params=[(300, 5), (200, 2), (500, 11)], ids=["five", "two", "eleven"])
def predictions(request):
    """Labels and probabilities of a classifier that is right more often than chance; a class is never predicted."""
    n, classes = request.param
    generator = np.random.default_rng(classes)
    label = np.arange(n) % classes
    scores = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[label]
    scores[:, 0] -= 20
    return label, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def test_scores_are_those_of_scikit_learn(predictions):
    label, probabilities = predictions
    classes = probabilities.shape[1]
    prediction = probabilities.argmax(axis=1)
    ours = metrics.evaluate(label, probabilities, 100, 0)
    expected = {
        "accuracy": reference.accuracy_score(label, prediction),
        "mae": reference.mean_absolute_error(label, prediction),
        "nll": reference.log_loss(label, probabilities, labels=range(classes)),
    }
    for prefix, average in (("", "weighted"), ("macro_", "macro")):
        values = reference.precision_recall_fscore_support(
            label, prediction, labels=range(classes), average=average, zero_division=0
        )
        expected |= {prefix + name: value for name, value in zip(("precision", "recall", "f1"), values, strict=False)}
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name
    assert (
        metrics.confusion(label, prediction, classes)
        == reference.confusion_matrix(label, prediction, labels=range(classes)).tolist()
    )


def test_calibration_error_by_hand():
    """Two texts at 0.9 of which one is right, two at 0.6 both right: |0.5 - 0.9| / 2 + |1 - 0.6| / 2 = 0.4."""
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]
    assert metrics.evaluate([0, 1, 0, 0], probabilities, 100, 0)["ece"] == pytest.approx(0.4)


def test_certain_and_wrong_is_finite():
    assert metrics.evaluate([0, 1], [[0.0, 1.0], [0.0, 1.0]], 100, 0)["nll"] == pytest.approx(-np.log(2**-52) / 2)


def test_intervals_hold_their_score_and_repeat(predictions):
    label, probabilities = predictions
    scores = metrics.evaluate(label, probabilities, 500, 3)
    assert scores == metrics.evaluate(label, probabilities, 500, 3)
    assert scores != metrics.evaluate(label, probabilities, 500, 4)
    for name in metrics.NAMES:
        assert scores[f"{name}_low"] <= scores[f"{name}_high"]
        if name != "ece":
            assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"], name


def test_accuracy_interval_agrees_with_the_binomial(predictions):
    """The bootstrap of a proportion resamples a binomial: its percentiles are the binomial's, up to simulation."""
    from scipy.stats import binom

    label, probabilities = predictions
    scores = metrics.evaluate(label, probabilities, 4000, 0)
    n = len(label)
    low, high = binom.ppf([0.025, 0.975], n, scores["accuracy"]) / n
    assert scores["accuracy_low"] == pytest.approx(low, abs=1.5 / n)
    assert scores["accuracy_high"] == pytest.approx(high, abs=1.5 / n)


@pytest.mark.parametrize(
    ("label", "probabilities"),
    [([], np.empty((0, 3))), ([0, 1], [[0.5, 0.5]]), ([2], [[0.5, 0.5]]), ([0], [[np.nan, 0.5]])],
    ids=["none", "lengths", "class", "nan"],
)
def test_bad_predictions_are_refused(label, probabilities):
    with pytest.raises(ValueError, match="label|probabilities"):
        metrics.evaluate(np.array(label, dtype=int), probabilities, 100, 0)


def test_contributions_of_texts_average_to_the_score(predictions):
    label, probabilities = predictions
    scores = metrics.evaluate(label, probabilities, 100, 0)
    for name, values in metrics.per_text(label, probabilities).items():
        assert values.shape == label.shape
        assert values.mean() == pytest.approx(scores[name], abs=0.01), name
    right = metrics.per_text(label, probabilities)["accuracy"]
    assert right == pytest.approx((probabilities.argmax(axis=1) == label).astype(float))


def test_contributions_give_the_spread_of_the_bootstrap(predictions):
    """The standard error by the jackknife against that of the resamples."""
    label, probabilities = predictions
    scores = metrics.evaluate(label, probabilities, 4000, 0)
    for name in ("f1", "macro_f1", "mae", "nll"):
        error = metrics.per_text(label, probabilities)[name].std(ddof=1) / np.sqrt(len(label))
        assert 3.92 * error == pytest.approx(scores[f"{name}_high"] - scores[f"{name}_low"], rel=0.1), name


def test_bounds_of_scores():
    assert metrics.bounds("accuracy", 5) == (0, 1)
    assert metrics.bounds("mae", 5) == (0, 4)
    assert metrics.bounds("nll", 5) == (0, np.inf)
