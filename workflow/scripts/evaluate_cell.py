"""Evaluate one fine-tuned cell on the test texts."""

from lorastudy.inputs import base_model, data, origins
from lorastudy.jobs import evaluations, machine, outputs, predicted, running, staging
from lorastudy.statistics import metrics as scores
from lorastudy.study import grid, records, settings


def main(base, card, validation, test, adapter, record, predictions, metrics, spec, statistics, execution, threads):
    """Arguments are the rule's files and settings. A cell that diverged gets a record without metrics.

    The validation texts, where there are any, are only for choosing a learning rate: nothing else is read off them.
    """
    base_model.offline()
    status = records.read_json(record)["status"]
    seed = settings.Training(**spec["training"]).seed + spec["cell"]["seed"]
    inputs = origins.of(base, card)
    texts = {"test": data.read_split(test), "validation": data.read_split(validation)}
    finished = outputs.Finished(grid.Cell(**spec["cell"]).id)
    found, cost, provenance = {}, None, None
    if status == "finished":
        tokens = settings.Execution(**execution).evaluation_tokens
        known = finished.matches(spec, inputs) and predicted.kept(finished.kept, adapter, tokens)
        classes = len(records.read_json(card)["labels"])
        found, cost, provenance = known or predict(base, classes, adapter, texts, spec, seed, tokens, threads)
    on_validation = scores.summary(texts["validation"].label, found["validation"]) if "validation" in found else None
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
    # only now, for it takes seconds and most cells have been predicted by the job that trained them
    import torch
    from lorastudy.engine import evaluation, model

    torch.set_num_threads(threads)
    classifier = model.load_classifier(staging.local(base), classes, spec["model"]["dtype"], seed)
    classifier = model.load_adapters(classifier, adapter)
    return *evaluation.of_splits(classifier, texts, tokens), None


if __name__ == "__main__":
    with running.of_cell("evaluate", snakemake.wildcards.cell, snakemake.log[0], snakemake.resources.gpu_mem_mb):
        main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
        )
