"""Labelled texts in local files: CSV, TSV, JSON Lines, plain or gzipped, and Parquet.

A row is (place, text, label): the line of a text file or ``#`` and the row of a table, to say where a fault is; the
text, empty if there is none but white space; the canonical label, None if there is none.
"""

import csv
import difflib
import gzip
import hashlib
import io
import json
import os
import zlib
from contextlib import contextmanager
from pathlib import Path

from lorastudy.inputs.sources.labels import DataError, canonical, enumerated, places

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITERS, *JSON_LINES, ".parquet")
LONGEST_FIELD = 1 << 30  # characters; csv's own 131,072 is less than a long review


def check(source, study_directory):
    """Raise DataError for what the names, the heads and the first rows of the files show to be wrong."""
    paths = {}
    for key, name in source.files().items():
        path = paths[key] = Path(study_directory, name)
        _require_file(path, key, name)
        called = f"`data.{key}` {name!r}"
        with _faults_of(path, called):
            if next(_read(path, called, source, peek=True), None) is None:
                raise DataError(f"{called} has no rows of data; it needs texts and labels.")
    if len(paths) == 2 and os.path.samefile(*paths.values()):
        raise DataError(
            f"config: `data.test_file` is the same file as `data.train_file`, {source.train_file!r}; "
            "leave `data.test_file` empty to draw disjoint test texts from it."
        )


def read(source, study_directory):
    """All rows of the files.

    Returns:
        Split (``train`` and ``test``, or ``any`` where one file serves both) → list of rows; what to add to the
        origin: ``files``, name → SHA-256.

    Raises:
        DataError: a file is malformed, or a row has no text or no label.
    """
    rows, hashes = {}, {}
    for key, name in source.files().items():
        path, called = Path(study_directory, name), f"`data.{key}` {name!r}"
        with _faults_of(path, called):
            part = list(_read(path, called, source))
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        _require_complete(part, called, source)
        rows["test" if key == "test_file" else "train" if source.test_file else "any"] = part
    return rows, {"files": hashes}


def _require_file(path, key, name):
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"did you mean {str(Path(name).with_name(near[0]))!r}?" if near else "correct the path."
        raise DataError(
            f"config: `data.{key}` is {name!r}, and there is no such file in the study's directory "
            f"{path.parent.resolve()}; {hint}"
        )
    if not path.is_file():
        raise DataError(f"config: `data.{key}` is {name!r}, which is not a file; name one file.")
    if _suffix(path) not in SUFFIXES:
        raise DataError(
            f"config: `data.{key}` is {name!r}; files that can be read end in {', '.join(SUFFIXES)} "
            "(text files also in .gz)."
        )
    if path.stat().st_size == 0:
        raise DataError(f"`data.{key}` {name!r} is an empty file; it needs texts and labels.")


def _require_complete(rows, called, source):
    for what, column, lacking in (
        ("text", source.text_column, [place for place, text, _ in rows if not text]),
        ("label", source.label_column, [place for place, _, label in rows if label is None]),
    ):
        if lacking:
            have = "1 row has" if len(lacking) == 1 else f"{len(lacking)} rows have"
            raise DataError(
                f"{called}: {have} an empty {what} in column {column!r} ({places(lacking)}); fill in or remove them."
            )


def _suffix(path):
    """What says the kind of a file, without the ``.gz`` of a compressed text file."""
    inner = Path(path.stem).suffix.lower()
    return inner if path.suffix == ".gz" and inner != ".parquet" else path.suffix.lower()


@contextmanager
def _faults_of(path, called):
    """Turn what goes wrong in reading a file into a DataError that names it."""
    try:
        yield
    except UnicodeDecodeError:
        raise DataError(
            f"{called} is not UTF-8 text{_first_undecodable(path)}; "
            "save it as UTF-8 (from Latin-1, for instance: iconv -f latin1 -t utf-8)."
        ) from None
    except (OSError, EOFError, zlib.error) as fault:
        said = getattr(fault, "strerror", None) or fault
        raise DataError(f"{called} cannot be read: {said}; check its permissions, or make it anew.") from None


def _first_undecodable(path):
    with _bytes_of(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as fault:
                return f": byte 0x{line[fault.start]:02x} in line {number}"
    return ""


def _bytes_of(path):
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _read(path, called, source, peek=False):
    """Rows of a file; with ``peek``, of a Parquet file only as many, without content."""
    suffix = _suffix(path)
    if suffix == ".parquet":
        yield from _read_parquet(path, called, source, peek)
        return
    with _bytes_of(path) as raw:
        # newline="": a line end inside a quoted field is part of the text
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="" if suffix in DELIMITERS else None)
        if suffix in DELIMITERS:
            rows = _read_delimited(file, DELIMITERS[suffix], called, source)
        else:
            rows = _read_json_lines(file, called, source)
        for line, text, label in rows:
            yield line, _visible(text), canonical(label)


def _visible(text):
    return text if text and not text.isspace() else ""


def _read_delimited(file, delimiter, called, source):
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(file, delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(rows, [])
        text, label = (_position(header, which, called, source) for which in _KEYS)
        line = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(
                    f"{called}: line {line} has {len(row)} fields and the header {len(header)}; put "
                    "texts that contain the delimiter, quotes or line ends in double quotes."
                )
            if row:
                yield line, row[text], row[label]
            line = rows.line_num + 1
    except csv.Error as fault:
        raise DataError(
            f"{called}: the row that begins in line {line} is not well formed ({fault}); close every "
            "quoted field and write a quote inside one twice."
        ) from None


def _read_json_lines(file, called, source):
    known = False
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(
                f"{called}: line {number} is not a JSON object; JSON Lines has one object a line, "
                f'{{"{source.text_column}": "…", "{source.label_column}": …}}.'
            )
        if not known:
            for which in _KEYS:
                _position(list(row), which, called, source)
            known = True
        text, label = row.get(source.text_column), row.get(source.label_column)
        if not isinstance(text, str | None):
            raise DataError(f"{called}: {source.text_column!r} in line {number} is not a string; quote the text.")
        if isinstance(label, list | dict):
            raise DataError(
                f"{called}: {source.label_column!r} in line {number} is not a single value; give each text one label."
            )
        yield number, _whole_characters(text or ""), _whole_characters(label) if isinstance(label, str) else label


def _whole_characters(text):
    r"""The text without halves of surrogate pairs (a JSON escape ``\ud83d`` alone), which no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _read_parquet(path, called, source, peek):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = columns(file.schema_arrow, called, source)
            content = None if peek else file.read(names)
            number = file.metadata.num_rows
        rows = [(f"#{row}", "", None) for row in range(min(number, 1))] if peek else rows_of(content, source)
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{called} is not a whole Parquet file ({type(fault).__name__}); write it again.") from None
    yield from rows


def columns(schema, called, source):
    """Names of the text and the label column of an Arrow schema.

    Raises:
        DataError: one is missing or there twice, the texts are not strings, or the labels not single values.
    """
    import pyarrow as pa

    for which in _KEYS:
        _position(schema.names, which, called, source)
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
    return [source.text_column, source.label_column]


def rows_of(content, source):
    """Rows of an Arrow table."""
    texts, labels = (content.column(name).to_pylist() for name in (source.text_column, source.label_column))
    return [(f"#{row}", _visible(text), canonical(label)) for row, (text, label) in enumerate(zip(texts, labels))]


_KEYS = ("text_column", "label_column")


def _position(names, which, called, source):
    """Where the column stands that the key ``data.<which>`` names."""
    wanted = getattr(source, which)
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted in names:
        raise DataError(f"{called} has {names.count(wanted)} columns {wanted!r} (`data.{which}`); rename one of them.")
    alike = {str(name).strip().lower(): name for name in names}
    near = difflib.get_close_matches(wanted.strip().lower(), alike, n=1)
    hint = f" Did you mean {alike[near[0]]!r}?" if near else f" Set `data.{which}` to one of them."
    raise DataError(f"{called} has no column {wanted!r} (`data.{which}`); it has {enumerated(names)}.{hint}")
