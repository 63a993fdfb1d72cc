"""Masks that depend on what they cover alone, the same from every path that computes them."""

from functools import partial

import numpy as np
import perturbed as adapters
import pytest
import torch
from lorastudy.engine import batching, decoder, dropout, kernels, model
from lorastudy.study import grid

TEXTS = [[5, 6, 7, 8, 9], [40, 41], [100, 101, 102, 103, 104, 105, 106], [7]]
LABELS = torch.tensor([0, 1, 4, 2])
NUMBERS = [30, 31, 7, 12]  # of the texts in the training data
RATE = 0.1


def python_bits(seed, step, name, text, position, feature, width):
    """The 16 bits of one number, with Python's integers, as the module describes them."""
    key = 0
    for number in (seed, step, text, position):
        z = (key + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        key = z ^ (z >> 31)
    first, second = (number % 2**32 for number in dropout.site(name))
    key ^= first | second << 32
    half = (width + 1) // 2
    x = ((feature % half) * 0x9E3779B1 + key) % 2**32
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
    x = ((x ^ (x >> 15) ^ (key >> 32)) * 0x846CA68B) % 2**32
    x ^= x >> 16
    return x & 0xFFFF if feature < half else x >> 16


def masks(lengths, seed=1, step=2, name="layer.q_proj", numbers=None, width=64, rate=RATE):
    keys = dropout.keys(seed, step, numbers if numbers is not None else range(len(lengths)), lengths)
    return kernels.kept(torch.from_numpy(keys), dropout.site(name), width, dropout.threshold(rate))


@pytest.mark.parametrize("width", [64, 7])
def test_the_mask_is_what_the_module_describes(width):
    found = masks([3, 2], seed=9, step=70_000, name="v", numbers=[2**40, 5], width=width, rate=0.3)
    rows = [(2**40, 0), (2**40, 1), (2**40, 2), (5, 0), (5, 1)]
    expected = [
        [python_bits(9, 70_000, "v", text, position, feature, width) >= round(0.3 * 65536) for feature in range(width)]
        for text, position in rows
    ]
    assert found.tolist() == expected


def test_a_share_of_the_numbers_is_dropped_and_the_rest_makes_up_for_it():
    kept = masks([200] * 20, width=1024, rate=0.05)
    share = 1 - kept.double().mean().item()
    assert share == pytest.approx(0.05, abs=5 * (0.05 * 0.95 / kept.numel()) ** 0.5)
    assert dropout.scale(0.05) * (1 - dropout.threshold(0.05) / 65536) == pytest.approx(1, abs=1e-15)
    assert dropout.threshold(0.05) / 65536 == pytest.approx(0.05, abs=1 / 131072)


def correlation(first, second):
    return np.corrcoef(first.reshape(-1).double(), second.reshape(-1).double())[0, 1]


def test_nothing_of_the_key_is_without_effect():
    """Masks that differ in one part of the key are independent: their correlation is that of chance."""
    usual = masks([128] * 16, width=256, rate=0.5)
    bound = 5 / usual.numel() ** 0.5
    others = {
        "seed": masks([128] * 16, seed=2, width=256, rate=0.5),
        "step": masks([128] * 16, step=3, width=256, rate=0.5),
        "module": masks([128] * 16, name="layer.k_proj", width=256, rate=0.5),
        "text": masks([128] * 16, numbers=range(16, 32), width=256, rate=0.5),
        "next text": usual.view(16, 128, 256).roll(1, 0).reshape(usual.shape),
        "next position": usual.view(16, 128, 256).roll(1, 1).reshape(usual.shape),
        "next feature": usual.roll(1, 1),
        "other half": usual.roll(128, 1),
    }
    for part, other in others.items():
        assert abs(correlation(usual, other)) < bound, part


def test_bits_of_neighbours_are_uniform():
    """All 256 combinations of eight neighbouring numbers' masks come equally often (chi-square, 255 degrees)."""
    for kept in (masks([64] * 64, width=512, rate=0.5), masks([64] * 64, width=512, rate=0.5).T.contiguous()):
        value = (kept.reshape(-1, 8).long() * 2 ** torch.arange(8)).sum(1)
        seen = torch.bincount(value, minlength=256).double()
        expected = len(value) / 256
        assert ((seen - expected) ** 2 / expected).sum().item() < 255 + 5 * (2 * 255) ** 0.5


def test_a_text_has_its_masks_wherever_it_lies():
    together = masks([5, 2, 7], numbers=[30, 31, 7])
    apart = [masks([5], numbers=[30]), masks([2], numbers=[31]), masks([7], numbers=[7])]
    assert torch.equal(together, torch.cat(apart))
    assert not torch.equal(masks([5], numbers=[30]), masks([5], numbers=[31]))


def packed(chosen=range(4), step=3):
    texts, numbers = [TEXTS[i] for i in chosen], [NUMBERS[i] for i in chosen]
    return batching.pack(texts, keys=dropout.keys(1, step, numbers, [len(text) for text in texts]))


perturbed = partial(adapters.perturbed, rate=RATE)


def gradients(peft_model, packs=None):
    logits = []
    for chosen in packs or [range(4)]:
        logits.append(model.classify(peft_model, packed(chosen)))
        torch.nn.functional.cross_entropy(logits[-1], LABELS[list(chosen)], reduction="sum").backward()
    return torch.cat(logits).detach(), {name: p.grad for name, p in peft_model.named_parameters() if p.requires_grad}


def same(found, expected, rtol=1e-4, atol=1e-6):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    for name, value in found[1].items():
        torch.testing.assert_close(
            value, expected[1][name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


CELLS = [
    grid.Cell(method, targets, r, 2 * r, 1)
    for method in ("lora", "qlora")
    for targets, r in (
        ("attention", 4),
        ("all-linear", 4),
        ("all-linear", 80),
    )  # of the last the masked input is stored
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_both_paths_drop_the_same(cell, tiny_base, tiny_nf4):
    base = tiny_nf4 if cell.method == "qlora" else tiny_base
    fast = perturbed(base, cell, fused=True)
    assert decoder.fused(fast) is not None
    found, expected = gradients(fast), gradients(perturbed(base, cell, fused=False))
    same(found, expected)
    undisturbed = perturbed(base, cell, fused=True, rate=0.0)
    assert not torch.allclose(gradients(undisturbed)[0], found[0], atol=1e-4)


def test_peft_with_masks_set_by_hand(tiny_base, monkeypatch):
    """PEFT's own dropout modules, torch's, told to keep what the described hash keeps, module by module."""
    cell = CELLS[1]
    ours = gradients(perturbed(tiny_base, cell, fused=True))
    monkeypatch.setattr(dropout, "install", lambda peft_model: None)
    plain = perturbed(tiny_base, cell, fused=False)
    rows = [(number, position) for number, text in zip(NUMBERS, TEXTS) for position in range(len(text))]
    last = [(number, len(text) - 1) for number, text in zip(NUMBERS, TEXTS)]
    seen = []

    def by_hand(name):
        def hook(_module, arguments, _output):
            (x,) = arguments
            of = rows if x.shape[-2] == len(rows) else last
            width = x.shape[-1]
            bits = [[python_bits(1, 3, name, *row, feature, width) for feature in range(width)] for row in of]
            kept = torch.tensor(bits) >= round(RATE * 65536)
            seen.append(name)
            return x * kept * (65536 / (65536 - round(RATE * 65536)))

        return hook

    for name, module in plain.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(by_hand(name))
    expected = gradients(plain)
    assert len(seen) == 2 * 7 + 1  # each adapted module of the two layers, and the head
    same(ours, expected)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cell", [CELLS[1], CELLS[2]], ids=lambda cell: cell.id)
def test_micro_batches_change_no_mask(cell, fused, tiny_base):
    whole = gradients(perturbed(tiny_base, cell, fused))
    parts = gradients(perturbed(tiny_base, cell, fused), packs=[[0], [1, 2], [3]])
    same(parts, whole)


@pytest.mark.parametrize("fused", [True, False])
def test_a_checkpointed_layer_draws_the_same_masks_again(fused, tiny_base):
    expected = gradients(perturbed(tiny_base, CELLS[1], fused))
    peft_model = perturbed(tiny_base, CELLS[1], fused)
    model.checkpoint_layers(peft_model, 2)
    found = gradients(peft_model)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())


@pytest.mark.parametrize("fused", [True, False])
def test_nothing_is_dropped_in_evaluation(fused, tiny_base):
    dropping, without = (perturbed(tiny_base, CELLS[1], fused, rate=rate) for rate in (RATE, 0.0))
    for each in (dropping, without):
        model.set_training(each, False)
    assert torch.equal(model.classify(dropping, packed()), model.classify(without, batching.pack(TEXTS)))


@pytest.mark.parametrize("fused", [True, False])
def test_a_pack_without_keys_is_refused_in_training(fused, tiny_base):
    with pytest.raises(ValueError, match="keys"):
        model.classify(perturbed(tiny_base, CELLS[1], fused), batching.pack(TEXTS))


def test_the_expected_output_is_that_without_dropout(tiny_base):
    """Averaged over many steps the adapters' part is undiminished."""
    stack = decoder.fused(perturbed(tiny_base, CELLS[1], fused=True)).layers[0].projections
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    total = sum(stack.inner(x, torch.from_numpy(dropout.keys(0, step, [0], [3]))) for step in range(2000)) / 2000
    torch.testing.assert_close(total, stack.inner(x, None), atol=0.05, rtol=0)
