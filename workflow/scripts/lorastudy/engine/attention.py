"""Attention over packed texts: every text attends to itself alone, causally, and no mask of T x T is built.

transformers hands the keyword arguments of the model's call through to the attention function, and builds no mask
for an attention name that its mask registry does not know. Two things would silently let texts see each other and
are therefore never used: a key-value cache (``use_cache=True``) and any two-dimensional ``attention_mask``.
"""

import inspect
from functools import cache

NAME = "packed"


def register():
    """Make ``attn_implementation="packed"`` known to transformers. Calling it twice does no harm."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, *, boundaries, max_length, **_
):
    """Causal attention within each text of a pack, in the form that transformers' layers call.

    Args:
        query: (1, heads, T, head width); key and value may have fewer heads (grouped-query attention).
        boundaries: start of each text and end of the last, int32, shape (n + 1,).
        max_length: tokens of the longest text.

    Returns:
        (1, T, heads, head width), None.
    """
    if attention_mask is not None or dropout:
        raise NotImplementedError("packed attention takes neither a mask nor attention dropout")
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    return attend(query, key, value, boundaries, max_length, scaling)[None], None


def attend(query, key, value, boundaries, max_length, scale=None, last=False):
    """Causal attention within each text of a pack.

    Args:
        query: (T, heads, head width), or (n, heads, head width) with ``last``.
        key, value: (T, heads or a divisor of it, head width).
        boundaries: start of each text and end of the last, int32, shape (n + 1,).
        max_length: tokens of the longest text.
        scale: of the scores; one over the root of the head width by default.
        last: queries are those of the last token of each text, which sees all of its text.

    Returns:
        As ``query``.
    """
    import torch

    # flash attention computes in 16 bits alone
    run = _flash if query.is_cuda and query.dtype != torch.float32 else _grouped
    return run(query, key, value, boundaries, max_length, scale, last)


def _grouped(query, key, value, boundaries, max_length, scale, last):
    """Texts side by side, padded at their right end: with a causal mask no token ever looks at the padding.

    For a CPU, and for float32 anywhere. In float32 whatever the inputs are: on a CPU the backward pass in bfloat16 is
    several times slower.
    """
    import torch
    import torch.nn.functional as F

    lengths = boundaries.diff().long()
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=query.device), lengths)
    columns = torch.arange(len(key), device=query.device) - boundaries[:-1].long()[rows]

    def side_by_side(states):  # (T, heads, width) → (n, heads, max_length, width)
        padded = states.new_zeros(len(lengths), max_length, states.shape[1], states.shape[2], dtype=torch.float32)
        padded[rows, columns] = states.float()
        return padded.transpose(1, 2)

    if last:
        own = torch.arange(max_length, device=query.device) < lengths[:, None]
        mixed = F.scaled_dot_product_attention(
            query.float()[:, :, None], side_by_side(key), side_by_side(value),
            attn_mask=own[:, None, None], scale=scale, enable_gqa=True,
        )  # fmt: skip
        return mixed[:, :, 0].to(query.dtype)
    mixed = F.scaled_dot_product_attention(
        side_by_side(query), side_by_side(key), side_by_side(value), is_causal=True, scale=scale, enable_gqa=True
    )
    return mixed.transpose(1, 2)[rows, columns].to(query.dtype)


def _flash(query, key, value, boundaries, max_length, scale, last):
    import torch
    from torch.nn.attention.varlen import varlen_attn

    grouped, causal = _arguments(varlen_attn)
    if last:
        # a longest query of 2, not 1: with 1 the kernel takes a route for decoding, which has no backward pass
        starts = torch.arange(len(boundaries), dtype=torch.int32, device=query.device)
        return varlen_attn(query, key, value, starts, boundaries, 2, max_length, scale=scale, **grouped)
    return varlen_attn(
        query, key, value, boundaries, boundaries, max_length, max_length, scale=scale, **grouped, **causal
    )


@cache
def _arguments(varlen_attn):
    """torch 2.10 says ``is_causal``; later ones a window, and from 2.12 on grouped-query attention must be asked for."""
    known = inspect.signature(varlen_attn).parameters
    grouped = {"enable_gqa": True} if "enable_gqa" in known else {}
    return grouped, {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
