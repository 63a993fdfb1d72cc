"""Compare each Triton kernel with its plain form. Run by ``test_decoder`` in Triton's interpreter, or on a GPU as it is."""

import torch
from lorastudy.engine import kernels, triton_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS, HIDDEN, HEAD, INNER = 5, 48, 8, 40


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(DEVICE, dtype)


def same(found, expected, dtype, what):
    for one, other in zip(found, expected, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(
            one.float().cpu(), other.float().cpu(), rtol=tolerance, atol=tolerance, msg=lambda m: f"{what} {dtype}: {m}"
        )


def plain(function, *arguments, **named):
    """The CPU form, whatever device the kernels run on."""
    move = lambda value: value.cpu() if isinstance(value, torch.Tensor) else value  # noqa: E731
    return function(*map(move, arguments), **{key: move(value) for key, value in named.items()})


torch.manual_seed(0)
for dtype in (torch.float32, torch.bfloat16):
    hidden, update, skip, gradient = (draw(TOKENS, HIDDEN, dtype=dtype) for _ in range(4))
    weight = draw(HIDDEN, dtype=dtype)
    expected = plain(kernels.norm, hidden, weight, 1e-5)
    rows, rstd = triton_kernels.norm(hidden, weight, 1e-5)
    same((rows, rstd), expected, dtype, "norm")
    expected = plain(kernels.add_norm, hidden, update.clone(), weight, 1e-5)
    same(triton_kernels.add_norm(hidden, update.clone(), weight, 1e-5), expected, dtype, "add_norm")
    expected = plain(kernels.norm_backward, gradient, hidden, rstd, weight, skip)
    same(triton_kernels.norm_backward(gradient, hidden, rstd, weight, skip), expected, dtype, "norm_backward")

    angle = torch.rand(TOKENS, HEAD // 2)
    cos, sin = (torch.cat([part] * 2, 1).to(DEVICE, dtype) for part in (angle.cos(), angle.sin()))
    wide = draw(TOKENS, HIDDEN + 16, dtype=dtype)
    for backward in (False, True):
        expected = plain(kernels.rotate, wide[:, :HIDDEN], cos, sin, HEAD, torch.empty_like(hidden).cpu(), backward)
        turned = wide.clone()
        triton_kernels.rotate(turned[:, :HIDDEN], cos, sin, HEAD, turned[:, :HIDDEN], backward)
        same((turned[:, :HIDDEN], turned[:, HIDDEN:]), (expected, wide[:, HIDDEN:]), dtype, "rotate")

    gate_up, outer = draw(TOKENS, 2 * INNER, dtype=dtype), draw(TOKENS, INNER, dtype=dtype)
    same((triton_kernels.swiglu(gate_up),), (plain(kernels.swiglu, gate_up),), dtype, "swiglu")
    expected = plain(kernels.swiglu_backward, outer, gate_up, product=True)
    same(triton_kernels.swiglu_backward(outer, gate_up, product=True), expected, dtype, "swiglu_backward")
    assert triton_kernels.swiglu_backward(outer, gate_up, product=False)[1] is None
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    both = [
        quantize_4bit(draw(rows, 64 * 128, dtype=dtype), quant_type="nf4", compress_statistics=True) for rows in (2, 4)
    ]
    states = [state for _, state in both]
    reference = torch.cat([dequantize_4bit(packed, state) for packed, state in both])
    expanded = torch.full_like(reference, float("nan"))
    triton_kernels.expand(
        torch.cat([packed.reshape(-1) for packed, _ in both]),
        states[0].code,
        torch.cat([state.absmax for state in states]),
        states[0].state2.code,
        torch.cat([state.state2.absmax for state in states]),
        torch.cat([state.offset.reshape(1).expand(len(state.state2.absmax)) for state in states]),
        expanded,
    )
    if dtype == torch.float32 or DEVICE == "cuda":
        assert torch.equal(expanded, reference), f"expand {dtype}"
    else:  # the interpreter cuts off where a GPU rounds
        torch.testing.assert_close(expanded, reference, rtol=2**-7, atol=0)


def check_dropout(dtype, tokens, width, rank, adapters):
    """Products with masked inputs, in the shapes that share the features out among programs and those that do not."""
    from lorastudy.engine import dropout

    keys = torch.from_numpy(dropout.keys(3, 5, range(tokens), [1] * tokens)).to(DEVICE)
    names = [f"module {index}" for index in range(adapters)]
    sites = torch.tensor([dropout.site(name) for name in names], dtype=torch.int32, device=DEVICE)
    limit, what = dropout.threshold(0.2), f"{tokens} x {width}, {adapters} of rank {rank}"
    x, dx = draw(tokens, width, dtype=dtype), draw(tokens, width, dtype=dtype)
    down, d = draw(adapters * rank, width, dtype=dtype), draw(tokens, adapters * rank, dtype=dtype)
    totals = [draw(rank, width) for _ in names]
    dropped = triton_kernels.drop(x, keys, dropout.site("module 0"), limit, 1.25)
    expected = plain(kernels.drop, x, keys, dropout.site("module 0"), limit, 1.25)
    assert torch.equal(dropped.cpu() == 0, expected == 0), f"drop {what}"
    same((dropped,), (expected,), dtype, f"drop {what}")
    inner = triton_kernels.drop_inner(x, down, keys, sites, limit, 0.3 / width**0.5)
    wide = plain(kernels.drop_inner, x.float(), down.float(), keys, sites, limit, 0.3 / width**0.5)
    same((inner,), (wide,), dtype, f"drop_inner {what}")
    found = [total.clone() for total in totals]
    expected = [total.cpu() for total in totals]
    triton_kernels.drop_outer(d, x, found, keys, sites, limit)
    kernels.drop_outer(d.float().cpu(), x.float().cpu(), expected, keys.cpu(), sites.cpu(), limit)
    same(found, expected, torch.float32 if dtype == torch.float32 else dtype, f"drop_outer {what}")
    expected = plain(kernels.drop_input_gradient, dx.float().clone(), d.float(), down.float(), keys, sites, limit)
    found = triton_kernels.drop_input_gradient(dx.clone(), d, down, keys, sites, limit)
    same((found,), (expected,), dtype, f"drop_input_gradient {what}")


def check_late(dtype, tokens, columns, rank):
    """SwiGLU that adds adapters as it reads, with and without each part."""
    from lorastudy.engine import dropout

    keys = torch.from_numpy(dropout.keys(3, 5, range(tokens), [1] * tokens)).to(DEVICE)
    gate_up, outer = draw(tokens, 2 * columns, dtype=dtype), draw(tokens, columns, dtype=dtype)
    block = 0.3 * draw(2 * columns, 2 * rank, dtype=dtype)  # the factors are parts of a wider matrix
    adapters = kernels.Adapters(draw(tokens, 2 * rank, dtype=dtype), (block[:columns, :rank], block[columns:, rank:]))
    wide = kernels.Adapters(adapters.inner.cpu(), tuple(up.cpu() for up in adapters.ups))
    expected = kernels.swiglu(gate_up.cpu(), wide)
    same((triton_kernels.swiglu(gate_up, adapters),), (expected,), dtype, "swiglu with adapters")
    d, down = draw(tokens, rank, dtype=dtype), 0.3 * draw(rank, columns, dtype=dtype)
    for added, drops in ((adapters, True), (adapters, False), (None, True), (adapters, None)):
        site = dropout.site("down") if drops else (0, 0)
        beside = None
        if drops is not None:
            beside = kernels.Beside(d, down, keys if drops else None, site, dropout.threshold(0.2))
            there = kernels.Beside(d.cpu(), down.cpu(), keys.cpu() if drops else None, site, beside.threshold)
        expected = kernels.swiglu_backward(
            outer.cpu(), gate_up.cpu(), True, wide if added else None, there if beside else None
        )
        found = triton_kernels.swiglu_backward(outer, gate_up, True, added, beside)
        same(found, expected, dtype, f"swiglu_backward with {added is not None} {drops}")


# the interpreter multiplies matrices of bfloat16 as if they were integers
for dtype in (torch.float32, torch.bfloat16 if DEVICE == "cuda" else torch.float16):
    for tokens, width, rank, adapters in ((5, 48, 4, 3), (70, 1100, 8, 1), (3, 7, 20, 2)):
        check_dropout(dtype, tokens, width, rank, adapters)
    for tokens, columns, rank in ((5, 40, 4), (70, 300, 20)):
        check_late(dtype, tokens, columns, rank)
print("the kernels agree")
