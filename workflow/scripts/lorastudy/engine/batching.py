"""Packs: several texts in one row without padding, and micro-batches of packs in an optimizer step."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Pack:
    """Texts laid end to end.

    Attributes:
        input_ids: tokens of all texts, shape (1, T).
        position_ids: position of each token in its own text, shape (1, T).
        boundaries: start of each text and the end of the last, int32, shape (n + 1,).
        max_length: tokens of the longest text.
        keys: of each token's dropout (``dropout.keys``), int32, shape (2, T); None where nothing is dropped.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    boundaries: torch.Tensor
    max_length: int
    keys: torch.Tensor | None = None

    @property
    def tokens(self):
        return self.input_ids.shape[1]

    @property
    def ends(self):
        """Index of the last token of each text, int64, shape (n,)."""
        return self.boundaries[1:].long() - 1


def pack(texts, device="cpu", keys=None):
    """Lay ``texts`` (sequences of token ids, none empty) end to end.

    Args:
        keys: array of ``dropout.keys`` for these texts.
    """
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int32, count=len(texts))
    boundaries = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.arange(boundaries[-1]) - np.repeat(boundaries[:-1], lengths)
    ids = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])

    def there(values):
        tensor = torch.from_numpy(values)
        if torch.device(device).type == "cuda":  # a copy from pageable memory would wait for the GPU's queue
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    return Pack(
        input_ids=there(ids)[None],
        position_ids=there(positions.astype(np.int64))[None],
        boundaries=there(boundaries),
        max_length=int(lengths.max()),
        keys=None if keys is None else there(keys),
    )


def micro_batches(lengths, limit, processes=1):
    """Split texts into as few groups of at most ``limit`` tokens as first-fit decreasing finds, as even as possible.

    A small remainder would cost nearly as much as a full group: the weights are read, and if need be expanded, for
    either. So the texts are dealt out once more, each to the emptiest of as many groups, and that is taken if it fits.

    Args:
        lengths: tokens of each text.
        limit: tokens of a group. A longer text is a group of its own.
        processes: share the groups out, so that there are as many, or a multiple, if there are texts enough.

    Returns:
        Lists of indices into ``lengths``, each ascending, the fullest group first.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups = []
    for index in order:
        for group in groups:
            if group[0] + lengths[index] <= limit:
                break
        else:
            group = [0, []]
            groups.append(group)
        group[0] += lengths[index]
        group[1].append(index)
    even = [[0, []] for _ in range(min(len(lengths), processes * -(-len(groups) // processes)))]
    for index in order:
        group = min(even, key=lambda group: group[0])
        group[0] += lengths[index]
        group[1].append(index)
    if all(filled <= limit or len(members) == 1 for filled, members in even):
        groups = even
    return [sorted(members) for _, members in sorted(groups, key=lambda group: (-group[0], group[1]))]


def steps(samples, batch_size, epochs, seed):
    """Which texts each optimizer step takes: every epoch is a permutation of its own, cut into batches.

    Args:
        samples: number of training texts.
        seed: seed of the order; step k is the same whatever happened before it, which makes resuming exact.

    Returns:
        List over steps of index arrays; the last of an epoch may be smaller than ``batch_size``.
    """
    plan = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(samples)
        plan += [order[start : start + batch_size] for start in range(0, samples, batch_size)]
    return plan
