"""The list of assumptions: what a study takes from the paper, what is derived from it and what is assumed."""

import pandas as pd
import yaml

from lorastudy.study import paper

FILE = paper.DIRECTORY / "assumptions.yaml"
COLUMNS = ["what", "basis", "paper", "value", "key", "reason", "effect"]


def table(settings, file=FILE):
    """The list with the values of one study.

    Args:
        settings: the configuration's blocks by name (plain dictionaries).

    Returns:
        data frame with the columns ``COLUMNS``, all text. ``basis`` is ``stated``, ``derived``, ``contradictory``
        or ``assumed``; ``paper`` is what the paper has (both readings where it contradicts itself, ``not stated`` for an
        assumption), ``value`` what this study has. ``key`` is the
        configuration's (``block.key``), empty where the value is no setting.
    """
    rows = []
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")):
        key = entry.get("key", "")
        if key and "instead" in entry and _look_up(settings, key) is None:
            key = entry["instead"]
        value = _words(_look_up(settings, key)) if key else entry["value"]
        rows.append({"paper": "not stated", **entry, "key": key, "value": value})
    return pd.DataFrame(rows, columns=COLUMNS)


def _look_up(settings, key):
    block, name = key.split(".")
    return settings[block][name]


def _line(rule):
    alpha = _words(rule["alpha"]) if rule["alpha_ratio"] is None else f"{rule['alpha_ratio']:g} r"
    return f"r = {_words(rule['r'])}, alpha = {alpha}"


def _words(value):
    if value is None:
        return "empty"
    if isinstance(value, dict):  # the lines of the grid
        return "; ".join(f"{name}: {_line(rule)}" for name, rule in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value).replace("\n", "\\n")
    return text if text == text.strip() else f'"{text}"'
