"""The shape of the large model with random weights, and the projected cost of the paper's study."""

import pandas as pd
from lorastudy.analysis import ratios
from lorastudy.inputs import sources
from lorastudy.planning import check, projection
from lorastudy.presentation.figures import style
from lorastudy.study import architecture, grid, paper, records

from sections import studies

NAME = "llama3-8b-rehearsal"
H100, A100 = "H100 80 GB", "A100 40 GB"


def page():
    """Its paragraphs and tables."""
    study = studies.settings_of(studies.HERE / NAME)
    full = studies.settings_of(studies.REPOSITORY)
    summary = studies.read(NAME, "summary.csv")
    cells = summary[summary.kind.eq("cell")]
    done = cells[cells.status.eq("finished")]
    card = records.read_json(studies.HERE / NAME / "card.json")
    steps, whole = int(done.steps.iloc[0]), -(-full.data.train_size // full.training.batch_size)
    measured = [
        {
            "cell": f"{style.METHODS[row.method]}, {style.TARGETS[row.targets]}, r = {row.r:.0f}",
            "training, s": f"{row.seconds:.1f}", "tokens/s": f"{row.tokens_per_second:,.0f}",
            "peak memory, GiB": f"{row.peak_memory_gib:.1f}", "GPU energy, Wh": f"{1000 * row.energy_kwh:.1f}",
            "evaluation, tokens/s": f"{row.evaluation_tokens_per_second:,.0f}",
        }
        for row in done.itertuples()
    ]  # fmt: skip
    return [
        "# Llama-3-8B's shape: the rehearsal",
        f"{study.study.name}. {len(done)} cells of one run each, one after the other on an {done.device.iloc[0]}: "
        f"{steps} steps of {study.training.batch_size} texts, where the paper's cells have {whole:,} of "
        f"{full.training.batch_size}; texts of "
        f"{card['splits']['train']['length_tokens']['mean']:.0f} tokens on average ({card['lengths']}). **Accuracy is "
        "meaningless here**; time and memory do not depend on the weights' values.",
        studies.table(measured),
        "Beside the paper's values: [`table1_hardware.md`](paper_tables/table1_hardware.md) and, by method, "
        "[`table3_memory_by_method.md`](paper_tables/table3_memory_by_method.md).",
        "## The paper's study, projected",
        *projected(done),
    ]


def starts(summary):
    """Seconds of a cell's two jobs besides training and evaluation, mean over the cells of each method."""
    found = {}
    for cell in summary.itertuples():
        files = [studies.HERE / NAME / "benchmarks" / f"{cell.id}.{step}.tsv" for step in ("finetune", "evaluate")]
        wall = sum(pd.read_csv(file, sep="\t").s.iloc[0] for file in files)
        found.setdefault(cell.method, []).append(wall - cell.seconds - cell.evaluation_seconds)
    return {method: sum(values) / len(values) for method, values in found.items()}


def projected_hours():
    """Hours of each cell of the paper's study on two GPUs (``projection.hours``), and these GPUs."""
    study, full = studies.settings_of(studies.HERE / NAME), studies.settings_of(studies.REPOSITORY)
    done = studies.read(NAME, "summary.csv").query("kind == 'cell' and status == 'finished'")
    shape, classes = architecture.named(study.model.name), len(full.data.labels)
    cells = {
        cell: paper.trainable_parameters(shape, classes, cell.targets, full.lora.head, cell.r)
        for cell in grid.cells(full.grid).values()
    }
    known = {device.name: device for device in check.known_gpus()}
    devices = [known[H100], known[A100]]
    mean = sources.expected_length(full.data)
    table_of = projection.hours(
        done, starts(done), cells, shape, devices,
        trained=(mean, full.data.train_size * full.training.epochs), batch_size=full.training.batch_size,
        evaluated=mean * (full.data.test_size + full.data.validation_size),
    )  # fmt: skip
    return table_of, devices


def paper_hours(table_of):
    """Hours that the paper's Table 1 implies, by method: one fine-tuning time for every cell."""
    one = table_of[table_of.device.eq(table_of.device.iloc[0])]
    minutes = paper.table(1).set_index("method").finetune_time_min
    return {method: one.method.eq(method).sum() * minutes[method] / 60 for method in minutes.index}


def projected(done):
    """GPU-hours and energy of the cells that the paper's Table 1 implies, on two GPUs, against its own."""
    full, (table_of, devices) = studies.settings_of(studies.REPOSITORY), projected_hours()
    watts = 3.6e6 * done.energy_kwh.sum() / done.seconds.sum()
    stated, rows = paper_hours(table_of), []
    for device in devices:
        by_method = table_of[table_of.device.eq(device.name)].groupby("method").hours.sum()
        power = watts if device is devices[0] else device.watts
        rows.append(row_of_hours(f"{device.name}, projected", dict(by_method), by_method.sum() * power / 1000))
    rows.append(row_of_hours(f"{A100}, the paper's Table 1", stated))
    a100 = table_of[table_of.device.eq(A100)]
    return [
        studies.table(rows),
        f"On the A100 that is {a100.hours.sum() / sum(stated.values()):.3f} of the paper's hours. How it was projected: "
        f"{len(a100)} cells of {full.data.train_size:,} training, {full.data.test_size:,} test and "
        f"{full.data.validation_size:,} validation texts, {sources.expected_length(full.data):.0f} tokens each (the prior that "
        "`check` uses until the data is prepared); the measured time of a token, although the paper's steps have fewer and a "
        "GPU is slower on small ones; linear in the trainable parameters between the ranks measured; steps extrapolated "
        "linearly, first ones included; evaluation at the measured speed; imports, loading and writing of both jobs of a cell as measured. On "
        f"the A100 time is longer by the ratio of the dense bfloat16 peaks, {devices[0].flops / devices[1].flops:.2f}, and by the "
        f"layers computed again where 40 GB are too few ({a100.checkpointed_layers.gt(0).sum()} of {len(a100)} cells). Energy: "
        f"on the H100 the {watts:.0f} W that its meter showed in training, on the A100 its board's {devices[1].watts} W "
        "throughout. **The A100 itself was not at hand.**",
    ]


def row_of_hours(name, hours, energy=None):
    """A row of the projection's table."""
    of_methods = {f"{style.METHODS[method]}, GPU-hours": f"{hours[method]:.1f}" for method in hours}
    both = f"{sum(hours[method] for method in hours):.1f}"
    return {"": name, **of_methods, "both": both, "energy, kWh": "–" if energy is None else f"{energy:.1f}"}


def headline(results):
    """What is said of it in short; ``results``: where its page is."""
    hours, devices = projected_hours()
    sums, stated = hours.groupby("device").hours.sum(), paper_hours(hours)
    pairs = ratios.matched(studies.read(NAME, "summary.csv").query("kind == 'cell'"), "seconds")
    slower = pairs.qlora / pairs.lora
    return (
        f"At the shape of Llama-3-8B, from [a rehearsal with random weights]({results}{NAME}/): the paper's {len(hours) // len(devices)} cells "
        f"project to {sums[H100]:.1f} GPU-hours on an {H100} and {sums[A100]:.1f} on an {A100}; its Table 1 implies "
        f"{sum(stated.values()):.0f} on the latter. QLoRA took {slower.min():.2f} to "
        f"{slower.max():.2f} times as long as LoRA in {len(pairs)} pairs of cells; in that table it takes "
        f"{stated['qlora'] / stated['lora']:g} times as long."
    )
