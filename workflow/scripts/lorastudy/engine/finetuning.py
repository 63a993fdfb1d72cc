"""Fine-tuning a cell of the grid, from where an interrupted run left off."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from lorastudy.engine import deferred, evaluation, model, parallel, training
from lorastudy.engine.checkpoints import Checkpoints
from lorastudy.inputs import base_model, data, origins
from lorastudy.jobs import machine, outputs, predicted, staging
from lorastudy.study import grid, measurements, records, settings


@deferred.compilation()
def main(base, card, train, adapter, log, record, spec, execution, threads, held=None):
    """Arguments are the rule's files and settings; ``spec`` is everything that defines the cell's result.

    ``held`` is the cell's lease: nothing is put in place once another job has taken it over.
    """
    base_model.offline()
    rank, processes = parallel.rank_and_size()
    if execution["gpus_per_cell"] > processes:
        files = {"base": base, "card": card, "train": train, "adapter": adapter, "log": log, "record": record}
        each = max(1, threads // execution["gpus_per_cell"])
        arguments = {**files, "spec": spec, "execution": execution, "threads": each}
        return parallel.launch(__file__, arguments, execution["gpus_per_cell"])
    torch.set_num_threads(threads)
    cell = grid.Cell(**spec["cell"])
    inputs = origins.of(base, card)
    declared = {"adapter": adapter, "training_log.csv": log, outputs.RECORD: record}
    finished = outputs.Finished(cell.id)
    if finished.matches(spec, inputs):
        finished.put(declared)
        return None
    base = staging.local(base)
    checkpoints = Checkpoints(f"results/checkpoints/{cell.id}", {"spec": spec, "inputs": inputs})
    classes = len(records.read_json(card)["labels"])
    peft_model, progress = trained(cell, spec, base, data.read_split(train), classes, execution, checkpoints)
    if rank:
        return None  # the first process writes
    outcome = measured(peft_model, progress, execution["gpus_per_cell"])  # before anything else takes memory
    seed = settings.Training(**spec["training"]).seed + cell.seed
    provenance = records.provenance(spec, seed, inputs, machine.hardware())
    own = finished.begin()
    model.save_adapters(peft_model, own / "adapter", base_model.fingerprint(base))
    pd.DataFrame(progress.rows, columns=training.LOG_COLUMNS).to_csv(own / "training_log.csv", index=False)
    records.write_json(own / outputs.RECORD, {"cell": cell.as_dict(), **asdict(outcome), "provenance": provenance})
    if held:
        held.check()
    finished.keep()
    finished.put(declared)
    checkpoints.remove()
    if progress.status == "finished":
        predict(peft_model, Path(train).parent, execution["evaluation_tokens"], finished, provenance)
    return None


def trained(cell, spec, base, texts, classes, execution, checkpoints):
    """The model with the cell's adapters, trained from its last checkpoint on, and ``training.Progress``."""
    hyper = settings.Training(**spec["training"])
    lora = settings.Lora(**spec["lora"])
    seed = hyper.seed + cell.seed
    initial = seed if hyper.initial_seed is None else hyper.initial_seed
    order = seed if hyper.order_seed is None else hyper.order_seed
    classifier = model.load_classifier(base, classes, spec["model"]["dtype"], initial)
    peft_model = model.add_adapters(classifier, cell, lora, initial)
    trainable, _ = model.trainable(peft_model)
    # float32 masters and two moments
    base_model.require_space("results", checkpoints.room(12 * trainable), f"the checkpoints of {cell.id}")
    lengths = [len(ids) for ids in texts.input_ids]
    how = training.fitted(settings.Execution(**execution), peft_model, cell, classes, lora.head, lengths, hyper)
    return peft_model, training.train(peft_model, texts.input_ids, texts.label, hyper, how, order, checkpoints)


def predict(classifier, splits, tokens, finished, provenance):
    """Predict the texts of the evaluation while the model is at hand, and keep that for it (``jobs.predicted``).

    The texts are no input of the rule: cells are not trained again when they change, only evaluated.
    """
    texts = {split: data.read_split(splits / f"{split}.parquet") for split in predicted.SPLITS}
    found, cost = evaluation.of_splits(classifier, texts, tokens)
    predicted.keep(finished.kept, found, tokens, cost, provenance)


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
