"""The paper's tables and the study's own, each as CSV, Markdown and LaTeX.

A table is a data frame of full precision (the CSV) and the same rows as text for people (Markdown, LaTeX). Where the
paper states a value its columns are ``paper``, ``reproduced`` and ``difference`` (reproduced minus paper).
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lorastudy import claims, cost, ledger, memory, metrics, paper, ratios, settings, tuning

FORMATS = ("csv", "md", "tex")
ARCHITECTURE = settings.ARCHITECTURES / "llama-3-8b.json"
PAPER_MODEL = "meta-llama/Meta-Llama-3-8B"
CLASSES = 5
STATED = ["paper", "reproduced", "difference"]
NAMES = claims.NAMES | {"lora": "LoRA", "qlora": "QLoRA"}
SCORES = {"accuracy": "accuracy", "f1": "F1"}
LEVEL = claims.LEVEL
LINE, GAP = 118, 1.5  # characters of a line of a page in footnote size, and between two columns
LONG = 45  # rows that fit on a page


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows, one sentence.
        frame: data frame, what the CSV holds.
        shown: data frame of strings, what people read; same rows or a pivot of them.
        notes: sentences below it: units, numbers of texts and seeds, what the intervals are, holes with their reasons.
        text: columns of ``shown`` that are words, set left; the others are set right.
        bold: (row, column) positions in ``shown`` that are set in bold.
    """

    caption: str
    frame: "pd.DataFrame"  # noqa: F821
    shown: "pd.DataFrame"  # noqa: F821
    notes: list = field(default_factory=list)
    text: tuple = ()
    bold: frozenset = frozenset()


@dataclass(frozen=True)
class Inputs:
    """What tables are made from: ``summary.Results``, the frame of ``count_parameters``, where the paper's values are."""

    results: "summary.Results"  # noqa: F821
    parameters: "pd.DataFrame"  # noqa: F821
    directory: Path

    @property
    def with_paper(self):
        return self.results.settings["study"]["paper"]

    @property
    def model(self):
        return self.results.settings["model"]["name"]


def make(name, results, parameters, directory=paper.DIRECTORY):
    """The ``Table`` of a study that is called ``name`` (a key of ``TABLES``).

    Args:
        results: ``summary.Results``.
        parameters: path of the file of ``count_parameters``.
        directory: where the paper's values are.
    """
    import pandas as pd

    inputs = Inputs(results, pd.read_csv(parameters), Path(directory))
    table = TABLES[name](inputs)
    return table if inputs.with_paper else _without_paper(table)


def write(name, results, parameters, paths, directory=paper.DIRECTORY):
    """Write the table ``name`` in all formats (``paths``: format → path); other arguments as of ``make``."""
    table = make(name, results, parameters, directory)
    table.frame.to_csv(paths["csv"], index=False)
    Path(paths["md"]).write_text(markdown(table), encoding="utf-8")
    Path(paths["tex"]).write_text(latex(table, name), encoding="utf-8")


def _without_paper(table):
    """A study that reproduces nothing of the paper has no columns for it."""
    columns = [column for column in table.frame if not (column.startswith(("paper", "difference")) and _stated(table))]
    shown = [column for column in table.shown if column.split(",")[0].strip() not in ("paper", "difference")]
    kept = list(table.shown)
    bold = {(row, shown.index(kept[column])) for row, column in table.bold if kept[column] in shown}
    return replace(table, frame=table.frame[columns], shown=table.shown[shown], bold=frozenset(bold))


def _stated(table):
    return "paper" in table.frame


# How numbers look


def number(value, digits=3):
    """A number with so many decimals; a dash where there is none."""
    if value is None or np.isnan(float(value)):
        return "–"
    text = f"{float(value):,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else f"{0:.{digits}f}"


def signed(value, digits=3):
    """A difference, with its sign; 0 has none."""
    text = number(value, digits)
    return text if text == "–" or text.startswith("−") or not float(text.replace(",", "")) else f"+{text}"


def significant(value, digits=3, sign=False):
    """A positive quantity of any size with about three digits."""
    if value is None or np.isnan(value):
        return "–"
    decimals = 0 if value == 0 else max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return (signed if sign else number)(value, min(decimals, 6))


def whole(value):
    return "–" if value is None or np.isnan(float(value)) else f"{int(value):,}"


def interval(value, low, high, digits=3, form=number):
    """A value with its interval, ``0.512 [0.455, 0.568]``."""
    if value is None or np.isnan(float(value)):
        return "–"
    if low is None or np.isnan(float(low)):
        return form(value, digits)
    return f"{form(value, digits)} [{form(low, digits)}, {form(high, digits)}]"


def p_value(value):
    if value is None or np.isnan(float(value)):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# Formats


def markdown(table):
    """The table as Markdown: caption, table, notes."""
    shown = table.shown.astype(str).map(lambda cell: cell.replace("|", "\\|"))
    for row, column in table.bold:
        shown.iloc[row, column] = f"**{shown.iloc[row, column]}**"
    align = ["left" if column in table.text else "right" for column in shown]
    body = shown.to_markdown(index=False, disable_numparse=True, colalign=align if len(shown) else None)
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"**{table.caption}**\n\n{body}\n" + (f"\n{notes}\n" if notes else "")


TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_\allowbreak{}", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$",
        "–": "--", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "√": r"$\surd$",
        "α": r"$\alpha$", "·": r"$\cdot$", "†": r"\textdagger{}", "…": r"\ldots{}", "\n": " ", '"': "''", "`": "",
    }
)  # fmt: skip


def tex(text):
    """A string as LaTeX sets it literally; it may break a name after an underscore or a dot."""
    return re.sub(r"(?<=[a-z])\.(?=[a-z])", r".\\allowbreak{}", str(text).translate(TEX))


PIECES = re.compile(r"\s|(?<=[_-])|(?<=[a-z]\.)(?=[a-z])")  # where LaTeX may break a line


def latex(table, name):
    """The table as LaTeX: a float, or a ``longtable`` where text has to be broken over lines or pages."""
    shown = table.shown.astype(str)
    columns, broken = _columns(shown, table.text)
    style = shown.style.hide(axis="index").format(tex).format_index(tex, axis=1)
    if table.bold:
        marks = shown.copy()
        marks[:] = ""
        for row, column in table.bold:
            marks.iloc[row, column] = "textbf:--rwrap;"
        style = style.apply(lambda _: marks, axis=None)
    long = broken or len(shown) > LONG
    body = style.to_latex(
        column_format=f"@{{}}{columns}@{{}}",
        hrules=True,
        caption=tex(table.caption),
        label=f"tab:{name.replace('_', '-')}",
        **({"environment": "longtable"} if long else {"position_float": "centering"}),
    )
    notes = " ".join(tex(note) for note in table.notes)
    notes = f"\\par\\smallskip\\raggedright\\scriptsize {notes}\\par" if notes else ""
    size = "\\footnotesize\\setlength{\\tabcolsep}{3pt}"
    if long:
        lines = ["{" + size, body.strip(), notes, "}"]
    else:
        body = body.replace("\\centering\n", f"\\centering{size}\n", 1)
        lines = [body.replace("\\end{table}", f"{notes}\n\\end{{table}}").strip()]
    needs = "array, booktabs, longtable" if long else "booktabs"
    return "\n".join([f"% needs \\usepackage{{{needs}}}", *filter(None, lines), ""])


def _columns(shown, text):
    """LaTeX's column types, and whether any breaks its text over lines: words do where the table is wider than a line."""
    widths = {name: max(len(name), *shown[name].str.len(), 1) for name in shown}
    words = {name: max(len(word) for cell in [name, *shown[name]] for word in PIECES.split(cell)) for name in shown}
    over = sum(widths.values()) + GAP * len(widths) - LINE
    broken = [name for name in shown if name in text and widths[name] > words[name]] if over > 0 else []
    room = LINE - GAP * len(widths) - sum(widths[name] for name in shown if name not in broken)
    share = {name: max(shown[name].str.len().mean(), 1) ** 0.8 for name in broken}
    # no column is narrower than its longest word; the others share what that leaves
    for name in sorted(broken, key=lambda name: share[name] / words[name]):
        widths[name] = max(words[name] + 1, room * share[name] / sum(share.values()))
        room -= widths[name]
        del share[name]
    kinds = [
        f">{{\\raggedright\\arraybackslash}}p{{{0.95 * widths[name] / LINE:.3f}\\linewidth}}"
        if name in broken
        else ("l" if name in text else "r")
        for name in shown
    ]
    return "".join(kinds), bool(broken)


# What a note says


def _basis(inputs):
    """Texts, seeds and what an interval covers."""
    of_points = inputs.results.points
    texts = inputs.results.summary.n_test.dropna()
    seeds = inputs.results.settings["grid"]["seeds"]
    named = ", ".join(map(str, seeds))
    n = f"n = {int(texts.iloc[0]):,} test texts" if len(texts) else "no test texts yet"
    if len(seeds) == 1:
        return [
            f"{n}; one seed ({named}). Intervals: 95%, bootstrap over the test texts "
            f"({inputs.results.settings['statistics']['resamples']:,} resamples); they do not cover the variance "
            "between seeds."
        ]
    short = int(of_points.seeds.lt(of_points.seeds_planned).sum())
    return [
        f"{n}; mean over {len(seeds)} seeds ({named})"
        + (f", fewer at {short} points with a hole" if short else "")
        + ". Intervals: 95%, over test texts and seeds."
    ]


def _holes(points):
    """The reason of every point that lacks a seed or all of them."""
    return [
        f"{row.point}: {row.status}, {row.reason} ({row.seeds} of {row.seeds_planned} seeds)."
        for row in points[points.status.ne("finished")].itertuples()
    ]


def _study(inputs):
    devices = sorted(set(inputs.results.summary.device.dropna()))
    return f"This study: {inputs.results.settings['study']['name']} ({inputs.model}), on {' and '.join(devices) or 'no device yet'}."


# Table 1


def hardware(inputs):
    """Time, memory and hardware from the cells' own records, a row a quantity, method and target set."""
    import pandas as pd

    stated = paper.table(1, inputs.directory).set_index("method")
    cells = inputs.results.cells
    cells = cells[cells.learning_rate.eq(cells.learning_rate.iloc[0])] if len(cells) else cells
    finished = cells[cells.status.eq("finished")]
    grid = inputs.results.settings["grid"]
    rows = []
    for quantity, unit, column, scale, says in (
        ("fine-tuning time", "min", "seconds", 1 / 60, "finetune_time_min"),
        ("peak memory", "GiB", "peak_memory_gib", 1, "memory_gb"),
        ("energy", "kWh", "energy_kwh", 1, None),
    ):
        for method in grid["methods"]:
            for targets in grid["targets"]:
                runs = finished[finished.method.eq(method) & finished.targets.eq(targets)]
                values = runs[column].astype(float) * scale
                rows.append(
                    {
                        "quantity": f"{quantity} a cell",
                        "unit": unit,
                        "method": method,
                        "targets": targets,
                        "paper": float(stated[says].get(method, np.nan)) if says else np.nan,
                        "reproduced": values.mean(),
                        "lowest": values.min(),
                        "highest": values.max(),
                        "runs": int(values.notna().sum()),
                        "paper_hardware": stated.hardware.get(method),
                        "hardware": ", ".join(sorted(set(runs.device.dropna()))),
                    }
                )
    for quantity, column, says in (
        ("time, QLoRA / LoRA", "seconds", "finetune_time_min"),
        ("peak memory, QLoRA / LoRA", "peak_memory_gib", "memory_gb"),
    ):
        for targets in [*grid["targets"], "all"] if len(grid["targets"]) > 1 else grid["targets"]:
            ratio = ratios.ratio(finished if targets == "all" else finished[finished.targets.eq(targets)], column)
            rows.append(
                {
                    "quantity": quantity,
                    "unit": "ratio",
                    "method": "both",
                    "targets": targets,
                    "paper": stated[says].get("qlora", np.nan) / stated[says].get("lora", np.nan),
                    "reproduced": ratio.value,
                    "lowest": ratio.low,
                    "highest": ratio.high,
                    "runs": ratio.pairs,
                    "paper_hardware": stated.hardware.get("qlora"),
                    "hardware": ", ".join(sorted(set(finished.device.dropna()))),
                }
            )
    every = inputs.results.summary
    rows.append(
        {
            "quantity": "device hours, whole study",
            "unit": "h",
            "method": "both",
            "targets": "all",
            "paper": np.nan,
            "reproduced": np.nansum([every.seconds.sum(), every.evaluation_seconds.sum()]) / 3600,
            "lowest": np.nan,
            "highest": np.nan,
            "runs": int(every.seconds.notna().sum()),
            "paper_hardware": None,
            "hardware": ", ".join(sorted(set(every.device.dropna()))),
        }
    )
    frame = pd.DataFrame(rows)
    frame["difference"] = frame.reproduced - frame.paper
    frame = frame[
        ["quantity", "unit", "method", "targets", *STATED, "lowest", "highest", "runs", "paper_hardware", "hardware"]
    ]
    kept = frame[frame.reproduced.notna() | frame.paper.notna()]
    shown = pd.DataFrame(
        {
            "quantity": kept.quantity,
            "unit": kept.unit,
            "method": kept.method.map(lambda name: NAMES.get(name, name)),
            "targets": kept.targets.map(lambda name: NAMES.get(name, name)),
            "paper": kept.paper.map(significant),
            "reproduced": kept.reproduced.map(significant),
            "difference": [significant(value, sign=True) for value in kept.difference],
            "range": [
                "–" if np.isnan(low) else f"{significant(low)} to {significant(high)}"
                for low, high in zip(kept.lowest, kept.highest)
            ],
            "runs": kept.runs.map(whole),
        }
    )
    meters = sorted(set(finished.memory_meter.dropna()))
    notes = [
        "Reproduced: mean over finished runs; range: lowest and highest run, of a ratio its 95% interval "
        "(geometric mean over runs that differ in the method alone; t on logarithms).",
        f"Time is that of the training loop; memory the peak of the {' or '.join(meters) or 'device'}."
        + (
            " Jobs that ran on the same CPU at once slowed each other down."
            if any("process" in m for m in meters)
            else ""
        ),
    ]
    if inputs.with_paper:
        notes.append(
            f"Paper: {stated.hardware.iloc[0]}; it gives one value for both target sets and does not say for how many "
            "texts or which r and alpha, so that differences of time also hold those of the work done."
        )
        if inputs.model != PAPER_MODEL:
            notes.append("This study's model is not the paper's: its differences compare unlike work.")
    notes.append(_study(inputs))
    if finished.energy_kwh.isna().all():
        notes.append("Energy: not measured, since no device had a meter.")
    hidden = cells[~cells.status.eq("finished")]
    if len(hidden):
        counts = hidden.status.value_counts()
        notes.append(
            f"Left out: {', '.join(f'{count} {status}' for status, count in counts.items())} of {len(cells)} cells."
        )
    return Table(
        "The paper's Table 1: hardware, fine-tuning time and memory.",
        frame,
        shown,
        notes,
        ("quantity", "unit", "method", "targets"),
    )


# Tables 2 and 3


def memory_by_dtype(inputs):
    """Table 2 by its own arithmetic, beside what the weights of the real model take."""
    import pandas as pd

    stated, computed = paper.table(2, inputs.directory), paper.memory_by_dtype().set_index("use")
    allocated = {
        "fp32_gib": memory.base(_architecture(), False, "float32") / memory.GIB,
        "fp16_gib": memory.base(_architecture(), False, "float16") / memory.GIB,
        "int4_gib": memory.base(_architecture(), True, "bfloat16") / memory.GIB,
    }
    rows = [
        {
            "use": row["use"],
            "format": column.removesuffix("_gib"),
            "unit": "GiB",
            "paper": row[column],
            "reproduced": computed.loc[row["use"], column],
            "allocated": allocated.get(column, np.nan) if row["use"] == "inference" else np.nan,
        }
        for row in stated.to_dict("records")
        for column in stated.columns[1:]
    ]
    frame = pd.DataFrame(rows)
    frame["difference"] = frame.reproduced - frame.paper
    frame = frame[["use", "format", "unit", *STATED, "allocated"]]
    shown = pd.DataFrame(
        {
            "use": frame.use,
            "format": frame.format,
            "paper": frame.paper.map(lambda value: number(value, 2)),
            "reproduced": frame.reproduced.map(lambda value: number(value, 2)),
            "difference": frame.difference.map(lambda value: signed(value, 2)),
            "allocated": frame.allocated.map(lambda value: number(value, 2)),
        }
    )
    notes = [
        "GiB (2^30 bytes; the paper writes GB). Reproduced: 8e9 parameters times bytes a parameter; fine-tuning is four "
        "times inference.",
        "Allocated: the weights of the model that is fine-tuned here, without a language-model head (7,504,924,672 "
        "parameters); int4 is NF4 with double quantization, its constants counted and the embedding left in 16 bits. "
        "Nothing here runs in int8 or fine-tunes all weights, so these have no value.",
    ]
    return Table("The paper's Table 2: memory of Llama-3-8B by number format.", frame, shown, notes, ("use", "format"))


# Table 3's rows as the engine would run them
TABLE3_CELLS = {
    "LoRA (FP32)": ("lora", "float32"),
    "LoRA (FP16)": ("lora", "bfloat16"),
    "QLoRA (NF4)": ("qlora", "bfloat16"),
}


def memory_by_method(inputs):
    """Table 3 by its own arithmetic, beside what the engine allocates and what cells measured."""
    import pandas as pd

    counts = inputs.parameters
    of_paper = counts[counts.targets.eq("all-linear") & counts["head"].eq("paper") & counts.r.eq(paper.MEMORY_RANK)]
    parameters = int(of_paper.trainable_parameters.iloc[0])
    stated = paper.table(3, inputs.directory)
    computed = paper.memory_by_method(parameters, inputs.directory).set_index("type")
    tokens = _micro_batch(inputs)
    rows = []
    for row in stated.to_dict("records"):
        method, dtype = TABLE3_CELLS[row["type"]]
        cell = _Cell(method, "all-linear", paper.MEMORY_RANK)
        need = memory.training(_architecture(), CLASSES, cell, tokens, dtype=dtype).as_gib()
        allocated = dict(zip(paper.COMPONENTS, (need["base"], need["adapters"], need["gradients"], need["optimizer"])))
        allocated["activations and buffers"] = need["total"] - sum(allocated.values())
        allocated["total"] = need["total"]
        for component, size in allocated.items():
            column = f"{component}_gib"
            rows.append(
                {
                    "type": row["type"],
                    "component": component,
                    "unit": "GiB",
                    "paper": row.get(column, np.nan),
                    "reproduced": computed.loc[row["type"]].get(column, np.nan),
                    "allocated": size,
                    "measured": _measured(inputs, method, dtype) if component == "total" else np.nan,
                }
            )
    frame = pd.DataFrame(rows)
    frame["difference"] = frame.reproduced - frame.paper
    frame = frame[["type", "component", "unit", *STATED, "allocated", "measured"]]
    shown = pd.DataFrame(
        {
            "type": frame.type,
            "component": frame.component.replace({"adamw": "AdamW"}),
            "paper": frame.paper.map(_as_printed),
            "reproduced": frame.reproduced.map(_as_printed),
            "difference": frame.difference.map(lambda value: signed(value, 4 if value else 3)),
            "allocated": frame.allocated.map(number),
            "measured": frame.measured.map(number),
        }
    )
    if frame.measured.isna().all():
        shown = shown.drop(columns="measured")
    notes = [
        f"GiB, all-linear at r = {paper.MEMORY_RANK}, {parameters:,} trainable parameters. Reproduced: the paper's "
        "convention (8e9 weights; no activations, no quantization constants, the embedding quantized).",
        f"Allocated: predicted for this pipeline with a micro-batch of {tokens:,} tokens and no checkpointing; FP16 runs "
        "as bfloat16, adapters, gradients and both AdamW moments are float32, and the embedding of the NF4 model is not "
        "quantized.",
    ]
    if frame.measured.isna().all():
        notes.append(
            f"Measured: nothing yet, since no all-linear cell at r = {paper.MEMORY_RANK} of {PAPER_MODEL} has run."
        )
    else:
        notes.append(f"Measured: peak of the cells at r = {paper.MEMORY_RANK}, at their own micro-batch.")
    return Table(
        "The paper's Table 3: memory of LoRA and QLoRA fine-tuning by component.",
        frame,
        shown,
        notes,
        ("type", "component"),
    )


@dataclass(frozen=True)
class _Cell:
    method: str
    targets: str
    r: int


def _architecture():
    import json

    return json.loads(ARCHITECTURE.read_text())


def _micro_batch(inputs):
    """Tokens of the micro-batch that the cells ran with; the longest that an optimizer step can have if none has run."""
    used = inputs.results.cells.micro_batch_tokens.dropna()
    if len(used):
        return int(used.mode().iloc[0])
    blocks = inputs.results.settings
    return blocks["training"]["batch_size"] * blocks["data"]["max_length"]


def _measured(inputs, method, dtype):
    """Mean peak of the cells that Table 3 is about; NaN unless the study runs the paper's model in that format."""
    if inputs.model != PAPER_MODEL or inputs.results.settings["model"]["dtype"] != dtype:
        return np.nan
    cells = inputs.results.cells
    cells = cells[
        cells.status.eq("finished")
        & cells.method.eq(method)
        & cells.targets.eq("all-linear")
        & cells.r.eq(paper.MEMORY_RANK)
    ]
    return cells.peak_memory_gib.mean()


def _as_printed(value):
    """Digits as in Table 3, which cuts small sizes after four."""
    if np.isnan(value):
        return "–"
    return number(value, 4 if value < 0.01 else 3 if value < 1 or round(value, 2) != round(value, 3) else 2)


# Table 4


def trainable_parameters(inputs):
    """Counts and percentages of the paper's model, and the counts of the study's own cells."""
    import pandas as pd

    stated = paper.table(4, inputs.directory).set_index("r")
    counts = inputs.parameters
    # the head of Table 4 is the paper's; attention has one construction only
    counts = counts[counts["head"].eq("paper") | counts.targets.eq("attention")]
    own = inputs.results.points[inputs.results.points.trainable_parameters.notna()]
    rows = []
    for quantity, says, column in (
        ("trainable parameters", "", "trainable_parameters"),
        ("percent of all", "_percent", "paper_percent"),
    ):
        for row in counts.sort_values(["targets", "r"], ascending=[False, True]).to_dict("records"):
            name = row["targets"].replace("-", "_") + says
            rows.append(
                {
                    "model": PAPER_MODEL,
                    "targets": row["targets"],
                    "r": row["r"],
                    "quantity": quantity,
                    "paper": float(stated[name].get(row["r"], np.nan)),
                    "reproduced": row[column] if says == "" else round(row[column], 4),
                    "all_parameters": row["paper_all_parameters"],
                }
            )
        for (targets, r), group in own.sort_values(["targets", "r"], ascending=[False, True]).groupby(
            ["targets", "r"], sort=False
        ):
            trainable, everything = group.trainable_parameters.iloc[0], group.all_parameters.iloc[0]
            rows.append(
                {
                    "model": inputs.model,
                    "targets": targets,
                    "r": int(r),
                    "quantity": quantity,
                    "paper": np.nan,
                    "reproduced": trainable if says == "" else round(100 * trainable / everything, 4),
                    "all_parameters": everything,
                }
            )
    frame = pd.DataFrame(rows)
    frame["difference"] = (frame.reproduced - frame.paper).round(6)
    frame = frame[["model", "targets", "r", "quantity", *STATED, "all_parameters"]]
    wide = frame.pivot_table(
        index=["model", "targets", "r"], columns="quantity", values=STATED, sort=False, dropna=False
    ).dropna(how="all")
    count, percent = wide.xs("trainable parameters", axis=1, level=1), wide.xs("percent of all", axis=1, level=1)
    shown = pd.DataFrame(
        {
            "model": [model.split("/")[-1] for model in wide.index.get_level_values("model")],
            "targets": wide.index.get_level_values("targets"),
            "r": [f"{r}" for r in wide.index.get_level_values("r")],
            **{name if name != "reproduced" else "trainable": count[name].map(whole).to_list() for name in STATED},
            **{
                f"{name}, %" if name != "reproduced" else "trainable, %": [
                    number(value, 4) if name != "difference" else signed(value, 4) for value in percent[name]
                ]
                for name in STATED
            },
        }
    )
    notes = [
        f"{PAPER_MODEL}: counted on the real architecture, built with PEFT without weights; the head of the all-linear set "
        "has a LoRA pair and a trainable base.",
        "Percent: of all parameters as the paper's PEFT (0.8 to 0.10) counts them: base without a language-model head, "
        "adapters, and the head twice (original and trained copy; in the all-linear set each with a LoRA pair).",
    ]
    if len(own):
        notes.append(
            f"{inputs.model.split('/')[-1]}: the study's own cells, as their records say (percent of what the built model "
            "holds); the paper states nothing for it."
        )
    return Table("The paper's Table 4: trainable parameters.", frame, shown, notes, ("model", "targets"))


# Table 5


def zero_shot(inputs):
    """The base model before fine-tuning, both ways, beside what guessing gives."""
    import pandas as pd

    stated = paper.table(5, inputs.directory).iloc[0]
    rows = []
    baselines = inputs.results.baselines
    for name, row in baselines.iterrows():
        for average, prefix in (("weighted", ""), ("macro", "macro_")):
            for score in ("precision", "recall", "f1"):
                column = prefix + score
                rows.append(
                    {
                        "classifier": NAMES[name],
                        "average": average,
                        "score": score,
                        "paper": stated[score],
                        **dict(zip(("reproduced", "low", "high"), row[[column, f"{column}_low", f"{column}_high"]])),
                    }
                )
        rows.append(
            {
                "classifier": NAMES[name],
                "average": "",
                "score": "accuracy",
                "paper": stated.accuracy,
                **dict(zip(("reproduced", "low", "high"), row[["accuracy", "accuracy_low", "accuracy_high"]])),
            }
        )
    for name, scores in _guessing(inputs.results.confusion).items():
        for score, value in scores.items():
            average = "" if score == "accuracy" else "macro" if score.startswith("macro_") else "weighted"
            rows.append(
                {"classifier": name, "average": average, "score": score.removeprefix("macro_"), "reproduced": value}
            )
    frame = pd.DataFrame(rows, columns=["classifier", "average", "score", *STATED, "low", "high"])
    frame["difference"] = frame.reproduced - frame.paper
    # of guessing, people need the lines to beat; the CSV has the rest
    kept = frame[~frame.classifier.isin(GUESSES) | frame.score.isin(["accuracy", "f1"])]
    shown = pd.DataFrame(
        {
            "classifier": kept.classifier,
            "average": kept.average.replace("", "–"),
            "score": kept.score.replace({"f1": "F1"}),
            "paper": kept.paper.map(lambda value: number(value, 4)),
            "reproduced": [interval(*values) for values in zip(kept.reproduced, kept.low, kept.high)],
            "difference": kept.difference.map(signed),
        }
    )
    notes = [
        "Fractions. Untrained head: the classification head before any training, which is what an accuracy near chance "
        "suggests that the paper measured; prompting: the likeliest of the class words after the prompt.",
        "The paper does not say how it averages over classes; its recall equals its accuracy, as weighted recall does "
        "always and macro recall does on balanced classes.",
        *_basis(inputs),
        "Majority class: always the most frequent class of the test texts; chance: every class alike, expected values.",
        _study(inputs),
    ]
    notes += [
        f"{NAMES[name]}: {row.status}, {row.reason}." for name, row in baselines.iterrows() if row.status != "finished"
    ]
    return Table(
        "The paper's Table 5: the base model before fine-tuning.",
        frame,
        shown,
        notes,
        ("classifier", "average", "score"),
    )


GUESSES = ("majority class", "chance")


def _guessing(confusion):
    """Scores of always guessing the most frequent class, and of guessing at random, from expected confusion matrices."""
    if not confusion:
        return {}
    of_class = np.asarray(next(iter(confusion.values())), dtype=float).sum(axis=1)
    classes = len(of_class)
    majority = np.zeros((classes, classes))
    majority[:, of_class.argmax()] = of_class
    chance = np.repeat(of_class[:, None] / classes, classes, axis=1)
    wanted = ["precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1", "accuracy"]
    found = metrics.confusion_scores(np.array([majority, chance]))
    return {name: {score: found[score][i] for score in wanted} for i, name in enumerate(GUESSES)}


# Result tables


def constant_r(inputs):
    return _trend(inputs, "alpha", "r", "The paper's section 3.1: accuracy and F1 against alpha at constant r.")


def constant_alpha(inputs):
    return _trend(inputs, "r", "alpha", "The paper's section 3.2: accuracy and F1 against r at constant alpha.")


def _trend(inputs, axis, constant, caption):
    """Scores along an axis, a column a method and target set; marks where the best is distinguishable."""
    import pandas as pd

    points, grid = inputs.results.points, inputs.results.settings["grid"]
    at = grid[f"constant_{constant}"]
    if at is not None:
        points = points[points[constant].astype(float).eq(float(at))]
    points = points.assign(set=points.method + " " + points.targets)
    order = list(dict.fromkeys(points.set))
    keys = ["view", "scaling", constant, axis]
    frame_rows, shown_rows, bold = [], [], set()
    best = {score: _best(inputs, points, axis, score) for score in SCORES}
    for score, title in SCORES.items():
        for key, group in points.sort_values(["scaling", constant, axis], kind="stable").groupby(
            keys, sort=False, dropna=False
        ):
            row = dict(zip(keys, key))
            alpha, r = float(row["alpha"]), int(row["r"])
            label = {
                "score": title,
                "learning rate": row["view"],
                "scaling": row["scaling"],
                constant: f"{row[constant]:g}",
                axis: f"{row[axis]:g}",
                "alpha/r": f"{alpha / r:g}" if row["scaling"] == "standard" else f"{alpha / np.sqrt(r):.3g} (/√r)",
            }
            for name in order:
                label[_set_name(name)] = "–"
            for point in group.itertuples():
                mark = best[score].get((point.view, point.point), set())
                label[_set_name(point.set)] = _score(point, score) + ("*" if "row" in mark else "")
                frame_rows.append(
                    {
                        "score": score,
                        **{
                            name: getattr(point, name)
                            for name in ("view", *tuning.POINT, "learning_rate", "point", "status", "reason")
                        },
                        "value": getattr(point, score),
                        "low": getattr(point, f"{score}_low"),
                        "high": getattr(point, f"{score}_high"),
                        "n": point.n_test,
                        "seeds": point.seeds,
                        "best_in_column": "column" in mark,
                        "best_in_row": "row" in mark,
                    }
                )
                if "column" in mark:
                    bold.add((len(shown_rows), _set_name(point.set)))
            shown_rows.append(label)
    shown = pd.DataFrame(shown_rows)
    if shown.empty:
        shown = pd.DataFrame(columns=["score", constant, axis])
    # what has one value only goes into the notes
    single = [name for name in ("learning rate", "scaling") if name in shown and shown[name].nunique() == 1]
    shown = shown.drop(columns=single)
    bold = frozenset((row, list(shown).index(column)) for row, column in bold)
    frame = pd.DataFrame(frame_rows)
    notes = [
        "Fractions. Bold: best of its column; *: best of its row; both only where it is distinguishable from every other "
        "(paired on the same texts, p < 0.05 after Holm's correction within the column or row). "
        + ("None is." if not any(best[score] for score in SCORES) else ""),
        *_basis(inputs),
        *_views_note(points),
        *_holes(points),
    ]
    return Table(caption, frame, shown, [note.strip() for note in notes], ("score", "learning rate", "scaling"), bold)


def _views_note(points):
    """What the views are, if there are two."""
    if points.view.nunique() < 2:
        return []
    tuned = points[points.view.eq(tuning.TUNED)]
    rates = ", ".join(f"{rate:g} at {count}" for rate, count in tuned.learning_rate.value_counts().items())
    return [
        "Learning rate: configured, the one of the configuration for all points; tuned, each point at the rate with the "
        f"highest accuracy on the validation texts ({rates} points)."
    ]


def _set_name(name):
    method, targets = name.split(" ")
    return f"{NAMES[method]} {NAMES[targets]}"


def _score(point, score):
    """A point's score with its interval, or why there is none; † where seeds are missing."""
    if not point.seeds:
        return point.status
    text = interval(getattr(point, score), getattr(point, f"{score}_low"), getattr(point, f"{score}_high"))
    return text if point.status == "finished" else f"{text}†"


def _best(inputs, points, axis, score):
    """(view, point) → ``column``, ``row`` where a point is ahead of every other of it, each shown after correction."""
    comparisons = inputs.results.comparisons
    comparisons = comparisons[comparisons.metric.eq(score)]
    found = {}
    for family, side, others in (
        (f"{axis}_pair", "column", ["method", "targets"]),
        ("set_pair", "row", [axis]),
    ):
        pairs = comparisons[comparisons.family.eq(family)]
        constant = ["view", "scaling", "alpha" if axis == "r" else "r"]
        for _, group in points.groupby([*constant, *others], sort=False):
            # what has not run may be better still; what has diverged is not
            if (group.seeds.eq(0) & group.status.ne("diverged")).any() or group.seeds.eq(0).all():
                continue
            finished = group[group.seeds.gt(0)]
            best = finished.loc[finished[score].astype(float).idxmax()]
            rest = set(finished.point) - {best.point}
            of_view = pairs[pairs.view.eq(best.view)]
            beaten = {
                *of_view.b[of_view.a.eq(best.point) & of_view.difference.gt(0) & of_view.p_holm.lt(LEVEL)],
                *of_view.a[of_view.b.eq(best.point) & of_view.difference.lt(0) & of_view.p_holm.lt(LEVEL)],
            }
            if rest and rest <= beaten:
                found.setdefault((best.view, best.point), set()).add(side)
    return found


def lora_against_qlora(inputs):
    """Section 3.3: every matched pair of LoRA and QLoRA, and their average."""
    import pandas as pd

    points, pairs = inputs.results.points, inputs.results.comparisons
    pairs = pairs[pairs.metric.eq("accuracy") & pairs.family.isin(["method", "pooled_method"])]
    keys = ["view", "targets", "r", "alpha", "scaling"]
    sides = {name: points[points.method.eq(name)].set_index(keys) for name in ("lora", "qlora")}
    rows = []
    for key in dict.fromkeys([*sides["lora"].index, *sides["qlora"].index]):
        row = dict(zip(keys, key))
        lora, qlora = (side.loc[key] if key in side.index else None for side in sides.values())
        for name, point in (("lora", lora), ("qlora", qlora)):
            row |= {
                f"{name}_{score}{end}": np.nan if point is None else point[f"{score}{end}"]
                for score in SCORES
                for end in ("", "_low", "_high")
            }
            row[f"{name}_status"] = "not in the grid" if point is None else point.status
            row[f"{name}_reason"] = None if point is None else point.reason
            row[f"{name}_seeds"] = 0 if point is None else point.seeds
        if lora is not None and qlora is not None:
            found = pairs[pairs.view.eq(row["view"]) & pairs.a.eq(lora.point) & pairs.b.eq(qlora.point)]
            if len(found):
                row |= found.iloc[0][PAIR].to_dict()
            row["time_ratio"] = qlora.seconds / lora.seconds
            row["memory_ratio"] = qlora.peak_memory_gib / lora.peak_memory_gib
        rows.append(row)
    for pooled in pairs[pairs.family.eq("pooled_method")].to_dict("records"):
        cells = tuning.views(inputs.results.summary)[pooled["view"]]
        rows.append(
            {"view": pooled["view"], "targets": f"average of {int(pooled['units'])} pairs"}
            | {name: pooled[name] for name in PAIR}
            | {"time_ratio": ratios.ratio(cells, "seconds").value}
            | {"memory_ratio": ratios.ratio(cells, "peak_memory_gib").value}
        )
    columns = [
        *keys,
        *(f"{name}_{what}" for name in sides for what in ("accuracy", "accuracy_low", "accuracy_high", "f1", "f1_low", "f1_high", "status", "reason", "seeds")),
        *PAIR, "time_ratio", "memory_ratio",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns).astype({"r": "Int64"})
    shown = pd.DataFrame(
        {
            "learning rate": frame["view"],
            "targets": frame.targets.map(lambda name: NAMES.get(name, name)),
            "scaling": frame.scaling.fillna("–"),
            "r": ["–" if pd.isna(r) else f"{r}" for r in frame.r],
            "alpha": ["–" if pd.isna(alpha) else f"{alpha:g}" for alpha in frame.alpha],
            "LoRA": [_side(row, "lora") for row in rows],
            "QLoRA": [_side(row, "qlora") for row in rows],
            "LoRA − QLoRA": [
                interval(row.difference, row.low, row.high, form=signed)
                + ("" if pd.isna(row.reason) else f" ({row.reason.partition(':')[0]})")
                for row in frame.itertuples()
            ],
            "p (Holm)": frame.p_holm.map(p_value),
            "p (equal)": frame.p_equivalent.map(p_value),
            "only one right": [
                "–" if pd.isna(a) else f"{a} : {b}" for a, b in zip(frame.only_a, frame.only_b, strict=True)
            ],
            "time": frame.time_ratio.map(lambda value: number(value, 2)),
            "memory": frame.memory_ratio.map(lambda value: number(value, 2)),
        }
    )
    single = ["learning rate"] if frame["view"].nunique() < 2 else []
    single += ["scaling"] if frame.scaling.nunique() < 2 else []
    single += ["only one right"] if frame.only_a.isna().all() else []
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    tests = sorted(set(pairs[pairs.family.eq("method")].test))
    notes = [
        "Accuracies (fractions), paired on the same texts. Time, memory: QLoRA / LoRA of training time and peak memory.",
        f"p (Holm): {' or '.join(tests) or 'no pair yet'}, corrected for the number of pairs; p (equal): two one-sided "
        f"tests, small where the difference is within ± {margin:g}."
        + ("" if frame.only_a.isna().all() else " Only one right: texts that LoRA alone : QLoRA alone got right."),
        *(f"Average: {reason}." for reason in frame.reason.dropna().unique()),
        *_basis(inputs),
        *_views_note(points),
        *_holes(points),
    ]
    return Table(
        "The paper's section 3.3: LoRA against QLoRA, pair by pair.",
        frame,
        shown.drop(columns=single),
        notes,
        ("learning rate", "targets", "scaling"),
    )


PAIR = [
    "difference", "low", "high", "p", "p_holm", "p_equivalent", "reason", "only_a", "only_b", "bootstrap_low", "bootstrap_high",
    "n", "seeds",
]  # fmt: skip


def _side(row, name):
    if f"{name}_status" not in row:
        return "–"
    if not row[f"{name}_seeds"]:
        return row[f"{name}_status"]
    return number(row[f"{name}_accuracy"]) + ("" if row[f"{name}_status"] == "finished" else "†")


# Claims and assumptions


def claims_table(inputs):
    """The paper's questions with what this study's data says."""
    import pandas as pd

    frame = claims.build(inputs.results, inputs.directory)
    shown = {"": [str(i) for i in range(1, 1 + len(frame))]}
    shown |= {"learning rate": frame["view"]} if frame["view"].nunique() > 1 else {}
    shown |= {"claim": frame.statement}
    if "paper" in frame:
        shown["paper"] = frame.paper
    shown |= {
        "found": frame.found,
        "verdict": frame.verdict,
        "p for": frame.p_supported.map(p_value),
        "p against": frame.p_contradicted.map(p_value),
        "texts": [whole(value) if pd.notna(value) else "–" for value in frame.n],
        "seeds": [whole(value) if pd.notna(value) else "–" for value in frame.seeds],
    }
    margin = inputs.results.settings["statistics"]["equivalence_margin"]
    tests = frame[frame.test.ne("")].groupby("test", sort=False).groups
    notes = [
        "Supported, contradicted or open: open says that this study is too small to tell. Differences are percentage "
        f"points of accuracy with 95% intervals; a difference under the margin of {100 * margin:g} points counts as none "
        "unless it is shown to be one. Tests at 5%.",
        *_claims_basis(inputs),
        *(f"Test of {', '.join(str(i + 1) for i in rows)}: {test}." for test, rows in tests.items()),
        _study(inputs),
        *_views_note(inputs.results.points),
        *_holes(inputs.results.points),
    ]
    words = ("", "learning rate", "claim", "paper", "found", "verdict")
    return Table("What the data says about the paper's questions.", frame, pd.DataFrame(shown), notes, words)


def _claims_basis(inputs):
    seeds = inputs.results.settings["grid"]["seeds"]
    if len(seeds) > 1:
        return [f"{len(seeds)} seeds; intervals cover test texts and seeds."]
    return [
        "One seed: averages over three pairs or more take the spread between pairs for that between runs; of a single pair, "
        "the variance between seeds is not covered."
    ]


def assumptions(inputs):
    """What the paper states, what is derived from it and what is assumed, with this study's values."""
    import pandas as pd

    frame = ledger.table(inputs.results.settings)
    shown = pd.DataFrame(
        {
            "what": frame.what,
            "basis": frame.basis,
            "paper": frame.paper,
            "this study": frame.value,
            "key": frame.key.replace("", "–"),
            "reason": frame.reason,
            "another value": frame.effect,
        }
    )
    notes = [
        "Stated: in the paper's tables, headings or abstract. Derived: follows from what they state. Assumed: not in "
        "them; the body text is not at hand. Reasons are those for the values of the paper's study "
        "(the repository's config.yaml).",
    ]
    return Table("What this study takes from the paper, and what it assumes.", frame, shown, notes, tuple(shown))


# name of the table's files → what makes it
def costs(inputs):
    """Hours, energy, CO2e and money: of each result in the CSV, summed up for people."""
    import pandas as pd

    block = inputs.results.settings["cost"]
    frame = cost.table(inputs.results.summary, block)
    sums = cost.totals(frame)
    shown = pd.DataFrame({"of": sums.of.map(lambda name: NAMES.get(name, name)), "results": sums.results.map(whole)})
    heads = {"hours": "device hours", "energy_kwh": "kWh", "co2e_kg": "kg CO2e", "money": block["currency"]}
    for amount, head in heads.items():
        parts = zip(sums[amount], sums[f"{amount}_known"], sums.results)
        shown[head] = [
            "–" if pd.isna(value) else significant(float(value)) + (f" (of {known})" if known < results else "")
            for value, known, results in parts
        ]
    devices = ", ".join(sorted(set(frame.device.dropna()))) or "none yet"
    return Table(
        "What the study cost: time on its device, energy, CO2e and money.",
        frame,
        shown,
        [f"Device: {devices}.", *cost.gaps(frame, block)],
        ("of",),
    )


TABLES = {
    "table1_hardware": hardware,
    "table2_memory_by_dtype": memory_by_dtype,
    "table3_memory_by_method": memory_by_method,
    "table4_trainable_parameters": trainable_parameters,
    "table5_zero_shot": zero_shot,
    "results_3_1_constant_r": constant_r,
    "results_3_2_constant_alpha": constant_alpha,
    "results_3_3_lora_against_qlora": lora_against_qlora,
    "cost": costs,
    "claims": claims_table,
    "assumptions": assumptions,
}
