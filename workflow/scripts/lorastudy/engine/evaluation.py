"""Predictions of a classifier, and of the base model asked in words."""

import logging
import time

import numpy as np
import torch

from lorastudy.engine import batching, model, training
from lorastudy.inputs import base_model, data
from lorastudy.study.errors import StudyError

log = logging.getLogger("lorastudy")


class PromptError(StudyError):
    """A prompt or verbalizers that cannot be used."""


def probabilities(classifier, texts, tokens_a_pack):
    """Probability of each class for each text.

    Args:
        classifier: of ``model.load_classifier``, with or without adapters.
        texts: token ids of each text.
        tokens_a_pack: tokens of one forward pass.

    Returns:
        float64 array, shape (texts, classes), in the order of ``texts``; and a dictionary of seconds,
        tokens_per_second and peak_memory_gib.
    """
    model.set_training(classifier, False)
    logits, cost = _over_packs(texts, tokens_a_pack, lambda pack: model.classify(classifier, pack))
    return softmax(logits), cost


def of_splits(classifier, splits, tokens_a_pack):
    """``probabilities`` of each split that has texts.

    Args:
        splits: name → ``data.Texts``; ``test`` among them, and with texts.

    Returns:
        Dictionary name → array, and what the test texts took.
    """
    found = {
        name: probabilities(classifier, texts.input_ids, tokens_a_pack) for name, texts in splits.items() if len(texts)
    }
    return {name: values for name, (values, _) in found.items()}, found["test"][1]


def prompted_probabilities(language_model, tokenizer, texts, prompt, max_length, tokens_a_pack):
    """Probability of each class from the log-likelihood of its verbalizer after the prompt (Brown et al. 2020, section 2.4).

    A beginning that all verbalizers share says nothing about the class and is read as part of the prompt. Where one
    token a class is left, as with digits, every class is read off one forward pass of the prompt.

    Args:
        texts: the texts themselves.
        prompt: ``settings.Prompt``.
        max_length: tokens that the prompt keeps; the text is cut, never the words around it.

    Returns:
        as ``probabilities``.
    """
    prompts, _ = data.encode(tokenizer, prompt.template, texts, max_length)
    verbalizers = [tokenizer.encode(word, add_special_tokens=False) for word in prompt.verbalizers]
    shared = 0
    while len({tuple(tokens[: shared + 1]) for tokens in verbalizers}) == 1 and shared < min(map(len, verbalizers)) - 1:
        shared += 1
    prompts = [[*tokens, *verbalizers[0][:shared]] for tokens in prompts]
    endings = [tokens[shared:] for tokens in verbalizers]
    if len({tuple(tokens) for tokens in endings}) < len(endings):
        raise PromptError(
            f"config: `prompt.verbalizers` {list(prompt.verbalizers)} are not all different as tokens; choose others."
        )
    head = language_model.get_output_embeddings()
    known = language_model.get_input_embeddings().weight.shape[0]
    data.require_known(tokenizer, [*prompts, *endings], known, "the prompts have")
    if all(len(tokens) == 1 for tokens in endings):
        wanted = torch.tensor([tokens[0] for tokens in endings], device=head.weight.device)
        scores, cost = _over_packs(
            prompts,
            tokens_a_pack,
            lambda pack: head(model.last_hidden_states(language_model, pack)).float().log_softmax(-1)[:, wanted],
        )
        return softmax(scores), cost
    scores = np.zeros((len(texts), len(endings)))
    spent = []
    for column, tokens in enumerate(endings):
        for position, token in enumerate(tokens):
            extended = [[*start, *tokens[:position]] for start in prompts]
            part, cost = _over_packs(
                extended,
                tokens_a_pack,
                lambda pack, token=token: (
                    head(model.last_hidden_states(language_model, pack)).float().log_softmax(-1)[:, [token]]
                ),
            )
            scores[:, column] += part[:, 0]
            spent.append(cost)
    seconds = sum(cost["seconds"] for cost in spent)
    tokens = sum(cost["seconds"] * cost["tokens_per_second"] for cost in spent)
    return softmax(scores), {
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_gib": spent[-1]["peak_memory_gib"],
    }


def _over_packs(texts, tokens_a_pack, compute):
    """Apply ``compute`` (pack → (texts of the pack, columns)) to all texts, long ones first, results in their order."""
    device = base_model.device()
    lengths = [len(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (-lengths[i], i))
    groups, filled = [], 0
    for index in order:
        if not groups or filled + lengths[index] > tokens_a_pack:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += lengths[index]
    results = [None] * len(groups)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the peak of this and not of a training before it
    begun = time.monotonic()
    with torch.inference_mode():
        for number, group in enumerate(groups):
            results[number] = compute(batching.pack([texts[i] for i in group], device)).float().cpu().numpy()
            log.info("evaluated %d of %d packs, %.1f s", number + 1, len(groups), time.monotonic() - begun)
    seconds = time.monotonic() - begun
    values = np.empty((len(texts), results[0].shape[1]))
    for group, result in zip(groups, results, strict=True):
        values[group] = result
    return values, {
        "seconds": seconds,
        "tokens_per_second": sum(lengths) / seconds,
        "peak_memory_gib": training.peak_memory()[0],
    }


def softmax(scores):
    """Probabilities of rows of scores, float64."""
    scores = np.asarray(scores, dtype=np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
