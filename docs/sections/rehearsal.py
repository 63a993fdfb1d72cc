"""The shape of the large model with random weights, and the projected cost of the paper's study."""

import pandas as pd
from lorastudy.analysis import ratios
from lorastudy.inputs import sources
from lorastudy.planning import check, projection
from lorastudy.presentation.figures import style
from lorastudy.study import architecture, grid, paper, reconstruction, records

from sections import studies

NAME = "llama3-8b-rehearsal"
H100, A100 = "H100 80 GB", "A100 40 GB"


def page():
    """Its paragraphs and tables."""
    study = studies.settings_of(studies.HERE / NAME)
    full = studies.settings_of(studies.REPOSITORY)
    done = measured()
    card = records.read_json(studies.HERE / NAME / "card.json")
    steps, whole = int(done.steps.iloc[0]), -(-full.data.train_size // full.training.batch_size)
    rows = [
        {
            "cell": f"{style.METHODS[row.method]}, {style.TARGETS[row.targets]}, r = {row.r:.0f}",
            "training, s": f"{row.whole:.1f}", "tokens/s": f"{row.tokens / row.whole:,.0f}",
            "tokens/s, even": f"{row.tokens / row.seconds:,.0f}",
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
        f"{card['splits']['train']['length_tokens']['mean']:.0f} tokens on average ({card['lengths']}; the study keeps {study.data.max_length}). **Accuracy is "
        f"meaningless here**; time and memory do not depend on the weights' values. {studies.origin(done)}",
        studies.table(rows),
        EVEN if has_logs() else "Without the logs of the steps, even is all of them.",
        "Beside the paper's values: [`table1_hardware.md`](paper_tables/table1_hardware.md) and, by method, "
        "[`table3_memory_by_method.md`](paper_tables/table3_memory_by_method.md).",
        "## The paper's study, projected",
        *projected(done),
    ]


EVEN = (
    "Even: by the second half of the steps. The first ones wait for kernels to be compiled and passes to be recorded, which "
    "a cell does once, however many steps it has."
)


def has_logs():
    return (studies.HERE / NAME / "curves.csv").exists()


def measured():
    """The finished cells. ``seconds`` is what their steps take when they run evenly, ``whole`` what they took.

    By the second half of each log; without logs both are the same.
    """
    cells = studies.read(NAME, "summary.csv").query("kind == 'cell' and status == 'finished'")
    cells = cells.assign(whole=cells.seconds)
    if not has_logs():
        return cells
    each = {name: _seconds_a_token(log) for name, log in studies.read(NAME, "curves.csv").groupby("id")}
    return cells.assign(seconds=cells.tokens * cells.id.map(each))


def _seconds_a_token(log):
    half = log[log.step.ge(log.step.max() / 2)]
    return (half.seconds.iloc[-1] - half.seconds.iloc[0]) / (half.tokens.iloc[-1] - half.tokens.iloc[0])


def starts(cells):
    """Seconds of a cell's two jobs besides even training and evaluation, mean over the cells of each method."""
    found = {}
    for cell in cells.itertuples():
        files = [studies.HERE / NAME / "benchmarks" / f"{cell.id}.{step}.tsv" for step in ("finetune", "evaluate")]
        wall = sum(pd.read_csv(file, sep="\t").s.iloc[0] for file in files)
        found.setdefault(cell.method, []).append(wall - cell.seconds - cell.evaluation_seconds)
    return {method: sum(values) / len(values) for method, values in found.items()}


def projected_hours():
    """Hours of each cell of the paper's study on two GPUs (``projection.hours``), and these GPUs."""
    study, full = studies.settings_of(studies.HERE / NAME), studies.settings_of(studies.REPOSITORY)
    done = measured()
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


def code_hours(key, cells):
    """Hours of the paper's own code, put together again, on the GPU where it was timed: training alone, each cell as at r = 8."""
    code = reconstruction.Reconstruction.committed()
    variants = {"lora": reconstruction.LORA, "qlora": key}
    return {method: cells[method] * code.minutes(variant) / 60 for method, variant in variants.items()}


def projected(done):
    """GPU-hours and energy of the cells that the paper's Table 1 implies, on two GPUs, against its own and its code's."""
    table_of, devices = projected_hours()
    watts = 3.6e6 * done.energy_kwh.sum() / done.whole.sum()
    stated, rows = paper_hours(table_of), []
    for device in devices:
        by_method = table_of[table_of.device.eq(device.name)].groupby("method").hours.sum()
        power = watts if device is devices[0] else device.watts
        rows.append(row_of_hours(f"{device.name}, projected", dict(by_method), by_method.sum() * power / 1000))
    cells = table_of[table_of.device.eq(A100)].method.value_counts()
    rows += [
        row_of_hours(f"{H100}, the paper's code, {how}", code_hours(key, cells))
        for how, key in (
            ("as loaded", reconstruction.AS_LOADED), ("prepared for training", reconstruction.PREPARED)
        )
    ]  # fmt: skip
    rows.append(row_of_hours(f"{A100}, the paper's Table 1", stated))
    return [studies.table(rows), how_projected(table_of, devices, stated, watts)]


def how_projected(table_of, devices, stated, watts):
    """What the projection rests on."""
    full, a100 = studies.settings_of(studies.REPOSITORY), table_of[table_of.device.eq(A100)]
    alike = full.training.batch_size == studies.settings_of(studies.HERE / NAME).training.batch_size
    each = (
        "at the paper's own batch"
        if alike
        else "although the paper's steps have fewer and a GPU is slower on small ones"
    )
    steps = (
        "steps by the second half of those measured, and what the first ones took longer once"
        if has_logs()
        else "steps extrapolated linearly, first ones included"
    )
    return (
        f"On the A100 that is {a100.hours.sum() / sum(stated.values()):.3f} of the paper's hours. How it was projected: "
        f"{len(a100)} cells of {full.data.train_size:,} training, {full.data.test_size:,} test and "
        f"{full.data.validation_size:,} validation texts, {sources.expected_length(full.data):.0f} tokens each (the prior that "
        f"`check` uses until the data is prepared); the measured time of a token, {each}; linear in the trainable parameters "
        f"between the ranks measured; {steps}; evaluation at the measured speed; imports, loading and writing of both jobs of "
        f"a cell as measured. On the A100 time is longer by the ratio of the dense bfloat16 peaks, "
        f"{devices[0].flops / devices[1].flops:.2f}, and by the layers computed again where 40 GB are too few "
        f"({a100.checkpointed_layers.gt(0).sum()} of {len(a100)} cells). Energy: on the H100 the {watts:.0f} W that its meter "
        f"showed in training, on the A100 its board's {devices[1].watts} W throughout. **The A100 itself was not at hand.** The "
        "paper's code: `benchmarks/paper_code.py` put it together again and timed it at r = 8 on all linear layers "
        "([`docs/paper.md`](../../paper.md)); training alone, every cell as that one."
    )


def row_of_hours(name, hours, energy=None):
    """A row of the projection's table."""
    of_methods = {f"{style.METHODS[method]}, GPU-hours": f"{hours[method]:.1f}" for method in hours}
    both = f"{sum(hours[method] for method in hours):.1f}"
    return {"": name, **of_methods, "both": both, "energy, kWh": "–" if energy is None else f"{energy:.1f}"}


def headline(results):
    """What is said of it in short; ``results``: where its page is."""
    hours, devices = projected_hours()
    sums, stated = hours.groupby("device").hours.sum(), paper_hours(hours)
    pairs = ratios.matched(measured(), "seconds")
    slower = pairs.qlora / pairs.lora
    return (
        f"At the shape of Llama-3-8B, from [a rehearsal with random weights]({results}{NAME}/): the paper's {len(hours) // len(devices)} cells "
        f"project to {sums[H100]:.1f} GPU-hours on an {H100} and {sums[A100]:.1f} on an {A100}; its Table 1 implies "
        f"{sum(stated.values()):.0f} on the latter. QLoRA took {slower.min():.2f} to "
        f"{slower.max():.2f} times as long as LoRA in {len(pairs)} pairs of cells; in that table it takes "
        f"{stated['qlora'] / stated['lora']:g} times as long."
    )
