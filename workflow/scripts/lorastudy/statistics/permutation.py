"""Permutation tests within blocks: what is compared is exchanged among runs that have all else in common.

The hypothesis is that what is compared makes no difference to any run. The tests need no distribution and share no
variance, and so stand beside the t tests as a check. Three blocks of two cannot come below p = 1/4. All arrangements
are tried if there are few, else ``DRAWS`` of them, the observed one counted in (Phipson and Smyth 2010).
"""

from functools import cache

import numpy as np

EXACT = 4096  # arrangements up to which all are tried
DRAWS = 9999
TIE = 1e-9  # relative: sums that differ by rounding are equal


def contrast(blocks, weights, seed=0):
    """Two-sided p of the weighted sum of each block's members, added over the blocks.

    Args:
        blocks: value of each member, shape (blocks, members); the members of a block are exchanged.
        weights: of the members, shape (members,) or (blocks, members). Two that add up to 0 make it Fisher's
            randomization test of paired differences.
        seed: seed of the draws.
    """
    blocks = np.asarray(blocks, dtype=float)
    weights = np.broadcast_to(np.asarray(weights, dtype=float), blocks.shape)
    observed = abs(float((weights * blocks).sum()))
    if blocks.shape[1] == 2 and np.allclose(weights.sum(axis=1), 0):
        sums = _signs(len(blocks), seed) @ (weights[:, 0] * (blocks[:, 0] - blocks[:, 1]))
        return _share(np.abs(sums), observed, exact=2 ** len(blocks) <= EXACT)
    sums = (weights * _permuted(blocks, seed)).sum(axis=(1, 2))
    return _share(np.abs(sums), observed)


def spread(blocks, seed=0):
    """p of all members being alike: of the spread of their means over the blocks. Arguments as of ``contrast``."""
    blocks = np.asarray(blocks, dtype=float)
    return _share(_permuted(blocks, seed).mean(axis=1).var(axis=1), float(blocks.mean(axis=0).var()))


def _share(values, observed, exact=False):
    reached = int((values >= observed * (1 - TIE) - 1e-15).sum())
    return reached / len(values) if exact else (1 + reached) / (1 + len(values))


@cache
def _signs(blocks, seed):
    """Every arrangement of signs, or ``DRAWS`` random ones, shape (arrangements, blocks)."""
    if 2**blocks <= EXACT:
        return 1 - 2 * ((np.arange(2**blocks)[:, None] >> np.arange(blocks)) & 1)
    return np.random.default_rng(seed).choice(np.array([-1, 1], dtype=np.int8), (DRAWS, blocks))


def _permuted(blocks, seed):
    """``DRAWS`` arrangements of the members within their blocks, shape (DRAWS, blocks, members)."""
    order = np.random.default_rng(seed).random((DRAWS, *blocks.shape)).argsort(axis=2)
    return np.take_along_axis(np.broadcast_to(blocks, order.shape), order, axis=2)
