"""What a job writes down: JSON files that are whole or absent, and where a number comes from."""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from lorastudy.study.errors import StudyError

LIBRARY = Path(__file__).resolve().parents[1]
REPOSITORY = LIBRARY.parents[2]
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "snakemake",
)
FINGERPRINT = "LORASTUDY_CODE"  # hash of the sources and fingerprint of the code, once a process has found it
GIT_VARIABLES = {  # by which git finds a repository, its files and its objects (git(1), "The Git Repository")
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
}


class DirectoryError(StudyError):
    """A place that results cannot be written to."""


def check_directories(study_directory="."):
    """Raise DirectoryError unless the study's output directories are there, or can be made, and may be written."""
    for name in ("results", "figures", "paper_tables", "logs"):
        path = Path(study_directory, name).absolute()
        parent = path if path.exists() else path.parent
        if not parent.is_dir():
            raise DirectoryError(
                f"{path} is a file, and a directory of that name is needed for the outputs; move it away."
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise DirectoryError(
                f"{parent} may not be written, and outputs go there; change its permissions or run the study elsewhere."
            )


def write_json(path, content):
    """Write ``content`` as JSON to ``path``, whole or not at all.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have: write None and say why beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path):
    """A path to write to, which takes the place of ``path`` at the end and is removed on a fault.

    Its name is one of its own for each process: two jobs that write one record never mix their lines.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_as_others(*paths):
    """Give files the permissions that any new file has: safetensors makes its own for their owner alone."""
    mask = os.umask(0o077)  # can only be read by setting it
    os.umask(mask)
    for path in paths:
        os.chmod(path, 0o666 & ~mask)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def provenance(config, seed, fingerprints, hardware):
    """Where a record comes from.

    Args:
        config: the settings that define the result (plain dictionary).
        seed: seed of the run.
        fingerprints: name → revision or hash of each input (model, data).
        hardware: device, driver and memory of the machine, of ``jobs.machine.hardware``.
    """
    return {
        **git_state(),
        "config": config,
        "seed": seed,
        "inputs": fingerprints,
        "code": code_fingerprint(),
        "packages": packages(),
        "python": platform.python_version(),
        "hardware": hardware,
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state():
    """Commit of the pipeline and whether files differed from it; both null where it is no git checkout of its own.

    So it is null in a repository that the pipeline was unpacked in: that one's commit says nothing about the pipeline.
    """
    nothing = {"git_commit": None, "git_dirty": None}
    try:
        if Path(_git("rev-parse", "--show-toplevel").rstrip("\n")).resolve() != REPOSITORY:
            return nothing
        commit = _git("rev-parse", "HEAD").strip()
        return {"git_commit": commit, "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no").strip())}
    except (OSError, subprocess.CalledProcessError):
        return nothing


def _git(*arguments):
    # no variable may point to another repository, as within git's own hooks
    environment = {name: value for name, value in os.environ.items() if name not in GIT_VARIABLES}
    command = ["git", "-C", str(LIBRARY), *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="surrogateescape", check=True, env=environment
    ).stdout


def packages():
    """Name → version of the packages that results depend on; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def code_fingerprint():
    """Hash of what this library does. Comments, docstrings and layout do not enter it, so that editing them reruns nothing.

    It takes as long as a job's other work, so the jobs are handed Snakemake's, with the text that it is of.
    """
    sources = {path.relative_to(LIBRARY): path.read_bytes() for path in sorted(LIBRARY.rglob("*.py"))}
    text = hashlib.sha256(
        b"".join(b"%s\n%d\n%s" % (bytes(path), len(source), source) for path, source in sources.items())
    )
    known, _, fingerprint = os.environ.get(FINGERPRINT, "").partition(" ")
    if known != text.hexdigest():
        fingerprint = _meaning(sources)
        os.environ[FINGERPRINT] = f"{text.hexdigest()} {fingerprint}"
    return fingerprint


def _meaning(sources):
    """Hash of what Python sources do, of relative path → contents."""
    digest = hashlib.sha256()
    for path, source in sources.items():
        tree = ast.parse(source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
            ):
                node.body = body[1:]
        digest.update(f"{path}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def file_fingerprint(path, chunk=1 << 24):
    """SHA-256 of a file, first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(chunk):
            digest.update(block)
    return digest.hexdigest()[:16]
