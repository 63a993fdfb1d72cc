"""Evaluate one fine-tuned cell on the test texts."""

from contextlib import nullcontext

from lorastudy.inputs import base_model, data, origins
from lorastudy.jobs import devices, evaluations, machine, outputs, predicted, running, staging
from lorastudy.statistics import metrics as scores
from lorastudy.study import grid, records, settings


def main(
    base, card, validation, test, adapter, record, predictions, metrics, spec, statistics, execution, threads, gpu=0
):
    """Arguments are the rule's files and settings. A cell that diverged gets a record without metrics.

    ``gpu`` is the memory in MB that it has of a GPU where it has to predict: most cells have been predicted by the job
    that trained them, and then no GPU is taken from others. The validation texts, where there are any, are only for
    choosing a learning rate: nothing else is read off them.
    """
    base_model.offline()
    status = records.read_json(record)["status"]
    seed = settings.Training(**spec["training"]).seed + spec["cell"]["seed"]
    inputs = origins.of(base, card)
    texts = {"test": data.read_split(test), "validation": data.read_split(validation)}
    finished = outputs.Finished(grid.Cell(**spec["cell"]).id)
    tokens = settings.Execution(**execution).evaluation_tokens
    known = status == "finished" and finished.matches(spec, inputs) and predicted.kept(finished.kept, adapter, tokens)
    with nullcontext() if known or not gpu else devices.claimed(gpu):
        found, cost, provenance = known or ({}, None, None)
        if status == "finished" and not known:
            classes = len(records.read_json(card)["labels"])
            found, cost = predict(base, classes, adapter, texts, spec, seed, tokens, threads)
        validated = "validation" in found
        on_validation = scores.summary(texts["validation"].label, found["validation"]) if validated else None
        with records.replacing(metrics) as own_metrics, records.replacing(predictions) as own_predictions:
            evaluations.write(
                own_predictions,
                own_metrics,
                texts["test"],
                found.get("test"),
                statistics,
                {"cell": spec["cell"], "status": status, "validation": on_validation},
                cost,
                provenance or records.provenance(spec, seed, inputs, machine.hardware()),
            )
    finished.remove()


def predict(base, classes, adapter, texts, spec, seed, tokens, threads):
    """Probabilities of each split that has texts, and what the test texts took; the model is loaded for it."""
    # only now, for it takes seconds and is seldom needed; CUDA keeps to the GPUs that it sees when it is imported
    import torch
    from lorastudy.engine import evaluation, model

    torch.set_num_threads(threads)
    classifier = model.load_classifier(staging.local(base), classes, spec["model"]["dtype"], seed)
    classifier = model.load_adapters(classifier, adapter)
    return evaluation.of_splits(classifier, texts, tokens)


if __name__ == "__main__":
    with running.of_cell("evaluate", snakemake.wildcards.cell, snakemake.log[0]):
        main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
            gpu=snakemake.resources.gpu_mem_mb,
        )
