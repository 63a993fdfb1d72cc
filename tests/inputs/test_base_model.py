"""Base models that cannot be fine-tuned here, or not in every way: told in one line, before any job where that is possible."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from families import FAMILIES, SHAPE, config_of
from lorastudy.inputs import base_model, data, families, model_files
from lorastudy.study import architecture, layout, settings
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

TINY = architecture.named("tiny")


def directory(path):
    return settings.Model("directory", str(path), None, "float32")


@pytest.fixture
def local(tiny_base, tmp_path):
    """A model directory that a test may change."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_base, copy, ignore=shutil.ignore_patterns("origin.json"))
    return copy


def with_config(**changes):
    def change(path):
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        (path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    return change


def slow_tokenizer(path, *others):
    for file in path.glob("tokenizer*"):
        file.unlink()
    (path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15")
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}', encoding="utf-8")
    for name in others:
        (path / name).write_text("{}", encoding="utf-8")


def without_tokenizer(path):
    for file in path.glob("tokenizer*"):
        file.unlink()


def in_parts(path):
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def dynamic(length):
    return {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": length}


# what is done to a model directory → what the line says
FAULTS = {
    "no config": (lambda path: (path / "config.json").unlink(), r"without configuration \(config.json\)"),
    "broken config": (lambda path: (path / "config.json").write_text("{", encoding="utf-8"), r"config.json cannot be read as JSON"),
    "no model type": (lambda path: (path / "config.json").write_text("{}", encoding="utf-8"), r"has a config.json without `model_type`"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), r"without weights \(\*.safetensors\)"),
    "part of the weights": (in_parts, r"without model-00002-of-00002.safetensors: 1 of the 2 files"),
    "no tokenizer": (without_tokenizer, r"without tokenizer \(tokenizer.json\)"),
    "tokenizer.model alone": (slow_tokenizer, r"with a tokenizer.model and without tokenizer.json, the fast form"),
    "tokenizer.model and words": (lambda path: slow_tokenizer(path, "special_tokens_map.json", "vocab.json"), r"without tokenizer.json"),
    "an adapter in it": (lambda path: (path / "adapter_config.json").write_text("{}", encoding="utf-8"), r"with an adapter beside the weights"),
    "quantized by GPTQ": (with_config(quantization_config={"quant_method": "gptq", "bits": 4}), r"is quantized already \(gptq\)"),
    "quantized by bitsandbytes": (with_config(quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"}), r"already \(bitsandbytes\)"),
    "quantized in FP8": (with_config(quantization_config={"quant_algo": "FP8"}), r"is quantized already \(FP8\)"),
    "an encoder": (with_config(model_type="bert"), r"is a bert, a family whose packed texts were not shown"),
    "positions by distance": (with_config(model_type="bloom"), r"is a bloom, a family"),
    "recurrent": (with_config(model_type="qwen3_next"), r"is a qwen3_next, a family"),
    "pictures too": (with_config(model_type="gemma3", text_config={"model_type": "gemma3_text"}), r"is a gemma3, which reads more than text; take .* \(gemma3_text\)"),
    "linear attention": (with_config(layer_types=["linear_attention", "full_attention"]), r"has layers of the type linear_attention"),
    "not causal": (with_config(use_bidirectional_attention=True), r"lets tokens see those after them"),
    "few positions": (with_config(max_position_embeddings=511), r"`data.max_length` is 512 and .* has 511 positions .*; lower"),
    "few positions, GPT-2's name": (with_config(model_type="gpt2", max_position_embeddings=None, n_positions=256), r"is 512 and .* has 256 positions"),
    "dynamic rope": (with_config(max_position_embeddings=256, rope_scaling=dynamic(128)), r"is 512 and .* has 256 positions"),
    "longrope": (with_config(model_type="phi3", rope_scaling={"type": "longrope"}, original_max_position_embeddings=300), r"beyond 300 tokens .* \(longrope\)"),
    "longrope a layer type": (with_config(rope_parameters={"full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 128}}), r"beyond 128 tokens"),
    "window of the mask": (with_config(model_type="phimoe", sliding_window=128), r"sees 128 tokens at once \(sliding_window\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_base_that_is_refused_before_any_job(local, fault):
    spoil, message = FAULTS[fault]
    base_model.check(directory(local), 512)
    spoil(local)
    with pytest.raises(base_model.ModelError, match=message) as caught:
        base_model.check(directory(local), 512)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("config: `")
    assert len(line) < 600


def test_what_is_as_it_should_be(local):
    """The limits themselves, and what only looks like a fault."""
    for change in (
        with_config(max_position_embeddings=512),
        with_config(max_position_embeddings=None),
        with_config(quantization_config=None),
        with_config(model_type="phi3", rope_scaling={"type": "longrope"}, original_max_position_embeddings=512),
        with_config(model_type="qwen2_moe", use_sliding_window=False, sliding_window=16),
        with_config(model_type="phimoe", sliding_window=512),
        with_config(model_type="mistral", sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
    ):
        change(local)
        base_model.check(directory(local), 512)
    without_tokenizer(local)
    for name in ("vocab.json", "merges.txt"):
        (local / name).write_text("{}", encoding="utf-8")
    base_model.check(directory(local), 512)


def test_positions_of_a_model_that_comes_with_the_pipeline():
    tiny = settings.Model("random", "tiny", None, "float32")
    base_model.check(tiny, 2048)
    with pytest.raises(base_model.ModelError, match=r"is 4096 and .* has 2048 positions"):
        base_model.check(tiny, 4096)
    packaged = settings.Model("packaged", "smollm2-135m-instruct", None, "float32")
    with pytest.raises(base_model.ModelError, match=r"is 9000 and .* has 8192 positions"):
        base_model.check(packaged, 9000)


def test_a_hub_model_is_known_once_it_is_fetched_and_no_other(tmp_path):
    hub = settings.Model("hub", "some/model", "a" * 40, "float32")
    base = tmp_path / layout.BASE
    base.mkdir(parents=True)
    origin = {"source": "hub", "name": "some/model", "revision": "a" * 40, "sha256": {}}
    (base / "origin.json").write_text(json.dumps(origin), encoding="utf-8")
    (base / "config.json").write_text(json.dumps(TINY | {"max_position_embeddings": 100}), encoding="utf-8")
    with pytest.raises(base_model.ModelError, match=r"is 512 and `model.name` 'some/model' has 100 positions"):
        base_model.check(hub, 512, tmp_path)
    (base / "origin.json").write_text(json.dumps(origin | {"revision": "b" * 40}), encoding="utf-8")
    base_model.check(hub, 512, tmp_path)


@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        (["tokenizer.model"], TINY, "with a tokenizer.model and without tokenizer.json"),
        (["tokenizer.json"], TINY | {"model_type": "t5"}, "is a t5, a family"),
        (["tokenizer.json"], TINY | {"quantization_config": {"quant_method": "awq"}}, r"is quantized already \(awq\)"),
    ],
)
def test_a_hub_model_is_refused_before_its_weights_are_fetched(monkeypatch, tmp_path, files, config, message):
    from types import SimpleNamespace

    import huggingface_hub

    siblings = [SimpleNamespace(rfilename=name, size=10) for name in (*files, "config.json", "model.safetensors")]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("weights were fetched"))
    with pytest.raises(base_model.ModelError, match=message):
        base_model.fetch(settings.Model("hub", "a/b", "a" * 40, "float32"), tmp_path / "base")


def test_every_family_of_the_tests_is_admitted():
    for name in FAMILIES:
        assert not list(families.faults(config_of(name).to_dict(), "it", 16)), name


@pytest.mark.parametrize("name", ["Phi-3.5, longrope"])
def test_longrope_computes_a_text_otherwise_beside_a_longer_one(name, tmp_path):
    """Why it is refused: the reason holds in transformers of today."""
    config = config_of(name)
    (fault,) = families.faults(config.to_dict(), "it", 17)
    assert "beyond 16 tokens" in fault
    torch.manual_seed(0)
    plain = AutoModel.from_config(config).eval()
    with torch.no_grad():
        alone = plain(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False).last_hidden_state[0]
        beside = plain(input_ids=torch.tensor([[5, 6, 7] + [8] * 14] * 2), use_cache=False).last_hidden_state[0, :3]
    assert (alone - beside).abs().max() > 1e-3


# --- heads and tokens


def test_which_models_can_be_prompted(tmp_path):
    bare, tied = AutoConfig.for_model(**TINY), AutoConfig.for_model(**(TINY | {"tie_word_embeddings": True}))
    neox = config_of("GPT-NeoX")
    models = {
        "language model": (AutoModelForCausalLM.from_config(bare), True),
        "bare decoder": (AutoModel.from_config(bare), False),
        "classifier": (AutoModelForSequenceClassification.from_config(bare), False),
        "classifier of tokens": (AutoModelForTokenClassification.from_config(bare), False),
        "bare decoder, shared weights": (AutoModel.from_config(tied), True),
        "GPT-NeoX": (AutoModelForCausalLM.from_config(neox), True),
        "bare GPT-NeoX": (AutoModel.from_config(neox), False),
    }
    for name, (saved, expected) in models.items():
        saved.save_pretrained(tmp_path / name)
        assert model_files.has_language_head(tmp_path / name) is expected, name


def test_a_padding_token_that_the_model_knows():
    tokenizer = base_model.byte_tokenizer()
    assert base_model.pad_token_id(tokenizer, 259) == 258  # <pad>
    assert base_model.pad_token_id(tokenizer, 258) == 257  # </s>, the padding token was added to the tokenizer alone
    assert base_model.pad_token_id(tokenizer, 256) is None
    tokenizer.pad_token = None
    assert base_model.pad_token_id(tokenizer, 259) == 258
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|reserved_special_token_0|>"]})
    assert base_model.pad_token_id(tokenizer, SHAPE["vocab_size"]) == 258


@pytest.mark.parametrize(
    ("template", "added"), [("{text}<turn>", "<turn>"), ("<s>{text}", None), ("{text}", "goodness")]
)
def test_a_token_beyond_the_embedding_is_named(template, added):
    """It comes from the template, from a special token or from a word that was added for the texts."""
    tokenizer = base_model.byte_tokenizer()
    if added:
        tokenizer.add_tokens([added])
    tokens, _ = data.encode(tokenizer, template, ["oh my goodness"], 64)
    data.require_known(tokenizer, tokens, 260, "it has")
    token = added or "<s>"
    with pytest.raises(
        data.DataError, match=rf"it has the token '{token}' \(id \d+\), and the model's embedding ends at 255"
    ):
        data.require_known(tokenizer, tokens, 256, "it has")


# --- GPUs


@pytest.mark.parametrize(
    ("name", "capability", "refused"),
    [
        ("Tesla T4", (7, 5), True),
        ("Tesla V100-SXM2-16GB", (7, 0), True),
        ("A100", (8, 0), False),
        ("H100", (9, 0), False),
    ],
)
def test_gpus_without_bfloat16_are_told_in_a_line(name, capability, refused, monkeypatch):
    """There is none here: what torch says of it is imitated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    base_model.require_format("float32")
    if not refused:
        return base_model.require_format("bfloat16")
    with pytest.raises(
        base_model.ModelError,
        match=rf"{name} \(compute capability {capability[0]}.{capability[1]}\) has no bfloat16; set",
    ):
        base_model.require_format("bfloat16")
    return None


def test_check_tells_of_the_gpu_before_a_job(monkeypatch):
    from lorastudy.jobs import nvidia
    from lorastudy.planning import check

    for capability, faults in (("7.5", 1), ("8.6", 0), ("12.1", 0), (None, 0)):
        monkeypatch.setattr(nvidia, "query", lambda *_, gpu, capability=capability: [["Tesla T4", capability]])
        assert len(list(check.number_format("bfloat16"))) == faults
        assert not list(check.number_format("float32"))


def test_a_job_asks_no_hub_whatever_was_imported_before():
    """Libraries read the environment when they are imported, which scripts do first."""
    run = (
        "from huggingface_hub import HfApi, constants; from lorastudy.inputs import base_model; base_model.offline()\n"
        "try: HfApi().model_info('someone/something')\n"
        "except Exception as fault: print(type(fault).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "OfflineModeIsEnabled\n"
