"""Target sets in models of other families: tiny ones of random weights, counts by hand."""

import json

import families
import pytest
import torch
from lorastudy.engine import model
from lorastudy.inputs import linear_layers
from lorastudy.inputs.base_model import ModelError
from lorastudy.planning import memory
from lorastudy.study import architecture, grid
from lorastudy.study.settings import Lora
from torch import nn

# width 64, two layers, four heads of 16, two of keys and values (32), feed-forward 128, 260 tokens
SIZES = {
    "vocab_size": 260, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 260, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32, "pad_token_id": 0}
SEPARATE = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
LLAMA = (64 + 64) + 2 * (64 + 32) + (64 + 64), 3 * (64 + 128)
# family → configuration, names in attention and beside it, sums of inputs and outputs of a layer of either
FAMILIES = {
    "llama": (SIZES, *SEPARATE, *LLAMA),
    "mistral": (SIZES, *SEPARATE, *LLAMA),
    "qwen2": (SIZES, *SEPARATE, *LLAMA),
    "qwen3": (SIZES | {"head_dim": 16}, *SEPARATE, *LLAMA),
    "gemma": (SIZES | {"head_dim": 16}, *SEPARATE, *LLAMA),
    "gemma2": (SIZES | {"head_dim": 16}, *SEPARATE, *LLAMA),
    "gemma3_text": (SIZES | {"head_dim": 16}, *SEPARATE, *LLAMA),
    "smollm3": (SIZES, *SEPARATE, *LLAMA),
    "phi3": (
        SIZES, ["o_proj", "qkv_proj"], ["gate_up_proj", "down_proj"],
        (64 + 64 + 2 * 32) + (64 + 64), (64 + 2 * 128) + (128 + 64),
    ),
    "gpt2": (
        GPT2, ["c_attn", "attn.c_proj"], ["c_fc", "mlp.c_proj"],
        (64 + 192) + (64 + 64), (64 + 256) + (256 + 64),
    ),
    "gpt_neox": (
        SIZES, ["query_key_value", "dense"], ["dense_h_to_4h", "dense_4h_to_h"],
        (64 + 192) + (64 + 64), (64 + 128) + (128 + 64),
    ),
    "opt": (
        SIZES | {"ffn_dim": 128, "word_embed_proj_dim": 64}, ["k_proj", "v_proj", "q_proj", "out_proj"], ["fc1", "fc2"],
        4 * (64 + 64), (64 + 128) + (128 + 64),
    ),
    "phi": (
        SIZES, ["q_proj", "k_proj", "v_proj", "dense"], ["fc1", "fc2"],
        (64 + 64) + 2 * (64 + 32) + (64 + 64), (64 + 128) + (128 + 64),
    ),
    "starcoder2": (SIZES, SEPARATE[0], ["c_fc", "c_proj"], LLAMA[0], (64 + 128) + (128 + 64)),
}  # fmt: skip
EXPERTS = {
    "mixtral": SIZES | {"num_local_experts": 4},
    "qwen3_moe": SIZES | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gpt_oss": SIZES | {"head_dim": 16, "num_local_experts": 4},
}
HEAD = 5 * 64


def config(family, sizes):
    return {"model_type": family, **sizes}


def cell(targets, method="lora", modules=None):
    return grid.Cell(method, targets, 4, 8, 0, modules=modules)


@pytest.mark.parametrize("family", FAMILIES)
def test_target_sets_by_hand(family):
    sizes, attention, beside, of_attention, of_beside = FAMILIES[family]
    decoder = linear_layers.of(config(family, sizes))
    assert decoder == linear_layers.read(linear_layers.build(config(family, sizes)))
    for targets, names, width in (
        ("attention", attention, of_attention),
        ("mlp", beside, of_beside),
        ("all-linear", [*attention, *beside], of_attention + of_beside),
    ):
        chosen = linear_layers.targeted(decoder, targets)
        assert len(chosen) == 2 * len(names)
        assert {linear.name.rpartition(".")[2] for linear in chosen} == {name.rpartition(".")[2] for name in names}
        if targets != "all-linear":
            assert sorted(linear_layers.short(decoder, chosen)) == sorted(names)
        trainable = 2 * 4 * width + HEAD
        assert linear_layers.trainable_parameters(config(family, sizes), 5, cell(targets), "plain") == trainable
        counted, everything = model.count_parameters(config(family, sizes), 5, cell(targets), Lora(0.0, "plain"))
        assert counted == trainable
        assert everything == decoder.parameters + trainable + HEAD  # PEFT counts the untrained head too
    paper = linear_layers.trainable_parameters(config(family, sizes), 5, cell("all-linear"), "paper")
    assert paper == 2 * 4 * (of_attention + of_beside) + 4 * (64 + 5) + HEAD


def test_all_that_is_linear_has_an_adapter_in_the_built_model():
    """Of Phi-3, whose projections are fused: 12,884 parameters at r = 4 for two classes, and not 596."""
    classifier = linear_layers.build(config("phi3", SIZES | {"intermediate_size": 96}), classes=2)
    classifier.requires_grad_(False)
    adapted = model.add_adapters(classifier, cell("all-linear"), Lora(0.0, "paper"), fused=False)
    without = [
        name for name, module in adapted.named_modules()
        if isinstance(module, nn.Linear) and ".base_layer" not in name and "lora_" not in name and "score" not in name
    ]  # fmt: skip
    assert without == []
    pair_and_head = 4 * (64 + 2) + 2 * 64
    widths = (64 + 128) + (64 + 64) + (64 + 192) + (96 + 64)
    assert model.trainable(adapted)[0] == 2 * 4 * widths + pair_and_head


@pytest.mark.parametrize("family", EXPERTS)
def test_experts_are_refused_and_attention_is_not(family):
    decoder = linear_layers.of(config(family, EXPERTS[family]))
    for targets in ("all-linear", "mlp"):
        with pytest.raises(ModelError) as caught:
            linear_layers.targeted(decoder, targets)
        (line,) = str(caught.value).splitlines()
        assert f"`grid.targets` has {targets}" in line and "mlp.experts." in line and "take attention" in line
    attention = 4 * 2 * LLAMA[0] + HEAD
    assert (
        linear_layers.trainable_parameters(config(family, EXPERTS[family]), 5, cell("attention"), "paper") == attention
    )
    with pytest.raises(ModelError, match="all-linear") as caught:
        linear_layers.require(config(family, EXPERTS[family]), [cell("mlp"), cell("all-linear"), cell("attention")])
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", families.FAMILIES)
def test_all_linear_means_all_in_every_family_or_is_refused(name):
    """By the built model: what of a decoder layer is a matrix has an adapter, and the count is the formula's."""
    shape = families.config_of(name).to_dict()
    try:
        expected = linear_layers.trainable_parameters(shape, 5, cell("all-linear"), "paper")
    except ModelError as fault:
        assert "keeps weights of it outside of linear layers" in str(fault)
        return
    adapted = model.add_adapters(
        linear_layers.build(shape, classes=5), cell("all-linear"), Lora(0.0, "paper"), fused=False
    )
    assert model.trainable(adapted)[0] == expected
    matrices = [weight for weight, p in adapted.named_parameters() if p.dim() > 1 and ".layers." in weight]
    assert matrices or name.startswith("GPT")
    assert [weight for weight in matrices if ".base_layer." not in weight and ".lora_" not in weight] == []


def test_a_set_of_the_configuration():
    decoder = linear_layers.of(config("gpt2", GPT2))
    chosen = linear_layers.targeted(decoder, "out", ["c_proj"])
    assert len(chosen) == 4
    assert linear_layers.short(decoder, chosen) == ["c_proj"]
    first = linear_layers.targeted(decoder, "first", ["0.attn.c_proj"])
    assert linear_layers.short(decoder, first) == ["transformer.h.0.attn.c_proj"]
    with pytest.raises(ModelError) as caught:
        linear_layers.targeted(decoder, "q", ["q_proj"])
    assert str(caught.value) == (
        "config: `grid.target_sets.q` names 'q_proj', and no linear layer of GPT2Model ends so; its linear layers: "
        "attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj."
    )
    with pytest.raises(ModelError, match="no linear layer of GPT2Model ends so"):
        linear_layers.targeted(decoder, "odd", ["_proj"])  # an end is of whole words


def test_a_layer_without_attention_is_no_attention_set():
    """As in models that mix attention with other ways to look back."""
    decoder = linear_layers.of(config("llama", SIZES))
    mixed = [linear for linear in decoder.linears if not linear.name.startswith("model.layers.1.self_attn")]
    odd = linear_layers.Decoder("MixedModel", 64, 2, decoder.parameters, tuple(mixed))
    with pytest.raises(ModelError, match="not every layer of MixedModel has such a block"):
        linear_layers.targeted(odd, "attention")
    assert len(linear_layers.targeted(odd, "all-linear")) == 10


def test_the_papers_model_needs_no_building():
    shape = architecture.named(architecture.PAPER)
    decoder = linear_layers.of(shape)
    assert decoder == linear_layers.read(linear_layers.build(shape))
    assert decoder.parameters == 7_504_924_672


def test_no_classifier_of_a_family_is_one_line():
    with pytest.raises(ModelError, match="transformers builds no classifier of a granite") as caught:
        linear_layers.of(config("granite", SIZES))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox", "gemma2"])
def test_weights_are_predicted_for_any_family(family):
    """Bytes of the loaded model; in NF4 4.127 bits for each weight of a linear layer, the rest as it is."""
    shape = config(family, FAMILIES[family][0])
    with torch.device("cpu"):
        from transformers import AutoConfig, AutoModel

        built = AutoModel.from_config(AutoConfig.for_model(**shape), dtype=torch.bfloat16)
    assert memory.base(shape, quantized=False) == 2 * sum(p.numel() for p in built.parameters())
    linear = sum(linear.inputs * linear.outputs for linear in linear_layers.of(shape).linears)
    saved = memory.base(shape, quantized=False) - memory.base(shape, quantized=True)
    assert saved == pytest.approx(linear * (16 - 4.127) / 8, rel=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_quantized_layers_are_found_too(family, tmp_path):
    """GPT-2's layers are on their side, and Linear4bit keeps its weights packed: widths stay what they were."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = config(family, FAMILIES[family][0] | {"bos_token_id": 0, "eos_token_id": 0})
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), dtype=torch.float32).save_pretrained(tmp_path)
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    quantized = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["score"]),
    )  # fmt: skip
    assert linear_layers.read(quantized) == linear_layers.of(json.loads(json.dumps(shape)))
