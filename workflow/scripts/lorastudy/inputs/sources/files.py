"""Labelled texts in local files: CSV, TSV, JSON (an array, or an object a line), plain or gzipped, and Parquet.

A row is (location, text, label): the line of a text file or ``#`` and the row of a table, to say where a fault is; the
text, empty if there is none but white space; the canonical label, None if there is none. With ``data.group_column`` the
group follows, as text.
"""

import codecs
import csv
import difflib
import glob
import gzip
import hashlib
import io
import itertools
import os
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorastudy.inputs.sources import arrow, delimited, json_rows
from lorastudy.inputs.sources.columns import cleaned
from lorastudy.inputs.sources.labels import DataError, enumerated, locations
from lorastudy.study import layout

SUFFIXES = (*delimited.DELIMITERS, *json_rows.SUFFIXES, ".parquet")
# Longest first: the mark of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# How files begin that have the ending of another kind, and what to do then.
BINARY = {
    b"\x1f\x8b": "compressed by gzip; give it the ending .gz",
    b"PK\x03\x04": "a zip archive, as Excel's files are; save the table as CSV UTF-8",
    b"PAR1": "a Parquet file; give it the ending .parquet",
}


def located(name, study_directory="."):
    """(name, ``Path``) of each file that a name of the configuration stands for, in the order of their names.

    A name with ``*``, ``?`` or ``[`` is a pattern unless a file is called so.
    """
    path = layout.named(name, study_directory)
    if glob.has_magic(name) and not path.exists():
        found = sorted(glob.glob(os.path.expanduser(name), root_dir=study_directory, recursive=True))
        return [(one, Path(study_directory, one)) for one in found]
    return [(os.path.expanduser(name), path)]


def check(source, study_directory):
    """Raise DataError for what the names, the heads and the first rows of the files show to be wrong."""
    paths = {}
    for key, pattern in source.files().items():
        paths[key] = located(pattern, study_directory)
        if not paths[key]:
            directory = Path(study_directory).resolve()
            raise DataError(
                f"config: `data.{key}` is {pattern!r}, and no file in {directory} is called so; correct the pattern."
            )
        for name, path in paths[key]:
            _require_file(path, key, name)
            called = f"`data.{key}` {name!r}"
            with _faults_of(path, called):
                if not _read(path, called, source, peek=True):
                    raise DataError(f"{called} has no rows of data; it needs texts and labels.")
    for (name, path), (_, again) in itertools.product(*paths.values()) if len(paths) == 2 else ():
        if os.path.samefile(path, again):
            raise DataError(
                f"config: `data.test_file` is the same file as `data.train_file`, {name!r}; "
                "leave `data.test_file` empty to draw disjoint test texts from it."
            )


def read(source, study_directory):
    """All rows of the files.

    Returns:
        Split (``train`` and ``test``, or ``any`` where one file serves both) → list of rows; what to add to the
        origin: ``files``, name → SHA-256, and ``label_names`` where a Parquet file has some.

    Raises:
        DataError: a file is malformed, or a row has no text or no label.
    """
    rows, hashes, names = {}, {}, None
    for key, pattern in source.files().items():
        split = "test" if key == "test_file" else "train" if source.test_file else "any"
        rows[split] = []
        for name, path in located(pattern, study_directory):
            called = f"`data.{key}` {name!r}"
            with _faults_of(path, called):
                part = _read(path, called, source)
                names = _same_names(names, _label_names(path, source), called)
                with path.open("rb") as file:
                    hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
            _require_complete(part, called, source)
            rows[split] += part
    return rows, {"files": hashes} | ({"label_names": names} if names else {})


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
        raise DataError(
            f"config: `data.{key}` is {name!r}, which is not a file; name one file, or several by a pattern: "
            f"{str(Path(name, 'train-*.parquet'))!r}."
        )
    if _suffix(path) not in SUFFIXES:
        raise DataError(
            f"config: `data.{key}` is {name!r}; files that can be read end in {', '.join(SUFFIXES)} "
            "(text files also in .gz)."
        )
    if path.stat().st_size == 0:
        raise DataError(f"`data.{key}` {name!r} is an empty file; it needs texts and labels.")


def _require_complete(rows, called, source):
    for what, column, lacking in (
        ("text", source.text_column, [location for location, text, *_ in rows if not text]),
        ("label", source.label_column, [location for location, _, label, *_ in rows if label is None]),
        ("group", source.group_column, [location for location, _, _, *groups in rows if None in groups]),
    ):
        if lacking:
            have = "1 row has" if len(lacking) == 1 else f"{len(lacking)} rows have"
            raise DataError(
                f"{called}: {have} an empty {what} in column {column!r} ({locations(lacking)}); fill in or remove them."
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
    except UnicodeError:
        raise DataError(_not_decodable(path, called)) from None
    except (OSError, EOFError, zlib.error) as fault:
        said = getattr(fault, "strerror", None) or fault
        raise DataError(f"{called} cannot be read: {said}; check its permissions, or make it anew.") from None


def _not_decodable(path, called):
    encoding = _encoding(path)
    if encoding != "utf-8-sig":
        return f"{called} begins as {encoding.upper()} and does not go on so; save it again, best as UTF-8."
    with _bytes_of(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as fault:
                where = f": byte 0x{line[fault.start]:02x} in line {number}"
                return f"{called} is not UTF-8 text{where}; save it as UTF-8 (from Windows: iconv -f cp1252 -t utf-8)."
    return f"{called} is not UTF-8 text; save it as UTF-8."


def _encoding(path):
    """Encoding of a text file by its mark, or without one by its zero bytes."""
    with _bytes_of(path) as file:
        begin = file.read(1 << 12)
    for mark, encoding in MARKS.items():
        if begin.startswith(mark):
            return encoding
    return _without_mark(begin)


def _without_mark(begin):
    """Encoding of a text without a mark, by its first bytes: UTF-8 has no zeros, and in other forms one is in every comma."""
    zeros = [begin[start::4].count(0) for start in range(4)]
    if len(begin) >= 4 and max(min(zeros[:2]), min(zeros[2:])) >= len(begin) // 4:
        return "utf-32-be" if zeros[0] > zeros[3] else "utf-32-le"
    if sum(zeros) * (4 if _may_be_utf_8(begin) else 100) <= len(begin):  # a few may be in a text
        return "utf-8-sig"
    marks = {one: sum(map(begin.decode(one, "ignore").count, '\n\t,;|":')) for one in ("utf-16-le", "utf-16-be")}
    return max(marks, key=marks.get) if any(marks.values()) else "utf-8-sig"


def _may_be_utf_8(begin):
    try:
        codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    return True


def _bytes_of(path):
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _read(path, called, source, peek=False):
    """Rows of a file; with ``peek`` the first alone, and that of a Parquet file without content."""
    suffix = _suffix(path)
    if suffix == ".parquet":
        return _read_parquet(path, called, source, peek)
    if suffix in json_rows.SUFFIXES:
        return _read_text(path, called, peek, json_rows.read, called, source, peek)
    usual = delimited.DELIMITERS[suffix]
    try:
        return _read_text(path, called, peek, delimited.read, usual, called, source)
    except delimited.QuoteError:
        if suffix != ".tsv":
            raise
        with suppress(DataError):  # many programs write TSV without quoting; if it can be read so, and not otherwise …
            return _read_text(path, called, peek, delimited.read, usual, called, source, csv.QUOTE_NONE)
        raise


def _read_text(path, called, peek, read, *arguments):
    with path.open("rb") as file:
        begin = file.read(4)
    if kind := next((kind for mark, kind in BINARY.items() if begin.startswith(mark) and path.suffix != ".gz"), None):
        raise DataError(f"{called} is no text but {kind}.")
    # newline="": a line end inside a quoted field is part of the text
    with _bytes_of(path) as raw, io.TextIOWrapper(raw, encoding=_encoding(path), newline="") as file:
        return list(cleaned(itertools.islice(read(file, *arguments), 1 if peek else None)))


def _read_parquet(path, called, source, peek):
    try:
        with pq.ParquetFile(path) as file:
            names = arrow.columns(file.schema_arrow, called, source)
            content = None if peek else file.read(names)
            number = file.metadata.num_rows
        return [(f"#{row}", "", None) for row in range(min(number, 1))] if peek else arrow.rows_of(content, source)
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{called} is not a whole Parquet file ({type(fault).__name__}); write it again.") from None


def _same_names(names, others, called):
    """The names of the labels 0, 1, … by all files. Raises DataError where a number means one class here and another there."""
    if names and others and names != others:
        raise DataError(
            f"{called} calls its labels {enumerated(others)}, and a file before it {enumerated(names)}; the same numbers "
            "mean other classes: write the files anew with one ClassLabel."
        )
    return names or others


def _label_names(path, source):
    return arrow.label_names(pq.read_schema(path), source) if _suffix(path) == ".parquet" else None
