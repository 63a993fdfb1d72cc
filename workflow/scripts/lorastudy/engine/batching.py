"""Packs: several texts in one row without padding, and micro-batches of packs in an optimizer step."""

from dataclasses import dataclass

import numpy as np
import torch

IGNORED = -100  # label of what has no loss, for torch's cross-entropy


@dataclass(frozen=True)
class Pack:
    """Texts laid end to end.

    Attributes:
        input_ids: tokens of all texts, shape (1, T).
        position_ids: position of each token in its own text, shape (1, T).
        boundaries: start of each text and the end of the last, int32, shape (n + 1,).
        max_length: tokens of the longest text, or more.
        keys: of each token's dropout (``dropout.keys``), int32, shape (2, T); None where nothing is dropped.
        labels: class index of each text, int64, shape (n,).
        share: texts of the optimizer step, which the sum of the losses is divided by, int32, shape (1,).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    boundaries: torch.Tensor
    max_length: int
    keys: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    share: torch.Tensor | None = None

    @property
    def tokens(self):
        return self.input_ids.shape[1]

    @property
    def ends(self):
        """Index of the last token of each text, int64, shape (n,)."""
        return self.boundaries[1:].long() - 1


class Frame:
    """Room for a pack in one array of int32, so that it reaches a GPU in one copy.

    A frame may have room for more tokens and texts than are put into it. What is left over is one more text, and after it
    empty ones, all without a label: they have no loss and change no gradient.

    Args:
        tokens, texts: that it has room for.
    """

    def __init__(self, tokens, texts):
        self.tokens, self.texts = tokens, texts
        sizes = {"ids": tokens, "positions": tokens, "keys": 2 * tokens}
        sizes |= {"boundaries": texts + 1, "labels": texts, "share": 1}
        self.slices, self.size = {}, 0
        for name, size in sizes.items():
            self.slices[name] = slice(self.size, self.size + size)
            self.size += size

    def fill(self, texts, labels=None, keys=None, share=1):
        """The array of a pack.

        Args:
            texts: sequences of token ids, none empty. Fewer than there is room for leave room for a token, too.
            labels: class index of each.
            keys: array of ``dropout.keys`` for these texts.
            share: texts of the optimizer step.
        """
        numbers = np.zeros(self.size, dtype=np.int32)
        lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
        filled = lengths.sum()
        if filled > self.tokens or len(texts) > self.texts or (filled == self.tokens) != (len(texts) == self.texts):
            raise ValueError(f"{len(texts)} texts of {filled} tokens do not go into {self.texts} of {self.tokens}")
        boundaries = np.full(self.texts + 1, self.tokens)
        boundaries[0], boundaries[1 : len(texts) + 1] = 0, np.cumsum(lengths)
        if texts:
            numbers[self.slices["ids"]][:filled] = np.concatenate([np.asarray(text, dtype=np.int32) for text in texts])
        numbers[self.slices["positions"]] = np.arange(self.tokens) - np.repeat(boundaries[:-1], np.diff(boundaries))
        numbers[self.slices["boundaries"]] = boundaries
        numbers[self.slices["labels"]] = IGNORED
        if labels is not None:
            numbers[self.slices["labels"]][: len(texts)] = labels
        if keys is not None:
            numbers[self.slices["keys"]].reshape(2, -1)[:, :filled] = keys
        numbers[self.slices["share"]] = share
        return numbers

    def read(self, numbers, max_length, keys=True):
        """The pack whose array a tensor holds.

        Args:
            max_length: tokens of the longest text, at least.
            keys: whether it has any.
        """
        parts = {name: numbers[part] for name, part in self.slices.items()}
        return Pack(
            input_ids=parts["ids"].long()[None],
            position_ids=parts["positions"].long()[None],
            boundaries=parts["boundaries"],
            max_length=max_length,
            keys=parts["keys"].view(2, -1) if keys else None,
            labels=parts["labels"].long(),
            share=parts["share"],
        )


def copy(numbers, tensor):
    """Copy a NumPy array to a tensor, without waiting for what its device does."""
    source = torch.from_numpy(numbers)
    if tensor.is_cuda:  # from pageable memory the copy would wait for the GPU's queue
        source = source.pin_memory()
    tensor.copy_(source, non_blocking=True)


def on_device(numbers, device):
    """A NumPy array as a tensor there."""
    tensor = torch.empty(numbers.shape, dtype=torch.int32, device=device)
    copy(numbers, tensor)
    return tensor


def pack(texts, device="cpu", labels=None, keys=None, share=1):
    """Lay ``texts`` end to end; the arguments are those of ``Frame.fill``."""
    lengths = [len(text) for text in texts]
    frame = Frame(sum(lengths), len(texts))
    numbers = on_device(frame.fill(texts, labels, keys, share), device)
    return frame.read(numbers, max(lengths), keys is not None)


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
