"""Faults that a user can mend, and why a job ended.

Every error that the pipeline raises on purpose is a ``StudyError``: it is told in its one or two lines, without a
traceback. Its ``cause`` decides what happens next (a retry that asks for more memory, the end), never its wording.
"""

import errno
import os
from enum import StrEnum


class Cause(StrEnum):
    """Why an attempt at a job ended; the values are written down and shown."""

    TIME = "time limit"
    MEMORY = "out of memory"
    GPU_MEMORY = "out of GPU memory"
    DISK = "disk full"
    STOPPED = "stopped"
    KILLED = "killed"
    FAULT = "fault"


class StudyError(ValueError):
    """Something that the user can mend; its text says what, where, and how."""

    cause = Cause.FAULT


class DiskFull(StudyError):
    """No room, or no quota, for what is to be written."""

    cause = Cause.DISK


def is_disk_full(fault):
    """Whether an exception, or one that it came from, says that a disk or a quota is exhausted.

    Libraries written in Rust or C++ (safetensors, pyarrow) raise errors of their own without an ``errno``: for those
    the system's word for it in the text is all that there is.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    while fault is not None:
        if getattr(fault, "errno", None) in full or any(os.strerror(number) in str(fault) for number in full):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def is_memory_exhausted(fault):
    """Whether an exception says that the node's memory is exhausted; torch's CPU allocator has no type for that."""
    return isinstance(fault, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(fault)
