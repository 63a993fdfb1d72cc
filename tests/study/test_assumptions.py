"""What the paper states, the paper's study and the list of assumptions agree, value by value."""

import re

import pytest
import yaml
from lorastudy.study import assumptions, grid, paper, settings
from lorastudy.study.settings import REPOSITORY

CONFIG = REPOSITORY / "config.yaml"
# settings that no key of the configuration has: what the list says of them in place of a value
WITHOUT_KEY = {
    "classifier": "Classifier", "padding": "Padding", "quantization of QLoRA": "Quantization of QLoRA",
    "hardware": "Hardware", "split of the source of the evaluation texts": "Split of the source that the evaluation texts are from",
    "double quantization": "Double quantization",
    "number format of QLoRA's computation": "Number format of QLoRA's computation",
}  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return settings.load(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def listed(study):
    return assumptions.table({name: study.block(name) for name in study.__dataclass_fields__})


def numbers(words):
    return [float(word) for word in words.split()]


def has(study, setting):
    """What the study has of a setting, as settings.csv writes it, from its configuration alone."""
    data, lines = study.data, grid.lines(study.grid)
    along = {line.varies: line for line in lines}
    return {
        "base model": study.model.name,
        "classes": len(data.labels),
        "data set": data.name,
        "training texts": data.train_size,
        "training texts of each class": data.train_size / len(data.labels),
        "evaluation texts": data.test_size,
        "evaluation texts of each class": data.test_size / len(data.labels),
        "tokens of a text at most": data.max_length,
        "methods": " ".join(study.grid.methods),
        "target sets": " ".join(study.grid.targets),
        "line of r: r": [r for r, _ in along["r"].points],
        "line of r: alpha / r": {alpha / r for r, alpha in along["r"].points},
        "line of alpha: r": {r for r, _ in along["alpha"].points},
        "line of alpha: alpha": [alpha for _, alpha in along["alpha"].points],
        "scale of the adapters": {"standard": "alpha / r"}[study.grid.scaling[0]] if len(study.grid.scaling) == 1 else None,
        "LoRA dropout": study.lora.dropout,
        "epochs": study.training.epochs,
        "batch size": study.training.batch_size,
        # Adam with decoupled decay is Adam where there is no decay
        "optimizer": "Adam" if (study.training.optimizer, study.training.weight_decay) == ("adamw", 0) else None,
        "learning rate": study.training.learning_rate,
        "runs of each cell": len(study.grid.seeds),
        "seed": study.training.seed,
        "scheduler": study.training.scheduler,
        "warm-up": study.training.warmup_ratio,
        "weight decay": study.training.weight_decay,
        "gradient clipping": study.training.max_grad_norm,
    }[setting]  # fmt: skip


STATED = [row for row in paper.settings().to_dict("records") if row["status"] == "stated"]
NOT_STATED = [row for row in paper.settings().to_dict("records") if row["status"] != "stated"]


@pytest.mark.parametrize("row", STATED, ids=[row["setting"] for row in STATED])
def test_the_study_has_what_the_paper_states(study, row):
    assert row["value"]
    assert row["section"]
    if row["setting"] in WITHOUT_KEY:
        assert not row["key"]
        return
    found = has(study, row["setting"])
    match found:
        case str():
            assert found == row["value"]
        case list():
            assert found == numbers(row["value"])
        case set():
            assert found == set(numbers(row["value"]))
        case _:
            assert found == float(row["value"])


@pytest.mark.parametrize("row", NOT_STATED, ids=[row["setting"] for row in NOT_STATED])
def test_what_the_paper_does_not_state_is_the_librarys_default(study, row):
    assert row["status"] == "not stated"
    assert (row["value"], row["section"]) == ("", "")
    if row["key"]:
        default = row["default"] if row["setting"] == "scheduler" else float(row["default"])
        assert has(study, row["setting"]) == default


@pytest.mark.parametrize("row", STATED + NOT_STATED, ids=[row["setting"] for row in STATED + NOT_STATED])
def test_the_list_says_of_each_setting_what_the_paper_does(listed, row):
    """Its basis; of what is stated each number and the section."""
    known = listed.key.eq(row["key"]) if row["key"] else listed.what.eq(WITHOUT_KEY[row["setting"]])
    (entry,) = listed[known].to_dict("records")
    if row["status"] == "not stated":
        assert entry["basis"] in ("assumed", "contradictory")
        return
    assert entry["basis"] == "stated"
    section = row["section"].removeprefix("equation ")
    assert (
        re.search(rf"(?<![\d.]){re.escape(section)}(?![\d.]*\d)", entry["reason"]) or section in entry["reason"].lower()
    )
    said = entry["paper"].replace(",", "")
    for number in re.findall(r"\d[\d.]*(?:e-\d)?", row["value"]):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", said), (number, entry["paper"])


def marks():
    """Key → how config.yaml marks its value; a mark on a block's name is that of all its keys."""
    found, block, of_block = {}, None, None
    for line in CONFIG.read_text(encoding="utf-8").splitlines():
        mark = re.search(r"# (stated, (?:section ([\d.]+)|title)|derived|ASSUMED)", line)
        if match := re.match(r"(\w+):", line):
            block, of_block = match[1], mark
        elif (match := re.match(r"  (\w+):", line)) and (mark or of_block):
            found[f"{block}.{match[1]}"] = (mark or of_block)[1]
    return found


def test_every_value_of_the_study_is_marked_as_the_list_has_it(listed):
    """Of a key its basis and section; keys that only name columns or the study have no mark."""
    of = listed[listed.key.ne("")].set_index("key").basis
    bases = {key: mark.split(",")[0].lower() for key, mark in marks().items()}
    assert bases == {key: basis for key, basis in of.items() if key in bases}
    # these are at their defaults and not in the file
    assert set(of.index) - set(bases) == {
        "grid.scaling",
        "training.head_learning_rate",
        "statistics.equivalence_margin",
    }
    written = {
        f"{block}.{key}" for block, keys in yaml.safe_load(CONFIG.read_text(encoding="utf-8")).items() for key in keys
    }
    assert written - set(bases) == {
        "study.name", "model.source", "data.source", "data.text_column", "data.label_column", "data.class_names",
    }  # fmt: skip


def test_sections_of_the_marks_are_those_of_the_settings():
    stated = paper.settings().query("status == 'stated' and key != ''").groupby("key").section.agg(set)
    for key, mark in marks().items():
        if mark.startswith("stated"):
            assert {mark.removeprefix("stated, ").removeprefix("section ")} == stated[key], key


def test_every_entry_of_the_list_is_complete(listed):
    assert set(listed.basis) == {"stated", "derived", "contradictory", "assumed"}
    assert (listed[["what", "value", "reason", "effect"]].map(len) > 0).all(axis=None)
    assert set(listed.paper[listed.basis.eq("assumed")]) == {"not stated"}
    assert listed.what.is_unique
    # both readings, each with its section or table
    for words in listed.paper[listed.basis.eq("contradictory")]:
        assert len(re.findall(r"\(\d\.\d|Table \d", words)) >= 2, words
