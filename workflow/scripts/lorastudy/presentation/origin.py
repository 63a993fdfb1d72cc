"""Where a study was run and how: what its page says of it, and what a bundle keeps to say the same elsewhere."""

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from lorastudy.presentation import rule_graph
from lorastudy.study import layout, records, settings


@dataclass(frozen=True)
class Origin:
    """How a study is called upon from the pipeline's directory, and by which rules it is made.

    Attributes:
        directory: the study's, relative to the pipeline's.
        options: arguments that configure it beside its ``config.yaml``.
        rules: rule → rules that use its output; None where Snakemake did not tell.
        reason: why it did not; else None.
    """

    directory: str
    options: tuple
    rules: dict | None
    reason: str | None

    @classmethod
    def of(cls, study, configured, rulegraph):
        """Of a study that is run here.

        Args:
            study: its directory.
            configured: ``configuration.Configuration``.
            rulegraph: (what ``snakemake --rulegraph dot`` printed, why it did not); one of the two is None.
        """
        dot, reason = rulegraph
        location = os.path.relpath(Path(study).resolve(), settings.REPOSITORY)
        options = tuple(configured.arguments(settings.REPOSITORY))
        return cls(location, options, rule_graph.parse(dot) if dot else None, reason)

    @classmethod
    def of_bundle(cls, directory="."):
        """Of the study whose bundle was unpacked in ``directory``; None if that is none."""
        manifest = Path(directory, layout.BUNDLE)
        return cls.from_dict(records.read_json(manifest)["origin"]) if manifest.exists() else None

    @classmethod
    def from_dict(cls, plain):
        return cls(**plain | {"options": tuple(plain["options"])})

    def as_dict(self):
        """Plain dictionary, fit for JSON."""
        return asdict(self) | {"options": list(self.options)}

    def command(self, target=""):
        """The command that makes ``target`` in the study, to be typed in the pipeline's directory."""
        directory = "" if self.directory == "." else f" -d {shlex.quote(self.directory)}"
        forced = f" --force {shlex.quote(target)}" if target else ""
        return f"snakemake{directory} --cores 1{forced}" + (f" {shlex.join(self.options)}" if self.options else "")
