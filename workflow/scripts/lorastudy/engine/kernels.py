"""The elementwise parts of a decoder layer, each in one pass over memory on a GPU.

On a GPU these are Triton kernels (``triton_kernels``); on a CPU the same arithmetic in plain torch, which is also
what the kernels are tested against. Rounding follows transformers' Llama: a norm rounds before its weight, a gate
before its product; everything else is in float32 until it is stored.

All tensors are two-dimensional, rows contiguous, one row a token.
"""


def norm(hidden, weight, eps):
    """RMSNorm (Zhang and Sennrich 2019). Returns (normalised rows, 1/rms of each row in float32)."""
    if hidden.is_cuda:
        from lorastudy.engine import triton_kernels

        return triton_kernels.norm(hidden, weight, eps)
    wide = hidden.float()
    rstd = wide.pow(2).mean(1).add_(eps).rsqrt_()
    return _weighted(wide, rstd, weight), rstd


def add_norm(residual, update, weight, eps):
    """The residual stream after an update, and its RMSNorm. ``update`` is overwritten with the sum.

    Returns:
        (sum, normalised rows, 1/rms of each row).
    """
    if residual.is_cuda:
        from lorastudy.engine import triton_kernels

        return triton_kernels.add_norm(residual, update, weight, eps)
    total = update.add_(residual)
    return total, *norm(total, weight, eps)


def norm_backward(gradient, hidden, rstd, weight, skip):
    """Gradient of ``hidden`` from that of its norm, plus ``skip``, the gradient that reaches it past the norm.

    Returns:
        (gradient of ``hidden``, the normalised rows once more).
    """
    if hidden.is_cuda:
        from lorastudy.engine import triton_kernels

        return triton_kernels.norm_backward(gradient, hidden, rstd, weight, skip)
    wide = hidden.float()
    unit, inner = wide * rstd[:, None], gradient.float() * weight.float()
    inner = rstd[:, None] * (inner - unit * (inner * unit).mean(1, keepdim=True)) + skip.float()
    return inner.to(hidden.dtype), _weighted(wide, rstd, weight)


def _weighted(wide, rstd, weight):
    return weight * (wide * rstd[:, None]).to(weight.dtype)


def rotate(states, cos, sin, width, out, backward=False):
    """Rotary positions (Su et al. 2021) as Llama has them: the two halves of each head are turned against each other.

    Args:
        states: rows of heads of ``width``; may be a slice of wider rows.
        cos, sin: (T, width), both halves alike.
        out: where the result goes; may be ``states``.
        backward: turn the other way.
    """
    if states.is_cuda:
        from lorastudy.engine import triton_kernels

        return triton_kernels.rotate(states, cos, sin, width, out, backward)
    first, second = states.reshape(len(states), -1, 2, width // 2).float().unbind(2)
    c, s = (part[:, None, : width // 2].float() for part in (cos, sin))
    if backward:
        s = -s
    turned = (first * c - second * s, second * c + first * s)
    for half, value in enumerate(turned):
        out.unflatten(1, (-1, 2, width // 2))[:, :, half].copy_(value)
    return out


def swiglu(gate_up):
    """silu(gate) * up (Shazeer 2020); ``gate_up`` has the gates in its first half of columns."""
    if gate_up.is_cuda:
        from lorastudy.engine import triton_kernels

        return triton_kernels.swiglu(gate_up)
    import torch.nn.functional as F

    gate, up = gate_up.chunk(2, dim=1)
    return F.silu(gate) * up


def swiglu_backward(gradient, gate_up, product):
    """Gradient of ``gate_up``; with ``product`` also silu(gate) * up once more, else None."""
    if gate_up.is_cuda:
        from lorastudy.engine import triton_kernels

        return triton_kernels.swiglu_backward(gradient, gate_up, product)
    import torch
    import torch.nn.functional as F

    gate, up = gate_up.chunk(2, dim=1)
    wide, outer = gate.float(), gradient.float()
    sigmoid = wide.sigmoid()
    inner = torch.empty_like(gate_up)
    columns = gate.shape[1]
    inner[:, :columns] = outer * up.float() * sigmoid * (1 + wide * (1 - sigmoid))
    inner[:, columns:] = outer * wide * sigmoid
    return inner, F.silu(gate) * up if product else None


def expand(packed, code, scales, scale_code, outer_scales, offsets, out):
    """Weights from NF4 with double quantization (Dettmers et al. 2023), on a GPU.

    A weight is code[4 bits] * scale of its block of 64; a scale is scale_code[8 bits] * outer scale + offset of its
    block of 256.

    Args:
        packed: two weights a byte, the first in the upper half.
        out: where they go, in the format that they compute in.
    """
    from lorastudy.engine import triton_kernels

    return triton_kernels.expand(packed, code, scales, scale_code, outer_scales, offsets, out)
