"""The difference of two estimates against printed examples."""

import pytest
from lorastudy.statistics import independent, proportions


@pytest.mark.parametrize(
    ("one", "other", "interval"),
    [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)), ((10, 10), (0, 10), (0.6075, 1.0))],
)
def test_of_wilsons_intervals_it_is_newcombes(one, other, interval):
    """Newcombe (1998), Statistics in Medicine 17, 873-890, Table II: examples (a), (b) and (h) by method 10."""
    estimates = [(count / total, *proportions.wilson(count, total)) for count, total in (one, other)]
    difference, low, high = independent.difference(*estimates)
    assert difference == pytest.approx(one[0] / one[1] - other[0] / other[1])
    assert (low, high) == pytest.approx(interval, abs=5e-5)
