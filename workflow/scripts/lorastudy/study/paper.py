"""The paper's own values, and the arithmetic behind those that it computed rather than measured.

The paper is Patil, Khot and Gudivada, Applied Sciences 2025, 15(6), 3087; its numbers are in ``resources/paper/``.
"""

import math
from pathlib import Path

import pandas as pd

DIRECTORY = Path(__file__).resolve().parents[4] / "resources" / "paper"
FILES = {
    1: "table1_hardware.csv",
    2: "table2_memory_by_dtype.csv",
    3: "table3_memory_by_method.csv",
    4: "table4_trainable_parameters.csv",
    5: "table5_zero_shot.csv",
}
RANKS = (8, 16, 32, 64, 128, 256, 512)  # rows of Table 4
TRAINED = (1, 2, 4, *RANKS)  # ranks that section 2.7 trains
MODEL = "meta-llama/Meta-Llama-3-8B"
PARAMETERS = 8e9  # what Tables 2 and 3 take Llama-3-8B to have
GIB = 2**30  # the tables say GB: only 2^30 bytes give their digits
BYTES = {"fp32": 4, "fp16": 2, "int8": 1, "int4": 0.5}
FINETUNING = 4  # fine-tuning memory over inference memory in Table 2
MEMORY_RANK = 8  # Table 3 is for r = 8, all-linear
COMPONENTS = ("weights", "trainable", "gradients", "adamw")


def table(number, directory=DIRECTORY):
    """Table ``number`` (1 to 5) of the paper as a data frame; numbers as printed, sizes in GiB, times in minutes."""
    return pd.read_csv(Path(directory) / FILES[number])


def accuracies(directory=DIRECTORY):
    """The accuracies that the text states, a row per point of the grid: a peak (section 3.1) and a plateau (3.3).

    Columns: ``section``, ``figure``, ``method``, ``targets``, ``r``, ``alpha``, ``accuracy`` (a fraction; the text gives
    whole percent and says "about" of the plateau).
    """
    return pd.read_csv(Path(directory) / "accuracies.csv", dtype={"section": str})


def settings(directory=DIRECTORY):
    """What the paper states of how it was done, and what it does not state, as a data frame of strings.

    Columns: ``setting``; ``key`` of the configuration, empty where there is none; ``value``, ``status`` (``stated`` or
    ``not stated``) and ``section``; ``default`` of the libraries that the paper used, for what it does not state.
    """
    return pd.read_csv(Path(directory) / "settings.csv", dtype=str, keep_default_na=False)


def trainable_parameters(architecture, classes, targets, head, r):
    """Trainable parameters by counting matrices: a check on the count of the built model.

    Args:
        architecture: the model's configuration as a dictionary (``hidden_size`` and so on).
        classes: width of the classification head.
        targets: ``attention`` or ``all-linear``.
        head: ``paper`` or ``plain``. The paper's head carries a LoRA pair too when all linear layers are adapted: with
            it and only with it, the formula gives the all-linear column of Table 4.
        r: rank. A pair on a matrix of a × b has r (a + b) parameters.
    """
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    heads = architecture["num_attention_heads"]
    width = architecture.get("head_dim") or hidden // heads
    queries, keys = heads * width, architecture["num_key_value_heads"] * width
    attention = 2 * (hidden + queries) + 2 * (hidden + keys)
    feed_forward = 3 * (hidden + inner) if targets == "all-linear" else 0
    pair = r * (hidden + classes) if targets == "all-linear" and head == "paper" else 0
    return r * architecture["num_hidden_layers"] * (attention + feed_forward) + pair + hidden * classes


def memory_by_dtype():
    """Table 2 by its own arithmetic: 8e9 parameters times bytes; fine-tuning takes four times inference.

    Returns:
        data frame of Table 2's columns, GiB, rounded to the digits that the paper prints.
    """
    inference = {f"{name}_gib": PARAMETERS * size / GIB for name, size in BYTES.items()}
    return pd.DataFrame(
        [
            {"use": "fine-tuning"} | {name: printed(FINETUNING * size, 1) for name, size in inference.items()},
            {"use": "inference"} | {name: printed(size, 2) for name, size in inference.items()},
        ]
    )


def memory_by_method(parameters, directory=DIRECTORY):
    """Table 3 by its own arithmetic: a count of parameters times the bytes that the table states for each component.

    The paper adds up the rounded components, not the exact ones (14.9 + 0.039 + 0.078 + 0.078 = 15.095, where the
    exact sum is 15.097). One of its digits is cut off, not rounded: 0.00979 is printed as 0.0097.

    Args:
        parameters: trainable parameters of the all-linear target set at r = 8, as in Table 4.

    Returns:
        data frame with the columns ``type``, ``<component>_gib`` and ``total_gib`` of Table 3.
    """
    rows = []
    for stated in table(3, directory).to_dict("records"):
        exact = {
            "weights": PARAMETERS * stated["weight_bytes"] / GIB,
            "trainable": parameters * stated["trainable_bytes"] / GIB,
            "gradients": parameters * stated["gradient_bytes"] / GIB,
            "adamw": parameters * stated["adamw_bytes"] / GIB,
        }
        row = {f"{name}_gib": printed(size, 2 if name == "weights" else 3) for name, size in exact.items()}
        rows.append({"type": stated["type"]} | row | {"total_gib": printed(sum(row.values()), 3)})
    return pd.DataFrame(rows)


def printed(value, decimals):
    """``value`` rounded half up to ``decimals``; below 0.01 it is cut off after four, as in Table 3."""
    if abs(value) < 0.01:
        return math.floor(value * 10**4) / 10**4
    return math.floor(value * 10**decimals + 0.5) / 10**decimals
