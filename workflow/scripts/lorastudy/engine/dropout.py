"""Dropout whose masks are computed and not drawn in turn: each is a function of what it covers.

Whether a number is dropped follows from the seed, the optimizer step, the module, the text, the token's position in it
and the feature, and from nothing else: a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"). So masks do not depend on how texts are packed, on micro-batches, checkpointed layers, the number of GPUs
or a resume, nor on whether the fused decoder or PEFT's layers compute; and they need not be kept for the backward pass.

A row of numbers (a token in a module) has a key of 64 bits: that of the token (splitmix64, Steele et al. 2014, over seed,
step, text and position) with that of the module. Two features share the 32 bits of a hash of key and feature (the
finalizer "lowbias32" of C. Wellons' hash prospector, half of the key entering in its middle), 16 bits each; a number is
dropped where its 16 bits are below ``threshold``. A rate is so rounded to 1/65536, and what is left is scaled by the
rounded rate: the expectation is exact.
"""

import hashlib

import numpy as np
import torch

from lorastudy.engine import kernels

LEVELS = 1 << 16
ATTRIBUTE = "dropout_rows"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(seed, step, texts, lengths):
    """Keys of the tokens of texts that lie end to end.

    Args:
        seed, step: of the training and of the optimizer step.
        texts: number of each text in the training data.
        lengths: tokens of each.

    Returns:
        int32 array, shape (2, sum of lengths): lower and upper half of each token's key.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    of_step = _chained(_chained(np.uint64(0), np.array([seed])), np.array([step]))
    of_texts = _chained(of_step, np.asarray(texts))
    of_tokens = _chained(np.repeat(of_texts, lengths), positions)
    return np.ascontiguousarray(of_tokens.astype("<u8").view("<i4").reshape(-1, 2).T)


def _chained(key, number):
    """Key of a key and a number: the step and the finalizer of splitmix64."""
    with np.errstate(over="ignore"):
        z = key + (number.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def site(name):
    """Key of the module of that name: two int32."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return tuple(np.frombuffer(digest, "<i4").tolist())


def threshold(rate):
    """How many of the 65,536 values of 16 bits drop a number."""
    return min(round(rate * LEVELS), LEVELS - 1)


def scale(rate):
    """What the numbers that are left are multiplied by."""
    return LEVELS / (LEVELS - threshold(rate))


class Rows:
    """The keys of the rows that are being computed, for the dropout modules of a model.

    Attributes:
        tokens: keys of all tokens of the pack, shape (2, T); None outside of training.
        ends: those of the last token of each text, shape (2, texts).
    """

    tokens = ends = None

    def enter(self, pack):
        """The next computation is that of a ``batching.Pack``."""
        self.tokens = pack.keys
        self.ends = None if pack.keys is None else pack.keys[:, pack.ends].contiguous()

    def of(self, x):
        """Keys of the rows of ``x``, shape (…, rows, features): those of all tokens, or of the last of each text."""
        for keys in (self.tokens, self.ends):
            if keys is not None and keys.shape[1] == x.shape[-2]:
                return keys
        raise ValueError(f"dropout of {x.shape[-2]} rows, but the pack has keys for {self._known()}")

    def _known(self):
        return "none" if self.tokens is None else f"{self.tokens.shape[1]} tokens of {self.ends.shape[1]} texts"


class Dropout(torch.nn.Module):
    """As ``torch.nn.Dropout``, with a computed mask.

    Args:
        p: probability that a number is dropped.
        name: of the module in its model, which its masks are keyed by.
        rows: ``Rows`` of the model.
    """

    def __init__(self, p, name, rows):
        super().__init__()
        self.p, self.name, self.rows = p, name, rows
        self.site, self.threshold, self.scale = site(name), threshold(p), scale(p)

    def forward(self, x):
        if not self.training or not self.threshold:
            return x
        return _Drop.apply(x, self.rows.of(x), self)

    def extra_repr(self):
        return f"p={self.p}"


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, keys, module):
        ctx.keys, ctx.module = keys, module
        return _dropped(x, keys, module)

    @staticmethod
    def backward(ctx, gradient):
        return _dropped(gradient, ctx.keys, ctx.module), None, None


def _dropped(x, keys, module):
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    return kernels.drop(rows, keys, module.site, module.threshold, module.scale).view(x.shape)


def install(model):
    """Replace every ``torch.nn.Dropout`` that does something by one with computed masks, keyed by the module's name."""
    rows = Rows()
    for name, module in list(model.named_modules()):
        for child, dropout in list(module.named_children()):
            if isinstance(dropout, torch.nn.Dropout) and dropout.p > 0:
                setattr(module, child, Dropout(dropout.p, f"{name}.{child}", rows))
                # not by setattr, which is for the model's own parts
                _base(model).__dict__[ATTRIBUTE] = rows


def drops(model):
    """Whether a model has dropout, so that its packs need keys."""
    return ATTRIBUTE in _base(model).__dict__


def enter(model, pack):
    """Tell the dropout modules of a model which pack is computed next."""
    if drops(model):
        _base(model).__dict__[ATTRIBUTE].enter(pack)


def _base(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model
