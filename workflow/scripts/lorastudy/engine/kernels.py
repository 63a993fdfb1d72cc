"""The elementwise parts of a decoder layer, each in one pass over memory on a GPU.

On a GPU these are Triton kernels (``triton_kernels``); on a CPU the same arithmetic in plain torch, which is also
what the kernels are tested against. Rounding follows transformers' Llama: a norm rounds before its weight, a gate
before its product; everything else is in float32 until it is stored.

All tensors are two-dimensional, rows contiguous, one row per token.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

try:
    from lorastudy.engine import triton_kernels
except ImportError:  # Triton comes with torch's builds for GPUs alone
    triton_kernels = None


def norm(hidden, weight, eps):
    """RMSNorm (Zhang and Sennrich 2019). Returns (normalised rows, 1/rms of each row in float32)."""
    if hidden.is_cuda:
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
        return triton_kernels.add_norm(residual, update, weight, eps)
    total = update.add_(residual)
    return total, *norm(total, weight, eps)


def norm_backward(gradient, hidden, rstd, weight, skip):
    """Gradient of ``hidden`` from that of its norm, plus ``skip``, the gradient that reaches it past the norm.

    Returns:
        (gradient of ``hidden``, the normalised rows once more).
    """
    if hidden.is_cuda:
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
        return triton_kernels.rotate(states, cos, sin, width, out, backward)
    first, second = states.reshape(len(states), -1, 2, width // 2).float().unbind(2)
    c, s = (part[:, None, : width // 2].float() for part in (cos, sin))
    if backward:
        s = -s
    turned = (first * c - second * s, second * c + first * s)
    for half, value in enumerate(turned):
        out.unflatten(1, (-1, 2, width // 2))[:, :, half].copy_(value)
    return out


@dataclass(frozen=True)
class Adapters:
    """What adapters add to gate and up, which is added as they are read.

    Attributes:
        inner: scaled inner values of both, side by side, shape (T, 2 * rank).
        ups: second factors of gate and up, each of shape (columns, rank).
    """

    inner: torch.Tensor
    ups: tuple

    def add(self, gate_up):
        """(gate, up) in float32, complete."""
        parts = zip(gate_up.float().chunk(2, 1), self.inner.float().chunk(2, 1), self.ups)
        return [part + inner @ up.float().T for part, inner, up in parts]


@dataclass(frozen=True)
class Beside:
    """What an adapter adds to the gradient of its input, which is added as that is read: drop(d @ down).

    Attributes:
        d: gradient of the inner values, shape (T, rank).
        down: first factor, shape (rank, columns).
        keys, site, threshold: of the dropout; ``keys`` None where nothing is dropped.
    """

    d: torch.Tensor
    down: torch.Tensor
    keys: torch.Tensor | None
    site: tuple
    threshold: int

    def add(self, gradient):
        more = self.d.float() @ self.down.float()
        if self.keys is not None:
            more = torch.where(kept(self.keys, self.site, more.shape[1], self.threshold), more, 0)
        return gradient.float() + more


def swiglu(gate_up, adapters=None):
    """silu(gate) * up (Shazeer 2020); ``gate_up`` has the gates in its first half of columns.

    Args:
        adapters: ``Adapters`` of gate and up, where ``gate_up`` is without their part.
    """
    if gate_up.is_cuda:
        return triton_kernels.swiglu(gate_up, adapters)
    if adapters:
        gate, up = adapters.add(gate_up)
        return (F.silu(gate).to(gate_up.dtype) * up).to(gate_up.dtype)
    gate, up = gate_up.chunk(2, dim=1)
    return F.silu(gate) * up


def swiglu_backward(gradient, gate_up, product, adapters=None, beside=None):
    """Gradient of ``gate_up``; with ``product`` also silu(gate) * up once more, else None.

    Args:
        gradient: of the product, without what ``beside`` adds.
        adapters: as in ``swiglu``.
        beside: ``Beside`` of the layer that reads the product, if any.
    """
    if gate_up.is_cuda:
        return triton_kernels.swiglu_backward(gradient, gate_up, product, adapters, beside)
    gate, up = adapters.add(gate_up) if adapters else gate_up.float().chunk(2, dim=1)
    outer = beside.add(gradient) if beside else gradient.float()
    sigmoid = gate.sigmoid()
    inner = torch.empty_like(gate_up)
    columns = gate.shape[1]
    inner[:, :columns] = outer * up * sigmoid * (1 + gate * (1 - sigmoid))
    inner[:, columns:] = outer * gate * sigmoid
    again = (F.silu(gate).to(gate_up.dtype) * up).to(gate_up.dtype) if product else None
    return inner, again


def expand(packed, code, scales, scale_code, outer_scales, offsets, out):
    """Weights from NF4 with double quantization (Dettmers et al. 2023), on a GPU.

    A weight is code[4 bits] * scale of its block of 64; a scale is scale_code[8 bits] * outer scale + offset of its
    block of 256.

    Args:
        packed: two weights a byte, the first in the upper half.
        out: where they go, in the format that they compute in.
    """
    return triton_kernels.expand(packed, code, scales, scale_code, outer_scales, offsets, out)


def drop(x, keys, site, threshold, scale):
    """``x`` with the numbers zero that dropout drops, the others times ``scale``.

    Args:
        keys: of the rows, int32, shape (2, T) (``dropout.keys``).
        site: key of the module (``dropout.site``).
        threshold: of 65,536 values of a number's 16 bits, so many drop it.
    """
    if x.is_cuda:
        return triton_kernels.drop(x, keys, site, threshold, scale)
    return torch.where(kept(keys, site, x.shape[1], threshold), x * scale, 0)


def kept(keys, site, width, threshold):
    """Which numbers dropout leaves, shape (T, ``width``); as the GPU's kernels compute it (``dropout`` says how).

    A feature of the first half of the columns has the lower 16 bits of a hash, that of the second half the upper.
    """
    pair = torch.arange((width + 1) // 2, dtype=torch.int32, device=keys.device)
    x = pair * _int32(0x9E3779B1) + (keys[0] ^ site[0])[:, None]
    x ^= _shifted(x, 16)
    x *= _int32(0x7FEB352D)
    x ^= _shifted(x, 15) ^ (keys[1] ^ site[1])[:, None]
    x *= _int32(0x846CA68B)
    x ^= _shifted(x, 16)
    return (torch.cat([x & 0xFFFF, _shifted(x, 16)], 1) >= threshold)[:, :width]


def _int32(number):
    return number - (1 << 32) if number >= 1 << 31 else number


def _shifted(x, bits):
    """Shifted to the right, zeros coming in."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def drop_inner(x, down, keys, sites, threshold, scale):
    """Inner values of several adapters on one input, each with a mask of its own: scale * drop(x) @ factor.T.

    Args:
        down: the first factors below each other, shape (adapters * rank, inputs).
        sites: keys of the modules, int32, shape (adapters, 2).

    Returns:
        Shape (T, adapters * rank), side by side.
    """
    if x.is_cuda:
        return triton_kernels.drop_inner(x, down, keys, sites, threshold, scale)
    masked = (torch.where(kept(keys, site, x.shape[1], threshold), x, 0) for site in sites.tolist())
    return torch.cat([scale * (part @ factor.T) for part, factor in zip(masked, down.chunk(len(sites)))], 1)


def drop_outer(d, x, totals, keys, sites, threshold):
    """Add d.T @ drop(x) to each adapter's total: gradients of the first factors from those of the inner values.

    Args:
        d: shape (T, adapters * rank).
        totals: a float32 tensor, shape (rank, inputs), for each adapter.
    """
    if x.is_cuda:
        return triton_kernels.drop_outer(d, x, totals, keys, sites, threshold)
    for part, total, site in zip(d.chunk(len(sites), 1), totals, sites.tolist()):
        total.add_(part.T @ torch.where(kept(keys, site, x.shape[1], threshold), x, 0))
    return None


def drop_input_gradient(dx, d, down, keys, sites, threshold):
    """Add drop(d @ factor) of each adapter to ``dx``, the gradient of the input."""
    if dx.is_cuda:
        return triton_kernels.drop_input_gradient(dx, d, down, keys, sites, threshold)
    for part, factor, site in zip(d.chunk(len(sites), 1), down.chunk(len(sites)), sites.tolist()):
        dx.add_(torch.where(kept(keys, site, dx.shape[1], threshold), part @ factor, 0))
    return dx
