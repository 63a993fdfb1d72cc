"""Labelled texts of the Hugging Face hub, at a pinned revision."""

from lorastudy.inputs import hub
from lorastudy.inputs.sources import arrow
from lorastudy.inputs.sources.labels import DataError, enumerated
from lorastudy.study.errors import is_disk_full

# What ``datasets`` reads as a table, packed or not. A data set's own code is never fetched, let alone run.
PATTERNS = ["README.md"] + [
    f"*.{kind}{packing}"
    for kind in ("parquet", "csv", "tsv", "json", "jsonl", "ndjson", "txt", "arrow")
    for packing in ("", ".gz", ".zip", ".zst", ".xz", ".bz2")
]


def read(source):
    """Rows of the hub's splits ``train`` and ``test`` as ``files.read`` gives them, and of the origin the names of the labels.

    All tabular files of the data set are downloaded. Without a network a complete copy of the revision in the hub's
    cache is as good.

    Raises:
        DataError: the data set cannot be had, is no table of texts and labels, or has no split ``train``.
    """
    import datasets

    called = source.called()
    directory = _download(source)
    try:
        splits = datasets.load_dataset(directory)
    except Exception as fault:
        raise DataError(_unreadable(fault, source)) from None
    if "train" not in splits:
        raise DataError(
            f"{called} has no split named train; it has {enumerated(list(splits))}. Choose another data set."
        )
    rows, names = {}, None
    for split in ("train", "test") if "test" in splits else ("train",):
        content = splits[split].with_format("arrow")
        schema = content.features.arrow_schema
        columns = arrow.columns(schema, source.called(split), source)
        names = names or arrow.label_names(schema, source)
        # a test split without any labels, as of some public tasks, is refused for its labels, and not dropped as a whole
        found = arrow.rows_of(content.select_columns(columns)[:], source, unlabelled=split == "train")
        rows[split if "test" in splits else "any"] = found
    return rows, {"label_names": names} if names else {}


def _download(source):
    """Directory of the data set's files at the revision."""
    from huggingface_hub import errors, snapshot_download

    try:
        return snapshot_download(source.name, repo_type="dataset", revision=source.revision, allow_patterns=PATTERNS)
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as fault:
        raise DataError(hub.refusal(fault, source, "data").text) from None


def _unreadable(fault, source):
    """One or two lines for what ``datasets`` says of the files; it has no type of its own for several sets in one."""
    called = source.called()
    if "config name is missing" in str(fault).lower():
        return f"{called} consists of several sets; save one as a file and set `data.source: files`."
    if is_disk_full(fault):
        return hub.refusal(fault, source, "data").text
    return (
        f"{called} has no files that can be read as a table at this revision ({type(fault).__name__}); choose another "
        "data set, or save its texts as a file and set `data.source: files`."
    )
