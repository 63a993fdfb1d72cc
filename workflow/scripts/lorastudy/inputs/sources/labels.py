"""Labels in one form, and the classes that they make.

Whole numbers however written (``3``, ``3.0``, ``"3"``) are one integer label, truth values (``True``, ``true``) one of
``true`` and ``false``; everything else is the text itself. So is a code with zeros in front: ``01`` is not ``1``.
"""

import math
import re

from lorastudy.study.errors import StudyError

_WHOLE = re.compile(r"([+-]?(?:0|[1-9][0-9]*))(?:\.0*)?")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]+(?:\.[0-9]*)?[eE]-[0-9]+")


class DataError(StudyError):
    """Texts or labels that cannot be had or used, for a reason that the user can mend."""


def canonical(label):
    """A label's canonical form: int, str, or None for a missing one. Truth values are ``true`` and ``false``."""
    if label is None or isinstance(label, float) and math.isnan(label):
        return None
    text = str(label).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    whole = _WHOLE.fullmatch(text)
    return int(whole[1]) if whole else text or None


def configured(source):
    """``data.labels`` in canonical form, empty if none are listed.

    Raises:
        DataError: one is listed twice or is empty.
    """
    labels = [canonical(label) for label in source.labels or ()]
    if None in labels or len(set(labels)) < len(labels):
        raise DataError(
            f"config: `data.labels` is {list(source.labels)}; it names one label twice or an empty one "
            "(3 and '3' are the same label); list each once."
        )
    return labels


def classes(table, source):
    """The classes, lowest first: ``data.labels``, else the values found in training (as numbers if all are).

    Args:
        table: columns ``label`` and ``split`` as ``sources.fetch`` writes them, and ``location`` (line or row of a file)
            or ``id`` to say where a bad label stands.
        source: ``sources.Source``.

    Returns:
        List of canonical labels.

    Raises:
        DataError: a label is fractional or none of the classes; a class is absent from training; there is only one.
    """
    listed = configured(source)
    splits = {split: part for split, part in table.groupby("split") if len(part)}
    found = {split: {text: canonical(text) for text in part["label"].unique()} for split, part in splits.items()}
    present = {label for split, labels in found.items() if split != "test" for label in labels.values()}
    for split, labels in found.items():
        odd = [text for text, label in labels.items() if _FRACTION.fullmatch(text) and label not in listed]
        if odd:
            raise DataError(
                f"{_rows_with(odd, 'a fractional label', splits[split], source, split)}; classes are whole numbers or "
                "words: round the labels, or list them all as strings in `data.labels`."
            )
    numbers = all(isinstance(label, int) for label in present)
    order = listed or sorted(present, key=None if numbers else str)
    for split, labels in found.items():
        odd = [text for text, label in labels.items() if label not in order]
        if odd and listed:
            raise DataError(
                f"{_rows_with(odd, 'a label that is none of `data.labels`', splits[split], source, split)}; "
                f"allowed: {enumerated(order)}. Correct the rows or `data.labels`{_as_yaml_reads(listed, odd)}."
            )
        if odd:
            raise DataError(
                f"{_rows_with(odd, 'a label that training does not have', splits[split], source, split)}; "
                f"training has {enumerated(order)}. Correct the rows, or add texts of that label to train on."
            )
    if absent := [label for label in order if label not in present]:
        raise DataError(
            f"{source.called()}: no text has the label {enumerated(absent)}; every one of `data.labels` needs "
            "texts to train on: add some, or take it out of `data.labels`."
        )
    if len(order) < 2:
        raise DataError(
            f"{source.called()}: all labels in column {source.label_column!r} are {enumerated(order)}; "
            "a classification needs at least two classes: is `data.label_column` the right one?"
        )
    return order


def _as_yaml_reads(listed, odd):
    """What YAML makes of labels without quotes, where that may be why they are not those of the texts."""
    if {"true", "false"} & set(listed) and {"yes", "no", "on", "off", "y", "n"} & {label.lower() for label in odd}:
        return " (YAML takes yes, no, on and off for truth values: quote them)"
    if any(label.startswith("0") for label in odd) and any(isinstance(label, int) for label in listed):
        return " (YAML takes 01 for the number 1: quote it)"
    return ""


def _rows_with(odd, what, part, source, split):
    rows = part[part["label"].isin(odd)]
    where = locations(rows["location" if "location" in rows else "id"])
    have = "1 row has" if len(rows) == 1 else f"{len(rows)} rows have"
    return f"{source.called(split)}: {have} {what}, for instance {odd[0]!r} ({where})"


def locations(where, limit=5):
    """Where rows stand, in words: lines of a text file, rows of a table."""
    where = list(map(str, where))
    word = "line" if where[0].isdigit() else "row"
    return f"{word}{'s' * (len(where) > 1)} {enumerated(where, limit, total=False)}"


def enumerated(items, limit=12, total=True):
    """The items in a line, the first ``limit`` of them, and with ``total`` how many there are."""
    more = f", … ({len(items)} in all)" if total else ", …"
    return ", ".join(map(str, items[:limit])) + (more if len(items) > limit else "")
