"""Packed texts give the probabilities of single ones, for every family that is admitted, or are refused."""

import pytest
import torch
from families import FAMILIES, SHAPE, WINDOW, config_of, save
from lorastudy.engine import attention, batching, decoder, model
from lorastudy.inputs import families
from lorastudy.study import grid, records
from lorastudy.study.settings import Lora
from transformers import AutoModelForSequenceClassification

TEXTS = [list(range(5, 16)), [40, 41], [100, 101, 102, 103, 104, 105, 106], [7]]


def padded(directory, texts, head):
    """transformers' own logits of texts padded at their right end, with eager attention."""
    reference = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    reference.score.weight.data = head
    ids = torch.full((len(texts), max(map(len, texts))), SHAPE["pad_token_id"])
    for row, text in zip(ids, texts):
        row[: len(text)] = torch.tensor(text)
    with torch.no_grad():
        mask = (ids != SHAPE["pad_token_id"]).long()
        return reference(input_ids=ids, attention_mask=mask, use_cache=False).logits


FUSED = [name for name, (family, _) in FAMILIES.items() if family in families.FUSED]


@pytest.mark.parametrize(
    ("name", "plain"), [*((name, name in FUSED) for name in FAMILIES), *((name, False) for name in FUSED)]
)
def test_packed_logits_are_those_of_padded_texts(name, plain, tmp_path):
    """By the fused decoder where it knows the family, and by the layers of transformers (``plain``) for all."""
    classifier = model.load_classifier(save(name, tmp_path), 5, "float32", seed=1)
    if plain:
        decoder.use_plain(classifier)
    assert (decoder.fused(classifier) is not None) == (name in FUSED and not plain)
    with torch.no_grad():
        logits = model.classify(classifier, batching.pack(TEXTS))
    expected = padded(tmp_path, TEXTS, classifier.score.weight.data)
    assert expected.std() > 0.05
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_the_table_has_every_family_that_is_admitted():
    assert {family for family, _ in FAMILIES.values()} == families.EXACT | families.EXACT_WITHIN_WINDOW


def test_what_a_family_must_not_be_admitted_for(tmp_path):
    """The families' table decides, and this is what it guards against: a window that only a mask knows."""
    name = "Qwen2 MoE"
    config = config_of(name)
    assert not list(families.faults(config.to_dict(), "it", 11))
    config.update({"use_sliding_window": True, "sliding_window": WINDOW})
    (fault,) = families.faults(config.to_dict(), "it", 11)
    assert "sees 3 tokens at once" in fault
    save(name, tmp_path)
    config.layer_types = ["sliding_attention"] * 4
    config.save_pretrained(tmp_path)
    classifier = model.load_classifier(tmp_path, 5, "float32", seed=1)
    with torch.no_grad():
        logits = model.classify(classifier, batching.pack(TEXTS))
    assert (logits - padded(tmp_path, TEXTS, classifier.score.weight.data)).abs().max() > 1e-3


# --- the fused decoder


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """(name, method) → a model directory, plain or quantized."""
    made = {}

    def base(name, method):
        if (name, "lora") not in made:
            made[name, "lora"] = save(name, tmp_path_factory.mktemp("base"))
            records.write_json(made[name, "lora"] / "origin.json", {})
        if (name, method) not in made:
            made[name, method] = tmp_path_factory.mktemp("nf4")
            model.quantize(made[name, "lora"], made[name, method], "float32")
        return made[name, method]

    return base


def gradients(base, method, fused, checkpointed=0):
    """Logits and gradients of adapters that do something (PEFT starts their second factors from zero)."""
    cell = grid.Cell(method, "all-linear", 4, 8, 1)
    classifier = model.load_classifier(base, 5, "float32", 1)
    peft_model = model.add_adapters(classifier, cell, Lora(0.0, "paper"), fused=fused)
    assert (decoder.fused(peft_model) is not None) == fused
    generator = torch.Generator().manual_seed(2)
    for name, p in peft_model.named_parameters():
        if "lora_B" in name:
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.05)
    model.set_training(peft_model, True)
    model.checkpoint_layers(peft_model, checkpointed)
    logits = model.classify(peft_model, batching.pack(TEXTS))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 4, 2])).backward()
    return logits.detach(), {name: p.grad for name, p in peft_model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("name", FUSED)
def test_relatives_of_llama_have_the_gradients_of_transformers_and_peft(name, method, bases):
    expected_logits, expected = gradients(bases(name, method), method, fused=False)
    logits, found = gradients(bases(name, method), method, fused=True)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
    again, recomputed = gradients(bases(name, method), method, fused=True, checkpointed=2)
    assert torch.equal(again, logits)
    assert all(torch.equal(recomputed[key], found[key]) for key in found)


@pytest.mark.parametrize("name", ["Qwen3", "Mistral, window", "Qwen2"])
def test_a_text_s_neighbours_change_no_bit_of_it(name, bases):
    classifier = model.load_classifier(bases(name, "lora"), 5, "float32", 1)
    with torch.no_grad():
        one, other = (
            model.classify(classifier, batching.pack([TEXTS[0], text, TEXTS[1]])) for text in ([9] * 7, [8] * 7)
        )
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert not torch.equal(one[1], other[1])


def test_biases_of_a_part_of_the_projections_are_left_to_transformers(bases, monkeypatch):
    classifier = model.load_classifier(bases("Llama 3", "lora"), 5, "float32", 1)
    classifier.model.layers[1].mlp.up_proj.bias = torch.nn.Parameter(torch.ones(96))
    assert decoder.fused(classifier) is None


# --- attention by itself, against softmax written for one text


def plain_attention(query, key, value, boundaries, window=None, softcap=None, sinks=None, last=False):
    """By loops over texts, heads and tokens."""
    out = torch.zeros_like(query)
    groups = query.shape[1] // key.shape[1]
    for text, (begin, end) in enumerate(zip(boundaries, boundaries[1:])):
        for position in range(end - 1 if last else begin, end):
            row = text if last else position
            first = begin if window is None else max(begin, position - window + 1)
            for head in range(query.shape[1]):
                k, v = key[first : position + 1, head // groups], value[first : position + 1, head // groups]
                scores = k @ query[row, head] / query.shape[-1] ** 0.5
                if softcap:
                    scores = softcap * torch.tanh(scores / softcap)
                share = scores.exp()
                rest = 0 if sinks is None else sinks[head].exp()
                out[row, head] = share @ v / (share.sum() + rest)
    return out


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"window": 1},
        {"window": 3},
        {"window": 40},
        {"softcap": 0.7},
        {"softcap": 0.7, "window": 3},
        {"sinks": True},
    ],
    ids=str,
)
def test_attention_and_its_gradient(more, last, monkeypatch):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 300)  # texts are taken in several groups
    generator = torch.Generator().manual_seed(3)
    boundaries = [0, 5, 6, 13, 15]
    sizes = [(4 if last else 15, 4, 8), (15, 2, 8), (15, 2, 8)]
    states = [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]
    if "sinks" in more:
        more = {"sinks": torch.randn(4, generator=generator)}
    found = attention.attend(*states, torch.tensor(boundaries, dtype=torch.int32), 7, last=last, **more)
    weight = torch.randn(found.shape, generator=generator)
    gradients = torch.autograd.grad((found * weight).sum(), states)
    expected = plain_attention(*states, boundaries, last=last, **more)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, torch.autograd.grad((expected * weight).sum(), states)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_attention_written_out_keeps_no_scores():
    """Memory linear in the tokens: what is kept for the backward pass is smaller than the scores of one text."""
    states = [torch.randn(300, 2, 8, requires_grad=True) for _ in range(3)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        attention.attend(*states, torch.tensor([0, 300], dtype=torch.int32), 300, softcap=1.0)
    assert max(kept) < 300 * 300


@pytest.mark.parametrize(
    ("window", "last", "told"),
    [(None, False, (True, -1, 0)), (3, False, (False, 2, 0)), (None, True, (False, -1, -1)), (3, True, (False, 2, 0))],
)
def test_what_flash_attention_is_told(window, last, told):
    """A window of w tokens is w - 1 to the left of a query in torch's words. On torch's meta device, without numbers."""

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            if "flash_attention" in str(function):
                backward = "backward" in str(function)
                seen.append((arguments[11 if backward else 8], named["window_size_left"], named["window_size_right"]))
            return function(*arguments, **(named or {}))

    seen = []
    query, key, value = (
        torch.empty(2 if last and heads == 4 else 7, heads, 8, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (4, 2, 2)
    )
    boundaries = torch.tensor([0, 5, 7], dtype=torch.int32, device="meta")
    with Watch():
        mixed = attention._flash(query, key, value, boundaries, 5, None, last, window)
        mixed.sum().backward()
    assert seen == [told, told]
    assert mixed.shape == query.shape and query.grad.shape == query.shape and key.grad.shape == key.shape


@pytest.mark.parametrize(
    "asked", [{"is_causal": False}, {"position_bias": torch.zeros(1)}, {"indices": torch.zeros(1)}, {"dropout": 0.1}]
)
def test_what_attention_cannot_do_is_refused(asked):
    states = torch.randn(1, 2, 5, 8)
    boundaries = torch.tensor([0, 5], dtype=torch.int32)
    with pytest.raises(NotImplementedError, match=next(iter(asked))):
        attention.packed_attention(
            torch.nn.Identity(), states, states, states, None, boundaries=boundaries, max_length=5, **asked
        )
