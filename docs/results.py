"""Write docs/results/README.md, and the README's block of results, from the records in docs/results.

python docs/results.py                              from the records that are there
python docs/results.py --take examples/smollm2 …    first takes those of finished studies
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "workflow" / "scripts"))

import pandas as pd  # noqa: E402
import yaml  # noqa: E402
from lorastudy import check, grid, paper, projection, settings  # noqa: E402
from lorastudy.figures import panels, style  # noqa: E402

HERE = REPOSITORY / "docs" / "results"
GRID, RATES, REHEARSAL = "smollm2", "smollm2-learning-rates", "llama3-8b-rehearsal"
OF_CELLS = [
    "config.yaml", "results/summary.csv", "results/points.csv", "results/comparisons.csv", "paper_tables/claims.csv",
    "paper_tables/*.md", "figures/*.png", "report.html", "logs/gpu.csv",
]  # fmt: skip
TAKEN = {
    GRID: OF_CELLS,
    RATES: OF_CELLS,
    REHEARSAL: [
        "config.yaml", "results/summary.csv", "results/parameters.csv", "results/data/card.json", "paper_tables/*.md",
        "logs/benchmarks/*.tsv",
    ],
}  # fmt: skip
METHODS, TARGETS = style.METHODS, style.TARGETS


def take(study):
    """Copy the records of a study, none of them with weights, to ``docs/results``.

    The report names the study's directory: as ``examples/…`` where it lies there, else by its place on the machine.
    """
    place = HERE / study.name
    if study.name not in TAKEN or study.resolve().parent.name != "examples":
        raise SystemExit(
            f"{study} is not one of examples/{{{','.join(TAKEN)}}}; its report would name this machine's paths."
        )
    shutil.rmtree(place, ignore_errors=True)
    for pattern in TAKEN[study.name]:
        for file in sorted(study.glob(pattern)):
            folder = {"results": "", "data": "", "logs": ""}.get(file.parent.name, file.parent.name)
            target = place / (folder if file.parent != study else "") / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def table(rows, align=None):
    frame = pd.DataFrame(rows)
    align = align or ["left"] + ["right"] * (frame.shape[1] - 1)
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def read(name, file):
    return pd.read_csv(HERE / name / file)


def study_in(directory):
    """``settings.Settings`` of the study whose configuration lies in ``directory``."""
    return settings.load(yaml.safe_load((directory / "config.yaml").read_text()))


def interval(row, score="accuracy"):
    return f"{row[score]:.3f} [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]"


def trend(axis, points, study):
    """Accuracy along r or alpha, a row a method and target set: mean over the seeds with its 95% interval."""
    constant, other = (study.grid.constant_alpha, "alpha") if axis == "r" else (study.grid.constant_r, "r")
    line = points[points[other].eq(constant)]
    rows = []
    for (method, targets), part in line.groupby(["method", "targets"], sort=False):
        row = {"": f"{METHODS[method]}, {TARGETS[targets]}"}
        for value in sorted(getattr(study.grid, axis)):
            point = part[part[axis].eq(value)].iloc[0]
            shown = "–" if point.seeds == 0 else interval(point)
            few = f" ({point.seeds} of {point.seeds_planned} seeds)" if 0 < point.seeds < point.seeds_planned else ""
            row[f"{panels.SYMBOLS[axis]} = {value:g}"] = shown + few
        rows.append(row)
    return table(rows)


def state(cells):
    """How many cells ended how, and whether that is all of them."""
    counts = cells.status.value_counts()
    text = ", ".join(f"{counts[status]} {status}" for status in ("finished", "diverged", "missing") if status in counts)
    if "missing" not in counts:
        return f"{len(cells)} cells: {text}."
    return f"**The grid is not complete yet.** {len(cells)} cells: {text}. What follows is of the finished ones alone."


def robust(comparisons, study):
    """What holds across seeds, in numbers."""
    scatter = read(GRID, "summary.csv").query("kind == 'cell' and status == 'finished'")
    scatter = scatter.groupby(["method", "targets", "r", "alpha"]).accuracy.agg(["std", "size"]).query("size > 1")
    worst = scatter["std"].idxmax()
    lines = [
        f"Runs that differ in the seed alone scatter by {100 * scatter['std'].median():.1f} points of accuracy (median of "
        f"the standard deviations of {len(scatter)} points of the grid); at r = {worst[2]:g}, α = {worst[3]:g}, "
        f"{METHODS[worst[0]]} on {TARGETS[worst[1]]}, by {100 * scatter['std'].max():.1f}."
    ]
    margin = 100 * study.statistics.equivalence_margin
    names = {
        "r_step": "neighbouring values of r", "alpha_step": "neighbouring values of α", "method": "LoRA and QLoRA",
        "targets": "the two target sets",
    }  # fmt: skip
    accuracy = comparisons[comparisons.metric.eq("accuracy") & comparisons["view"].eq("configured")]
    for family, what in names.items():
        part = accuracy[accuracy.family.eq(family)]
        lines.append(
            f"Of {len(part)} pairs of {what}, all else equal, {part.p_holm.lt(0.05).sum()} differ after Holm's correction, "
            f"and {part.p_equivalent.lt(0.05).sum()} are equal within {margin:g} points (two one-sided tests)."
        )
    for family, what in (
        ("pooled_method", "LoRA minus QLoRA"),
        ("pooled_targets", "All linear layers minus attention"),
    ):
        for row in accuracy[accuracy.family.eq(family)].itertuples():
            sign = 1 if (row.a, row.b) in {("lora", "qlora"), ("all-linear", "attention")} else -1
            low, high = sorted((sign * row.low, sign * row.high))
            lines.append(
                f"{what}, over {row.units:.0f} matched pairs: {100 * sign * row.difference:+.1f} points "
                f"[{100 * low:+.1f}, {100 * high:+.1f}].".replace("-", "−")
            )
    return "\n".join(f"- {line}" for line in lines)


def of_grid():
    """The section on the grid of the small model."""
    study = study_in(HERE / GRID)
    summary, points = read(GRID, "summary.csv"), read(GRID, "points.csv")
    points, claims = points[points["view"].eq("configured")], read(GRID, "paper_tables/claims.csv")
    cells = summary[summary.kind.eq("cell")]
    done, base = cells[cells.status.eq("finished")], summary[summary.kind.eq("baseline")].set_index("id")
    best = points.loc[points.accuracy.idxmax()]
    known = [f"{base.accuracy[name]:.3f} by {how}" for name, how in (("head", "its untrained head"), ("prompt", "prompting"))
             if base.status.get(name) == "finished"]  # fmt: skip
    other = sorted(set(base.device.dropna()) - set(done.device))
    elsewhere = f" (on {' and '.join(other)})" * bool(other)
    parts = [
        f"## {study.study.name}",
        f"{state(cells)} {int(done.n_test.iloc[0]):,} test texts of five balanced classes, "
        f"{len(study.grid.seeds)} seeds, batches of {study.training.batch_size}, learning rate "
        f"{study.training.learning_rate:g}, on {' and '.join(done.device.unique())}. "
        + (f"The base model's accuracy is {' and '.join(known)}{elsewhere}. " if known else "The base model has not been measured. ")
        + f"Best point of the grid: {METHODS[best.method]} on {TARGETS[best.targets]}, r = {best.r}, α = {best.alpha:g}: "
        f"{interval(best)} (the best of many is flattered by choosing it).",
        gpu(),
        f"Accuracy against r at α = {study.grid.constant_alpha:g}, mean over the seeds with its 95% interval:",
        trend("r", points, study),
        f"Against α at r = {study.grid.constant_r:g}:",
        trend("alpha", points, study),
        *(f"![{what}]({GRID}/figures/{name}.png)" for name, what in (
            ("r_trend", "Accuracy and F1 against r"), ("alpha_trend", "Accuracy and F1 against alpha"),
            ("scale", "Accuracy against alpha / r and alpha / √r"),
            ("lora_against_qlora", "Paired differences of LoRA and QLoRA"),
        )),
        "### The paper's questions",
        table(
            [{"question": row.statement, "verdict": f"**{row.verdict}**", "found": row.found} for row in claims.itertuples()],
            ["left"] * 3,
        ),
        "### What holds across seeds",
        robust(read(GRID, "comparisons.csv"), study),
        f"All tables: [`{GRID}/paper_tables/`]({GRID}/paper_tables/); every number: [`{GRID}/summary.csv`]({GRID}/summary.csv); "
        f"the whole study on one page, to be opened from the file: [`{GRID}/report.html`]({GRID}/report.html).",
    ]  # fmt: skip
    return parts


def of_rates():
    """The section on tuned learning rates; nothing where that study has not been taken in."""
    if not (HERE / RATES).exists():
        return []
    study = study_in(HERE / RATES)
    cells, claims = read(RATES, "summary.csv").query("kind == 'cell'"), read(RATES, "paper_tables/claims.csv")
    rates = sorted({study.training.learning_rate, *study.grid.learning_rates})
    names = {"configured": f"{study.training.learning_rate:g} for all", "tuned": "the best of each point"}
    return [
        f"## {study.study.name}",
        f"{state(cells)} Learning rates {', '.join(f'{rate:g}' for rate in rates)}; the best one of each point is chosen on "
        f"{study.data.validation_size:,} validation texts, which no figure or verdict uses otherwise.",
        table(
            [
                {"question": row.statement, "learning rate": names[row.view], "verdict": f"**{row.verdict}**", "found": row.found}
                for row in claims[claims.claim.isin(["r", "alpha", "targets"])].itertuples()
            ],
            ["left"] * 4,
        ),
        *(f"![Accuracy against {axis}, learning rate tuned]({RATES}/figures/tuned_{axis}_trend.png)" for axis in ("r", "alpha")),
        f"The whole study: [`{RATES}/report.html`]({RATES}/report.html).",
    ]  # fmt: skip


def gpu():
    """How long the grid took and how busy its GPU was."""
    file = HERE / GRID / "gpu.csv"
    if not file.exists():
        return "How busy the GPU was over the whole grid has not been measured."
    samples = pd.read_csv(file, skipinitialspace=True)
    times = pd.to_datetime(samples["timestamp"])
    busy = samples.filter(like="utilization").iloc[:, 0]
    minutes = (times.iloc[-1] - times.iloc[0]).total_seconds() / 60
    return (
        f"Data, model, quantization and all cells took {minutes:.1f} minutes on the one GPU. It was computing "
        f"{busy.mean():.0f}% of that time ({len(samples)} readings of `nvidia-smi`, in [`{GRID}/gpu.csv`]({GRID}/gpu.csv))."
    )


def starts(summary):
    """Seconds of a cell's two jobs besides training and evaluation, mean over the cells of each method."""
    found = {}
    for cell in summary.itertuples():
        files = [HERE / REHEARSAL / "benchmarks" / f"{cell.id}.{step}.tsv" for step in ("finetune", "evaluate")]
        wall = sum(pd.read_csv(file, sep="\t").s.iloc[0] for file in files)
        found.setdefault(cell.method, []).append(wall - cell.seconds - cell.evaluation_seconds)
    return {method: sum(values) / len(values) for method, values in found.items()}


def of_rehearsal():
    """The section on the shape of the large model, and the projected cost of the paper's study."""
    study = study_in(HERE / REHEARSAL)
    full = study_in(REPOSITORY)
    summary = read(REHEARSAL, "summary.csv")
    cells = summary[summary.kind.eq("cell")]
    done = cells[cells.status.eq("finished")]
    card = json.loads((HERE / REHEARSAL / "card.json").read_text())
    steps, whole = int(done.steps.iloc[0]), -(-full.data.train_size // full.training.batch_size)
    measured = [
        {
            "cell": f"{METHODS[row.method]}, {TARGETS[row.targets]}, r = {row.r:.0f}",
            "training, s": f"{row.seconds:.1f}", "tokens/s": f"{row.tokens_per_second:,.0f}",
            "peak memory, GiB": f"{row.peak_memory_gib:.1f}", "GPU energy, Wh": f"{1000 * row.energy_kwh:.1f}",
            "evaluation, tokens/s": f"{row.evaluation_tokens_per_second:,.0f}",
        }
        for row in done.itertuples()
    ]  # fmt: skip
    return [
        "## Llama-3-8B's shape: the rehearsal",
        f"{study.study.name}. {len(done)} cells of one run each, one after the other on one {done.device.iloc[0]}: "
        f"{steps} of the {whole} steps of {full.training.batch_size} texts that `config.yaml` assumes, texts of "
        f"{card['splits']['train']['length_tokens']['mean']:.0f} tokens on average ({card['lengths']}). **Accuracy is "
        "meaningless here**; time and memory do not depend on the weights' values.",
        table(measured),
        f"Beside the paper's values: [`{REHEARSAL}/paper_tables/table1_hardware.md`]({REHEARSAL}/paper_tables/table1_hardware.md).",
        "### The paper's study, projected",
        *projected(done),
    ]


def projected_hours():
    """Hours of each cell of the paper's study on two GPUs (``projection.hours``), and these GPUs."""
    study, full = study_in(HERE / REHEARSAL), study_in(REPOSITORY)
    done = read(REHEARSAL, "summary.csv").query("kind == 'cell' and status == 'finished'")
    parameters = read(REHEARSAL, "parameters.csv")
    parameters = parameters[
        parameters["head"].eq(parameters.targets.map({"attention": "plain", "all-linear": "paper"}))
    ]
    sizes = parameters.set_index(["targets", "r"]).trainable_parameters
    cells = {cell: int(sizes[cell.targets, cell.r]) for cell in grid.cells(full.grid).values()}
    known = {device.name: device for device in check.known_gpus()}
    devices = [known["H100 80 GB"], known["A100 40 GB"]]
    mean = json.loads((HERE / REHEARSAL / "card.json").read_text())["splits"]["train"]["length_tokens"]["mean"]
    table_of = projection.hours(
        done, starts(done), cells, json.loads((settings.ARCHITECTURES / f"{study.model.name}.json").read_text()), devices,
        trained=(mean, full.data.train_size * full.training.epochs), batch_size=full.training.batch_size,
        evaluated=mean * (full.data.test_size + full.data.validation_size),
    )  # fmt: skip
    return table_of, devices


def paper_hours(table_of):
    """Hours that the paper's Table 1 implies, by method: one fine-tuning time for every cell."""
    one = table_of[table_of.device.eq(table_of.device.iloc[0])]
    minutes = paper.table(1).set_index("method").finetune_time_min
    return {method: one.method.eq(method).sum() * minutes[method] / 60 for method in METHODS}


def projected(done):
    """GPU-hours and energy of the cells that the paper's Table 1 implies, on two GPUs, against its own."""
    full, (table_of, devices) = study_in(REPOSITORY), projected_hours()
    watts = 3.6e6 * done.energy_kwh.sum() / done.seconds.sum()
    stated, rows = paper_hours(table_of), []
    for device in devices:
        by_method = table_of[table_of.device.eq(device.name)].groupby("method").hours.sum()
        power = watts if device is devices[0] else device.watts
        rows.append(row_of_hours(f"{device.name}, projected", by_method, by_method.sum() * power / 1000))
    rows.append(row_of_hours("A100 40 GB, the paper's Table 1", stated))
    a100 = table_of[table_of.device.eq("A100 40 GB")]
    return [
        table(rows),
        f"On the A100 that is {a100.hours.sum() / sum(stated.values()):.3f} of the paper's hours. How it was projected: "
        f"{len(a100)} cells of {full.data.train_size:,} training, {full.data.test_size:,} test and "
        f"{full.data.validation_size:,} validation texts (the paper does not state how many it used); the measured time of a "
        "token, linear in the trainable parameters between the ranks measured; steps extrapolated linearly, first ones "
        "included; evaluation at the measured speed; imports, loading and writing of both jobs of a cell as measured. On "
        f"the A100 time is longer by the ratio of the dense bfloat16 peaks, {devices[0].flops / devices[1].flops:.2f}, and by the "
        f"layers computed again where 40 GB are too few ({a100.checkpointed_layers.gt(0).sum()} of {len(a100)} cells). Energy: "
        f"on the H100 the {watts:.0f} W that its meter showed in training, on the A100 its board's {devices[1].watts} W "
        "throughout. **The A100 itself was not at hand.**",
    ]


def row_of_hours(name, hours, energy=None):
    """A row of the projection's table."""
    of_methods = {f"{title}, GPU-hours": f"{hours[method]:.1f}" for method, title in METHODS.items()}
    both = f"{sum(hours[method] for method in METHODS):.1f}"
    return {"": name, **of_methods, "both": both, "energy, kWh": "–" if energy is None else f"{energy:.1f}"}


HEAD = """# Results

What this pipeline found when it was run for real. The pages are written from the records beside them by
`python docs/results.py`; with `--take examples/smollm2` it first takes in what a new run of that study found.
"""


BEGIN, END = "<!-- written by docs/results.py -->", "<!-- to here -->"


def block():
    """The README's block of results, without its marks."""
    study = study_in(HERE / GRID)
    summary, points = read(GRID, "summary.csv"), read(GRID, "points.csv")
    points, cells = points[points["view"].eq("configured")], summary[summary.kind.eq("cell")]
    places = [("r", value) for value in sorted(study.grid.r)[::3]] + [
        ("alpha", value) for value in sorted(study.grid.alpha)[::3]
    ]
    rows = []
    for (method, targets), part in points.groupby(["method", "targets"], sort=False):
        row = {"": f"{METHODS[method]}, {TARGETS[targets]}"}
        for axis, value in places:
            r, alpha = (value, study.grid.constant_alpha) if axis == "r" else (study.grid.constant_r, value)
            point = part[part.r.eq(r) & part.alpha.eq(alpha)].iloc[0]
            row[f"r = {r}, α = {alpha:g}"] = f"{point.accuracy:.3f}" if point.seeds else "–"
        rows.append(row)
    figures = [
        f"![{what}](docs/results/{GRID}/figures/{name}.png)"
        for name, what in (("r_trend", "Accuracy and F1 against r"), ("alpha_trend", "Accuracy and F1 against alpha"))
    ]
    complete = not cells.status.eq("missing").any()
    hours, devices = projected_hours()
    sums = hours.groupby("device").hours.sum()
    stated = sum(paper_hours(hours).values())
    return "\n\n".join(
        [
            f"{study.study.name}: accuracy on "
            f"{int(cells.n_test.max()):,} test texts of five balanced classes, mean of up to {len(study.grid.seeds)} seeds. {state(cells)}",
            table(rows),
            *(figures if complete else []),
            "At the shape of Llama-3-8B, from a rehearsal with random weights: the paper's "
            f"{len(hours) // len(devices)} cells project to {sums['H100 80 GB']:.1f} GPU-hours on an H100 80 GB and "
            f"{sums['A100 40 GB']:.1f} on an A100 40 GB; its Table 1 implies {stated:.0f} on the latter, for texts that it does "
            "not count.",
            "With intervals, verdicts on the paper's questions, all tables, and how it was projected: "
            "[`docs/results/`](docs/results/).",
        ]
    )


def page():
    """docs/results/README.md as one string."""
    return "\n\n".join([HEAD.rstrip(), *of_grid(), *of_rates(), *of_rehearsal()]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--take", nargs="+", default=[], type=Path, help=f"among examples/{{{','.join(TAKEN)}}}")
    for directory in parser.parse_args().take:
        take(directory)
    (HERE / "README.md").write_text(page())
    readme = REPOSITORY / "README.md"
    before, after = readme.read_text().split(BEGIN)[0], readme.read_text().split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{block()}\n{END}{after}")
