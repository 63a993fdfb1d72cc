"""Fine-tune one cell of the grid, from where an interrupted run left off."""

from lorastudy import data, evaluation, grid, logs, model, parallel, records, settings, training
from lorastudy.checkpoints import Checkpoints


def main(base, card, train, adapter, log, record, spec, execution, threads):
    """Arguments are the rule's files and settings; ``spec`` is everything that defines the cell's result."""
    import pandas as pd
    import torch

    model.offline()
    rank, processes = parallel.place()
    if execution["gpus_per_cell"] > processes:
        files = {"base": base, "card": card, "train": train, "adapter": adapter, "log": log, "record": record}
        each = max(1, threads // execution["gpus_per_cell"])
        arguments = {**files, "spec": spec, "execution": execution, "threads": each}
        return parallel.launch(parallel.SCRIPTS / "finetune_cell.py", arguments, execution["gpus_per_cell"])
    torch.set_num_threads(threads)
    cell = grid.Cell(**spec["cell"])
    classes = len(records.read_json(card)["labels"])
    inputs = evaluation.inputs(base, card)
    classifier = model.load_classifier(base, classes, spec["model"]["dtype"], cell.seed)
    lora = settings.Lora(**spec["lora"])
    peft_model = model.add_adapters(classifier, cell, lora)
    trainable, parameters = peft_model.get_nb_trainable_parameters()
    texts = data.read_split(train)
    training_settings = settings.Training(**spec["training"])
    lengths = [len(ids) for ids in texts.input_ids]
    how = training.fitted(
        settings.Execution(**execution), peft_model, cell, classes, lora.head, lengths, training_settings
    )
    checkpoints = Checkpoints(f"results/checkpoints/{cell.id}", {"spec": spec, "inputs": inputs})
    progress = training.train(
        peft_model,
        texts.input_ids,
        texts.label,
        training_settings,
        how,
        cell.seed,
        checkpoints,
    )
    if rank:
        return None  # the first process writes
    allocated, reserved, meter = training.peak_memory()
    model.save_adapters(peft_model, adapter, model.fingerprint(base))
    pd.DataFrame(progress.rows, columns=training.LOG_COLUMNS).to_csv(log, index=False)
    records.write_json(
        record,
        {
            "cell": cell.as_dict(),
            "status": progress.status,
            "diverged_step": progress.diverged_step,
            "diverged_learning_rate": progress.diverged_learning_rate,
            "trainable_parameters": trainable,
            "all_parameters": parameters,
            "trainable_percent": 100 * trainable / parameters,
            "steps": progress.step,
            "samples": progress.samples,
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "samples_per_second": progress.samples / progress.seconds,
            "tokens_per_second": progress.tokens / progress.seconds,
            "peak_memory_gib": allocated,
            "peak_reserved_gib": reserved,
            "memory_meter": meter,
            "resumes": progress.resumes,
            "micro_batch_tokens": progress.micro_batch_tokens,
            "checkpointed_layers": progress.checkpointed_layers,
            "energy_kwh": None if progress.joules is None else progress.joules / 3.6e6,
            "energy_reason": progress.energy_reason,
            "final_loss": progress.rows[-1]["loss"] if progress.rows else None,
            "provenance": records.provenance(spec, cell.seed, inputs),
        },
    )
    checkpoints.remove()
    return None


if __name__ == "__main__":
    with logs.to_file(snakemake.log[0]):
        main(
            **snakemake.input,
            **snakemake.output,
            **snakemake.params,
            execution=snakemake.config["execution"],
            threads=snakemake.threads,
        )
