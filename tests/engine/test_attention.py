"""No text of a pack sees another, and packing changes nothing but rounding."""

import pytest
import torch
from lorastudy.engine import batching, decoder, model
from transformers import AutoModelForSequenceClassification

TEXTS = [[5, 6, 7, 8, 9], [40, 41], [100, 101, 102, 103, 104, 105, 106], [7]]


@pytest.fixture(scope="module")
def classifier(tiny_base):
    return model.load_classifier(tiny_base, classes=5, dtype="float32", seed=0)


@pytest.fixture(scope="module")
def reference(tiny_base, classifier):
    """Plain transformers on one text at a time."""
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=5, dtype=torch.float32)
    plain.score.weight.data = classifier.score.weight.data
    plain.config.pad_token_id = 258
    return torch.cat([plain(input_ids=torch.tensor([text])).logits for text in TEXTS]).detach()


def test_packed_logits_equal_those_of_single_texts(classifier, reference):
    logits = model.classify(classifier, batching.pack(TEXTS))
    torch.testing.assert_close(logits, reference, atol=1e-6, rtol=1e-5)


def test_changing_one_text_leaves_the_others_bit_identical(classifier):
    before = model.classify(classifier, batching.pack(TEXTS))
    changed = [TEXTS[0], TEXTS[1], [200, 201, 202, 203, 204, 205, 206], TEXTS[3]]
    after = model.classify(classifier, batching.pack(changed))
    assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]])
    assert not torch.equal(before[2], after[2])


@pytest.mark.parametrize("trap", [{"use_cache": True}, {"attention_mask": torch.ones(1, 15, dtype=torch.long)}])
def test_the_two_traps_would_be_noticed(tiny_base, reference, trap):
    """With transformers' own packing (positions that start again) a cache or a mask mixes the texts silently."""
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=5, dtype=torch.float32)
    pack = batching.pack(TEXTS)
    hidden = plain.model(input_ids=pack.input_ids, position_ids=pack.position_ids, **trap).last_hidden_state
    alone = [plain.model(input_ids=torch.tensor([text])).last_hidden_state[0, -1] for text in TEXTS]
    assert (hidden[0, pack.boundaries[1:].long() - 1] - torch.stack(alone)).abs().max() > 1e-3


def test_a_mask_is_refused(classifier):
    pack = batching.pack(TEXTS)
    with pytest.raises(NotImplementedError):
        classifier.model(
            input_ids=pack.input_ids,
            position_ids=pack.position_ids,
            attention_mask=torch.zeros(1, 1, 15, 15),
            boundaries=pack.boundaries,
            max_length=pack.max_length,
        )


def test_the_models_call_asks_for_no_cache(tiny_base):
    """Where transformers' own layers compute; the fused decoder has neither cache nor mask."""
    classifier, seen = model.load_classifier(tiny_base, 5, "float32", 0), {}
    decoder.use_plain(classifier)
    handle = classifier.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    model.classify(classifier, batching.pack(TEXTS))
    handle.remove()
    assert seen["use_cache"] is False
    assert "attention_mask" not in seen
    assert classifier.config.use_cache is False
