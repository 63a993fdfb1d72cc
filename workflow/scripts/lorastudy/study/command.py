"""What a ``snakemake`` command asks for, by the text of its arguments."""

import contextlib
import getpass
import os
import sys
from pathlib import Path

from lorastudy.study.settings import REPOSITORY, ConfigError

# -P: modules of the user's beside the study are not ours to run
SNAKEMAKE = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
DIRECTORIES = ("figures", "paper_tables")  # that are asked for as a whole
PAPER = (*DIRECTORIES, "report.html", "publish")
RULES = {"make_report": "report.html", "make_numbers": "paper_tables/numbers.tex"}  # files by another name
OURS = (*PAPER, "results", "logs", "config.yaml")


def hand_on(scripts):
    """Have the jobs import from ``scripts`` first, and nothing from the study's directory, which they start in."""
    paths = [scripts, os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["PYTHONSAFEPATH"] = "1"


def name_the_user():
    """Give a user without an entry in the system's list, as in some containers, a name: Snakemake and torch ask for it."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def normal(target):
    """A target as Snakemake compares it with outputs: ``./figures/r_trend.pdf`` is ``figures/r_trend.pdf``.

    So is a path that leads to the study's directory from elsewhere, be it through a link.
    """
    path, here = Path(RULES.get(target, target)), Path.cwd()
    for parent in path.parents:
        with contextlib.suppress(OSError):  # a directory that is not there
            if parent.samefile(here):
                return os.path.relpath(path.relative_to(parent))
    return os.path.relpath(path)


def only_paper(targets):
    """Whether nothing is asked for but what is made of results: tables, figures, report, models to publish.

    They are then made of the results that there are. Nothing is trained for them, not even if a setting was changed
    since; such a result is shown as out of date.
    """
    return bool(targets) and all(_first(target) in PAPER for target in targets)


def only_tables(targets, names):
    """Whether nothing is asked for but tables of these names, in any format."""
    asked = [Path(normal(target)) for target in targets]
    return bool(asked) and all(path.parent.name == "paper_tables" and path.stem in names for path in asked)


def cells(targets):
    """Names of the cells whose results are asked for, and of those that are to be published: two lists."""
    asked, published = [], []
    for target in targets:
        match Path(normal(target)).parts:
            case ("results", "cells", name, *_):
                asked.append(name)
            case ("publish", name, *_):
                published.append(name)
    return asked, published


def other_names(targets):
    """Target → what it means, of those that Snakemake would not find: ``./figures/``, paths from the root or by a link."""
    known = {*DIRECTORIES, *(f"{name}/" for name in DIRECTORIES)}
    return {
        target: normal(target)
        for target in targets
        if target not in known | RULES.keys()
        and (normal(target) in DIRECTORIES or os.path.isabs(target) or normal(target) != os.path.relpath(target))
    }


def require_own_report(path):
    """Refuse ``--report`` without a name, which would write over the study's page, and names of other outputs.

    Raises:
        ConfigError: ``path`` (None without the option) is a file of the study.
    """
    if path is not None and _first(str(path)) in OURS:
        raise ConfigError(
            f"--report would write Snakemake's own report over the study's {normal(str(path))}; give it another name: "
            "--report snakemake_report.html"
        )


def profiles(asked):
    """Files of the profiles that a command named, or that its place implies.

    Args:
        asked: ``snakemake.cli.get_argument_parser().parse_args(…)``.
    """
    from snakemake.cli import get_profile_dir

    # Snakemake is in the study's directory by now; the names are relative to where it was called
    directories = [
        directory for directory in (os.environ.get("PWD"), REPOSITORY) if directory and os.path.isdir(directory)
    ]
    own = asked.workflow_profile or "default"
    names = [*(asked.profile or ()), own, os.path.join("profiles", own)]
    found = []
    for directory in directories:
        with contextlib.chdir(directory):
            entries = [get_profile_dir(name) for name in names if name != "none"]
            found += [file.resolve() for _, file in filter(None, entries)]
    return list(dict.fromkeys(found))


def _first(target):
    return Path(normal(target)).parts[0]
