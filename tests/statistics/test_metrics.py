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


def answers(right, classes=2):
    """Labels and probabilities of texts that are right or wrong, their classes in turn; a wrong one is the next class."""
    label = np.arange(len(right)) % classes
    predicted = np.where(right, label, (label + 1) % classes)
    return label, 0.1 + (1 - 0.1 * classes) * np.eye(classes)[predicted]


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
        assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"], name


@pytest.mark.parametrize(
    ("right", "n", "expected"),  # statsmodels 0.15: proportion_confint(right, n, method="wilson")
    [
        (150, 300, (0.4437795161, 0.5562204839)),
        (299, 300, (0.9813633063, 0.9994113423)),
        (300, 300, (0.9873570288, 1.0)),
        (0, 40, (0.0, 0.0876216012)),
        (1, 1, (0.2065493144, 1.0)),
    ],
)
def test_accuracy_has_wilsons_interval(right, n, expected):
    found = metrics.evaluate(*answers(np.arange(n) < right), 100, 0)
    for name in ("accuracy", "recall"):
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(expected, abs=1e-9), name


def test_all_right_is_no_certainty():
    """Ninety texts of three classes, all right: as many as Wilson's 4.1% of texts like them may be wrong, anywhere."""
    found = metrics.evaluate(*answers(np.ones(90, dtype=bool), 3), 100, 0)
    room = 1.959964**2 / (90 + 1.959964**2)  # Wilson's bound at none of 90
    for name in ("accuracy", "precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1"):
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((1 - room, 1)), name
    assert (found["mae_low"], found["mae_high"]) == pytest.approx((0, 2 * room))
    assert found["ece_low"] <= 0.2 - room  # each text has 0.8


def test_all_wrong_is_no_certainty():
    found = metrics.evaluate(*answers(np.zeros(90, dtype=bool)), 100, 0)
    room = 1.959964**2 / (90 + 1.959964**2)
    for name in ("accuracy", "precision", "f1", "macro_f1"):
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((0, room)), name
    assert (found["mae_low"], found["mae_high"]) == pytest.approx((1 - room, 1))


def test_what_a_small_class_may_hide_counts_in_averages_over_classes():
    """Of 100 texts 4 are of the second class: 3.7% wrong among them is 1.85 times as much of the plain average."""
    label = np.repeat([0, 1], [96, 4])
    low, high = metrics.widened("macro_recall", 1.0, 1.0, 1.0, label, np.ones(100), 2)
    room = 1.959964**2 / (100 + 1.959964**2)
    assert (low, high) == pytest.approx((1 - room * 100 / 4 / 2, 1.0))
    assert metrics.widened("macro_recall", 0.9, 0.8, 0.95, label, np.full(100, 0.5), 2) == (0.8, 0.95)


def test_copies_in_a_group_tell_what_one_text_does(predictions):
    label, probabilities = (values[:180] for values in predictions)
    alone = metrics.evaluate(label, probabilities, 1000, 0)
    copies = (np.repeat(values, 5, axis=0) for values in (label, probabilities))
    found = metrics.evaluate(*copies, 1000, 0, groups=np.repeat([f"author {i:03}" for i in range(180)], 5))
    for name in metrics.NAMES:
        assert found[name] == pytest.approx(alone[name]), name
        width = alone[f"{name}_high"] - alone[f"{name}_low"]
        assert found[f"{name}_high"] - found[f"{name}_low"] == pytest.approx(width, rel=0.01), name


def test_groups_that_are_all_right_are_as_many_as_they_are():
    found = metrics.evaluate(*answers(np.ones(90, dtype=bool), 3), 100, 0, groups=np.arange(90) // 9)
    room = 1.959964**2 / (10 + 1.959964**2)
    assert (found["accuracy_low"], found["f1_low"]) == pytest.approx((1 - room, 1 - room))


@pytest.mark.parametrize(("sharper", "spread"), [(1.0, 0.5), (1.0, 6.0), (1.3, 2.0), (2.0, 0.5), (0.7, 2.0)])
def test_calibration_error_is_covered(sharper, spread):
    """300 samples of 300 texts; ``sharper`` than its outcomes are by a factor on the scores. At 95%, 15 + 3 x 3.8 miss."""
    generator = np.random.default_rng(11)

    def sample(n):
        score = generator.normal(size=(n, 5)) * spread
        chance = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
        label = (chance.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
        stated = np.exp(sharper * score) / np.exp(sharper * score).sum(axis=1, keepdims=True)
        return stated.argmax(axis=1) == label, stated.max(axis=1)

    truth = metrics.calibration(*sample(200_000))[0] if sharper != 1 else 0.0  # calibrated by construction
    found = np.array([metrics.calibration(*sample(300)) for _ in range(300)])
    missed = (found[:, 1] > truth) | (found[:, 2] < truth)
    assert missed.sum() <= 26
    assert (found[:, 1] <= found[:, 0]).all() and (found[:, 0] <= found[:, 2]).all()
    assert found[:, 2].mean() < truth + 0.12  # it says something


def test_many_classes_take_little_memory():
    """As many classes as texts: tables of classes times classes a resample, or a kind of text, would take 0.5 GB."""
    import tracemalloc

    label = np.arange(256)
    probabilities = np.full((256, 256), 1e-3) + 0.5 * np.eye(256)[np.roll(label, 40)]
    tracemalloc.start()
    metrics.evaluate(label, probabilities, 1000, 0)
    metrics.per_text(label, probabilities)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # 1000 resamples of three counts a class, six of them at a time


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


def test_contributions_are_those_of_leaving_each_text_out(predictions):
    """The jackknife's pseudo-values by scikit-learn, text by text."""
    label, probabilities = (values[:60] for values in predictions)
    classes, prediction, n = range(probabilities.shape[1]), probabilities.argmax(axis=1), 60
    found = metrics.per_text(label, probabilities)
    for name, average in (
        ("precision", "weighted"),
        ("f1", "weighted"),
        ("macro_recall", "macro"),
        ("macro_f1", "macro"),
    ):
        score = getattr(reference, name.removeprefix("macro_") + "_score")

        def of(kept, score=score, average=average):
            return score(label[kept], prediction[kept], labels=classes, average=average, zero_division=0)

        whole = of(np.ones(n, dtype=bool))
        values = np.array([n * whole - (n - 1) * of(np.arange(n) != text) for text in range(n)])
        assert found[name] == pytest.approx(values - values.mean() + whole), name


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
