"""The commands that the documents and the Makefile tell people to type, found by reading them."""

import re
import subprocess
from dataclasses import dataclass

from lorastudy.study.settings import REPOSITORY

DOCUMENTS = [
    path
    for path in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
    if path.exists()
]
# A code span that begins with one of these, and goes on, is a command.
PROGRAMS = (
    "cd", "export", "git", "hf", "make", "pip", "pre-commit", "pytest", "python", "rm", "ruff", "sacct", "sacctmgr",
    "sbatch", "scontrol", "sinfo", "snakemake", "squeue", "unset",
)  # fmt: skip
SHELLS = ("", "sh", "bash", "console")  # languages of a fenced block whose lines are commands
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Command:
    """A line for a shell, and the file that says it (the first one)."""

    text: str
    source: str


def commands():
    """Every ``Command`` once, in the order of the documents; those of the Makefile last, as ``make -n`` prints them."""
    found = {}
    for path in DOCUMENTS:
        for text in of_document(path.read_text(encoding="utf-8")):
            found.setdefault(text, path.relative_to(REPOSITORY).as_posix())
    targets = [f"make {target}" for target in makefile_targets()]
    for text in (*found, *targets):
        if text.startswith("make "):
            for line in recipe(text):
                found.setdefault(line, "Makefile")
    return [Command(text, source) for text, source in found.items()]


def of_document(text):
    """The commands in a text in Markdown: lines of fenced blocks without their comments, and code spans."""
    for language, block in FENCED.findall(text):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                yield from parts(re.sub(r"(^|\s)#.*", "", line))
    for span in SPAN.findall(FENCED.sub("", text)):
        words = span.split()
        if len(words) > 1 and words[0] in PROGRAMS:
            yield from parts(" ".join(words))


def parts(line):
    """The commands of a line, without the ``&&`` between them; those after a change of directory stay with it."""
    line = line.strip()
    return [] if not line else [line] if " cd " in f" {line}" else line.split(" && ")


def recipe(command):
    """What a ``make`` command would run, everything that it depends on included."""
    done = subprocess.run(
        ["bash", "-euc", f"{command} -n -B --no-print-directory"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [part for line in done.stdout.replace("\\\n", " ").splitlines() for part in parts(line)]


def makefile_targets():
    """The targets that the Makefile offers to people."""
    return re.search(r"^\.PHONY: (.*)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[1].split()
