import json
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from lorastudy.engine import batching, model
from lorastudy.inputs import base_model
from lorastudy.study import grid, settings
from lorastudy.study.errors import DiskFull
from lorastudy.study.settings import Lora
from peft import PeftModel

TEXTS = [[5, 6, 7, 8, 9], [40, 41], [100, 101, 102]]
CELLS = [
    grid.Cell(method, targets, r=4, alpha=8, seed=1)
    for method in ("lora", "qlora")
    for targets in ("attention", "all-linear")
]


def classifier_for(cell, tiny_base, tiny_nf4, seed=1):
    return model.load_classifier(
        tiny_nf4 if cell.method == "qlora" else tiny_base, classes=5, dtype="float32", seed=seed
    )


def train_a_little(peft_model, steps=3):
    optimizer = torch.optim.SGD([p for p in peft_model.parameters() if p.requires_grad], lr=1.0)
    model.set_training(peft_model, True)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(
            model.classify(peft_model, batching.pack(TEXTS)), torch.tensor([0, 1, 4])
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_what_is_trained(cell, tiny_base, tiny_nf4):
    """Hand count: width 64, feed-forward 128, key/value 32, two layers, r = 4, five classes."""
    peft_model = model.add_adapters(classifier_for(cell, tiny_base, tiny_nf4), cell, Lora(dropout=0.0, head="paper"))
    attention = 2 * 4 * ((64 + 64) + (64 + 32) + (64 + 32) + (64 + 64))
    feed_forward = 2 * 4 * ((64 + 128) + (64 + 128) + (128 + 64))
    head, pair = 5 * 64, 4 * (64 + 5)
    expected = attention + head + (feed_forward + pair if cell.targets == "all-linear" else 0)
    assert peft_model.get_nb_trainable_parameters()[0] == expected
    assert all("lora_" in name or "score" in name for name, p in peft_model.named_parameters() if p.requires_grad)


def test_plain_head_has_no_pair(tiny_base):
    cell = grid.Cell("lora", "all-linear", 4, 8, 0)
    peft_model = model.add_adapters(model.load_classifier(tiny_base, 5, "float32", 0), cell, Lora(0.0, "plain"))
    assert not [name for name, _ in peft_model.named_parameters() if "score" in name and "lora_" in name]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_everything_trained_moves_and_nothing_else(cell, tiny_base, tiny_nf4):
    peft_model = model.add_adapters(classifier_for(cell, tiny_base, tiny_nf4), cell, Lora(0.0, "paper"))
    before = {name: p.detach().clone() for name, p in peft_model.named_parameters()}
    train_a_little(peft_model)
    for name, p in peft_model.named_parameters():
        assert torch.equal(before[name], p) != p.requires_grad, name


RELOAD = """
import json, sys
import torch
from lorastudy.engine import batching, model
texts, *places = json.loads(sys.argv[1])
for base, adapter in places:
    classifier = model.load_adapters(model.load_classifier(base, 5, "float32", seed=99), adapter)
    with torch.inference_mode():
        print(model.classify(classifier, batching.pack(texts)).tolist())
"""


def test_a_fresh_process_that_reloads_gives_the_same_logits(tiny_base, tiny_nf4, tmp_path):
    """With another seed for the head: all that is trained must come from the adapter's files."""
    expected, places = [], []
    for cell in CELLS:
        base, adapter = tiny_nf4 if cell.method == "qlora" else tiny_base, tmp_path / cell.id
        peft_model = model.add_adapters(classifier_for(cell, tiny_base, tiny_nf4), cell, Lora(0.0, "paper"))
        train_a_little(peft_model)
        model.save_adapters(peft_model, adapter, base_model.fingerprint(base))
        places.append([str(base), str(adapter)])
        with torch.inference_mode():
            expected.append(model.classify(peft_model, batching.pack(TEXTS)))
    command = [sys.executable, "-c", RELOAD, json.dumps([TEXTS, *places])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    for cell, line, logits in zip(CELLS, done.stdout.splitlines(), expected, strict=True):
        assert torch.equal(torch.tensor(json.loads(line)), logits), cell.id


def test_the_papers_head_loads_with_plain_peft(tiny_base, tmp_path):
    cell = grid.Cell("lora", "all-linear", 4, 8, 1)
    peft_model = model.add_adapters(model.load_classifier(tiny_base, 5, "float32", 1), cell, Lora(0.0, "paper"))
    train_a_little(peft_model)
    model.save_adapters(peft_model, tmp_path, base_model.fingerprint(tiny_base))
    plain = PeftModel.from_pretrained(model.load_classifier(tiny_base, 5, "float32", 7), tmp_path)
    assert torch.equal(model.classify(plain, batching.pack(TEXTS)), model.classify(peft_model, batching.pack(TEXTS)))


def test_adapter_files_are_safetensors_and_name_no_local_path(tiny_base, tmp_path):
    cell = grid.Cell("lora", "all-linear", 4, 8, 1)
    peft_model = model.add_adapters(model.load_classifier(tiny_base, 5, "float32", 1), cell, Lora(0.0, "paper"))
    model.save_adapters(peft_model, tmp_path, base_model.fingerprint(tiny_base))
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(config["target_modules"])  # the same bytes each time
    assert len(config["target_modules"]) == 8


def test_seeds_of_head_and_adapters(tiny_base):
    def start(seed):
        cell = grid.Cell("lora", "all-linear", 4, 8, seed)
        peft_model = model.add_adapters(model.load_classifier(tiny_base, 5, "float32", seed), cell, Lora(0.0, "paper"))
        return {name: p.detach().clone() for name, p in peft_model.named_parameters() if p.requires_grad}

    first, again, other = start(0), start(0), start(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["base_model.model.score.base_layer.modules_to_save.default.weight"],
                           other["base_model.model.score.base_layer.modules_to_save.default.weight"])  # fmt: skip
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_both_methods_start_from_the_same_adapters(tiny_base, tiny_nf4):
    def start(method, base):
        cell = grid.Cell(method, "all-linear", 4, 8, 3)
        peft_model = model.add_adapters(model.load_classifier(base, 5, "float32", 3), cell, Lora(0.0, "paper"))
        return {name: p for name, p in peft_model.named_parameters() if p.requires_grad}

    lora, qlora = start("lora", tiny_base), start("qlora", tiny_nf4)
    assert all(torch.equal(lora[name], qlora[name]) for name in lora)


def test_quantization_leaves_embedding_norms_and_head_alone(tiny_base, tiny_nf4):
    plain, quantized = (model.load_classifier(path, 5, "float32", 0) for path in (tiny_base, tiny_nf4))
    assert torch.equal(plain.model.embed_tokens.weight, quantized.model.embed_tokens.weight)
    assert torch.equal(plain.score.weight, quantized.score.weight)
    kinds = {
        name.rsplit(".", 1)[-1]: type(module).__name__ for name, module in quantized.named_modules() if "proj" in name
    }
    assert set(kinds.values()) == {"Linear4bit"}
    assert quantized.model.layers[0].self_attn.q_proj.weight.quant_state.nested
    assert quantized.score.weight.dtype == torch.float32


def test_quantized_checkpoint_equals_quantizing_on_the_way_in(tiny_base, tiny_nf4):
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    settings_of_nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["score"]
    )
    fresh = AutoModelForSequenceClassification.from_pretrained(
        tiny_base, num_labels=5, dtype=torch.float32, quantization_config=settings_of_nf4
    )
    stored = model.load_classifier(tiny_nf4, 5, "float32", 0)
    for (name, left), right in zip(fresh.model.named_parameters(), stored.model.parameters(), strict=True):
        assert torch.equal(left, right), name


def test_gradients_survive_an_evaluation_in_between(tiny_nf4):
    """bitsandbytes repacks 4-bit weights on a CPU in evaluation mode; the packed form passes no gradient."""
    cell = grid.Cell("qlora", "attention", 4, 8, 0)

    def gradient(evaluate_first):
        peft_model = model.add_adapters(model.load_classifier(tiny_nf4, 5, "float32", 0), cell, Lora(0.0, "plain"))
        for name, p in peft_model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(p, 0.01)
        if evaluate_first:
            model.set_training(peft_model, False)
            with torch.inference_mode():
                model.classify(peft_model, batching.pack(TEXTS))
            model.set_training(peft_model, True)
        model.classify(peft_model, batching.pack(TEXTS)).sum().backward()
        return peft_model.get_parameter("base_model.model.model.layers.0.self_attn.v_proj.lora_A.default.weight").grad

    torch.testing.assert_close(gradient(True), gradient(False))


def test_what_is_trained_is_float32_and_computes_in_the_bases_format(tiny_base, tmp_path):
    model.quantize(tiny_base, tmp_path, "bfloat16")
    for base in (tiny_base, tmp_path):
        cell = grid.Cell("lora", "all-linear", 4, 8, 0)
        for fused, adapters in ((True, torch.float32), (False, torch.bfloat16)):
            classifier = model.load_classifier(base, 5, "bfloat16", 0)
            peft_model = model.add_adapters(classifier, cell, Lora(0.0, "paper"), fused=fused)
            for name, p in peft_model.named_parameters():
                if p.requires_grad:
                    assert p.dtype == (torch.float32 if ".score." in name else adapters), name
            assert model.last_hidden_states(peft_model.get_base_model(), batching.pack(TEXTS)).dtype == torch.bfloat16


def test_model_directory_without_weights(tiny_base, tmp_path):
    block = settings.Model("directory", str(tmp_path / "nowhere"), None, "float32")
    with pytest.raises(base_model.ModelError, match=r"`model.name` is .*nowhere.*there is no directory"):
        base_model.check(block)
    for file in tiny_base.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(base_model.ModelError, match="without weights"):
        base_model.check(settings.Model("directory", str(tmp_path), None, "float32"))


def test_local_directory_is_linked_not_copied(tiny_base, tmp_path):
    block = settings.Model("directory", str(tiny_base), None, "float32")
    base_model.fetch(block, tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").is_symlink()
    assert model.load_classifier(tmp_path / "base", 5, "float32", 0)


def test_no_room_says_how_much_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(base_model.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(3 * 2**30))
    with pytest.raises(DiskFull, match=r"16.0 GiB are needed and 3.0 GiB are free"):
        base_model.require_space(tmp_path / "later" / "base", 16 * 2**30, "the weights")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "is gated: accept its terms"),
        ("RepositoryNotFoundError", "is not on the hub, or is private"),
        ("RevisionNotFoundError", "does not exist in"),
    ],
)
def test_hub_models_that_cannot_be_had(monkeypatch, tmp_path, error, message):
    """The hub's answers, as huggingface_hub raises them; there is no network in the tests."""
    from huggingface_hub import HfApi, errors

    response = SimpleNamespace(headers={"Authorization": "hf_secret"}, request=None)

    def refuse(*_, **__):
        raise getattr(errors, error)("refused", response=response)

    monkeypatch.setattr(HfApi, "model_info", refuse)
    block = settings.Model("hub", "someone/something", "a" * 40, "bfloat16")
    with pytest.raises(base_model.ModelError, match=message) as caught:
        base_model.fetch(block, tmp_path / "base")
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "head"), [("attention", "plain"), ("all-linear", "paper"), ("all-linear", "plain")]
)
def test_counts_without_weights_equal_those_of_the_loaded_model(tiny_base, targets, head):
    cell = grid.Cell("lora", targets, 4, 8, 0)
    lora = Lora(0.0, head)
    loaded = model.add_adapters(model.load_classifier(tiny_base, 5, "float32", 0), cell, lora)
    assert (
        model.count_parameters(base_model.architecture_of(tiny_base), 5, cell, lora)
        == loaded.get_nb_trainable_parameters()
    )
