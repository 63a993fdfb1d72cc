"""Evaluate one fine-tuned cell on the test texts."""

from lorastudy import data, evaluation, logs, model, records, settings


def main(base, card, test, adapter, record, predictions, metrics, spec, statistics, execution, threads):
    """Arguments are the rule's files and settings. A cell that diverged gets a record without metrics."""
    import torch

    model.offline()
    torch.set_num_threads(threads)
    classes = len(records.read_json(card)["labels"])
    status = records.read_json(record)["status"]
    texts = data.read_split(test)
    probability = cost = None
    if status == "finished":
        classifier = model.load_classifier(base, classes, spec["model"]["dtype"], spec["cell"]["seed"])
        tokens = settings.Execution(**execution).evaluation_tokens
        probability, cost = evaluation.probabilities(model.load_adapters(classifier, adapter), texts.input_ids, tokens)
    evaluation.write(
        predictions,
        metrics,
        texts,
        probability,
        statistics,
        {"cell": spec["cell"], "status": status},
        cost,
        records.provenance(spec, spec["cell"]["seed"], evaluation.inputs(base, card)),
    )


if __name__ == "__main__":
    with logs.to_file(snakemake.log[0]):
        main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
        )
