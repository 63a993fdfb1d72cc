"""The paper's Tables 2 and 3: memory by number format and by method."""

import numpy as np
import pandas as pd

from lorastudy.planning import memory
from lorastudy.presentation.tables.formatting import number, signed
from lorastudy.presentation.tables.inputs import CLASSES, PAPER_MODEL, STATED
from lorastudy.presentation.tables.layout import Table
from lorastudy.study import architecture, grid, paper


def by_dtype(inputs):
    """Table 2 by its own arithmetic, beside what the weights of the real model take."""
    stated, computed = paper.table(2, inputs.directory), paper.memory_by_dtype().set_index("use")
    allocated = {
        "fp32_gib": memory.base(architecture.named(architecture.PAPER), False, "float32") / memory.GIB,
        "fp16_gib": memory.base(architecture.named(architecture.PAPER), False, "float16") / memory.GIB,
        "int4_gib": memory.base(architecture.named(architecture.PAPER), True, "bfloat16") / memory.GIB,
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
        "GiB (2^30 bytes; the paper writes GB). Reproduced: 8e9 parameters times bytes per parameter; fine-tuning is four "
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


def by_method(inputs):
    """Table 3 by its own arithmetic, beside what the engine allocates and what cells measured."""
    counts = inputs.parameters
    of_paper = counts[counts.targets.eq("all-linear") & counts["head"].eq("paper") & counts.r.eq(paper.MEMORY_RANK)]
    parameters = int(of_paper.trainable_parameters.iloc[0])
    tokens = _micro_batch(inputs)
    frame = pd.DataFrame(_by_component(inputs, parameters, tokens))
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
        measured = f"nothing yet, since no all-linear cell at r = {paper.MEMORY_RANK} of {PAPER_MODEL}'s shape has run"
    else:
        weights = "" if inputs.model == PAPER_MODEL else ", with random weights, whose values memory does not depend on"
        measured = f"peak of the cells at r = {paper.MEMORY_RANK}, at their own micro-batch{weights}"
    notes = [
        f"GiB, all-linear at r = {paper.MEMORY_RANK}, {parameters:,} trainable parameters. Reproduced: the paper's "
        "convention (8e9 weights; no activations, no quantization constants, the embedding quantized).",
        f"Allocated: predicted for this pipeline with a micro-batch of {tokens:,} tokens and no checkpointing; FP16 runs "
        "as bfloat16, adapters, gradients and both AdamW moments are float32, and the embedding of the NF4 model is not "
        "quantized.",
        f"Measured: {measured}.",
    ]
    return Table(
        "The paper's Table 3: memory of LoRA and QLoRA fine-tuning by component.",
        frame,
        shown,
        notes,
        ("type", "component"),
    )


def _by_component(inputs, parameters, tokens):
    """A row for each component of each type of Table 3, with a micro-batch of ``tokens``."""
    computed = paper.memory_by_method(parameters, inputs.directory).set_index("type")
    for row in paper.table(3, inputs.directory).to_dict("records"):
        method, dtype = TABLE3_CELLS[row["type"]]
        for component, size in _allocated(method, dtype, tokens).items():
            column = f"{component}_gib"
            yield {
                "type": row["type"],
                "component": component,
                "unit": "GiB",
                "paper": row.get(column, np.nan),
                "reproduced": computed.loc[row["type"]].get(column, np.nan),
                "allocated": size,
                "measured": _measured(inputs, method, dtype) if component == "total" else np.nan,
            }


def _allocated(method, dtype, tokens):
    """Component → GiB that this pipeline takes for the paper's model."""
    cell = grid.Cell(method, grid.ALL_LINEAR, paper.MEMORY_RANK, 2 * paper.MEMORY_RANK, 0)
    need = memory.training(architecture.named(architecture.PAPER), CLASSES, cell, tokens, dtype=dtype).as_gib()
    found = dict(zip(paper.COMPONENTS, (need["base"], need["adapters"], need["gradients"], need["optimizer"])))
    found["activations and buffers"] = need["total"] - sum(found.values())
    return found | {"total": need["total"]}


def _micro_batch(inputs):
    """Tokens of the micro-batch that the cells ran with; the longest that an optimizer step can have if none has run."""
    used = inputs.results.cells.micro_batch_tokens.dropna()
    if len(used):
        return int(used.mode().iloc[0])
    blocks = inputs.results.settings
    return memory.step_tokens(blocks["training"]["batch_size"], blocks["data"]["max_length"])


def _measured(inputs, method, dtype):
    """Mean peak of the cells that Table 3 is about; NaN unless the study runs a model of its shape in that format."""
    if inputs.model not in (PAPER_MODEL, architecture.PAPER) or inputs.results.settings["model"]["dtype"] != dtype:
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
