"""GPU forms of ``kernels``. Each reads its inputs once and writes its outputs once."""

import torch
import triton
import triton.language as tl

PROGRAMS = 512  # that keep every multiprocessor of a large GPU busy
TILE = (64, 64)  # rows and columns of what a program reads together with an adapter's factor


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
    offset = head * (2 * HALF) + column
    first = tl.load(states + row * from_stride + offset, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(states + row * from_stride + offset + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + row * (2 * HALF) + column, mask=column < HALF, other=0.0).to(tl.float32)
    s = tl.load(sin + row * (2 * HALF) + column, mask=column < HALF, other=0.0).to(tl.float32) * SIGN
    kind = out.dtype.element_ty
    tl.store(out + row * to_stride + offset, (first * c - second * s).to(kind), mask=inside)
    tl.store(out + row * to_stride + offset + HALF, (second * c + first * s).to(kind), mask=inside)


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
def _low_rank(
    left, right, base, row, column, left_stride, right_stride, right_step, tokens, columns, rank, RANK: tl.constexpr
):
    """base + left[row] @ right[column].T, in float32."""
    inner = tl.arange(0, RANK)
    present = (inner < rank)[None, :]
    a = tl.load(left + row[:, None] * left_stride + inner[None, :], mask=(row < tokens)[:, None] & present, other=0.0)
    offset = column.to(tl.int64)[None, :] * right_stride + inner[:, None] * right_step
    b = tl.load(right + offset, mask=(inner < rank)[:, None] & (column < columns)[None, :], other=0.0)
    return base + tl.dot(a, b, input_precision="ieee")


@triton.jit
def _swiglu_adapted(
    gate_up, result, inner, gate_factor, up_factor, stride, step, tokens, columns, rank,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < tokens)[:, None] & (column < columns)[None, :]
    offset = row[:, None] * columns + column[None, :]
    both = gate_up + row[:, None] * (2 * columns) + column[None, :]
    gate = tl.load(both, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + columns, mask=inside, other=0.0).to(tl.float32)
    gate = _low_rank(inner, gate_factor, gate, row, column, 2 * rank, stride, step, tokens, columns, rank, RANK)
    up = _low_rank(inner + rank, up_factor, up, row, column, 2 * rank, stride, step, tokens, columns, rank, RANK)
    kind = result.dtype.element_ty
    opened = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    tl.store(result + offset, (opened * up).to(kind), mask=inside)


@triton.jit(do_not_specialize=["first_site", "second_site"])
def _swiglu_backward_adapted(
    gradient, gate_up, changes, product, inner, gate_factor, up_factor, stride, step, d, down, down_rank, keys,
    first_site: tl.int32, second_site: tl.int32, threshold, tokens, columns, rank,
    ADAPTED: tl.constexpr, BESIDE: tl.constexpr, DROP: tl.constexpr, PRODUCT: tl.constexpr,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < tokens)[:, None] & (column < columns)[None, :]
    offset = row[:, None] * columns + column[None, :]
    both = row[:, None] * (2 * columns) + column[None, :]
    outer = tl.load(gradient + offset, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_up + both, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + both + columns, mask=inside, other=0.0).to(tl.float32)
    if ADAPTED:
        gate = _low_rank(inner, gate_factor, gate, row, column, 2 * rank, stride, step, tokens, columns, rank, RANK)
        up = _low_rank(inner + rank, up_factor, up, row, column, 2 * rank, stride, step, tokens, columns, rank, RANK)
    if BESIDE:
        ranks = tl.arange(0, RANK)
        present = ranks < down_rank
        a = tl.load(
            d + row[:, None] * down_rank + ranks[None, :], mask=(row < tokens)[:, None] & present[None, :], other=0.0
        )
        b = tl.load(
            down + ranks[:, None] * columns + column[None, :], mask=present[:, None] & (column < columns)[None, :],
            other=0.0,
        )  # fmt: skip
        more = tl.dot(a, b, input_precision="ieee")
        if DROP:
            here = row < tokens
            key = (tl.load(keys + row, mask=here, other=0) ^ first_site).to(tl.uint32, bitcast=True)
            turn = (tl.load(keys + tokens + row, mask=here, other=0) ^ second_site).to(tl.uint32, bitcast=True)
            half = (columns + 1) // 2
            upper = column >= half
            bits = _hashed(tl.where(upper, column - half, column)[None, :], key[:, None], turn[:, None])
            bits = tl.where(upper[None, :], bits >> 16, bits & 0xFFFF)
            more = tl.where(bits >= threshold, more, 0.0)
        outer += more
    sigmoid = tl.sigmoid(gate)
    opened = gate * sigmoid
    kind = changes.dtype.element_ty
    tl.store(changes + both, (outer * up * sigmoid * (1 + gate * (1 - sigmoid))).to(kind), mask=inside)
    tl.store(changes + both + columns, (outer * opened).to(kind), mask=inside)
    if PRODUCT:
        tl.store(product + offset, (opened.to(kind).to(tl.float32) * up).to(kind), mask=inside)


@triton.jit
def _expand(packed, code, scales, scale_code, outer_scales, offsets, out, blocks, BLOCKS: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = block < blocks
    scale = tl.load(scale_code + tl.load(scales + block, mask=inside, other=0).to(tl.int32))
    scale = scale * tl.load(outer_scales + block // 256, mask=inside, other=0.0)
    scale += tl.load(offsets + block // 256, mask=inside, other=0.0)
    offset = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    byte = tl.load(packed + offset, mask=inside[:, None], other=0).to(tl.int32)
    first, second = tl.load(code + (byte >> 4)) * scale[:, None], tl.load(code + (byte & 15)) * scale[:, None]
    kind = out.dtype.element_ty
    value = tl.interleave(first.to(kind), second.to(kind))
    tl.store(out + block[:, None] * 64 + tl.arange(0, 64)[None, :], value, mask=inside[:, None])


@triton.jit
def _hashed(pair, key, turn):
    """32 bits for each row's key and pair of features, of which each has 16 (``dropout``)."""
    x = pair.to(tl.uint32) * 0x9E3779B1 + key
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15) ^ turn
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _keys(keys, sites, site, row, tokens):
    inside = row < tokens
    key = tl.load(keys + row, mask=inside, other=0) ^ tl.load(sites + 2 * site)
    turn = tl.load(keys + tokens + row, mask=inside, other=0) ^ tl.load(sites + 2 * site + 1)
    return key.to(tl.uint32, bitcast=True), turn.to(tl.uint32, bitcast=True)


@triton.jit(do_not_specialize=["first_site", "second_site"])
def _drop(
    x, out, keys, tokens, half, width, threshold, first_site: tl.int32, second_site: tl.int32, scale,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    key = (tl.load(keys + row) ^ first_site).to(tl.uint32, bitcast=True)
    turn = (tl.load(keys + tokens + row) ^ second_site).to(tl.uint32, bitcast=True)
    bits = _hashed(pair, key, turn)
    for side in tl.static_range(2):
        column = pair + side * half
        inside = (pair < half) & (column < width)
        value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32) * scale
        mine = bits >> 16 if side else bits & 0xFFFF
        value = tl.where(mine >= threshold, value, 0.0)
        tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _drop_inner(
    x, down, out, keys, sites, tokens, half, width, rank, ranks, threshold, scale, part,
    RANK: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    adapter = tl.program_id(1)
    key, turn = _keys(keys, sites, adapter, row, tokens)
    offset = row.to(tl.int64)[:, None] * width
    inner = tl.arange(0, RANK)
    present = (row < tokens)[:, None]
    total = tl.zeros((ROWS, RANK), dtype=tl.float32)
    start = tl.program_id(2) * part
    for begin in range(0, part, PAIRS):
        pair = start + begin + tl.arange(0, PAIRS)
        bits = _hashed(pair[None, :], key[:, None], turn[:, None])
        for side in tl.static_range(2):
            column = pair + side * half
            inside = (pair < half) & (column < width)
            value = tl.load(x + offset + column[None, :], mask=present & inside[None, :], other=0.0)
            mine = bits >> 16 if side else bits & 0xFFFF
            value = tl.where(mine >= threshold, value, 0.0)
            factor = tl.load(
                down + (adapter * rank + inner)[None, :] * width + column[:, None],
                mask=inside[:, None] & (inner < rank)[None, :], other=0.0,
            )  # fmt: skip
            total = tl.dot(value, factor, total, input_precision="ieee")
    target = out + (tl.program_id(2) * tokens + row.to(tl.int64))[:, None] * ranks + adapter * rank + inner[None, :]
    tl.store(target, (total * scale).to(out.dtype.element_ty), mask=present & (inner < rank)[None, :])


@triton.jit
def _sum_parts(parts, out, size, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * size + offset, mask=inside, other=0.0)
    tl.store(out + offset, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _drop_outer(
    d, x, out, keys, sites, tokens, half, width, rank, ranks, threshold, part,
    RANK: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    adapter = tl.program_id(1)
    inner = tl.arange(0, RANK)
    lower = tl.zeros((RANK, PAIRS), dtype=tl.float32)
    upper = tl.zeros((RANK, PAIRS), dtype=tl.float32)
    column = pair + half
    start = tl.program_id(2) * part
    for begin in range(0, part, ROWS):
        row = start + begin + tl.arange(0, ROWS)
        key, turn = _keys(keys, sites, adapter, row, tokens)
        offset = row.to(tl.int64)
        present = (row < tokens)[:, None]
        gradient = tl.load(
            d + offset[None, :] * ranks + (adapter * rank + inner)[:, None],
            mask=(row < tokens)[None, :] & (inner < rank)[:, None], other=0.0,
        )  # fmt: skip
        bits = _hashed(pair[None, :], key[:, None], turn[:, None])
        value = tl.load(x + offset[:, None] * width + pair[None, :], mask=present & (pair < half)[None, :], other=0.0)
        value = tl.where((bits & 0xFFFF) >= threshold, value, 0.0)
        lower = tl.dot(gradient, value, lower, input_precision="ieee")
        inside = ((pair < half) & (column < width))[None, :]
        value = tl.load(x + offset[:, None] * width + column[None, :], mask=present & inside, other=0.0)
        value = tl.where((bits >> 16) >= threshold, value, 0.0)
        upper = tl.dot(gradient, value, upper, input_precision="ieee")
    target = out + ((tl.program_id(2) * ranks + adapter * rank + inner) * width)[:, None]
    inside = (inner < rank)[:, None] & (pair < half)[None, :]
    tl.store(target + pair[None, :], lower, mask=inside)
    tl.store(target + column[None, :], upper, mask=inside & (column < width)[None, :])


@triton.jit(do_not_specialize=["second", "third"])
def _add_parts(
    parts, totals, second: tl.int64, third: tl.int64, size, stride, PARTS: tl.constexpr, BLOCK: tl.constexpr
):
    adapter = tl.program_id(1)
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    # the totals are apart in memory: given are the distances of the second and third from the first
    target = totals + tl.where(adapter == 0, 0, tl.where(adapter == 1, second, third)) + offset
    total = tl.load(target, mask=inside, other=0.0)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * stride + adapter * size + offset, mask=inside, other=0.0)
    tl.store(target, total, mask=inside)


@triton.jit
def _drop_input_gradient(
    dx, d, down, keys, sites, tokens, half, width, rank, ranks, threshold,
    ADAPTERS: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    pair = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    inner = tl.arange(0, RANK)
    offset = row.to(tl.int64)[:, None]
    present = (row < tokens)[:, None]
    column = pair + half
    inside = ((pair < half) & (column < width))[None, :]
    target = dx + offset * width + pair[None, :]
    lower = tl.load(target, mask=present & (pair < half)[None, :], other=0.0).to(tl.float32)
    upper = tl.load(target + half, mask=present & inside, other=0.0).to(tl.float32)
    for adapter in tl.static_range(ADAPTERS):
        key, turn = _keys(keys, sites, adapter, row, tokens)
        bits = _hashed(pair[None, :], key[:, None], turn[:, None])
        gradient = tl.load(
            d + offset * ranks + (adapter * rank + inner)[None, :], mask=present & (inner < rank)[None, :], other=0.0
        )
        factor = down + (adapter * rank + inner)[:, None] * width
        of_rank = (inner < rank)[:, None]
        value = tl.load(factor + pair[None, :], mask=of_rank & (pair < half)[None, :], other=0.0)
        value = tl.dot(gradient, value, input_precision="ieee")
        lower += tl.where((bits & 0xFFFF) >= threshold, value, 0.0)
        value = tl.load(factor + column[None, :], mask=of_rank & inside, other=0.0)
        value = tl.dot(gradient, value, input_precision="ieee")
        upper += tl.where((bits >> 16) >= threshold, value, 0.0)
    kind = dx.dtype.element_ty
    tl.store(target, lower.to(kind), mask=present & (pair < half)[None, :])
    tl.store(target + half, upper.to(kind), mask=present & inside)


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


def swiglu(gate_up, adapters=None):
    tokens, columns = len(gate_up), gate_up.shape[1] // 2
    result = gate_up.new_empty(tokens, columns)
    if adapters:
        rank, (gate, up) = adapters.inner.shape[1] // 2, adapters.ups
        _swiglu_adapted[_tiles(tokens, columns)](
            gate_up, result, adapters.inner, gate, up, *gate.stride(), tokens, columns, rank,
            RANK=_padded(rank), ROWS=TILE[0], COLUMNS=TILE[1], num_warps=8,
        )  # fmt: skip
        return result
    block = min(1024, triton.next_power_of_2(columns))
    _swiglu[(tokens, triton.cdiv(columns, block))](gate_up, result, columns, BLOCK=block, num_warps=4)
    return result


def swiglu_backward(gradient, gate_up, product, adapters=None, beside=None):
    tokens, columns = len(gate_up), gate_up.shape[1] // 2
    inner = torch.empty_like(gate_up)
    again = gate_up.new_empty(tokens, columns) if product else None
    written = inner if again is None else again
    if adapters or beside:
        rank = adapters.inner.shape[1] // 2 if adapters else 0
        low, (gate, up) = (adapters.inner, adapters.ups) if adapters else (gate_up, (gate_up, gate_up))
        d, down = (beside.d, beside.down) if beside else (gate_up, gate_up)
        drop = beside is not None and beside.keys is not None
        down_rank = d.shape[1] if beside else 0
        _swiglu_backward_adapted[_tiles(tokens, columns)](
            gradient, gate_up, inner, written, low, gate, up, *gate.stride(), d, down, down_rank,
            beside.keys if drop else gate_up, *(beside.site if drop else (0, 0)), beside.threshold if drop else 0,
            tokens, columns, rank, ADAPTED=adapters is not None, BESIDE=beside is not None, DROP=drop, PRODUCT=product,
            RANK=_padded(max(rank, down_rank)), ROWS=TILE[0], COLUMNS=TILE[1], num_warps=8,
        )  # fmt: skip
        return inner, again
    block = min(1024, triton.next_power_of_2(columns))
    _swiglu_backward[(tokens, triton.cdiv(columns, block))](
        gradient, gate_up, inner, written, columns, PRODUCT=product, BLOCK=block, num_warps=4
    )
    return inner, again


def _tiles(tokens, columns):
    return triton.cdiv(tokens, TILE[0]), triton.cdiv(columns, TILE[1])


def expand(packed, code, scales, scale_code, outer_scales, offsets, out):
    """NF4 with double quantization: blocks of 64 numbers, their scales in blocks of 256."""
    blocks = scales.numel()
    # without fused multiply-add, so that a scale has the bits that two roundings give
    _expand[(triton.cdiv(blocks, 64),)](
        packed, code, scales, scale_code, outer_scales, offsets, out, blocks, BLOCKS=64, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip
    return out


def drop(x, keys, site, threshold, scale):
    tokens, width = x.shape
    out, half = torch.empty_like(x), (width + 1) // 2
    block = min(1024, triton.next_power_of_2(half))
    _drop[(tokens, triton.cdiv(half, block))](
        x, out, keys, tokens, half, width, threshold, *site, scale, BLOCK=block, num_warps=4
    )
    return out


def _padded(rank):
    """The matrix units take 16 at least."""
    return max(16, triton.next_power_of_2(rank))


def drop_inner(x, down, keys, sites, threshold, scale):
    """Few tokens would keep few multiprocessors busy, so the features are shared out too, and the parts added in order."""
    (tokens, width), ranks, adapters = x.shape, len(down), len(sites)
    rank, half = ranks // adapters, (width + 1) // 2
    rows, pairs = (64, 64) if tokens >= 2048 else (32, 64)
    blocks = triton.cdiv(tokens, rows) * adapters
    parts = max(1, min(16, PROGRAMS // blocks, half // (4 * pairs)))
    part = pairs * triton.cdiv(triton.cdiv(half, pairs), parts)
    parts = triton.cdiv(half, part)
    out = x.new_empty(tokens, ranks)
    target = out if parts == 1 else torch.empty(parts, tokens, ranks, dtype=torch.float32, device=x.device)
    _drop_inner[(triton.cdiv(tokens, rows), adapters, parts)](
        x, down, target, keys, sites, tokens, half, width, rank, ranks, threshold, scale, part,
        RANK=_padded(rank), ROWS=rows, PAIRS=pairs, num_warps=4, num_stages=3,
    )  # fmt: skip
    if parts > 1:
        _sum_parts[(triton.cdiv(out.numel(), 1024),)](target, out, out.numel(), PARTS=parts, BLOCK=1024, num_warps=4)
    return out


def drop_outer(d, x, totals, keys, sites, threshold):
    """The tokens are shared out among programs as far as there are few features, and the parts added in order."""
    (tokens, width), adapters = x.shape, len(totals)
    half, (rank, _) = (width + 1) // 2, totals[0].shape
    rows, pairs = 64, 32
    blocks = triton.cdiv(half, pairs) * adapters
    part = rows * triton.cdiv(tokens, rows * max(1, min(8, PROGRAMS // blocks)))
    parts = triton.cdiv(tokens, part)
    out = torch.empty(parts, adapters * rank, width, dtype=torch.float32, device=x.device)
    _drop_outer[(triton.cdiv(half, pairs), adapters, parts)](
        d, x, out, keys, sites, tokens, half, width, rank, d.shape[1], threshold, part,
        RANK=_padded(rank), ROWS=rows, PAIRS=pairs, num_warps=4, num_stages=3,
    )  # fmt: skip
    second, third = ((total.data_ptr() - totals[0].data_ptr()) // 4 for total in (totals + 2 * totals[-1:])[1:3])
    _add_parts[(triton.cdiv(rank * width, 1024), adapters)](
        out, totals[0], second, third, rank * width, adapters * rank * width, PARTS=parts, BLOCK=1024, num_warps=4
    )


def drop_input_gradient(dx, d, down, keys, sites, threshold):
    (tokens, width), ranks, adapters = dx.shape, len(down), len(sites)
    half, rank, rows, pairs = (width + 1) // 2, ranks // adapters, 32, 64
    _drop_input_gradient[(triton.cdiv(tokens, rows), triton.cdiv(half, pairs))](
        dx, d, down, keys, sites, tokens, half, width, rank, ranks, threshold,
        ADAPTERS=adapters, RANK=_padded(rank), ROWS=rows, PAIRS=pairs, num_warps=4,
    )  # fmt: skip
    return dx
