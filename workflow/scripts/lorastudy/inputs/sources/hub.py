"""Labelled texts of the Hugging Face hub, at a pinned revision."""

import errno

from lorastudy.inputs.sources import files
from lorastudy.inputs.sources.labels import DataError, enumerated

# What ``datasets`` reads as a table, packed or not. A data set's own code is never fetched, let alone run.
PATTERNS = ["README.md"] + [
    f"*.{kind}{packing}"
    for kind in ("parquet", "csv", "tsv", "json", "jsonl", "ndjson", "txt", "arrow")
    for packing in ("", ".gz", ".zip", ".zst", ".xz", ".bz2")
]
LOGIN = "log in with `hf auth login` or set HF_TOKEN"


def read(source):
    """Rows of the hub's splits ``train`` and ``test`` as ``files.read`` gives them, and nothing more of the origin.

    All tabular files of the data set are downloaded. Without a network a complete copy of the revision in the hub's
    cache is as good.

    Raises:
        DataError: the data set cannot be had, is no table of texts and labels, or has no split ``train``.
    """
    import datasets

    called = source.called()
    directory = _download(source, called)
    try:
        splits = datasets.load_dataset(directory)
    except Exception as fault:
        raise DataError(_unreadable(fault, called)) from None
    if "train" not in splits:
        raise DataError(
            f"{called} has no split named train; it has {enumerated(list(splits))}. Choose another data set."
        )
    rows = {}
    for split in ("train", "test") if "test" in splits else ("train",):
        content = splits[split].with_format("arrow")
        schema = content.features.arrow_schema
        columns = files.columns(schema, source.called(split), source)
        rows[split if "test" in splits else "any"] = files.rows_of(content.select_columns(columns)[:], source)
    return rows, {}


def _download(source, called):
    """Directory of the data set's files at the revision. The hub's own words are left out: they may carry tokens."""
    from huggingface_hub import errors, snapshot_download

    try:
        return snapshot_download(source.name, repo_type="dataset", revision=source.revision, allow_patterns=PATTERNS)
    except errors.GatedRepoError:
        raise DataError(
            f"{called} is gated: accept its terms on the hub's page of the data set, then {LOGIN}."
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(
            f"`data.revision` {source.revision} does not exist in {source.name}; take a commit from its history."
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise DataError(
            f"{called} is not on the hub, or is private and HF_TOKEN is not set; correct it or {LOGIN}."
        ) from None
    except (errors.HfHubHTTPError, OSError) as fault:
        raise DataError(
            _no_space(fault, called)
            or f"{called} cannot be fetched: {type(fault).__name__}. Is there a network on this machine? "
            "Else save it as files and set `data.source: files`."
        ) from None


def _unreadable(fault, called):
    """One or two lines for what ``datasets`` says of the files; it has no type of its own for several sets in one."""
    if "config name is missing" in str(fault).lower():
        return f"{called} consists of several sets; save one as a file and set `data.source: files`."
    return _no_space(fault, called) or (
        f"{called} has no files that can be read as a table at this revision ({type(fault).__name__}); choose another "
        "data set, or save its texts as a file and set `data.source: files`."
    )


def _no_space(fault, called):
    """What to say if the disk was full, else None. ``datasets`` wraps the system's error in its own."""
    while fault is not None:
        if getattr(fault, "errno", None) == errno.ENOSPC:
            return f"no room on the disk for {called}; make room, or set HF_HOME to a directory on another disk."
        fault = fault.__cause__ or fault.__context__
    return None
