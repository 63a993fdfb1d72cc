"""Look at everything that can be known before a run, and print it. Nothing is fetched and nothing trained."""

import sys

from lorastudy.analysis import comparisons, scatter, sensitivity, summary, tuning
from lorastudy.analysis.claims.rows import SCOPES
from lorastudy.jobs import attempts, logs
from lorastudy.planning import check, memory, resources
from lorastudy.statistics import power
from lorastudy.study import architecture, grid, records, settings
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MARKS = {
    check.OK: "[green]ok[/]",
    check.NOTE: "[yellow]note[/]",
    check.FAULT: "[red bold]fault[/]",
    check.UNKNOWN: "[yellow]not checked[/]",
}
MISSING = "–"
WIDTH = 100  # characters, where the output goes to a file


def main(config, log):
    """Print what is found, and write it to ``log``; returns the faults.

    Args:
        config: the study's configuration as a dictionary.
    """
    console = Console(highlight=False, soft_wrap=True, record=True)
    if not console.is_terminal:
        console.width = WIDTH
    study = settings.load(config)
    cells = grid.cells(study.grid)
    base = architecture.of_study(study.model)
    shape, origin = base.config, base.origin + ", assumed" * base.assumed
    console.print(f"[bold]{escape(study.study.name)}[/]: {len(cells)} cells, configuration in order")
    estimate = resources.Estimate(study, cells)
    findings = [*check.access(study), *check.base(study), check.targets(estimate, base)]
    if findings[-1].state == check.FAULT:  # nothing can be counted then
        show(console, findings)
        return conclude(console, findings, log)
    findings.append(check.space(study, estimate, shape))
    devices = check.known_gpus()
    this = check.here(study.model.dtype)
    held = [*devices, this] if this.gib else devices
    rows = check.fits(study, estimate, held, shape)
    findings += [*memory_findings(rows, held, this), *check.number_format(study.model.dtype)]
    show(console, findings)
    console.print()
    console.print(memory_table(rows, held, estimate.micro_batch_tokens, shape, origin))
    console.print()
    done, measured = check.finished(".", estimate)
    predicted = list(check.predictions(study, estimate, done, [*devices, this], measured))
    console.print(cost_table(predicted, study.cost))
    for line in cost_notes(predicted, estimate, study.cost, len(done), len(cells) + 2, measured):
        console.print(escape(line))
    console.print()
    for part in what_it_can_tell(study, cells):
        console.print(escape(part) if isinstance(part, str) else part)
    return conclude(console, findings, log)


def show(console, findings):
    for finding in findings:
        console.print(f"{MARKS[finding.state]} {finding.what}: {escape(finding.text)}")


def conclude(console, findings, log):
    """The number of faults, printed last; and what was printed, written to ``log``."""
    faults = [finding for finding in findings if finding.state == check.FAULT]
    if faults:
        console.print(f"\n[red bold]{len(faults)} fault{'s' * (len(faults) > 1)}[/]; mend what is marked above.")
    console.save_text(log)
    return faults


def memory_findings(rows, devices, this):
    """Whether every cell fits somewhere, and on the GPU at hand."""
    for index, device in enumerate(devices):
        out = [row for row in rows if row[5][index] is None]
        if device is this and out:
            cells = sum(row[3] for row in out)
            method, targets, r = out[0][:3]
            first = method if targets is None else f"{method} {targets} r={r}"
            yield check.Finding(
                "memory", check.FAULT, f"{cells} cells do not fit on {device.name}, {first} the first; "
                "lower `data.max_length` or take them out of `grid`."
            )  # fmt: skip
    nowhere = sum(row[3] for row in rows if not any(row[5]))
    if nowhere:
        yield check.Finding("memory", check.FAULT, f"{nowhere} cells fit on none of these GPUs; see the table.")
    elif this.gib is None:
        yield check.Finding(
            "memory", check.OK, "every cell fits on one of the GPUs below; for a CPU it is not predicted"
        )
    else:
        yield check.Finding("memory", check.OK, "every cell fits on one of the GPUs below")


def memory_table(rows, devices, tokens, shape, origin):
    table = new_table("Memory of one cell", ["method", "targets"], ["r", "cells", "need"])
    for device in devices:
        table.add_column(device.name, justify="right")
    table.caption = (
        f"Need: GiB with {tokens:,} tokens a micro-batch. Below a GPU: the tokens a micro-batch that train fastest on it, "
        f"in brackets the layers computed twice to save memory. Shape of the model: {origin}."
    )
    for method, targets, r, count, need, fits in rows:
        bound = "" if memory.measured(shape, method) else "≤ "
        table.add_row(
            method, targets or MISSING, str(r or MISSING), str(count), f"{bound}{need:.1f}", *map(fit_text, fits)
        )
    if not all(memory.measured(shape, row[0]) for row in rows):
        table.caption += " ≤: a bound, of what was not measured on a GPU."
    return table


def new_table(title, texts, numbers):
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def amount_text(amount):
    if amount is None:
        return MISSING
    if 0 < amount < 0.001:
        return "<0.001"
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def fit_text(fit):
    if fit is None:
        return "[red]no[/]"
    return f"{fit.micro_batch_tokens:,}" + (f" ({fit.checkpointed_layers})" if fit.checkpointed_layers else "")


def cost_table(predicted, cost):
    numbers = ["hours", "still to come", "kWh", "kg CO2e", cost.currency]
    table = new_table("Cost of the whole study on one device", ["device"], numbers)
    for row in predicted:
        amounts = (row.hours, row.remaining, row.energy_kwh, row.co2e_kg, row.money)
        table.add_row(row.device.name, *map(amount_text, amounts))
    return table


def cost_notes(predicted, estimate, cost, done, results, measured):
    """What the numbers rest on, and why some are empty."""
    yield f"{done} of {results} results are there."
    speed = "the speed of its finished cells" if measured else "half the speed of a matrix product measured just now"
    lengths = f"`data.max_length`, {estimate.text_tokens:g} tokens each,"
    if estimate.text_tokens < estimate.study.data.max_length:
        lengths = f"{estimate.text_tokens:.0f} tokens each, the mean of a log-normal prior for Yelp reviews cut at `data.max_length`,"
    yield (
        f"Hours: operations of training and evaluation at {check.GPU_UTILISATION:.0%} of a GPU's peak, QLoRA "
        f"{resources.QLORA:g} times as long; a CPU at {speed}. Texts count {lengths} until the "
        "data is prepared. Loading, queues and other work on the device are not in it."
    )
    if cost.power_watts:
        yield f"Energy: at `cost.power_watts`, {cost.power_watts:g} W."
    else:
        yield "Energy: at the full power of a GPU's board, an upper bound; set `cost.power_watts` to the device's mean power."
    if cost.carbon_intensity is None:
        yield "CO2e is empty: `cost.carbon_intensity` (grams a kWh) is not configured."
    if cost.price_per_hour is None:
        yield f"{cost.currency} is empty: `cost.price_per_hour` is not configured."


def what_it_can_tell(study, cells, study_directory="."):
    """A table of the smallest differences and margins, notes, and what of the finished cells is open."""
    variances, rows, own = sensitivity.default(), None, None
    results = summary.build(cells, all_specs(study, cells), study_directory)
    finished = results[results.kind.eq("cell") & results.status.eq("finished")]
    if len(finished):
        try:
            own, rows = sensitivity.of_study(results, study.grid, study.block("statistics"), study_directory)
            variances = own or variances
        except comparisons.ComparisonError as fault:
            yield f"Its own cells were not looked at: {fault}"
    seeds, texts = len(study.grid.seeds), study.data.test_size
    unit = "test texts"
    if study.data.group_column and own is not None:
        texts, unit = int(rows.n.iloc[0]), "groups of test texts"  # what the study's own variances are between
    plan = sensitivity.plan(study.grid, grid.lines(study.grid), variances, seeds, texts)
    if plan:
        yield power_table(plan, seeds, f"{texts:,} {unit}", study.statistics.equivalence_margin)
        yield from power_notes(plan, seeds, variances)
        if study.data.group_column and own is None:
            yield "Texts are taken as standing for themselves; those of a group have much in common and tell less."
    if rows is not None:
        yield from open_notes(rows)
    yield from tuning.edge_notes(results)


def all_specs(study, cells):
    specs = {name: study.cell_spec(cell) for name, cell in cells.items()}
    return specs | {name: study.baseline_spec() for name in summary.BASELINES}


def power_table(plan, seeds, texts, margin):
    title = f"What {seeds} seed{'s' * (seeds > 1)} and {texts} can tell"
    table = new_table(title, ["comparison of accuracies", "about"], ["tests", "differs by", "equal within"])
    for row in plan:
        wide = row.margin > margin
        table.add_row(
            row.what, SCOPES[row.test], str(row.tests), points_text(row.difference), f"[yellow]{points_text(row.margin)}[/]" * wide or points_text(row.margin)
        )  # fmt: skip
    table.caption = (
        f"Points of accuracy: the smallest true difference that is shown after correction for so many tests, and the smallest margin "
        f"within which equal ones are shown to be, each with a chance of {power.POWER:.0%}. `statistics.equivalence_margin` is "
        f"{points_text(margin)} points."
    )
    return table


def points_text(fraction):
    return f"{100 * fraction:.1f}" if fraction < power.LONGEST else "never"


def power_notes(plan, seeds, variances):
    yield f"Chance as large as in {variances.source}; runs that fail to learn are apart from it."
    if seeds < scatter.SEEDS:
        yield (
            f"With fewer than {scatter.SEEDS} seeds nothing is about runs at large: what other seeds would change is unknown. An "
            "average says more than one pair (what matched pairs differ by is in it), and so may need a larger difference. "
            f"`grid.seeds: {list(range(scatter.SEEDS))}` makes all of it about runs at large."
        )


def open_notes(rows):
    """What is undecided over the grid, and how many seeds would settle it."""
    if not rows.test.isin(comparisons.AT_LARGE).any():
        return
    undecided = sensitivity.open_questions(rows)
    if undecided.empty:
        yield "Of the averages over the grid none is undecided."
    for family, group in undecided.groupby("family", sort=False):
        size, settled = group.difference.abs(), group.needed.dropna()
        ends = [f"{settled.max()} seeds would settle {len(settled)}"] if len(settled) else []
        if left := len(group) - len(settled):
            ends.append(f"{left} would stay open with {sensitivity.MOST}, for a lack of test texts or at the margin")
        yield (
            f"Undecided: {len(group)} of {rows.family.eq(family).sum()}, {sensitivity.FAMILIES[family].split(',')[0]}, "
            f"{points_text(size.min())} to {points_text(size.max())} points apart so far; {'; '.join(ends)}."
        )


if __name__ == "__main__":
    logs.any_terminal()
    records.check_directories()
    try:
        with attempts.noted("check", snakemake.log[0]):
            if faults := main(dict(snakemake.config), snakemake.log[0]):
                more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
                raise check.CheckError(f"{faults[0].what}: {faults[0].text}{more}")
    except check.CheckError:
        sys.exit(1)  # printed above, and again at the end of the run
