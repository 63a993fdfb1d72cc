"""A rule's log file, and how a script ends when something is wrong."""

import codecs
import logging
import os
import re
import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

from lorastudy.study.errors import StudyError

log = logging.getLogger("lorastudy")

CHATTY = ("fontTools", "filelock", "fsspec", "httpx", "urllib3")  # loggers that say more than warnings
# A base model becomes a classifier: its head for words is not used, and the one for classes is new.
HEADS = {"lm_head.weight", "score.weight"}
_REPORTED_KEY = re.compile(r"^(\S+) *\| *\S*(?:UNEXPECTED|MISSING|MISMATCH|CONVERSION)", re.MULTILINE)


# what tables are made of, for terminals that lack it: an interval must not lose a sign
SPELLED = {"−": "-", "–": "-", "α": "alpha", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "…": "..."}


def any_terminal():
    """Let a terminal that lacks a character of what is printed show another one instead, whatever its encoding."""
    codecs.register_error("lorastudy_spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="lorastudy_spelled")


def _spelled(fault):
    if not isinstance(fault, UnicodeEncodeError):
        raise fault
    return "".join(SPELLED.get(character, "?") for character in fault.object[fault.start : fault.end]), fault.end


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
    terminal = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    with path.open("a" if os.environ.get("SLURM_RESTART_COUNT") else "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, force=True
    )
    _quieten()
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
        _end(terminal, f"{in_a_line(fault)}\nThe traceback is in {path}.", 1)


def in_a_line(fault):
    """What an exception says, its first line; with its type in front where it is no fault that the user can mend."""
    said = (str(fault).strip().splitlines() or [""])[0]
    return (
        said
        if said and isinstance(fault, (StudyError, Interrupted))
        else f"{type(fault).__name__}: {said}".rstrip(": ")
    )


def _end(terminal, message, code):
    print(message, file=terminal, flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _quieten():
    """Leave out what other libraries say about what is meant to be so; everything else that they say stays."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("transformers.modeling_utils").addFilter(_is_no_report_of_heads)
    # PEFT's business with transformers
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def _is_no_report_of_heads(record):
    """False for transformers' report that a model was loaded with nothing amiss but its ``HEADS``."""
    text = record.getMessage()
    keys = set(_REPORTED_KEY.findall(text))
    return not ("LOAD REPORT" in text and keys and keys <= HEADS)
