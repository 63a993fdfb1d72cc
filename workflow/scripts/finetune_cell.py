"""Fine-tune one cell of the grid, from where an interrupted run left off."""

from dataclasses import asdict
from pathlib import Path

from lorastudy.engine import evaluation, model, parallel, training
from lorastudy.engine.checkpoints import Checkpoints
from lorastudy.inputs import base_model, data, origins
from lorastudy.jobs import outputs, predicted, running, staging
from lorastudy.study import grid, measurements, records, settings


def main(base, card, train, adapter, log, record, spec, execution, threads, held=None):
    """Arguments are the rule's files and settings; ``spec`` is everything that defines the cell's result.

    ``held`` is the cell's lease: nothing is put in place once another job has taken it over.
    """
    import pandas as pd
    import torch

    base_model.offline()
    rank, processes = parallel.place()
    if execution["gpus_per_cell"] > processes:
        files = {"base": base, "card": card, "train": train, "adapter": adapter, "log": log, "record": record}
        each = max(1, threads // execution["gpus_per_cell"])
        arguments = {**files, "spec": spec, "execution": execution, "threads": each}
        return parallel.launch(parallel.SCRIPTS / "finetune_cell.py", arguments, execution["gpus_per_cell"])
    torch.set_num_threads(threads)
    cell = grid.Cell(**spec["cell"])
    classes = len(records.read_json(card)["labels"])
    inputs = origins.of(base, card)
    places = {"adapter": adapter, "training_log.csv": log, outputs.RECORD: record}
    finished = outputs.Finished(cell.id)
    if finished.matches(spec, inputs):
        finished.put(places)
        return None
    base = staging.local(base)
    hyper = settings.Training(**spec["training"])
    seed = hyper.seed + cell.seed
    initial = seed if hyper.initial_seed is None else hyper.initial_seed
    lora = settings.Lora(**spec["lora"])
    classifier = model.load_classifier(base, classes, spec["model"]["dtype"], initial)
    peft_model = model.add_adapters(classifier, cell, lora, initial)
    trainable, _ = model.trainable(peft_model)
    checkpoints = Checkpoints(f"results/checkpoints/{cell.id}", {"spec": spec, "inputs": inputs})
    # float32 masters and two moments
    base_model.require_space("results", checkpoints.room(12 * trainable), f"the checkpoints of {cell.id}")
    texts = data.read_split(train)
    lengths = [len(ids) for ids in texts.input_ids]
    how = training.fitted(settings.Execution(**execution), peft_model, cell, classes, lora.head, lengths, hyper)
    progress = training.train(
        peft_model,
        texts.input_ids,
        texts.label,
        hyper,
        how,
        seed if hyper.order_seed is None else hyper.order_seed,
        checkpoints,
    )
    if rank:
        return None  # the first process writes
    outcome = measured(peft_model, progress, execution["gpus_per_cell"])  # before anything else takes memory
    provenance = records.provenance(spec, seed, inputs)
    own = finished.begin()
    model.save_adapters(peft_model, own / "adapter", base_model.fingerprint(base))
    pd.DataFrame(progress.rows, columns=training.LOG_COLUMNS).to_csv(own / "training_log.csv", index=False)
    records.write_json(own / outputs.RECORD, {"cell": cell.as_dict(), **asdict(outcome), "provenance": provenance})
    if held:
        held.check()
    finished.keep()
    finished.put(places)
    checkpoints.remove()
    if progress.status == "finished":
        predict(peft_model, Path(train).parent, how.evaluation_tokens, finished, provenance)
    return None


def predict(classifier, splits, tokens, finished, provenance):
    """Predict the texts of the evaluation while the model is at hand, and keep that for it (``jobs.predicted``).

    The texts are no input of the rule: cells are not trained again when they change, only evaluated.
    """
    found, costs = {}, {}
    for split in predicted.SPLITS:
        texts = data.read_split(splits / f"{split}.parquet")
        if len(texts):
            found[split], costs[split] = evaluation.probabilities(classifier, texts.input_ids, tokens)
    predicted.keep(finished.kept, found, tokens, costs["test"], provenance)


def measured(peft_model, progress, gpus):
    """What the training took and how it ended, as the cell's record has it."""
    trainable, parameters = model.trainable(peft_model)
    allocated, reserved, meter = training.peak_memory()
    shared = progress.gpu_processes or 1
    return measurements.Training(
        status=progress.status,
        diverged_step=progress.diverged_step,
        diverged_learning_rate=progress.diverged_learning_rate,
        trainable_parameters=trainable,
        all_parameters=parameters,
        trainable_percent=100 * trainable / parameters,
        steps=progress.step,
        samples=progress.samples,
        tokens=progress.tokens,
        seconds=progress.seconds,
        samples_per_second=progress.samples / progress.seconds,
        tokens_per_second=progress.tokens / progress.seconds,
        peak_memory_gib=allocated,
        peak_reserved_gib=reserved,
        memory_meter=meter,
        gpus=gpus,
        resumes=progress.resumes,
        micro_batch_tokens=progress.micro_batch_tokens,
        checkpointed_layers=progress.checkpointed_layers,
        gpu_processes=progress.gpu_processes,
        energy_kwh=None if progress.joules is None else progress.joules / 3.6e6 / shared,
        energy_reason=progress.energy_reason,
        final_loss=progress.rows[-1]["loss"] if progress.rows else None,
    )


if __name__ == "__main__":
    with running.of_cell(
        "finetune", snakemake.wildcards.cell, snakemake.log[0], snakemake.resources.gpu_mem_mb
    ) as held:
        main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
            held=held,
        )
