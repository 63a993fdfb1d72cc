"""The fused decoder against the layers of transformers and PEFT, and its GPU kernels against plain torch."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
from lorastudy.engine import batching, decoder, kernels, model, projections
from lorastudy.study import grid
from lorastudy.study.settings import REPOSITORY, Lora
from perturbed import perturbed

TEXTS = [[5, 6, 7, 8, 9], [40, 41], [100, 101, 102, 103, 104, 105, 106], [7]]
CELLS = [grid.Cell(*which, 4, 8, 1) for which in product(("lora", "qlora"), ("attention", "all-linear"))]


def gradients(peft_model):
    logits = model.classify(peft_model, batching.pack(TEXTS))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 4, 2])).backward()
    return logits.detach(), {name: p.grad for name, p in peft_model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_logits_and_gradients_are_those_of_transformers_and_peft(cell, tiny_base, tiny_nf4):
    base = tiny_nf4 if cell.method == "qlora" else tiny_base
    expected_logits, expected = gradients(perturbed(base, cell, fused=False))
    fast = perturbed(base, cell, fused=True)
    assert decoder.fused(fast) is not None
    logits, found = gradients(fast)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-6)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cell", CELLS[1::2], ids=lambda cell: cell.id)
def test_a_checkpointed_layer_gives_the_same_bits(cell, fused, tiny_base, tiny_nf4):
    base = tiny_nf4 if cell.method == "qlora" else tiny_base
    expected_logits, expected = gradients(perturbed(base, cell, fused))
    peft_model = perturbed(base, cell, fused)
    model.checkpoint_layers(peft_model, 1)
    logits, found = gradients(peft_model)
    assert torch.equal(logits, expected_logits)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpointed_layer_keeps_less(tiny_base):
    kept = {}
    for layers in (0, 1):
        peft_model = perturbed(tiny_base, CELLS[1], fused=True)
        model.checkpoint_layers(peft_model, layers)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            model.classify(peft_model, batching.pack(TEXTS))
        kept[layers] = sum(sizes)
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("checkpointed", [0, 1])
def test_weights_expanded_ahead_give_the_same_bits(checkpointed, tiny_nf4, monkeypatch):
    """As while a pass is recorded: the second time, each stack finds its weights where the one before had them put."""
    monkeypatch.setattr(projections.Scratch, "ahead", lambda self: False)
    peft_model = perturbed(tiny_nf4, CELLS[3], fused=True)
    model.checkpoint_layers(peft_model, checkpointed)
    expected_logits, expected = gradients(peft_model)
    expected = {name: value.clone() for name, value in expected.items()}
    ahead, expand_beside = [], projections.Scratch.expand_beside
    monkeypatch.setattr(projections.Scratch, "ahead", lambda self: True)
    monkeypatch.setattr(
        projections.Scratch, "expand_beside", lambda self, stack: (ahead.append(stack), expand_beside(self, stack))
    )
    peft_model.zero_grad()
    logits, found = gradients(peft_model)
    stacks = [stack for layer in decoder.fused(peft_model).layers for stack in layer.stacks()]
    assert {*map(id, ahead)} >= {
        id(stack) for stack in stacks[1:] if stack is not decoder.fused(peft_model).layers[-1].query
    }
    assert torch.equal(logits, expected_logits)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_modules_share_the_memory_of_the_stacked_weights(tiny_base):
    peft_model = perturbed(tiny_base, CELLS[1], fused=True)
    layer, fast = peft_model.get_base_model().model.layers[0], decoder.fused(peft_model).layers[0]
    whole = fast.projections.weight()
    assert layer.self_attn.k_proj.base_layer.weight.data_ptr() == whole[64:].data_ptr()
    assert torch.equal(layer.mlp.up_proj.base_layer.weight, fast.gate_up.weight()[128:])


def test_models_that_it_does_not_know_are_left_to_transformers(tiny_base, caplog):
    caplog.set_level("INFO", "lorastudy")
    classifier = model.load_classifier(tiny_base, 5, "float32", 1)
    classifier.config.hidden_act = "gelu"
    assert decoder.fused(model.add_adapters(classifier, CELLS[0], Lora(0.0, "paper"))) is None
    assert "its activation is gelu" in caplog.text


def test_adapters_put_on_later_are_seen(tiny_base):
    classifier = model.load_classifier(tiny_base, 5, "float32", 1)
    before = model.classify(classifier, batching.pack(TEXTS)).detach()
    peft_model = model.add_adapters(classifier, CELLS[1], Lora(0.0, "plain"))
    for name, p in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(p, 0.1)
    assert not torch.allclose(model.classify(peft_model, batching.pack(TEXTS)), before)


def test_rotation_backwards_undoes_it():
    states, angle = torch.randn(5, 32), torch.rand(5, 8)
    cos, sin = torch.cat([angle.cos()] * 2, 1), torch.cat([angle.sin()] * 2, 1)
    turned = kernels.rotate(states, cos, sin, 16, out=torch.empty_like(states))
    assert not torch.allclose(turned, states)
    torch.testing.assert_close(kernels.rotate(turned, cos, sin, 16, out=turned, backward=True), states)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is published for Linux alone")
def test_the_gpu_kernels_compute_what_plain_torch_does():
    """In Triton's interpreter, which needs no GPU; in a process of its own, because it must be chosen at import."""
    script = REPOSITORY / "tests" / "interpret_kernels.py"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
