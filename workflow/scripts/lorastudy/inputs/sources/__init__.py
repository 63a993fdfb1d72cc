"""Where labelled texts come from: local files, the hub, a package or chance. All end in one table of the same form."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lorastudy.inputs.sources import files, hub, labels, packaged, random_texts
from lorastudy.inputs.sources.labels import DataError
from lorastudy.study import records, settings


class Source(settings.DataSource):
    """The part of the configuration's block ``data`` that decides what is fetched, and what that means."""

    @classmethod
    def of(cls, data):
        """The part of ``settings.Data`` that decides what is fetched."""
        return cls(**{field.name: getattr(data, field.name) for field in fields(cls)})

    def as_dict(self):
        """Plain dictionary, fit for a rule's params; without a group column as before there was one."""
        found = asdict(self) | {"labels": list(self.labels) if self.labels else None}
        return found if self.group_column else {key: found[key] for key in found if key != "group_column"}

    def files(self):
        """Key → path of each local file that is named."""
        keys = ("train_file", "test_file")
        return {key: getattr(self, key) for key in keys if getattr(self, key)} if self.source == "files" else {}

    def paths(self, study_directory="."):
        """Paths of all local files, those that a pattern stands for included."""
        return [name for pattern in self.files().values() for name, _ in files.located(pattern, study_directory)]

    def called(self, split="train"):
        """The key and value that a message names for a split (``train``, ``test``, ``any``)."""
        if self.source == "files":
            key = "test_file" if split == "test" else "train_file"
            return f"`data.{key}` {getattr(self, key)!r}"
        return f"`data.name` {self.name!r}" + (" (test split)" if split == "test" else "")


REVIEWS = {("hub", "Yelp/yelp_review_full"), ("random", random_texts.NAME)}


def expected_length(data):
    """Mean tokens of a text of ``settings.Data`` before any is read; None where nothing is known of its lengths."""
    if (data.source, data.name) not in REVIEWS:
        return None
    most = min(data.max_length, random_texts.LONGEST) if data.source == "random" else data.max_length
    return random_texts.mean_length(most)


def check(data, study_directory="."):
    """Find in milliseconds what is wrong with the block ``data``, reading no further than the first row of each file.

    Args:
        data: ``settings.Data`` or ``Source``.
        study_directory: what the files' paths are relative to.

    Raises:
        DataError: a file is missing, unreadable, empty or of an unknown kind, or lacks a column; the two columns or
            the two files are the same; a label is listed twice.
    """
    source = Source.of(data)
    if source.text_column == source.label_column:
        raise DataError(
            f"config: `data.text_column` and `data.label_column` are both {source.text_column!r}; name two columns."
        )
    if source.group_column and source.source not in ("files", "hub"):
        raise DataError(
            f"config: `data.group_column` is {source.group_column!r}, and texts of `data.source: {source.source}` have no "
            "further columns; leave it empty."
        )
    if source.group_column in (source.text_column, source.label_column):
        raise DataError(
            f"config: `data.group_column` is {source.group_column!r}, as is the column of the texts or labels; name another."
        )
    labels.configured(source)
    files.check(source, study_directory)


def fetch(source, output, study_directory="."):
    """Read the whole source and write it as one Parquet file; needs the network for the hub and the package.

    Columns: ``id`` (``train-000123``: split of the source and row, from 0), ``text``, ``label`` (canonical, as text),
    ``split`` (``train``, ``test``, or ``any`` where the source is not split), and ``group`` with ``data.group_column``. The schema's metadata ``origin`` holds
    JSON: where it comes from, hashes of files, boundaries of quintiles, the source's names of the labels 0, 1, … if it
    has some, rows without a text or label that were left out (of the hub, where the user cannot mend them; in a file
    they are an error).

    Args:
        source: ``Source``.
        output: path of the Parquet file; whole or absent.
        study_directory: what paths are relative to.

    Raises:
        DataError: as ``check``; the source cannot be had; a text is empty; a label is missing, fractional or none of
            ``data.labels``; a class is absent from training.
    """
    check(source, study_directory)
    match source.source:
        case "files":
            splits, origin = files.read(source, study_directory)
        case "hub":
            splits, origin = hub.read(source)
        case "packaged":
            splits, origin = packaged.read(source)
        case "random":
            splits, origin = random_texts.read()
    table = pd.concat([_table(rows, split) for split, rows in splits.items()], ignore_index=True)
    columns = ["id", "text", "label", "split"] + ["group"] * bool(source.group_column)
    complete = (table["text"] != "") & table[columns].notna().all(axis=1)
    table = table[complete]
    labels.classes(table, source)
    origin = {"source": source.source, "name": source.name, "revision": source.revision, "files": None} | origin
    origin["dropped_incomplete"] = int((~complete).sum())
    content = pa.table({name: pa.array(table[name], pa.string()) for name in columns})
    content = content.replace_schema_metadata({"origin": json.dumps(origin)})
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(output) as temporary:
        pq.write_table(content, temporary, compression="zstd")


def load(path):
    """What ``fetch`` wrote: a DataFrame of its columns, and its origin."""
    content = pq.read_table(path)
    return content.to_pandas(), json.loads(content.schema.metadata[b"origin"])


def _table(rows, split):
    """DataFrame of (location, text, label) or (location, text, label, group) rows with the ids that their order gives them."""
    prefix = "row" if split == "any" else split
    locations, texts, found, *groups = zip(*rows) if rows else ((), (), ())
    table = pd.DataFrame(
        {
            "id": [f"{prefix}-{number:06d}" for number in range(len(rows))],
            "text": pd.array(texts, dtype="str"),
            "label": pd.array([None if label is None else str(label) for label in found], dtype="str"),
            "split": split,
            "location": list(map(str, locations)),
        }
    )
    return table.assign(group=pd.array(groups[0], dtype="str")) if groups else table
