"""The memory model against measured peaks and hand arithmetic."""

import json
import subprocess
import sys

import pytest
from lorastudy.engine import model
from lorastudy.inputs import linear_layers
from lorastudy.planning import memory
from lorastudy.study import paper
from lorastudy.study.grid import Cell
from lorastudy.study.settings import ARCHITECTURES, REPOSITORY, Lora

LLAMA = json.loads((ARCHITECTURES / "llama-3-8b.json").read_text(encoding="utf-8"))
LORA, QLORA = (Cell(method, "all-linear", 8, 16, 0) for method in ("lora", "qlora"))
MEASURED = REPOSITORY / "benchmarks" / "results" / "throughput_nvidia-h100-80gb-hbm3.json"


def test_base_model_by_hand():
    """bf16: 7,504,924,672 parameters without a language-model head; NF4: 4.127 bits for each of 32 * 218,103,808."""
    assert memory.base(LLAMA, quantized=False) == 2 * 7_504_924_672
    embedding_and_norms = 2 * (128_256 * 4096 + 65 * 4096)
    assert memory.base(LLAMA, quantized=True) - embedding_and_norms == pytest.approx(
        32 * 218_103_808 * 4.127 / 8, rel=1e-4
    )


def test_adapters_gradients_and_moments_by_hand():
    """All in float32: 4, 4 and 8 bytes for each of the paper's 1,344,297,472 trainable parameters at r = 512."""
    need = memory.training(LLAMA, 5, Cell("lora", "all-linear", 512, 16, 0), 1024, 31)
    count = paper.trainable_parameters(LLAMA, 5, "all-linear", "paper", 512)
    assert count == 1_344_297_472
    assert (need.adapters, need.gradients, need.optimizer) == (4 * count, 4 * count, 8 * count)
    parts = need.as_gib()
    assert need.total == sum(parts[name] for name in parts if name not in {"total", "recording"}) * memory.GIB


def test_moments_in_8_bits_by_hand():
    cell = Cell("lora", "all-linear", 512, 16, 0)
    need = memory.training(LLAMA, 5, cell, 1024, 31, optimizer="adamw_8bit")
    assert need.optimizer == pytest.approx(1_344_297_472 * (1 + 1 + 4 / 256 + 4 / 256), abs=1)


def test_peaks_measured_on_a_gpu_are_predicted_within_a_tenth():
    """From the committed measurements, whose predictions are made anew here."""
    rows = [row for row in json.loads(MEASURED.read_text(encoding="utf-8"))["rows"] if "largest_pack" in row]
    assert len(rows) >= 12
    for row in rows:
        method, targets, r = row["method"], row.get("targets", "all-linear"), row.get("r", 8)
        if row["section"] == "lean" and "512" in row["name"]:
            r = 512
        cell = Cell(method, targets, r, 2 * r, 0)
        need = memory.training(LLAMA, 5, cell, row["largest_pack"], row["checkpointed_layers"])
        assert need.total / memory.GIB == pytest.approx(row["peak_allocated_gib"], rel=0.1), row["name"]


def test_a_fit_uses_the_memory_and_no_more():
    for gib in (16, 24, 40, 80):
        found = memory.fit(LLAMA, 5, LORA, gib, most_tokens=8192)
        assert found.need.total <= gib * memory.GIB
        assert found.need == memory.training(LLAMA, 5, LORA, found.micro_batch_tokens, found.checkpointed_layers)
    assert memory.fit(LLAMA, 5, LORA, 80, most_tokens=8192).checkpointed_layers == 0
    assert memory.fit(LLAMA, 5, LORA, 80, most_tokens=3000).micro_batch_tokens == 3000
    assert memory.fit(LLAMA, 5, LORA, 16).checkpointed_layers > 0
    assert memory.fit(LLAMA, 5, LORA, 12) is None


def test_a_fit_keeps_what_is_settled():
    assert memory.fit(LLAMA, 5, QLORA, 80, most_tokens=4096, layers=10).checkpointed_layers == 10
    assert memory.fit(LLAMA, 5, QLORA, 80, most_tokens=4096, longest=4096).micro_batch_tokens == 4096


def test_more_of_anything_needs_more():
    need = memory.training(LLAMA, 5, QLORA, 4096, 10).total
    assert memory.training(LLAMA, 5, QLORA, 8192, 10).total > need
    assert memory.training(LLAMA, 5, QLORA, 4096, 5).total > need
    assert memory.training(LLAMA, 5, LORA, 4096, 10).total > need
    assert memory.training(LLAMA, 5, Cell("qlora", "all-linear", 64, 16, 0), 4096, 10).total > need


def test_a_scheduler_is_asked_for_fragmentation_and_context_too():
    assert memory.Need(10 * memory.GIB, 0, 0, 0, 0, 0, 0).on_gpu == pytest.approx((10.3 + 0.6) * memory.GIB, rel=1e-6)


def test_the_rounded_copies_are_those_that_the_decoder_makes(tiny_base):
    from lorastudy.engine import decoder

    architecture = json.loads((ARCHITECTURES / "tiny.json").read_text(encoding="utf-8"))
    for targets, modules in (("attention", None), ("all-linear", None), ("mlp", None), ("q-v", ["q_proj", "v_proj"])):
        cell = Cell("lora", targets, 4, 8, 0, modules=modules)
        adapted = model.add_adapters(model.load_classifier(tiny_base, 5, "float32", 0), cell, Lora(0.0, "paper"))
        first = decoder.fused(adapted).layers[0]  # the last of the two has the query apart, without zeros in between
        made = sum(
            down.numel() + sum(matrix.numel() for _, _, matrix in products)
            for down, products, _ in (stack.kept for stack in first.stacks() if stack.kept)
        )
        chosen = linear_layers.of_cell(architecture, cell)
        assert 2 * made == memory.Shape.of(architecture).copies(cell, chosen)


def test_planning_needs_no_torch():
    program = """
import json, sys
from lorastudy.planning import memory
from lorastudy.study import grid
shape = json.load(open(sys.argv[1]))
assert memory.fit(shape, 5, grid.Cell("lora", "all-linear", 8, 16, 0), 80)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, ARCHITECTURES / "llama-3-8b.json"], check=True)


# --- what transformers' and PEFT's layers compute

SIZES = {
    "vocab_size": 300, "hidden_size": 128, "intermediate_size": 448, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "pad_token_id": 0,
}  # fmt: skip
NO_DROPOUT = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
PLAIN = {
    "llama": SIZES,
    "phi3": SIZES,
    "gemma2": SIZES | {"head_dim": 32},
    "gpt_neox": SIZES | {"intermediate_size": 512},
    "gpt2": {"vocab_size": 300, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 64, "pad_token_id": 0} | NO_DROPOUT,
}  # fmt: skip
OTHERS = [
    Cell("dora", "all-linear", 8, 16, 0),
    Cell("adalora", "all-linear", 8, 16, 0),
    Cell("full", None, None, None, 0),
]


def saved_by_autograd(architecture, cell, texts, monkeypatch, fused=False):
    """Bytes that autograd keeps of a forward pass beside the parameters. Attention is that of a GPU: it keeps its inputs,
    its output and nothing as long as a text times a text."""
    import torch
    from lorastudy.engine import attention, batching
    from transformers import AutoConfig, AutoModelForSequenceClassification

    class Flash(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value):
            out = query + 0
            ctx.save_for_backward(query, key, value, out)
            return out

    monkeypatch.setattr(attention, "attend", lambda query, key, value, *_, **__: Flash.apply(query, key, value))
    attention.register()
    classifier = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(**architecture, num_labels=5), dtype=torch.bfloat16, attn_implementation=attention.NAME
    )
    classifier.config.use_cache = False
    classifier.requires_grad_(False).score.float()
    adapted = model.add_adapters(classifier, cell, Lora(0.0, "plain"), fused=fused)
    model.set_training(adapted, True)
    own = {p.untyped_storage().data_ptr() for p in adapted.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.classify(adapted, batching.pack(texts)).sum()
        return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("cell", [LORA, *OTHERS], ids=lambda cell: cell.method)
@pytest.mark.parametrize("family", PLAIN)
def test_activations_of_plain_layers_are_bounded(family, cell, monkeypatch):
    """No less than autograd keeps, and no more than three times as much."""
    architecture = {"model_type": family, **PLAIN[family]}
    texts = [list(range(1, 49))] * 4
    seen = saved_by_autograd(architecture, cell, texts, monkeypatch)
    shape = memory.Plain(linear_layers.of(architecture))
    chosen = linear_layers.of_cell(architecture, cell)
    bound = 192 * (2 * shape.kept_a_token(cell, chosen, 2) + shape.last_layer(2))
    assert seen <= bound <= 3 * seen


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
def test_what_the_fused_decoder_keeps_of_llama_and_its_relatives(family, monkeypatch):
    """Within a twentieth of what autograd keeps, for models of several layers; Qwen3 keeps heads before their norm too."""
    architecture = {"model_type": family, **SIZES, "num_hidden_layers": 6, "head_dim": 32}
    texts = [list(range(1, 49))] * 4
    seen = saved_by_autograd(architecture, LORA, texts, monkeypatch, fused=True)
    shape, chosen = memory.Shape.of(architecture), linear_layers.of_cell(architecture, LORA)
    predicted = 192 * (5 * shape.kept_a_token(LORA, chosen, 2) + shape.last_layer(2))
    assert predicted == pytest.approx(seen, rel=0.05)
    assert memory.training(architecture, 5, LORA, 192).activations == int(predicted)


def test_full_fine_tuning_of_the_papers_model_by_hand():
    """bfloat16 weights, their gradients, and in float32 masters, gradients and two moments: 20 bytes a parameter."""
    parameters = 7_504_924_672 + 20_480
    need = memory.training(LLAMA, 5, Cell("full", None, None, None, 0), 512, 31)
    assert need.base + need.adapters + need.gradients + need.optimizer == pytest.approx(20 * parameters, rel=1e-4)
    assert not memory.measured(LLAMA, "full")
    assert memory.fit(LLAMA, 5, Cell("full", None, None, None, 0), 80) is None


def test_the_head_alone_needs_no_more_than_the_model_and_a_forward_pass():
    need = memory.training(LLAMA, 5, Cell("head", None, None, None, 0), 8192)
    assert (need.adapters, need.gradients, need.optimizer) == (4 * 20_480, 4 * 20_480, 8 * 20_480)
    assert need.total < memory.training(LLAMA, 5, LORA, 8192).total / 1.5
    assert memory.measured(LLAMA, "head")


def test_other_methods_need_more_than_lora():
    lora = memory.training(LLAMA, 5, LORA, 4096).total
    for method in ("dora", "adalora"):
        assert memory.training(LLAMA, 5, Cell(method, "all-linear", 8, 16, 0), 4096).total > lora
        assert not memory.measured(LLAMA, method)
