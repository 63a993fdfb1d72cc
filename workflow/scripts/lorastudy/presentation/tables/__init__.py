"""The paper's tables and the study's own, each as CSV, Markdown and LaTeX.

A table is a data frame of full precision (the CSV) and the same rows as text for people (Markdown, LaTeX). Where the
paper states a value its columns are ``paper``, ``reproduced`` and ``difference`` (reproduced minus paper).
"""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lorastudy.presentation.tables import baseline, controls, hardware, layout, memory, pairs, parameters, study, trends
from lorastudy.presentation.tables.inputs import Inputs
from lorastudy.study import paper
from lorastudy.study.grid import CONTROLS

FORMATS = ("csv", "md", "tex")
# name of the table's files → what makes it, from ``Inputs``: ``layout.Table``
TABLES = {
    "table1_hardware": hardware.hardware,
    "table2_memory_by_dtype": memory.by_dtype,
    "table3_memory_by_method": memory.by_method,
    "table4_trainable_parameters": parameters.trainable_parameters,
    "table5_zero_shot": baseline.zero_shot,
    "results_3_1_constant_r": trends.constant_r,
    "results_3_2_constant_alpha": trends.constant_alpha,
    "results_3_3_lora_against_qlora": pairs.lora_against_qlora,
    "controls": controls.controls,
    "cost": study.costs,
    "claims": study.claims,
    "one_seed": study.one_seed,
    "questions": study.questions,
    "assumptions": study.assumptions,
}
# these have something to say before anything has run
WITHOUT_RESULTS = (
    "table2_memory_by_dtype", "table3_memory_by_method", "table4_trainable_parameters", "assumptions",
)  # fmt: skip
OF_CONTROLS = ("controls",)  # that only a study with one has
OF_PAPER = ("claims", "one_seed")  # that a study which is not about the paper has nothing for


def names(with_paper, methods):
    """Tables of a study, by whether it is about the paper and by its methods."""
    left_out = () if with_paper else OF_PAPER
    left_out += () if set(methods) & set(CONTROLS) else OF_CONTROLS
    return [name for name in TABLES if name not in left_out]


def make(name, results, parameters, directory=paper.DIRECTORY):
    """The ``Table`` of a study that is called ``name`` (a key of ``TABLES``).

    Args:
        results: ``summary.Results``.
        parameters: path of the file of ``count_parameters``.
        directory: where the paper's values are.
    """
    inputs = Inputs(results, pd.read_csv(parameters), Path(directory))
    table = TABLES[name](inputs)
    return table if inputs.with_paper else _without_paper(table)


def write(name, results, parameters, paths, directory=paper.DIRECTORY):
    """Write the table ``name`` in all formats (``paths``: format → path); other arguments as of ``make``."""
    table = make(name, results, parameters, directory)
    table.frame.to_csv(paths["csv"], index=False)
    Path(paths["md"]).write_text(layout.markdown(table), encoding="utf-8")
    Path(paths["tex"]).write_text(layout.latex(table, name), encoding="utf-8")


def _without_paper(table):
    """A study that reproduces nothing of the paper has no columns for it, and is not said to be about it."""
    gone = ("paper", "difference") if "reproduced" in table.frame else ("paper",)
    columns = [column for column in table.frame if not column.startswith(gone)]
    shown = [column for column in table.shown if column.split(",")[0].strip() not in ("paper", "difference")]
    kept = list(table.shown)
    bold = {(row, shown.index(kept[column])) for row, column in table.bold if kept[column] in shown}
    caption = re.sub(r"^The paper's (Table|section) [\d.]+: (.)", lambda found: found[2].upper(), table.caption)
    notes = [note for note in table.notes if not note.startswith("The paper")]
    return replace(
        table, caption=caption, frame=table.frame[columns], shown=table.shown[shown], notes=notes, bold=frozenset(bold)
    )
