"""Attention over packed texts: every text attends to itself alone, causally, and no mask of T x T is built.

transformers hands the keyword arguments of the model's call through to the attention function, and builds no mask
for an attention name that its mask registry does not know. Two things would silently let texts see each other and
are therefore never used: a key-value cache (``use_cache=True``) and any two-dimensional ``attention_mask``.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from lorastudy.inputs.families import AMPERE

NAME = "packed"
SCORES_AT_ONCE = 2**26  # of attention written out; 256 MiB in float32
# what transformers hands to every attention function and no function needs here: positions are in queries and keys
PASSED_OVER = frozenset({"position_ids", "use_cache", "output_attentions", "output_hidden_states", "return_dict"})


def register():
    """Make ``attn_implementation="packed"`` known to transformers. Calling it twice does no harm."""
    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, *, boundaries, max_length,
    sliding_window=None, softcap=None, s_aux=None, is_causal=None, **others,
):  # fmt: skip
    """Causal attention within each text of a pack, in the form that transformers' layers call.

    Args:
        query: (1, heads, T, head width); key and value may have fewer heads (grouped-query attention).
        boundaries: start of each text and end of the last, int32, shape (n + 1,).
        max_length: tokens of the longest text.
        sliding_window, softcap, s_aux: window, cap of the scores and sinks of ``attend``, as transformers names them.
        others: what transformers hands to every attention function; what changes no result is passed over.

    Returns:
        (1, T, heads, head width), None.

    Raises:
        NotImplementedError: anything is asked for that would be left out here.
    """
    asked = {name for name, value in others.items() if value is not None and value is not False} - PASSED_OVER
    if attention_mask is not None:
        asked.add("attention_mask")
    if dropout:
        asked.add("dropout")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        asked.add("is_causal=False")
    if asked:
        raise NotImplementedError(f"packed attention of {type(module).__name__} cannot do {', '.join(sorted(asked))}")
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    mixed = attend(
        query, key, value, boundaries, max_length, scaling, window=sliding_window, softcap=softcap, sinks=s_aux
    )
    return mixed[None], None


def attend(
    query, key, value, boundaries, max_length, scale=None, last=False, *, window=None, softcap=None, sinks=None
):  # fmt: skip
    """Causal attention within each text of a pack.

    Args:
        query: (T, heads, head width), or (n, heads, head width) with ``last``.
        key, value: (T, heads or a divisor of it, head width).
        boundaries: start of each text and end of the last, int32, shape (n + 1,).
        max_length: tokens of the longest text.
        scale: of the scores; one over the root of the head width by default.
        last: queries are those of the last token of each text.
        window: tokens that a token sees, itself the last of them (Beltagy et al. 2020); all before it by default.
        softcap: c, where a score s becomes c tanh(s / c) (Gemma 2, section 2).
        sinks: a score of each head that takes part in the softmax and has no value (gpt-oss), shape (heads,).

    Returns:
        As ``query``.
    """
    if softcap is not None or sinks is not None:
        return _by_hand(query, key, value, boundaries, max_length, scale, last, window, softcap, sinks)
    run = _flash if has_flash(query.dtype, query.device) else _side_by_side
    return run(query, key, value, boundaries, max_length, scale, last, window)


def has_flash(dtype, device):
    """Flash attention computes in 16 bits alone, and on GPUs from Ampere (compute capability 8.0) on."""
    return device.type == "cuda" and dtype != torch.float32 and torch.cuda.get_device_capability(device) >= AMPERE


class _Rows:
    """Texts of a pack side by side, padded at their right end: with a causal mask no token ever looks at the padding.

    In float32 whatever the inputs are: on a CPU the backward pass in bfloat16 is several times slower.

    Args:
        boundaries: of the texts, which may be some of those of a pack.
        longest: tokens of the longest of them.
    """

    def __init__(self, boundaries, longest):
        device = boundaries.device
        self.lengths, self.longest = boundaries.diff().long(), longest
        self.rows = torch.repeat_interleave(torch.arange(len(self.lengths), device=device), self.lengths)
        self.columns = torch.arange(len(self.rows), device=device) - (boundaries[:-1] - boundaries[0]).long()[self.rows]

    def spread(self, states):
        """(T, heads, width) → (n, heads, longest, width), float32."""
        padded = states.new_zeros(len(self.lengths), self.longest, *states.shape[1:], dtype=torch.float32)
        padded[self.rows, self.columns] = states.float()
        return padded.transpose(1, 2)

    def gather(self, mixed):
        """Undo of ``spread``."""
        return mixed.transpose(1, 2)[self.rows, self.columns]

    def seen(self, last, window):
        """Which keys a query sees: (longest, longest), or (n, 1, 1, longest) for the last token of each text."""
        key = torch.arange(self.longest, device=self.lengths.device)
        query = self.lengths[:, None, None, None] - 1 if last else key[:, None]
        visible = key <= query
        return visible if window is None else visible & (key > query - window)


def _side_by_side(query, key, value, boundaries, max_length, scale, last, window):
    """For a CPU, for float32 anywhere, and for GPUs without flash attention."""
    rows = _Rows(boundaries, max_length)
    masked = last or (window is not None and window < max_length)
    mixed = F.scaled_dot_product_attention(
        query.float()[:, :, None] if last else rows.spread(query), rows.spread(key), rows.spread(value),
        attn_mask=rows.seen(last, window) if masked else None, is_causal=not masked, scale=scale, enable_gqa=True,
    )  # fmt: skip
    return (mixed[:, :, 0] if last else rows.gather(mixed)).to(query.dtype)


def _by_hand(query, key, value, boundaries, max_length, scale, last, window, softcap, sinks):
    """Attention written out, for what no kernel in torch has. Scores of a few texts at a time, computed again in the
    backward pass, so that memory stays linear in the tokens."""
    texts = len(boundaries) - 1
    at_once = max(1, SCORES_AT_ONCE // (query.shape[1] * max_length * (1 if last else max_length)))
    parts = []
    for first in range(0, texts, at_once):
        part = boundaries[first : first + at_once + 1]
        begin, end = part[[0, -1]].tolist()
        own = query[first : first + len(part) - 1] if last else query[begin:end]
        arguments = (own, key[begin:end], value[begin:end], sinks, part, max_length, scale, last, window, softcap)
        parts.append(checkpoint(_written_out, *arguments, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def _written_out(query, key, value, sinks, boundaries, max_length, scale, last, window, softcap):
    rows = _Rows(boundaries, max_length)
    states = query.float()[:, :, None] if last else rows.spread(query)
    keys, values = rows.spread(key), rows.spread(value)
    grouped = states.unflatten(1, (keys.shape[1], -1))  # (n, key heads, queries a key, longest, width)
    scores = grouped @ keys[:, :, None].mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    seen = rows.seen(last, window)
    scores = scores.masked_fill(~(seen[:, :, None] if last else seen), -torch.inf)
    if sinks is not None:
        column = sinks.float().view(keys.shape[1], -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], dim=-1)
    share = scores.softmax(dim=-1)[..., : keys.shape[2]]
    mixed = (share @ values[:, :, None]).flatten(1, 2)
    return (mixed[:, :, 0] if last else rows.gather(mixed)).to(query.dtype)


def _flash(query, key, value, boundaries, max_length, scale, last, window):
    starts, longest = boundaries, max_length
    if last:
        # a longest query of 2, not 1: with 1 the kernel takes a route for decoding, which has no backward pass
        starts, longest = torch.arange(len(boundaries), dtype=torch.int32, device=query.device), 2
    # the window is of tokens to the left and to the right of a query, which is aligned at the end of a text
    left, right = (-1, -1) if window is None and last else (-1 if window is None else window - 1, 0)
    return _Flash.apply(query, key, value, (starts, boundaries, longest, max_length), scale, left, right)


class _Flash(torch.autograd.Function):
    """torch's flash attention for texts of any length (Dao 2023). ``varlen_attn`` is a custom operator around the same
    kernels, which takes the host three times as long."""

    @staticmethod
    def forward(ctx, query, key, value, texts, scale, left, right):
        mixed, log_sum, random, unused, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, *texts, 0.0, (left, right) == (-1, 0), False,
            scale=scale, window_size_left=left, window_size_right=right,
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, mixed, log_sum, random, unused)
        ctx.texts, ctx.window = texts, (scale, left, right)
        return mixed

    @staticmethod
    def backward(ctx, d_mixed):
        query, key, value, mixed, log_sum, random, unused = ctx.saved_tensors
        scale, left, right = ctx.window
        with _in_order():
            gradients = torch.ops.aten._flash_attention_backward(
                d_mixed.contiguous(), query, key, value, mixed, log_sum, *ctx.texts, 0.0, (left, right) == (-1, 0),
                random, unused, scale=scale, window_size_left=left, window_size_right=right,
            )  # fmt: skip
        return *gradients, None, None, None, None


@contextmanager
def _in_order():
    """Let the backward kernel add up the gradient of a long text's queries in a fixed order, for the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False
    # not by the public function, which imports torch's compiler and takes seconds
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling
