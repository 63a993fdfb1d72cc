"""The files of a trained cell: written under the job's own name, moved into place whole, kept until they are evaluated.

Snakemake removes the declared outputs of a job that it believes to have failed, for instance because the node was lost
between the last step and the report of it. So the files are kept beside the checkpoints too, as hard links that cost no
room, and a further attempt puts them in place again instead of training a finished cell twice.
"""

import os
import platform
import shutil
from pathlib import Path

from lorastudy.study import records

DIRECTORY = "results/checkpoints"
RECORD = "training.json"  # put in place last


class Finished:
    """What a cell's training leaves.

    Args:
        cell: id of the cell.
        directory: where checkpoints are.
    """

    def __init__(self, cell, directory=DIRECTORY):
        self.kept = Path(directory, cell, "finished")
        job = os.environ.get("SLURM_JOB_ID")
        self.own = self.kept.with_name(f"unfinished.{platform.node()}.{os.getpid()}{f'.{job}' if job else ''}")

    def matches(self, spec, inputs):
        """Whether the cell was trained to its end already, with these settings on this model and data."""
        path = self.kept / RECORD
        if not path.exists():
            return False
        provenance = records.read_json(path)["provenance"]
        return (provenance["config"], provenance["inputs"]) == (spec, inputs)

    def begin(self):
        """An empty directory of this job's own, to write the files to; what killed jobs left there is removed."""
        for left in self.kept.parent.glob("unfinished.*"):
            shutil.rmtree(left)
        self.own.mkdir(parents=True)
        return self.own

    def keep(self):
        """The files are complete: give them their place beside the checkpoints."""
        shutil.rmtree(self.kept, ignore_errors=True)
        os.rename(self.own, self.kept)

    def put(self, declared):
        """Put the files in place, each whole or not at all.

        Args:
            declared: name of a kept file or directory → path of the declared output, in the order of appearance.
        """
        for name, target in declared.items():
            _put(self.kept / name, Path(target))

    def remove(self):
        """The cell is evaluated: nothing needs the files beside the checkpoints any more."""
        shutil.rmtree(self.kept, ignore_errors=True)
        for directory in (self.kept.parent, self.kept.parent.parent):
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()


def _put(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    own = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}")
    _remove(own)
    if source.is_dir():
        shutil.copytree(source, own, copy_function=_link)
        _remove(target)
    else:
        _link(source, own)
    # as new as any other output: a kept file may be older than inputs that were made again, with the same contents
    for path in (own, *own.rglob("*")):
        os.utime(path)
    os.replace(own, target)
    _remove(own)  # where both names were links to one file already, the replacement did nothing


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
