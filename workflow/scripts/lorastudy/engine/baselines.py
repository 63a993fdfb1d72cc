"""Measuring the base model before fine-tuning: by its untrained head, or by prompting."""

import torch
from transformers import AutoTokenizer

from lorastudy.engine import evaluation, model
from lorastudy.inputs import base_model, data, model_files, origins
from lorastudy.jobs import evaluations, machine, staging
from lorastudy.study import records, settings


def main(baseline, base, card, test, predictions, metrics, spec, statistics, seed, execution, threads):
    """``baseline`` is ``head`` or ``prompt``; the other arguments are the rule's files and settings.

    A base model without a language-model head cannot be prompted; that baseline's record then has no metrics and says so.
    """
    base_model.offline()
    torch.set_num_threads(threads)
    tokens = settings.Execution(**execution).evaluation_tokens
    classes = len(records.read_json(card)["labels"])
    texts = data.read_split(test)
    identity = {"cell": None, "baseline": baseline, "status": "finished"}
    probability = cost = None
    if baseline == "head":
        classifier = model.load_classifier(staging.local(base), classes, spec["model"]["dtype"], seed)
        probability, cost = evaluation.probabilities(classifier, texts.input_ids, tokens)
    elif not model_files.has_language_head(base):
        identity |= {"status": "refused", "reason": model_files.NO_LANGUAGE_HEAD}
    else:
        names = records.read_json(card)["class_names"]
        prompt = settings.Prompt(spec["prompt"]["template"], spec["prompt"]["verbalizers"] or [f" {n}" for n in names])
        if len(prompt.verbalizers) != classes:
            raise evaluation.PromptError(
                f"config: `prompt.verbalizers` has {len(prompt.verbalizers)} entries for {classes} classes "
                f"({', '.join(names[:12])}); give one per class, in that order."
            )
        language_model = model.load_language_model(staging.local(base), spec["model"]["dtype"])
        probability, cost = evaluation.prompted_probabilities(
            language_model, AutoTokenizer.from_pretrained(base), texts.text, prompt, spec["data"]["max_length"], tokens
        )
    evaluations.write(
        predictions,
        metrics,
        texts,
        probability,
        statistics,
        identity,
        cost,
        records.provenance(spec, seed, origins.of(base, card), machine.hardware()),
    )
