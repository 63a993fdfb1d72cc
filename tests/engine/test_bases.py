"""What is loaded of base models that were saved for something else, or not whole."""

import json

import pandas as pd
import pytest
import synthetic
import torch
from families import save
from lorastudy.engine import baselines, batching, model
from lorastudy.inputs import base_model
from lorastudy.study import architecture, records, settings
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

TEXTS = [[5, 6, 7, 8, 9], [40, 41], [100, 101, 102]]


def saved(directory, kind=AutoModelForCausalLM, **changes):
    """A tiny model directory with the same decoder whatever it was saved as."""
    torch.manual_seed(0)
    decoder = AutoModel.from_config(AutoConfig.for_model(**(architecture.named("tiny") | changes)))
    whole = decoder
    if kind is not AutoModel:
        whole = kind.from_config(decoder.config, dtype=torch.float32)
        getattr(whole, whole.base_model_prefix).load_state_dict(decoder.state_dict())
    whole.save_pretrained(directory)
    base_model.byte_tokenizer().save_pretrained(directory)
    records.write_json(directory / "origin.json", {"name": "tiny"})
    return directory


def logits(directory, seed=3):
    with torch.no_grad():
        return model.classify(model.load_classifier(directory, 2, "float32", seed), batching.pack(TEXTS))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (AutoModel, {}),
        (AutoModelForSequenceClassification, {"num_labels": 3}),
        (AutoModelForSequenceClassification, {"num_labels": 2}),
        (AutoModelForSequenceClassification, {"num_labels": 1, "problem_type": "regression"}),
        (AutoModelForTokenClassification, {"num_labels": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_another_head_is_dropped(kind, changes, tmp_path):
    base = saved(tmp_path / "base", kind, **changes)
    torch.testing.assert_close(logits(base), logits(saved(tmp_path / "language")), rtol=0, atol=0)
    model.quantize(base, tmp_path / "nf4", "float32")
    assert logits(tmp_path / "nf4").isfinite().all()
    with pytest.raises(base_model.ModelError, match=r"not all of a LlamaForCausalLM: lm_head.weight is missing"):
        model.load_language_model(base, "float32")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (AutoModel, "refused"),
        (AutoModelForSequenceClassification, "refused"),
        (AutoModelForTokenClassification, "refused"),
        (AutoModelForCausalLM, "finished"),
    ],
)
def test_only_a_language_model_is_prompted(kind, status, tmp_path):
    """A head that is drawn at random answers too, and would be compared with the cells."""
    base = saved(tmp_path / "base", kind)
    card, test = tmp_path / "card.json", tmp_path / "test.parquet"
    records.write_json(card, {"labels": [0, 1], "class_names": ["bad", "good"]})
    texts = {"id": ["a", "b", "c"], "text": ["one", "two", "three"], "label": [0, 1, 1], "input_ids": TEXTS}
    pd.DataFrame(texts).to_parquet(test)
    spec = {
        "model": {"dtype": "float32"},
        "data": {"max_length": 32},
        "prompt": {"template": "{text}\nClass:", "verbalizers": None},
    }
    written = tmp_path / "predictions.parquet", tmp_path / "metrics.json"
    execution = settings.load(synthetic.config()).block("execution")
    baselines.main("prompt", base, card, test, *written, spec, {"resamples": 10, "seed": 0}, 0, execution, 1)
    found = records.read_json(written[1])
    assert found["status"] == status
    if status == "refused":
        assert (found["metrics"], found["confusion"]) == (None, None)
        assert found["reason"] == "the base model has no language-model head"
        assert pd.read_parquet(written[0]).empty
    else:
        assert len(pd.read_parquet(written[0])) == 3


def without(directory, name):
    tensors = load_file(directory / "model.safetensors")
    del tensors[name]
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
def test_weights_that_are_missing_are_not_drawn_at_random(name, tmp_path):
    base = saved(tmp_path)
    without(base, name)
    with pytest.raises(base_model.ModelError, match=rf"not all of a LlamaForSequenceClassification: {name} is missing"):
        logits(base)


def test_weights_under_other_names_are_not_drawn_at_random(tmp_path):
    """A question-answering model calls its decoder otherwise; either it is found or the model is refused."""
    base = saved(tmp_path / "base", AutoModelForQuestionAnswering)
    try:
        found = logits(base)
    except base_model.ModelError as refused:
        assert "is missing" in str(refused)
    else:
        torch.testing.assert_close(found, logits(saved(tmp_path / "language")), rtol=0, atol=0)


def test_weights_of_another_size_are_refused(tmp_path):
    base = saved(tmp_path)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 300}), encoding="utf-8")
    with pytest.raises(base_model.ModelError, match="model.embed_tokens.weight is missing or of another size"):
        logits(base)


@pytest.mark.parametrize("pad", [None, 258, 300])
def test_a_padding_token_beyond_the_embedding(pad, tmp_path):
    """The tokenizer's, or the configuration's: no text has it, so nothing depends on it."""
    base = saved(tmp_path / "base", vocab_size=258)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"pad_token_id": pad}), encoding="utf-8")
    assert logits(base).isfinite().all()
    assert model.load_classifier(base, 2, "float32", 0).config.pad_token_id == 257  # end of text
    model.quantize(base, tmp_path / "nf4", "float32")
    assert model.load_classifier(tmp_path / "nf4", 2, "float32", 0).config.pad_token_id == 257
    assert model.load_language_model(base, "float32")


def test_the_base_s_own_dropout_is_off(tmp_path):
    """Else a result would depend on how texts are packed; GPT-2's configuration has 0.1 in three places."""
    classifier = model.load_classifier(save("GPT-2", tmp_path), 5, "float32", 0)
    model.set_training(classifier, True)
    pack = batching.pack(TEXTS)
    assert torch.equal(model.classify(classifier, pack), model.classify(classifier, pack))


def test_layers_are_checkpointed_whatever_a_family_calls_them(tmp_path):
    classifier = model.load_classifier(save("GPT-2", tmp_path), 5, "float32", 0)
    classifier.transformer.wte.weight.requires_grad_(True)
    model.set_training(classifier, True)

    def gradient():
        classifier.zero_grad()
        model.classify(classifier, batching.pack(TEXTS)).sum().backward()
        return classifier.transformer.wte.weight.grad.clone()

    expected = gradient()
    model.checkpoint_layers(classifier, 3)
    assert [layer.gradient_checkpointing for layer in classifier.transformer.h] == [True, True, True, False]
    assert torch.equal(gradient(), expected)
