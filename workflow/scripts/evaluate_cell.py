"""Evaluate one fine-tuned cell on the test texts."""

from lorastudy.engine import evaluation, model
from lorastudy.inputs import base_model, data
from lorastudy.jobs import outputs, running, staging
from lorastudy.statistics import metrics as scores
from lorastudy.study import grid, records, settings


def main(base, card, validation, test, adapter, record, predictions, metrics, spec, statistics, execution, threads):
    """Arguments are the rule's files and settings. A cell that diverged gets a record without metrics.

    The validation texts, where there are any, are only for choosing a learning rate: nothing else is read off them.
    """
    import torch

    base_model.offline()
    torch.set_num_threads(threads)
    classes = len(records.read_json(card)["labels"])
    status = records.read_json(record)["status"]
    seed = settings.Training(**spec["training"]).seed + spec["cell"]["seed"]
    texts = data.read_split(test)
    selection = data.read_split(validation)
    probability = cost = on_validation = None
    if status == "finished":
        classifier = model.load_classifier(staging.local(base), classes, spec["model"]["dtype"], seed)
        tokens = settings.Execution(**execution).evaluation_tokens
        classifier = model.load_adapters(classifier, adapter)
        probability, cost = evaluation.probabilities(classifier, texts.input_ids, tokens)
        if len(selection):
            on_validation = scores.summary(
                selection.label, evaluation.probabilities(classifier, selection.input_ids, tokens)[0]
            )
    with records.replacing(metrics) as own_metrics, records.replacing(predictions) as own_predictions:
        evaluation.write(
            own_predictions,
            own_metrics,
            texts,
            probability,
            statistics,
            {"cell": spec["cell"], "status": status, "validation": on_validation},
            cost,
            records.provenance(spec, seed, evaluation.inputs(base, card)),
        )
    outputs.Finished(grid.Cell(**spec["cell"]).id).remove()


if __name__ == "__main__":
    with running.of_cell("evaluate", snakemake.wildcards.cell, snakemake.log[0], snakemake.resources.gpu_mem_mb):
        main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
        )
