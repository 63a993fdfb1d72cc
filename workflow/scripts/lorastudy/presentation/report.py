"""The study as one self-contained HTML page: verdicts first, every number within reach, no network needed.

All text that comes from data is escaped: by the template in HTML, by ``embedded`` in JSON. The page's content
security policy names the hashes of its own script and style and allows nothing else, so that a browser refuses
whatever a text might smuggle in, and any request.
"""

import base64
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape
from PIL import Image

from lorastudy.analysis import cost
from lorastudy.presentation import figures, rule_graph
from lorastudy.presentation.origin import Origin
from lorastudy.study import assumptions, paper, records, settings

PAGE = settings.REPOSITORY / "workflow" / "report" / "page"
CURVE_POINTS = 200
# What a figure is drawn from where that is not the table of points.
FIGURE_DATA = {"lora_against_qlora": "comparisons.csv", "confusion": "confusion.json", "loss_curves": "curves.csv"}
IMAGE_WIDTH = 2000  # pixels; enough to zoom in
MISSING = "–"
BEGIN, END = "<!-- texts -->", "<!-- end of texts -->"
LEFT_OUT = (
    "The texts are not in this page: it was made where there were none (<code>results/data/test.parquet</code>), as in "
    "a bundle without texts. All else is as it is with them."
)
# tables that are shown as cards, and what the page calls them
CLAIMS = {"claims": "The paper's claims", "questions": "Over the whole grid"}
SECTIONS = ("assumptions", "cost")  # tables that have a section of their own

# What the page calls the columns of the summary, and how it writes their values.
LABELS = {
    "method": ("Method", "text"),
    "targets": ("Targets", "text"),
    "r": ("r", "whole"),
    "alpha": ("Alpha", "number"),
    "scaling": ("Scaling", "text"),
    "learning_rate": ("Learning rate", "number"),
    "seed": ("Seed", "whole"),
    "status": ("Status", "text"),
    "accuracy": ("Accuracy", "fraction"),
    "precision": ("Precision", "fraction"),
    "recall": ("Recall", "fraction"),
    "f1": ("F1", "fraction"),
    "macro_precision": ("Macro precision", "fraction"),
    "macro_recall": ("Macro recall", "fraction"),
    "macro_f1": ("Macro F1", "fraction"),
    "mae": ("MAE (classes)", "fraction"),
    "nll": ("NLL (nats)", "fraction"),
    "ece": ("ECE", "fraction"),
    "n_test": ("Test texts", "whole"),
    "validation_accuracy": ("Validation accuracy", "fraction"),
    "trainable_parameters": ("Trainable parameters", "whole"),
    "trainable_percent": ("Trainable %", "number"),
    "steps": ("Steps", "whole"),
    "samples": ("Samples", "whole"),
    "tokens": ("Tokens", "whole"),
    "seconds": ("Training time", "duration"),
    "samples_per_second": ("Samples/s", "number"),
    "tokens_per_second": ("Tokens/s", "whole"),
    "peak_memory_gib": ("Peak memory (GiB)", "number"),
    "peak_reserved_gib": ("Peak reserved (GiB)", "number"),
    "memory_meter": ("Memory measured as", "text"),
    "resumes": ("Resumes", "whole"),
    "micro_batch_tokens": ("Tokens a micro-batch", "whole"),
    "checkpointed_layers": ("Checkpointed layers", "whole"),
    "gpu_processes": ("Processes on its GPU", "number"),
    "final_loss": ("Final training loss", "number"),
    "diverged_step": ("Diverged at step", "whole"),
    "diverged_learning_rate": ("Learning rate there", "number"),
    "evaluation_seconds": ("Evaluation time", "duration"),
    "evaluation_tokens_per_second": ("Evaluation tokens/s", "whole"),
    "evaluation_peak_memory_gib": ("Evaluation peak memory (GiB)", "number"),
    "device": ("Device", "text"),
    "hours": ("Device hours", "number"),
    "energy_kwh": ("Energy (kWh)", "number"),
    "energy_reason": ("Energy", "text"),
    "co2e_kg": ("CO2e (kg)", "number"),
    "money": ("Money", "number"),
    "time_utc": ("Finished (UTC)", "text"),
}
AXES = ("method", "targets", "r", "alpha", "learning_rate", "scaling", "seed", "status")
ALWAYS = ("method", "targets", "r", "alpha", "seed", "status")
TABLE = (
    *AXES, "accuracy", "f1", "mae", "trainable_percent", "seconds", "samples_per_second", "peak_memory_gib",
    "energy_kwh", "money",
)  # fmt: skip
SCORES = (
    "accuracy", "f1", "precision", "recall", "macro_f1", "macro_precision", "macro_recall", "mae", "nll", "ece",
)  # fmt: skip
FACTS = (
    "n_test", "validation_accuracy", "trainable_parameters", "trainable_percent", "steps", "samples", "tokens",
    "seconds", "samples_per_second", "tokens_per_second", "peak_memory_gib", "peak_reserved_gib", "memory_meter",
    "resumes", "micro_batch_tokens", "checkpointed_layers", "gpu_processes", "final_loss", "diverged_step", "diverged_learning_rate",
    "evaluation_seconds", "evaluation_tokens_per_second", "evaluation_peak_memory_gib", "hours", "energy_kwh", "energy_reason", "co2e_kg", "money", "device",
    "time_utc",
)  # fmt: skip


def write(path, results, details, files, drawings, tables, origin, study_directory="."):
    """Write the page to ``path``, whole or not at all.

    Args:
        results: ``summary.Results``; its settings hold the blocks study, model, data, prompt, lora, grid, training,
            statistics and cost.
        details: dictionary of ``analysis.details.build``.
        files: paths of the files that the results were read from, which the page carries.
        drawings: paths of the PNG files; the caption of each lies beside it (``.txt``).
        tables: ``tables.Table`` by name; the CSV file of each is in ``paper_tables/``.
        origin: ``origin.Origin``, whose commands the page repeats.
    """
    with records.replacing(path) as temporary:
        text = page(results, details, files, drawings, tables, origin, study_directory)
        temporary.write_text(text, encoding="utf-8")


def page(results, details, files, drawings, tables, origin, study_directory="."):
    """The page as one string; arguments as of ``write``."""
    study = Path(study_directory)
    details = _safe(details)
    costs = cost.table(results.summary, results.settings["cost"])
    typed = origin.command
    carried = Files(study)
    for path in files:
        carried.add(path)
    script, style = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    full = _with_costs(results.summary, costs)
    columns = _columns(full[full.kind == "cell"])
    return _template().render(
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
        settings=results.settings,
        status=_status(results),
        claims=[
            (title, tables[name].frame.to_dict("records"), tables[name].frame.verdict.value_counts().to_dict())
            for name, title in CLAIMS.items()
            if name in tables
        ],
        figures=[_figure(path, study, carried, typed) for path in drawings],
        results=[carried.add(path) for path in files],
        tables=[_table(name, made, carried, typed) for name, made in tables.items() if name not in SECTIONS],
        cost=_table("cost", tables["cost"], carried, typed),
        columns=columns,
        labels=LABELS,
        cells=full[full.kind != "baseline"].to_dict("records"),
        filters=_filters(results.cells),
        baselines=results.baselines.reset_index().to_dict("records"),
        stated=_stated(results.settings),
        scores=SCORES,
        card=details["card"],
        assumed=assumptions.table(results.settings).to_dict("records"),
        assumptions=_table("assumptions", tables["assumptions"], carried, typed),
        environment=_environment(details),
        drawing=rule_graph.layout(origin.rules) if origin.rules else None,
        undrawn=origin.reason,
        curve=rule_graph.curve,
        box=(rule_graph.WIDTH, rule_graph.HEIGHT),
        command=typed(),
        files=carried.held,
        texts=_texts(details["texts"]),
        data=embedded(_for_the_script(results, details, full) | {"origin": origin.as_dict()}),
    )


def _template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show, "visible": visible, "code": code}
    return environment.get_template("report.html.j2")


def _for_the_script(results, details, full):
    """What the page's script needs to show a cell's panel; ``full`` is the summary with costs."""
    card = details["card"]
    return {
        "labels": LABELS,
        "scores": SCORES,
        "facts": FACTS,
        "axes": AXES,
        "classes": card["class_names"] if card else None,
        "currency": results.settings["cost"]["currency"],
        "rows": _rows(full),
        "details": _panels(results, details),
        "shared": details["shared"],
    }


# --- text


def visible(text):
    """Text with its control characters made visible (U+2400 block), line ends and tabs kept."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: _symbol(ord(found[0])), str(text))


def _symbol(code):
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def show(value, kind="number"):
    """A value as the page writes it: ``text``, ``whole``, ``fraction``, ``duration`` (of seconds) or ``number``."""
    if value is None or pd.isna(value):
        return MISSING
    match kind:
        case "text":
            return visible(value)
        case "whole":
            return f"{value:,.0f}"
        case "fraction":
            return f"{value:.3f}"
        case "duration":
            whole = round(value)
            return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 10 else f"{value:.1f} s"
        case _:
            return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def code(text):
    """Text as HTML, with what stands between backticks as code."""
    parts = [escape(visible(part)) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )


def embedded(content):
    """JSON that is safe between script tags: no character in it can end the element or be taken for markup."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _texts(texts):
    """The one part of the page that holds texts of the data (id → text); it says so where they are not there (None)."""
    note = "" if texts is not None else f'<p class="note">{LEFT_OUT}</p>'
    return Markup(f'{BEGIN}{note}<script type="application/json" id="texts">{embedded(texts)}</script>{END}')


def without_texts(page):
    """A page as it is made where the test texts are not there."""
    before, rest = page.split(BEGIN, 1)
    return before + str(_texts(None)) + rest.split(END, 1)[1]


def origin_of(page):
    """The ``Origin`` that a page was made with."""
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)[1]
    return Origin.from_dict(json.loads(data)["origin"])


def _hash(text):
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class Files:
    """Files of a study that the page carries for download, compressed, each once."""

    def __init__(self, study):
        self.study = study
        self.held = []

    def add(self, path):
        """Number and name on the page of the file at ``path`` (relative to the study), taken in if it is not yet."""
        name = str(path)
        known = [file["name"] for file in self.held]
        if name not in known:
            packed = base64.b64encode(gzip.compress((self.study / path).read_bytes(), mtime=0)).decode()
            self.held.append({"name": name, "packed": packed})
            known.append(name)
        return {"number": known.index(name), "name": Path(path).name}


# --- what the page says, section by section


def _status(results):
    """Cells by status, and the time of the newest result: (counts, total, time or None)."""
    counts = results.cells.status.value_counts().to_dict()
    times = results.summary.time_utc.dropna()
    return {"counts": counts, "cells": len(results.cells), "newest": max(times) if len(times) else None}


def _figure(path, study, carried, typed):
    path = Path(path)
    held = io.BytesIO()
    with Image.open(study / path) as drawn:
        share = min(1, IMAGE_WIDTH / drawn.width)
        image = drawn.convert("RGB").resize((round(drawn.width * share), round(drawn.height * share)), Image.LANCZOS)
    image.quantize(128, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
    return {
        "name": path.stem,
        "title": _title(path.stem),
        "what": figures.describe(path.stem),
        "caption": (study / path).with_suffix(".txt").read_text(encoding="utf-8").strip(),
        "width": image.width,
        "height": image.height,
        "image": base64.b64encode(held.getvalue()).decode(),
        "command": typed(str(path)),
        "path": str(path.with_suffix(".pdf")),
        "file": carried.add(Path("results", FIGURE_DATA.get(path.stem, "points.csv"))),
    }


def _title(name):
    """Name of a figure or table in words: ``lora_against_qlora`` is LoRA against QLoRA, ``table1_time`` Table 1: time."""
    text = re.sub(r"^(table|figure)(\d+)_", r"\1 \2: ", name)
    text = re.sub(r"^results_(\d)_(\d)_", r"section \1.\2: ", text).replace("_", " ")
    text = " ".join({"lora": "LoRA", "qlora": "QLoRA"}.get(word, word) for word in text.split())
    return text if text.startswith(("LoRA", "QLoRA", "r ")) else text[0].upper() + text[1:]


def _table(name, table, carried, typed):
    """A ``tables.Table`` as the template writes it."""
    path = Path("paper_tables", f"{name}.csv")
    cells = table.shown.astype(str).to_numpy().tolist()
    return {
        "title": _title(name),
        "caption": table.caption,
        "columns": [(column, column in table.text) for column in table.shown],
        "rows": [[(cell, (i, j) in table.bold) for j, cell in enumerate(row)] for i, row in enumerate(cells)],
        "notes": table.notes,
        "file": carried.add(path),
        "command": typed(str(path)),
    }


def _with_costs(frame, costs):
    return frame.assign(
        **{name: costs[name].reindex(frame.index) for name in ("hours", "energy_kwh", "co2e_kg", "money")}
    )


def _columns(cells):
    """Columns of the table of cells: those that say something in this study."""

    def says_something(name):
        return cells[name].nunique(dropna=False) > 1 if name in AXES else bool(cells[name].notna().any())

    return [name for name in TABLE if name in ALWAYS or says_something(name)]


def _filters(cells):
    """Axis → its values in order, of each axis along which the cells differ."""
    choices = {name: sorted(cells[name].dropna().unique().tolist()) for name in AXES}
    return {name: values for name, values in choices.items() if len(values) > 1}


def _rows(frame):
    """Id → column → value, without what is missing; numbers of six significant digits."""
    rows = {}
    for row in frame.to_dict("records"):
        rows[row["id"]] = {key: plain for key, value in row.items() if (plain := _plain(value)) is not None}
    return rows


def _plain(value):
    if value is None or pd.isna(value):
        return None
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return bool(value)
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.6g}")


def _panels(results, details):
    """Per id what its panel shows beside the row: curve, confusion, provenance, most confident errors."""
    curves = dict(tuple(results.curves.groupby("id", sort=False))) if len(results.curves) else {}
    return {
        name: detail | {"confusion": results.confusion.get(name), "curve": _curve(curves.get(name))}
        for name, detail in details["results"].items()
    }


def _safe(value):
    """The same nested value with control characters in its texts made visible."""
    if isinstance(value, dict):
        return {visible(key): _safe(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_safe(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


def _curve(rows):
    """Steps and losses of a training log, at most ``CURVE_POINTS`` of them, the last one kept."""
    if rows is None:
        return None
    rows = rows[rows.loss.notna()]
    every = -(-len(rows) // CURVE_POINTS) or 1
    kept = rows.iloc[::-1].iloc[::every].iloc[::-1]
    return {"step": kept.step.astype(int).tolist(), "loss": [float(f"{loss:.5g}") for loss in kept.loss]}


def _stated(blocks):
    """The paper's row for the table of baselines; None for a study that does not reproduce it."""
    return paper.table(5).iloc[0].to_dict() if blocks["study"]["paper"] else None


def _environment(details):
    """What the results were made with: the distinct values of some of their provenance, most frequent first."""
    found = {}
    for name in ("hardware", "packages", "python", "git_commit", "git_dirty"):
        counts = Counter(detail["provenance"][name] for detail in details["results"].values())
        found[name] = [(details["shared"][index], count) for index, count in counts.most_common()]
    return found
