import itertools

import numpy as np
import pytest
from lorastudy.engine import batching


def test_pack_lays_texts_end_to_end():
    pack = batching.pack([[5, 6, 7], [8], [9, 10]])
    assert pack.input_ids.tolist() == [[5, 6, 7, 8, 9, 10]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert pack.boundaries.tolist() == [0, 3, 4, 6]
    assert pack.max_length == 3
    assert pack.tokens == 6


@pytest.mark.parametrize(
    ("lengths", "limit", "groups"),
    [
        ([3, 1, 2], 6, [[0, 1, 2]]),
        ([3, 1, 2], 3, [[0], [1, 2]]),
        ([9, 1, 1], 4, [[0], [1, 2]]),  # longer than the limit: alone
        ([2, 2, 2, 2], 4, [[0, 2], [1, 3]]),
        ([4, 3, 1, 1], 6, [[0, 3], [1, 2]]),  # evenly: 5 and 4, not 6 and 3
        ([3, 3, 2, 2, 2], 6, [[0, 1], [2, 3, 4]]),  # evenly does not fit: 7 and 5
        ([5], 1, [[0]]),
    ],
)
def test_micro_batches(lengths, limit, groups):
    assert batching.micro_batches(lengths, limit) == groups


def test_micro_batches_hold_every_text_once_within_the_limit():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    groups = batching.micro_batches(lengths, 100)
    assert sorted(itertools.chain(*groups)) == list(range(200))
    assert all(sum(lengths[i] for i in group) <= 100 for group in groups)
    assert len(groups) <= 1.25 * sum(lengths) / 100 + 1  # first-fit decreasing needs at most 11/9 of the optimum


def test_processes_get_even_shares():
    lengths = np.random.default_rng(1).integers(5, 50, 16).tolist()
    groups = batching.micro_batches(lengths, 10_000, processes=4)
    assert sorted(itertools.chain(*groups)) == list(range(16))
    filled = [sum(lengths[i] for i in group) for group in groups]
    assert len(groups) == 4 and max(filled) < 1.2 * min(filled)
    assert len(batching.micro_batches(lengths, max(filled), processes=3)) % 3 == 0


def test_steps_see_every_text_once_an_epoch_in_a_new_order():
    plan = batching.steps(samples=10, batch_size=4, epochs=2, seed=3)
    assert [len(step) for step in plan] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(plan[:3]), np.concatenate(plan[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()


def test_steps_depend_on_the_seed_alone():
    same = [np.concatenate(batching.steps(50, 8, 1, seed)).tolist() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
