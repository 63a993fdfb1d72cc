"""Rows of tables that Arrow holds, such as those in Parquet files."""

import json

import pyarrow as pa

from lorastudy.inputs.sources.columns import cleaned, keys, position
from lorastudy.inputs.sources.labels import DataError, enumerated


def columns(schema, called, source):
    """Names of the text, the label and, if there are groups, the group column of an Arrow schema.

    Raises:
        DataError: one is missing or there twice, the texts are not strings, or the labels not single values.
    """
    for which in keys(source):
        position(schema.names, which, called, source)
    text, label = (schema.field(name).type for name in (source.text_column, source.label_column))
    text = text.value_type if pa.types.is_dictionary(text) else text
    if not (pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_string_view(text)):
        raise DataError(
            f"{called}: column {source.text_column!r} holds {text}, not text; "
            f"is `data.text_column` the right one? Columns: {enumerated(schema.names)}."
        )
    if pa.types.is_nested(label):
        raise DataError(
            f"{called}: column {source.label_column!r} holds {label}, not single values; give each text one label, "
            "or name another column in `data.label_column`."
        )
    if source.group_column and pa.types.is_nested(schema.field(source.group_column).type):
        raise DataError(
            f"{called}: column {source.group_column!r} (`data.group_column`) holds no single values; name another."
        )
    return [getattr(source, which) for which in keys(source)]


def label_names(schema, source):
    """What a table's metadata call the labels 0, 1, … (ClassLabel of the library ``datasets``); None without names."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:  # of another program
        return None
    for key in ("info", "features", source.label_column, "names"):
        told = told.get(key) if isinstance(told, dict) else None
    return told if isinstance(told, list) else None


def rows_of(content, source, unlabelled=True):
    """(location, text, canonical label) of each row of a table, and its group if there are some.

    Args:
        unlabelled: whether -1 is no label where labels have names, as a ClassLabel has it.
    """
    texts, labels, *groups = (content.column(getattr(source, which)).to_pylist() for which in keys(source))
    if unlabelled and label_names(content.schema, source):
        labels = [None if label == -1 else label for label in labels]
    return list(cleaned((f"#{row}", *values) for row, values in enumerate(zip(texts, labels, *groups))))
