"""GPU forms of ``kernels``. Each reads its inputs once and writes its outputs once."""

import torch
import triton
import triton.language as tl


@triton.jit
def _norm(hidden, update, weight, total, rows, rstds, eps, width, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    wide = tl.load(hidden + row + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        wide += tl.load(update + row + columns, mask=inside, other=0.0).to(tl.float32)
        stored = wide.to(total.dtype.element_ty)
        tl.store(total + row + columns, stored, mask=inside)
        wide = stored.to(tl.float32)
    rstd = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
    tl.store(rstds + tl.program_id(0), rstd)
    unit = (wide * rstd).to(rows.dtype.element_ty).to(tl.float32)
    scaled = unit * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(rows + row + columns, scaled.to(rows.dtype.element_ty), mask=inside)


@triton.jit
def _norm_backward(gradient, hidden, rstds, weight, skip, result, rows, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    rstd = tl.load(rstds + tl.program_id(0))
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    unit = tl.load(hidden + row + columns, mask=inside, other=0.0).to(tl.float32) * rstd
    inner = tl.load(gradient + row + columns, mask=inside, other=0.0).to(tl.float32) * w
    inner = rstd * (inner - unit * (tl.sum(inner * unit, axis=0) / width))
    inner += tl.load(skip + row + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + row + columns, inner.to(result.dtype.element_ty), mask=inside)
    again = unit.to(rows.dtype.element_ty).to(tl.float32) * w
    tl.store(rows + row + columns, again.to(rows.dtype.element_ty), mask=inside)


@triton.jit
def _rotate(
    states, cos, sin, out, from_stride, to_stride, heads, HALF: tl.constexpr, SIGN: tl.constexpr,
    COLUMNS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    inside = (head < heads) & (column < HALF)
    place = head * (2 * HALF) + column
    first = tl.load(states + row * from_stride + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(states + row * from_stride + place + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + row * (2 * HALF) + column, mask=column < HALF, other=0.0).to(tl.float32)
    s = tl.load(sin + row * (2 * HALF) + column, mask=column < HALF, other=0.0).to(tl.float32) * SIGN
    kind = out.dtype.element_ty
    tl.store(out + row * to_stride + place, (first * c - second * s).to(kind), mask=inside)
    tl.store(out + row * to_stride + place + HALF, (second * c + first * s).to(kind), mask=inside)


@triton.jit
def _swiglu(gate_up, result, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    kind = result.dtype.element_ty
    gate = tl.load(gate_up + row * 2 * columns + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * columns + columns + column, mask=inside, other=0.0).to(tl.float32)
    opened = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    tl.store(result + row * columns + column, (opened * up).to(kind), mask=inside)


@triton.jit
def _swiglu_backward(gradient, gate_up, inner, product, columns, PRODUCT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    kind = inner.dtype.element_ty
    outer = tl.load(gradient + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_up + row * 2 * columns + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * columns + columns + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    opened = gate * sigmoid
    tl.store(
        inner + row * 2 * columns + column,
        (outer * up * sigmoid * (1 + gate * (1 - sigmoid))).to(kind),
        mask=inside,
    )
    tl.store(inner + row * 2 * columns + columns + column, (outer * opened).to(kind), mask=inside)
    if PRODUCT:
        tl.store(product + row * columns + column, (opened.to(kind).to(tl.float32) * up).to(kind), mask=inside)


@triton.jit
def _expand(packed, code, scales, scale_code, outer_scales, offsets, out, blocks, BLOCKS: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = block < blocks
    scale = tl.load(scale_code + tl.load(scales + block, mask=inside, other=0).to(tl.int32))
    scale = scale * tl.load(outer_scales + block // 256, mask=inside, other=0.0)
    scale += tl.load(offsets + block // 256, mask=inside, other=0.0)
    place = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    byte = tl.load(packed + place, mask=inside[:, None], other=0).to(tl.int32)
    first, second = tl.load(code + (byte >> 4)) * scale[:, None], tl.load(code + (byte & 15)) * scale[:, None]
    kind = out.dtype.element_ty
    value = tl.interleave(first.to(kind), second.to(kind))
    tl.store(out + block[:, None] * 64 + tl.arange(0, 64)[None, :], value, mask=inside[:, None])


def _row(width):
    return {"BLOCK": triton.next_power_of_2(width), "num_warps": 8 if width >= 2048 else 4}


def norm(hidden, weight, eps):
    tokens, width = hidden.shape
    rows, rstd = torch.empty_like(hidden), torch.empty(tokens, dtype=torch.float32, device=hidden.device)
    _norm[(tokens,)](hidden, hidden, weight, hidden, rows, rstd, eps, width, ADD=False, **_row(width))
    return rows, rstd


def add_norm(residual, update, weight, eps):
    tokens, width = residual.shape
    rows, rstd = torch.empty_like(residual), torch.empty(tokens, dtype=torch.float32, device=residual.device)
    _norm[(tokens,)](residual, update, weight, update, rows, rstd, eps, width, ADD=True, **_row(width))
    return update, rows, rstd


def norm_backward(gradient, hidden, rstd, weight, skip):
    tokens, width = hidden.shape
    result, rows = torch.empty_like(hidden), torch.empty_like(hidden)
    _norm_backward[(tokens,)](gradient, hidden, rstd, weight, skip, result, rows, width, **_row(width))
    return result, rows


def rotate(states, cos, sin, width, out, backward=False):
    heads, half = states.shape[1] // width, width // 2
    block = min(8, triton.next_power_of_2(heads))
    _rotate[(len(states), triton.cdiv(heads, block))](
        states, cos, sin, out, states.stride(0), out.stride(0), heads, HALF=half, SIGN=-1.0 if backward else 1.0,
        COLUMNS=triton.next_power_of_2(half), HEADS=block, num_warps=4,
    )  # fmt: skip
    return out


def swiglu(gate_up):
    tokens, columns = len(gate_up), gate_up.shape[1] // 2
    result = gate_up.new_empty(tokens, columns)
    block = min(1024, triton.next_power_of_2(columns))
    _swiglu[(tokens, triton.cdiv(columns, block))](gate_up, result, columns, BLOCK=block, num_warps=4)
    return result


def swiglu_backward(gradient, gate_up, product):
    tokens, columns = len(gate_up), gate_up.shape[1] // 2
    inner = torch.empty_like(gate_up)
    again = gate_up.new_empty(tokens, columns) if product else None
    block = min(1024, triton.next_power_of_2(columns))
    _swiglu_backward[(tokens, triton.cdiv(columns, block))](
        gradient, gate_up, inner, inner if again is None else again, columns, PRODUCT=product, BLOCK=block, num_warps=4
    )
    return inner, again


def expand(packed, code, scales, scale_code, outer_scales, offsets, out):
    """NF4 with double quantization: blocks of 64 numbers, their scales in blocks of 256."""
    blocks = scales.numel()
    # without fused multiply-add, so that a scale has the bits that two roundings give
    _expand[(triton.cdiv(blocks, 64),)](
        packed, code, scales, scale_code, outer_scales, offsets, out, blocks, BLOCKS=64, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip
    return out
