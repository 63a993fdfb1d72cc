"""A rule's log file, and how a script ends when something is wrong."""

import logging
import os
import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

from lorastudy.study.errors import StudyError

log = logging.getLogger("lorastudy")


class Interrupted(Exception):
    """The job was asked to stop by a signal and has kept what it had. ``code`` is the exit status, 128 + signal."""

    def __init__(self, message, signum):
        super().__init__(message)
        self.code = 128 + signum


@contextmanager
def to_file(path):
    """Send everything that the process writes to ``path``; end with one or two lines for the user on a fault.

    The redirection is at the level of file descriptors, so that child processes and libraries in C are caught too.
    A fault that the user can mend (a ``ValueError`` of this library) is printed on the original stderr without a
    traceback; any other one with its last line and the path of the log, which holds the traceback. Both end the
    process with status 1.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w")
    with path.open("a" if os.environ.get("SLURM_RESTART_COUNT") else "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, force=True
    )
    for chatty in ("httpx", "urllib3", "filelock", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Failed to load CPU gemm_4bit_forward")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    except Interrupted as stop:
        _end(terminal, str(stop), stop.code)
    except Exception as fault:
        if isinstance(fault, StudyError):
            log.error("%s", fault)
            _end(terminal, str(fault), 1)
        traceback.print_exc()
        _end(
            terminal,
            f"{type(fault).__name__}: {str(fault).strip().splitlines()[0] if str(fault).strip() else ''}\nThe traceback is in {path}.",
            1,
        )


def _end(terminal, message, code):
    print(message, file=terminal, flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
