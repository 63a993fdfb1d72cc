"""Mean squares that variances make, and variances from mean squares, by simulation of the layout."""

import numpy as np
import pytest
from lorastudy.statistics import components

OF = {"cell": 4.0, "point": 1.0, "set": 2.0, "method": 3.0, "targets": 0.5}
SETS = [("lora", "attention"), ("lora", "all-linear"), ("qlora", "attention"), ("qlora", "all-linear")]


def drawn(generator, points, seeds):
    """Runs of sets × points × seeds with the effects ``OF`` and one that all runs of a seed share."""
    values = generator.normal(0, 2.0, (len(SETS), points, seeds)) + generator.normal(0, 5.0, seeds)
    values += generator.normal(0, 1.0, (points, seeds))
    values += generator.normal(0, np.sqrt(2.0), (len(SETS), 1, seeds))
    for place, spread in ((0, np.sqrt(3.0)), (1, np.sqrt(0.5))):
        effects = {level: generator.normal(0, spread, seeds) for level in dict.fromkeys(one[place] for one in SETS)}
        values += np.array([effects[one[place]] for one in SETS])[:, None]
    return values


def test_mean_squares_are_those_expected():
    generator = np.random.default_rng(0)
    factors = {"method": [one for one, _ in SETS], "targets": [one for _, one in SETS]}
    fits = [components.fit(drawn(generator, 6, 4), factors, range(6)) for _ in range(2000)]
    expected = components.expected(OF, {"method": 2, "targets": 2}, 4, 6, 4)
    for name, (square, df) in expected.squares.items():
        found = np.array([fit.squares[name] for fit in fits])
        assert (found[:, 1] == df).all(), name
        assert found[:, 0].mean() == pytest.approx(square, rel=4 * np.sqrt(2 / df / len(fits))), name
    assert expected.squares.keys() == fits[0].squares.keys()


@pytest.mark.parametrize(
    ("levels", "sets", "points"),
    [({"method": 2, "targets": 2}, 4, 13), ({"method": 2}, 2, 3), ({}, 1, 7), ({"method": 2}, 2, 1)],
    ids=["grid", "methods", "line", "two cells"],
)
def test_variances_give_their_mean_squares_back(levels, sets, points):
    expected = components.expected(OF, levels, sets, points, 3)
    again = components.expected(
        {stratum: 0.0 for stratum in OF} | components.variances(expected), levels, sets, points, 3
    )
    assert {name: square for name, (square, _) in again.squares.items()} == pytest.approx(
        {name: square for name, (square, _) in expected.squares.items()}
    )


def test_mean_squares_below_the_residual_are_no_variance():
    squares = {"residual": (4.0, 10), "point": (3.0, 4), "method": (2.0, 2)}
    found = components.variances(components.Components(squares, {"method": 2}, 2, 3))
    assert found == {"cell": 4.0, "point": 0.0, "method": 0.0}


def test_a_single_cell_tells_nothing():
    assert components.expected(OF, {}, 1, 1, 3) is None
    assert components.expected(OF, {"method": 2}, 2, 3, 1) is None
