"""Where a study's settings are written: ``config.yaml``, the files of ``--configfile``, the values of ``--config``.

All are read as Snakemake reads them (its ``Workflow.configfile`` and ``ConfigSettings``: the later overrides the
earlier, key by key), but strictly: a key that stands twice is refused, and a value of ``--config`` means what it would
mean in a file.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from lorastudy.study import records
from lorastudy.study.settings import ConfigError

CONFIG = "config.yaml"
RECORD = "logs/configuration.json"  # how the study was run last, where not by its config.yaml alone


@dataclass(frozen=True)
class Configuration:
    """What a command line adds to ``config.yaml``.

    Attributes:
        files: absolute paths that ``--configfile`` named, the last one the strongest.
        values: what ``--config`` was given, ``key=value`` each.
        replaces: whether these replace ``config.yaml`` instead of extending it (``--replace-workflow-config``).
    """

    files: tuple = ()
    values: tuple = ()
    replaces: bool = False

    @classmethod
    def of(cls, given):
        """Of a workflow's ``config_settings``, those of its profiles included."""
        return cls(tuple(map(str, given.configfiles)), tuple(given.config_args or ()), given.replace_workflow_config)

    @classmethod
    def of_options(cls, chosen):
        """Of what ``add_options`` has read."""
        files = tuple(os.path.abspath(path) for path in chosen.configfile or ())
        return cls(files, tuple(chosen.config or ()), chosen.replace_workflow_config)

    def or_last(self, study_directory="."):
        """This one if it says anything; else that of the study's last run."""
        record = Path(study_directory, RECORD)
        return self if self != Configuration() or not record.exists() else self.from_dict(records.read_json(record))

    @classmethod
    def from_dict(cls, plain):
        return cls(tuple(plain["files"]), tuple(plain["values"]), plain["replaces"])

    def as_dict(self):
        """Plain dictionary, fit for a rule's params and for JSON."""
        return asdict(self) | {"files": list(self.files), "values": list(self.values)}

    def arguments(self, start=None):
        """The options again, as a list of arguments; paths relative to the directory ``start`` if it is given."""
        files = [os.path.relpath(path, start) if start else path for path in self.files]
        return [
            *(["--configfile", *files] if files else []),
            *(["--config", *self.values] if self.values else []),
            *(["--replace-workflow-config"] if self.replaces else []),
        ]

    def remember(self, study_directory="."):
        """Note how the study is run, for those that look at it or take it up without the same options."""
        record = Path(study_directory, RECORD)
        if self == Configuration():
            record.unlink(missing_ok=True)
        else:
            records.write_json(record, self.as_dict())

    def read(self, study_directory="."):
        """The study's configuration as a nested dictionary.

        Raises:
            ConfigError: a file is missing or no mapping in YAML or JSON, or a key stands in it twice.
        """
        from snakemake.utils import update_config

        own = Path(study_directory, CONFIG)
        paths = [Path(path) for path in self.files]
        if not self.replaces and (own.exists() or not paths):
            paths.insert(0, own)
        config = {}
        for path in paths:
            update_config(config, _load(path))
        require_single_keys(paths)
        return self.typed(config)

    def typed(self, config):
        """``config`` with the values of ``--config`` as YAML has them: ``false``, ``[1, 2]``, ``null`` are no strings.

        Raises:
            ConfigError: a key stands twice in a value.
        """
        from snakemake.utils import update_config

        for entry in self.values:
            key, _, text = entry.partition("=")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:  # then it is text, as for Snakemake
                value = text
            else:
                _refuse(_lines(f"--config {key}", text, (key,)))
            update_config(config, {key: value})
        return config


def add_options(parser):
    """Let a command that looks at a study take the options by which Snakemake was told its configuration."""
    group = parser.add_argument_group("where not config.yaml alone configures the study, as for snakemake")
    group.add_argument("--configfile", "--configfiles", nargs="+", metavar="FILE", action="extend")
    group.add_argument("--config", "-C", nargs="*", metavar="KEY=VALUE", action="extend")
    group.add_argument("--replace-workflow-config", action="store_true")


def require_single_keys(paths):
    """Refuse YAML and JSON files in which a key stands twice: all but the last are dropped in silence.

    Raises:
        ConfigError: one line per key, with the lines that it stands in.
    """
    found = []
    for path in paths:
        found += _lines(os.path.relpath(path), Path(path).read_text(encoding="utf-8"))
    _refuse(found)


def _refuse(lines):
    if lines:
        raise ConfigError("\n".join(lines))


def _lines(called, text, path=()):
    """One line for each key that stands more than once in a mapping of ``text``."""
    for spaced in (text, text.replace("\t", " ")):  # JSON may be indented by tabs
        try:
            repeated = list(_repeated(yaml.compose(spaced, yaml.SafeLoader), path, set()))
        except yaml.YAMLError:  # for Snakemake to complain of
            continue
        return [
            f"{called}: `{'.'.join(map(str, key))}` stands {'twice' if len(lines) == 2 else f'{len(lines)} times'} "
            f"(lines {', '.join(map(str, lines))}), and all but the last would be dropped; make one of them."
            for key, lines in repeated
        ]
    return []


def _repeated(node, path, seen):
    """(key, lines) of each key that stands more than once in a mapping at or below a node; lines from 1."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*path, index), seen)
    elif isinstance(node, yaml.MappingNode):
        lines = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.tag != "tag:yaml.org,2002:merge":
                    lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
                yield from _repeated(value, (*path, key.value), seen)
        yield from (((*path, name), numbers) for (_, name), numbers in lines.items() if len(numbers) > 1)


def require_readable(path):
    """Find what Snakemake would answer with a traceback, or without a line; a file that is not there is left to it.

    Raises:
        ConfigError: the file is not UTF-8, or neither YAML nor JSON.
    """
    path = Path(path)
    if not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except UnicodeDecodeError as fault:
        line = fault.object[: fault.start].count(b"\n") + 1
        raise ConfigError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8.") from None
    except (json.JSONDecodeError, RecursionError):
        try:
            yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError as fault:
            mark = getattr(fault, "problem_mark", None)
            where = f" (line {mark.line + 1}: {fault.problem})" if mark else ""
            raise ConfigError(
                f"{path} is not YAML{where}; indent by spaces alone, and quote texts that hold `: ` or ` #`."
            ) from None


def _load(path):
    from snakemake.common.configfile import load_configfile
    from snakemake_interface_common.exceptions import WorkflowError

    require_readable(path)
    try:
        return load_configfile(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name the directory of a study, or --configfile.") from None
    except WorkflowError as fault:
        raise ConfigError(f"{path}: {str(fault).replace(chr(10), ' ')}") from None
