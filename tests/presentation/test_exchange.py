"""Published cells in other hands: a fresh process that imports nothing of this project finds every label and token."""

import json
import subprocess
import sys

import numpy as np
import publish_cell
import pytest
import torch
from families import save
from lorastudy.engine import evaluation, exchange, model
from lorastudy.inputs import base_model, data
from lorastudy.study import grid, records
from lorastudy.study.settings import REPOSITORY, Lora
from transformers import AutoTokenizer

CLASSES = ['1 "star"', "it's\nfair", "5 ★"]
TEXTS = [
    "A film.", "not </s> bad at all", "<s><pad>", "x" * 70, "é" * 50, "Gut, aber lang: " + "sehr " * 30, "{text}", "ok 'n' \"so\"",
    "\n two\nlines ", "🙂🙂🙂 " * 12,
]  # fmt: skip
MAX_LENGTH = 48
TEMPLATE = "Review: {text}\nMood:"
# name → base, cell, template, number format
PUBLISHED = {
    "the paper's head": ("tiny", grid.Cell("lora", "all-linear", 4, 8, 1), "{text}", "float32"),
    "a template that ends": ("tiny", grid.Cell("lora", "attention", 4, 8, 1), TEMPLATE, "float32"),
    "a template of special tokens": ("tiny", grid.Cell("lora", "all-linear", 2, 8, 2), "<s>{text}</s>", "float32"),
    "rank-stabilised": ("tiny", grid.Cell("lora", "all-linear", 4, 8, 1, scaling="rank-stabilised"), "{text}", "float32"),
    "quantized": ("tiny", grid.Cell("qlora", "all-linear", 4, 8, 1), TEMPLATE, "float32"),
    "bfloat16": ("tiny", grid.Cell("lora", "all-linear", 4, 8, 1), TEMPLATE, "bfloat16"),
    "capped scores": ("Gemma 2", grid.Cell("lora", "attention", 4, 8, 1), TEMPLATE, "float32"),
    "windows": ("Mistral, window", grid.Cell("lora", "attention", 4, 8, 1), "{text}", "float32"),
}  # fmt: skip
SCORES = [f"{name}{end}" for name in ("accuracy", "f1", "precision", "recall", "macro_f1", "mae", "nll", "ece") for end in ("", "_low", "_high")]  # fmt: skip


def publish(directory, tiny_base, base, cell, template, dtype):
    """A cell whose adapters do something, with what it predicts; nothing is trained."""
    place = directory / "model"
    if base == "tiny":
        place.symlink_to(tiny_base)
    else:
        save(base, place)
    computed = place
    if cell.method == "qlora":
        records.write_json(directory / "origin.json", {})
        computed = directory / "nf4"
        model.quantize(place, computed, dtype)
    classifier = model.load_classifier(computed, len(CLASSES), dtype, cell.seed)
    peft_model = model.add_adapters(classifier, cell, Lora(0.0, "paper"))
    generator = torch.Generator().manual_seed(cell.seed)
    for p in peft_model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=generator).to(p.dtype)
    results = directory / "results"
    model.save_adapters(peft_model, results / "adapter", {"name": "a model", "revision": None})
    loaded = model.load_adapters(model.load_classifier(computed, len(CLASSES), dtype, 99), results / "adapter")
    tokens, _ = data.encode(AutoTokenizer.from_pretrained(place), template, TEXTS, MAX_LENGTH)
    probability, _ = evaluation.probabilities(loaded, tokens, 10_000)
    config = {
        "model": {"source": "directory", "name": "a model", "revision": None, "dtype": dtype},
        "data": {"template": template, "max_length": MAX_LENGTH}, "lora": {"dropout": 0.0}, "training": {},
    }  # fmt: skip
    provenance = {
        "config": config,
        "seed": cell.seed,
        "git_commit": "c",
        "git_dirty": False,
        "code": "c",
        "hardware": {"device": "CPU"},
    }
    shared = {"status": "finished", "cell": cell.as_dict(), "provenance": provenance}
    records.write_json(results / "metrics.json", shared | {"n_test": 10, "metrics": dict.fromkeys(SCORES, 0.5)})
    trained = dict.fromkeys(("trainable_parameters", "trainable_percent", "steps", "seconds", "peak_memory_gib"), 1)
    records.write_json(results / "training.json", shared | trained | {"memory_meter": "resident set"})
    splits = {split: {"texts": 10} for split in ("train", "test")}
    card = {"source": "files", "name": None, "revision": None, "class_names": CLASSES, "fingerprint": "f" * 64}
    records.write_json(directory / "card.json", card | {"max_length": MAX_LENGTH, "splits": splits})
    publish_cell.main(results / "metrics.json", directory / "card.json", directory / "publish", "A study")
    texts = [{"text": text, "input_ids": list(map(int, ids))} for text, ids in zip(TEXTS, tokens, strict=True)]
    records.write_json(directory / "texts.json", texts)
    return tokens, probability


@pytest.fixture(scope="module")
def published(tmp_path_factory, tiny_base):
    """Name → (tokens and probabilities of the study, what the other process found)."""
    directories = {name: tmp_path_factory.mktemp("published") for name in PUBLISHED}
    expected = {name: publish(directories[name], tiny_base, *PUBLISHED[name]) for name in PUBLISHED}
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "use_published.py", *directories.values()],
        capture_output=True, encoding="utf-8", check=False, cwd=tmp_path_factory.getbasetemp(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: (*expected[name], found[str(directories[name])], directories[name]) for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_card_s_code_reads_and_answers_as_the_study_did(name, published):
    tokens, probability, found, _ = published[name]
    assert any(len(ids) == MAX_LENGTH for ids in tokens)
    assert found["tokens"] == [list(ids) for ids in tokens]
    close = 0.02 if PUBLISHED[name][3] == "bfloat16" else 1e-5  # single texts are rounded otherwise than packed ones
    assert np.abs(found["card"] - probability).max() < close
    top = np.sort(probability)[:, ::-1]
    clear = top[:, 0] - top[:, 1] > 2 * close
    assert clear.sum() >= 8
    expected = [CLASSES[index] for index in probability.argmax(axis=1)]
    assert len(set(expected)) > 1
    assert [label for label, sure in zip(found["labels"], clear) if sure] == [
        label for label, sure in zip(expected, clear) if sure
    ]


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row[1].method == "lora"])
def test_others_load_and_merge_it(name, published):
    """PEFT's auto class, and transformers after merging and saving. Adapters of a quantized base fit that base alone."""
    _, probability, found, directory = published[name]
    close = 0.03 if PUBLISHED[name][3] == "bfloat16" else 1e-5
    eager = "attn_logit_softcapping" not in json.loads(
        (directory / "model" / "config.json").read_text(encoding="utf-8")
    )
    if eager:  # PEFT's auto class takes transformers' own choice of attention, which knows no cap
        assert np.abs(found["auto"] - probability).max() < close
    assert np.abs(found["merged"] - probability).max() < close
    config = json.loads((directory / "merged" / "config.json").read_text(encoding="utf-8"))
    assert [config["id2label"][str(index)] for index in range(3)] == CLASSES
    assert config["label2id"] == {label: index for index, label in enumerate(CLASSES)}


@pytest.mark.parametrize("name", ["the paper's head", "a template that ends", "windows"])
def test_transformers_pipeline_answers_with_the_names(name, published):
    _, probability, found, _ = published[name]
    labels = dict(zip(TEXTS, (CLASSES[index] for index in probability.argmax(axis=1))))
    plain = [text for text in found["pipeline"] if "<" not in text]  # it takes </s> in a text for the end of it
    assert len(plain) > 3
    assert {text: found["pipeline"][text] for text in plain} == {text: labels[text] for text in plain}


def test_merging_into_nf4_rounds_once_more(published):
    _, probability, found, _ = published["quantized"]
    assert np.abs(found["merged"] - probability).max() < 0.2


def test_a_folded_head_by_hand(tmp_path):
    """W + alpha / r B A, of numbers that can be seen."""
    from safetensors.torch import load_file, save_file

    tensors = {
        "base_layer": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "lora_A": torch.tensor([[1.0, 0.0]]),
        "lora_B": torch.tensor([[2.0], [5.0]]),
    }
    tmp_path.joinpath("adapter").mkdir()
    prefix = "base_model.model."
    named = {f"{prefix}score.{name}.weight": value for name, value in tensors.items()}
    save_file(named | {f"{prefix}model.q.lora_A.weight": torch.ones(1)}, tmp_path / "adapter/adapter_model.safetensors")
    config = {
        "target_modules": ["v", "q", "score"], "modules_to_save": ["score.base_layer"], "task_type": None,
        "auto_mapping": {}, "lora_alpha": 6, "r": 2, "use_rslora": False,
    }  # fmt: skip
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    exchange.write(tmp_path / "adapter", tmp_path)
    written = load_file(tmp_path / "adapter_model.safetensors")
    assert written.keys() == {f"{prefix}score.weight", f"{prefix}model.q.lora_A.weight"}
    assert written[f"{prefix}score.weight"].tolist() == [[7.0, 2.0], [18.0, 4.0]]
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["target_modules"], config["modules_to_save"], config["task_type"]) == (
        ["q", "v"],
        ["score"],
        "SEQ_CLS",
    )
    assert exchange.scale({"lora_alpha": 6, "r": 4, "use_rslora": True}) == 3.0


def test_the_tokenizer_of_these_tests_has_what_a_text_must_not_mean():
    assert {"<s>", "</s>", "<pad>"} <= set(base_model.byte_tokenizer().get_vocab())
