"""Recorded passes, with a recorder that needs no GPU: it calls again what a graph would start again."""

from itertools import combinations

import numpy as np
import pytest
import torch
from lorastudy.engine import dropout, passes
from lorastudy.study import grid
from perturbed import perturbed

CELLS = {method: grid.Cell(method, "all-linear", 4, 8, 1) for method in ("lora", "qlora")}
TEXTS = [[[5, 6, 7, 8, 9], [40, 41]], [[9] * 70, [7], [3, 4]], [[100, 101, 102, 103, 104, 105, 106]]]
LABELS = [np.array([0, 1]), np.array([4, 2, 3]), np.array([1])]


class CallsAgain:
    """In place of ``passes.Recorder``; counts recordings and replays."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def record(self, function):
        self.recorded += 1
        function()
        outer = self

        class Recording:
            def replay(self):
                outer.replayed += 1
                self.result = function()

        return Recording()


def keys(index, texts):
    return dropout.keys(3, index, list(range(len(texts))), [len(text) for text in texts])


def gradients(peft_model, carried_out):
    losses = []
    for index, (texts, labels) in enumerate(zip(TEXTS, LABELS)):
        losses.append(float(carried_out.add(texts, labels, keys(index, texts), 6)))
    return losses, {name: p.grad.clone() for name, p in peft_model.named_parameters() if p.requires_grad}


def recorded(peft_model, recorder, texts=TEXTS):
    sizes = [sum(map(len, group)) for group in texts]
    longest = max(len(text) for group in texts for text in group)
    cpu = torch.device("cpu")
    return passes.Recorded(peft_model, cpu, sizes, max(map(len, texts)), longest, True, recorder)


@pytest.mark.parametrize("method", CELLS)
def test_a_filled_up_pass_adds_the_gradient_of_its_texts_alone(method, tiny_base, tiny_nf4):
    base = tiny_nf4 if method == "qlora" else tiny_base
    one, other = (perturbed(base, CELLS[method], fused=True, rate=0.1) for _ in range(2))
    losses, expected = gradients(one, passes.Eager(one, torch.device("cpu")))
    recorder = CallsAgain()
    found_losses, found = gradients(other, recorded(other, recorder))
    assert recorder.replayed == len(TEXTS)
    assert found_losses == pytest.approx(losses, rel=1e-5)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")


def test_what_was_not_to_come_is_carried_out_kernel_by_kernel(tiny_base):
    peft_model, recorder = perturbed(tiny_base, CELLS["lora"], fused=True, rate=0.1), CallsAgain()
    short = recorded(peft_model, recorder, TEXTS[:1])
    short.add(TEXTS[0], LABELS[0], keys(0, TEXTS[0]), 6)
    assert recorder.replayed == 1
    for texts, labels in ((TEXTS[1], LABELS[1]), ([[1], [2], [3]], LABELS[1])):  # too many tokens, too many texts
        short.add(texts, labels, keys(1, texts), 6)
    assert recorder.replayed == 1


def test_nothing_is_recorded_before_the_largest(tiny_base, monkeypatch):
    monkeypatch.setattr(passes, "RECORDING", 0)
    peft_model, recorder = perturbed(tiny_base, CELLS["lora"], fused=True, rate=0.1), CallsAgain()
    all_sizes = recorded(peft_model, recorder)
    assert all_sizes.sizes == [64, 128]
    all_sizes.add(TEXTS[0], LABELS[0], keys(0, TEXTS[0]), 6)
    assert [*all_sizes.graphs] == [128, 64]


@pytest.mark.parametrize("price", [0, 30, 100, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_the_recorded_sizes_cost_least(price, seed):
    """Against all choices of sizes."""
    sizes = np.random.default_rng(seed).integers(1, 8 * passes.STEP, 12).tolist()
    steps = sorted({-(-size // passes.STEP) * passes.STEP for size in sizes})

    def cost(chosen):
        return price * len(chosen) + sum(min(c for c in chosen if c >= size) - size for size in sizes)

    choices = [(*some, steps[-1]) for k in range(len(steps)) for some in combinations(steps[:-1], k)]
    assert cost(passes.recorded_sizes(sizes, price)) == min(map(cost, choices))
