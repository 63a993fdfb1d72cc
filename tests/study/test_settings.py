import copy
import re

import pytest
import yaml
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY

STUDIES = ["config.yaml", "demo/config.yaml", ".test/config.yaml"]


@pytest.fixture
def config():
    return yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("study", STUDIES)
def test_studies_of_the_repository_are_valid(study):
    settings.load(yaml.safe_load((REPOSITORY / study).read_text(encoding="utf-8")))


def test_every_key_has_a_description_and_every_optional_one_a_default():
    def walk(name, rule, required):
        assert rule.get("description"), name
        assert required or "default" in rule, name
        for key, inner in rule.get("properties", {}).items():
            walk(f"{name}.{key}", inner, key in rule.get("required", []))

    walk("config", settings.schema() | {"default": None}, True)


def test_defaults_come_from_the_schema(config):
    del config["training"], config["lora"]
    loaded = settings.load(config)
    assert loaded.training.epochs == 1
    assert loaded.lora.head == "paper"
    assert loaded.execution.micro_batch_tokens is None
    assert loaded.execution.evaluation_tokens == 16384


def test_the_given_dictionary_is_left_alone(config):
    before = copy.deepcopy(config)
    settings.load(config)
    assert config == before


@pytest.mark.parametrize("written", ["1e-4", "0.0001", 1e-4])
def test_learning_rate_may_be_written_without_a_dot(config, written):
    """YAML 1.1 reads 1e-4 as a string."""
    config["training"]["learning_rate"] = written
    assert settings.load(config).training.learning_rate == 1e-4


SLICES = {"design": "slices", "r": [8, 16], "alpha": [8, 32], "constant_r": 16, "constant_alpha": 32}


@pytest.mark.parametrize(
    ("old", "points", "trends"),
    [
        (SLICES, [(8, 32), (16, 32), (16, 8)], [("alpha", 32), ("r", 16)]),
        ({"design": "full", "r": [8, 16], "alpha": [0.5, 1]}, [(8, 0.5), (8, 1), (16, 0.5), (16, 1)], None),
        (
            {"design": "full", "r": [8, 16], "alpha": [0.5, 1], "constant_r": 16, "constant_alpha": 1},
            [(8, 0.5), (8, 1), (16, 0.5), (16, 1)],
            [("alpha", 1), ("r", 16)],
        ),
        (SLICES | {"r": [2], "alpha": [4], "constant_r": 2, "constant_alpha": 4}, [(2, 4)], [("alpha", 4), ("r", 2)]),
    ],
)
def test_the_grid_of_earlier_versions_is_read_as_lines(config, old, points, trends):
    """Points as ``docs/configuration.md`` of version 0.1.0 gave them, by hand; r is shown at the constant alpha."""
    config["grid"] = {"seeds": [0], **old}
    loaded = settings.load(config).grid
    assert grid.points(loaded) == points
    if trends:
        assert [grid.trend(grid.lines(loaded), axis).held for axis in ("r", "alpha")] == trends


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ({"r": [8]}, "`grid.design` is missing"),
        ({"design": "slices", "r": [8], "alpha": [8], "constant_r": 8}, "`grid.constant_alpha` is missing"),
        (
            {"design": "sclices", **{key: SLICES[key] for key in SLICES if key != "design"}},
            "`grid.design` is 'sclices'",
        ),
        (SLICES | {"lines": {"r": {"r": 8, "alpha": 8}}}, "`grid` has `lines` and the earlier design, r, alpha"),
    ],
)
def test_half_a_grid_of_earlier_versions_is_refused(config, old, said):
    config["grid"] = {"seeds": [0], **old}
    with pytest.raises(settings.ConfigError) as caught:
        settings.load(config)
    (line,) = str(caught.value).splitlines()
    assert said in line


def test_what_came_later_is_no_part_of_a_cell_at_its_default(config):
    """A cell of a version before ``training.seed`` is the same cell; with another seed it is not."""
    config["training"]["seed"] = 0
    loaded = settings.load(config)
    cell = next(iter(grid.cells(loaded.grid).values()))
    assert "seed" not in loaded.cell_spec(cell)["training"]
    assert settings.with_defaults(loaded.cell_spec(cell))["training"] == loaded.block("training")
    config["training"]["seed"] = 42
    assert settings.load(config).cell_spec(cell)["training"]["seed"] == 42


def test_a_key_that_came_later_is_no_part_of_older_results_until_it_is_set(config):
    """Neither of a cell's nor of a baseline's, nor of what the splits are drawn by."""
    loaded = settings.load(config)
    cell = next(iter(grid.cells(loaded.grid).values()))
    specs = [loaded.cell_spec(cell), loaded.baseline_spec()]
    for key, value in (("near_duplicates", "keep"), ("group_column", "author")):
        assert [key in spec["data"] for spec in specs] == [False, False]
        config["data"][key] = value
        changed = settings.load(config)
        assert [spec["data"][key] for spec in (changed.cell_spec(cell), changed.baseline_spec())] == [value, value]


def test_truth_values_that_were_meant_as_words_are_explained(config):
    config["data"]["class_names"] = [True, "2", "3", "4", "5"]
    with pytest.raises(
        settings.ConfigError, match=r"`data.class_names.0` is True; allowed: string. YAML takes yes, no"
    ):
        settings.load(config)


def test_numbers_without_a_dot_are_read_in_lists_and_lines_too(config):
    config["data"]["validation_size"] = 100
    config["grid"] |= {"learning_rates": ["1e-3"], "lines": {"r": {"r": [8], "alpha": "1e1"}}}
    loaded = settings.load(config)
    assert loaded.grid.learning_rates == (1e-3,)
    assert loaded.grid.lines["r"]["alpha"] == 10


# key to change, bad value, what the message must name
FAULTS = [
    ("trainig", {}, "unknown key `trainig`; did you mean `training`"),
    ("training.epoch", 2, "unknown key `training.epoch`; did you mean `epochs`"),
    ("training.learning_rate", "fast", "`training.learning_rate` is 'fast'; allowed: number"),
    ("training.learning_rate", 0, "`training.learning_rate` is 0; allowed: a value > 0"),
    ("training.learning_rate", True, "`training.learning_rate` is True; allowed: number"),
    ("training.batch_size", 2.5, "`training.batch_size` is 2.5; allowed: integer"),
    ("training.batch_size", "many", "`training.batch_size` is 'many'; allowed: integer"),
    ("training", None, "`training` is empty; allowed: object"),
    ("grid.lines.r.r", [0, 8], "`grid.lines.r.r.0` is 0; allowed: a value >= 1"),
    ("grid.lines.r.r", 0, "`grid.lines.r.r` is 0; allowed: a value >= 1"),
    ("grid.lines.r.r", [], "`grid.lines.r.r` is []; it needs at least 1"),
    ("grid.lines.r.r", [8, 8], "`grid.lines.r.r` names 8 more than once"),
    ("grid.lines.r.r", "eight", "`grid.lines.r.r` is 'eight'; allowed: integer or array"),
    ("grid.lines.alpha.alpha", [-16], "`grid.lines.alpha.alpha.0` is -16; allowed: a value > 0"),
    ("grid.lines.alpha.alpha", None, "`grid.lines.alpha` has neither of alpha and alpha_ratio; write one"),
    ("grid.lines.r.alpha", 32, "`grid.lines.r` has both of alpha and alpha_ratio; write one"),
    ("grid.lines.r.alpha_ratio", [1, 2], "`grid.lines.r.alpha_ratio` is [1, 2]; allowed: number or empty"),
    ("grid.lines.r.ratio", 2, "unknown key `grid.lines.r.ratio`; did you mean `alpha_ratio`"),
    ("grid.lines.r", [8, 16], "`grid.lines.r` is [8, 16]; allowed: object. A line of the grid needs its r"),
    ("grid.lines.r", {"alpha": 8}, "`grid.lines.r.r` is missing; set it: Rank of the adapters"),
    ("grid.lines", {}, "`grid.lines` is {}; it needs at least 1 entry"),
    ("grid.lines", {"2nd": {"r": 8, "alpha": 8}}, "`grid.lines` is '2nd'; A line's name begins with a letter"),
    ("grid.lines", {8: {"r": 8, "alpha": 8}}, "`grid.lines` is 8; allowed: string. A line's name begins with a letter"),
    ("grid.learning_rates", ["fast"], "`grid.learning_rates.0` is 'fast'; allowed: number"),
    (
        "grid.methods",
        ["loar"],
        "`grid.methods.0` is 'loar'; allowed: lora, qlora, dora, adalora, head, full (did you mean",
    ),
    (
        "grid.methods",
        ["qdora"],
        "`grid.methods.0` is 'qdora'; allowed: lora, qlora, dora, adalora, head, full (did you mean",
    ),
    (
        "grid.targets",
        ["mpl"],
        "`grid.targets` names 'mpl'; allowed: attention, mlp, all-linear, or a set that you define",
    ),
    ("grid.targets", ["mpl"], "(did you mean mlp?)"),
    ("grid.targets", [7], "`grid.targets.0` is 7; allowed: string"),
    ("grid.target_sets", {"mlp": ["up_proj"]}, "`grid.target_sets` defines mlp, which every model has"),
    ("grid.target_sets", {"q_v": ["q_proj"]}, "`grid.target_sets` is 'q_v'; The name of a target set begins with"),
    ("grid.target_sets", {"q": "q_proj"}, "`grid.target_sets.q` is 'q_proj'; allowed: array. A target set is a list"),
    ("grid.target_sets", {"q": []}, "`grid.target_sets.q` is []; it needs at least 1 entry"),
    ("grid.target_sets", {"q": ["*.q_proj"]}, "`grid.target_sets.q.0` is '*.q_proj'; The end of a linear layer's name"),
    ("grid.seeds", [], "`grid.seeds` is []"),
    ("model.revision", "main", "`model.revision` is 'main'; a hub source needs the commit"),
    ("model.source", "packaged", "`model.name` is 'meta-llama/Meta-Llama-3-8B'; packaged models:"),
    ("model.dtype", "float16", "`model.dtype` is 'float16'; allowed: bfloat16, float32"),
    ("data.name", None, "`data.name` is empty"),
    ("data.source", "files", "`data.train_file` is empty"),
    ("data.train_size", 3, "`data.train_size` is 3; 5 classes need at least 5"),
    ("data.test_size", 0, "`data.test_size` is 0; allowed: a value >= 1"),
    ("data.labels", [0, 1, 2], "`data.class_names` has 5 entries and `data.labels` 3"),
    ("data.validation_size", 4, "`data.validation_size` is 4; 5 classes need at least 5"),
    ("data.template", "{text}{text}", "`data.template` has {text} 2 times; write it exactly once"),
    ("prompt.template", "{text}, {text}?", "`prompt.template` has {text} 2 times; write it exactly once"),
    ("data.template", "no place for it", "`data.template` is 'no place for it'"),
    ("prompt.verbalizers", [" good", " bad"], "`prompt.verbalizers` has 2 entries for 5 classes"),
    ("figures", {"lora_colour": "blue"}, "`figures.lora_colour` is 'blue'"),
]


@pytest.mark.parametrize(("key", "value", "message"), FAULTS, ids=[f"{key}={value}" for key, value, _ in FAULTS])
def test_faults_name_key_value_and_remedy(config, key, value, message):
    *path, last = key.split(".")
    block = config
    for part in path:
        block = block[part]
    block[last] = value
    with pytest.raises(settings.ConfigError, match=re.escape(message)) as caught:
        settings.load(config)
    assert all(line.startswith("config: ") for line in str(caught.value).splitlines())
    assert len(str(caught.value)) < 600


def test_adalora_needs_steps_to_share_out_its_ranks(config):
    """And its output is not scaled by a root, which PEFT would pass over without a word."""
    config["grid"] |= {"methods": ["lora", "adalora"], "scaling": ["standard", "rank-stabilised"]}
    config["data"]["train_size"], config["training"]["batch_size"] = 32, 16
    with pytest.raises(settings.ConfigError) as caught:
        settings.load(config)
    scaling, steps = str(caught.value).splitlines()
    assert "`grid.scaling` has rank-stabilised, which AdaLoRA does not know" in scaling
    assert "adalora, which needs 3 optimizer steps" in steps and "there are 2" in steps
    config["training"]["epochs"], config["grid"]["scaling"] = 2, ["standard"]
    settings.load(config)


def test_a_missing_key_is_named_with_what_it_means(config):
    del config["model"]["name"]
    with pytest.raises(settings.ConfigError, match=r"`model.name` is missing; set it: Hub id"):
        settings.load(config)


def test_all_faults_are_reported_at_once(config):
    config["grid"]["lines"]["r"]["r"] = [0]
    config["data"]["max_length"] = 1
    with pytest.raises(settings.ConfigError) as caught:
        settings.load(config)
    assert len(str(caught.value).splitlines()) == 2
