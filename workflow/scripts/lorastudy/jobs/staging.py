"""The base model on a node's own disk, where one is named: read once over the network, then by all cells of the node.

All cells of a node open the same files, so that the node's page cache holds them once.
"""

import hashlib
import logging
import os
import shutil
from pathlib import Path

from filelock import FileLock

log = logging.getLogger("lorastudy")

# of the machine and not of the study, so an environment variable; may name others, as in $TMPDIR or /scratch/$USER
VARIABLE = "LORASTUDY_STAGE_DIRECTORY"


def local(base):
    """Path to read the model directory ``base`` from: its copy on this node, made if need be, or ``base`` itself.

    A node without room for the copy reads from ``base``, with a warning.
    """
    directory = os.environ.get(VARIABLE)
    if not directory:
        return base

    base = Path(base)
    identity = hashlib.sha256((base / "origin.json").read_bytes()).hexdigest()[:16]
    # a copy of one's own: another user's may be closed, or changed
    copy = Path(
        os.path.expanduser(os.path.expandvars(directory)), f"lorastudy-{os.getuid()}", f"{base.name}-{identity}"
    )
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{copy}.lock"):
            if not copy.exists():
                _copy(base, copy)
    except OSError as fault:
        log.warning("the base model is not staged to %s (%s); reading it from %s", copy, fault, base)
        return base
    log.info("reading the base model from %s", copy)
    return copy


def _copy(base, copy):
    size = sum(file.stat().st_size for file in base.iterdir())
    free = shutil.disk_usage(copy.parent).free
    if free < size * 1.05:
        raise OSError(f"{size / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free there")
    own = copy.with_name(f"{copy.name}.{os.getpid()}")
    try:
        shutil.copytree(base, own)  # links are followed: a model directory may consist of them
        os.rename(own, copy)
    finally:
        shutil.rmtree(own, ignore_errors=True)
