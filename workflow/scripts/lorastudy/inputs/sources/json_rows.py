"""Rows of JSON, one object per line or an array of objects: (location, text, label), the label as JSON has it."""

import itertools
import json
from contextlib import suppress

from lorastudy.inputs.sources.columns import keys, position
from lorastudy.inputs.sources.labels import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json")
FIRST = 1 << 20  # characters that the first element of an array is looked for in


def read(file, called, source, peek=False):
    """Rows of an open text file; with ``peek`` of a large array no more than one.

    Raises:
        DataError: it is no such JSON, a key stands twice in an object, a text or label has another type.
    """
    known = False
    for number, row in _objects(file, called, source, peek):
        if not known:
            for which in keys(source):
                position(list(row), which, called, source)
            known = True
        text, label = row.get(source.text_column), row.get(source.label_column)
        if not isinstance(text, str | None):
            raise DataError(f"{called}: {source.text_column!r} in {_at(number)} is not a string; quote the text.")
        if isinstance(label, list | dict):
            raise DataError(
                f"{called}: {source.label_column!r} in {_at(number)} is not a single value; give each text one label."
            )
        groups = [row.get(source.group_column)] if source.group_column else []
        if any(isinstance(group, list | dict) for group in groups):
            raise DataError(
                f"{called}: {source.group_column!r} in {_at(number)} is not a single value; name one group."
            )
        values = (_whole_characters(value) if isinstance(value, str) else value for value in (label, *groups))
        yield number, _whole_characters(text or ""), *values


def _objects(file, called, source, peek):
    """(location, object) of each object of JSON Lines, or of the elements of one array."""
    start, first = 1, file.readline()
    while first and not first.strip():
        start, first = start + 1, file.readline()
    example = f'{{"{source.text_column}": "…", "{source.label_column}": …}}'
    if first.lstrip().startswith("["):
        rows = _elements(first.lstrip() + file.read(FIRST if peek else -1), called, source, peek)
        if rows is None:
            raise DataError(f"{called} is neither an array of JSON objects nor one object a line, {example}.")
        wrong = "element {} of its array is not a JSON object"
    else:
        lines = enumerate(itertools.chain([first], file), start)
        rows = ((number, _parsed(line, called, f"line {number}")) for number, line in lines if line.strip())
        wrong = "line {} is not a JSON object; JSON Lines has one object a line"
    for location, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{called}: {wrong.format(location)}, {example}.")
        yield location, row


def _elements(text, called, source, peek):
    """(location, element) of an array; with ``peek``, of one that is not read to its end, the first. None if it is no array."""
    found = [
        {source.text_column: "", source.label_column: None}
        | ({source.group_column: None} if source.group_column else {})
    ]
    if peek and len(text) > FIRST:
        with suppress(ValueError):  # unless that one is longer than what was read
            found = [json.JSONDecoder().raw_decode(text[1:].lstrip())[0]]
    else:
        found = _parsed(text, called, "an object of its array")
    return [(f"#{number}", row) for number, row in enumerate(found)] if isinstance(found, list) else None


def _parsed(text, called, where):
    """A JSON value; None if it is not JSON. A key that stands twice in an object would lose its first value."""

    def single(pairs):
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{called}: {where} has the key {twice!r} twice; name each value once.")
        return row

    try:
        return json.loads(text, object_pairs_hook=single)
    except DataError:
        raise
    except (ValueError, RecursionError):
        return None


def _at(number):
    return f"line {number}" if isinstance(number, int) else f"element {number}"


def _whole_characters(text):
    r"""The text without halves of surrogate pairs (a JSON escape ``\ud83d`` alone), which no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
