"""What a user can get wrong: found before any training, one or two lines, no traceback, nothing half-written.

Every kind of fault is taken through the steps that the workflow takes it through, in this process; one of each step
also through the command, to see that the step is taken and how it ends. The single faults of a step are tested beside
its module.
"""

import json
import os
import re
import shutil
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fetch_data
import fetch_model
import prepare_data
import pytest
import yaml
from lorastudy.inputs import base_model, data, linear_layers
from lorastudy.study import architecture, grid, records, settings
from lorastudy.study.errors import DiskFull
from lorastudy.study.settings import REPOSITORY

FAULTS_OF_THE_USER = (settings.ConfigError, data.DataError, base_model.ModelError, records.DirectoryError)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A copy of the tiny study, and the current directory, as it is for Snakemake and its jobs."""
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the steps of the workflow


def plan(study):
    """Before any job: what the Snakefile does when it is read."""
    loaded = settings.load(yaml.safe_load((study / "config.yaml").read_text(encoding="utf-8")))
    records.check_directories()
    base_model.check(loaded.model, loaded.data.max_length)
    data.check(loaded.data)
    linear_layers.check(loaded.model, grid.cells(loaded.grid).values())
    return loaded


def fetch_texts(study):
    fetch_data.main(data.Source.of(plan(study).data).as_dict(), "results/data/source.parquet")


def draw(study):
    fetch_texts(study)
    base_model.byte_tokenizer().save_pretrained("base")
    records.write_json("base/config.json", architecture.named("tiny"))
    prepare_data.main(plan(study).block("data"), "results/data/source.parquet", "base", "results/data")


def fetch_base(study):
    fetch_model.main(
        plan(study).block("model"),
        "results/model/base",
        yaml.safe_load((study / "config.yaml").read_text(encoding="utf-8")),
    )


# --- the faults


def configured(**changes):
    """Set keys of the configuration, ``__`` between block and key; a block is a dictionary."""

    def spoil(study):
        path = study / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            block, _, key = name.partition("__")
            if key:
                config.setdefault(block, {})[key] = value
            else:
                config[block] = value
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    return spoil


def reviews(change):
    """Change the lines of the study's file of reviews (without its header)."""

    def spoil(study):
        header, *lines = (study / "reviews.csv").read_text(encoding="utf-8").splitlines()
        (study / "reviews.csv").write_text("\n".join([header, *change(lines)]) + "\n", encoding="utf-8")

    return spoil


def with_label(label):
    return reviews(lambda lines: [*lines, f"a good film indeed,{label}"])


def bytes_of_reviews(content):
    return lambda study: (study / "reviews.csv").write_bytes(content)


def model_without_weights(study):
    (study / "model").mkdir()
    (study / "model" / "config.json").write_text("{}", encoding="utf-8")
    configured(model={"source": "directory", "name": "model"})(study)


def results_in_the_way(study):
    (study / "results").write_text("a file", encoding="utf-8")


HUB_DATA = {"source": "hub", "name": "someone/texts", "revision": COMMIT, "train_size": 60, "test_size": 50}

# fault → what is done to the study, the step that finds it, what the message must name
FAULTS = {
    "unknown key": (configured(trainig={}), plan, r"unknown key `trainig`; did you mean `training`"),
    "wrong type": (configured(training__epochs="two"), plan, r"`training.epochs` is 'two'; allowed: integer"),
    "r = 0": (configured(grid__lines={"r": {"r": [0], "alpha": 4}}), plan, r"`grid.lines.r.r.0` is 0; allowed: a value >= 1"),
    "negative alpha": (configured(grid__lines={"r": {"r": [2], "alpha": -1}}), plan, r"`grid.lines.r.alpha` is -1; allowed: a value > 0"),
    "learning rate in words": (configured(training__learning_rate="1e-4x"), plan, r"`training.learning_rate` is '1e-4x'; allowed: number"),
    "empty grid": (configured(grid__lines={}), plan, r"`grid.lines` is {}; it needs at least 1 entry"),
    "duplicate values": (configured(grid__lines={"alpha": {"r": 2, "alpha": [4, 4]}}), plan, r"`grid.lines.alpha.alpha` names 4 more than once; list each value once"),
    "unknown method": (configured(grid__methods=["qdora"]), plan, r"`grid.methods.0` is 'qdora'; allowed: lora, qlora, dora, adalora, head, full"),
    "unknown target set": (configured(grid__targets=["all"]), plan, r"`grid.targets` names 'all'; allowed: attention, mlp, all-linear, or a set that you define"),
    "target set of another model": (configured(grid__targets=["wide"], grid__target_sets={"wide": ["c_attn"]}), plan, r"`grid.target_sets.wide` names 'c_attn', and no linear layer of LlamaModel ends so; .*self_attn.q_proj"),
    "controls alone": (configured(grid__methods=["head", "full"]), plan, r"`grid.methods` has controls alone \(head, full\); add a method with adapters"),
    "adalora in two steps": (configured(grid__methods=["adalora"], training__batch_size=50), plan, r"adalora, which needs 3 optimizer steps .* there are 2; raise"),
    "no file": (lambda study: (study / "reviews.csv").unlink(), plan, r"`data.train_file` is 'reviews.csv', and there is no such file"),
    "no column": (configured(data__text_column="review"), plan, r"'reviews.csv' has no column 'review' \(`data.text_column`\); it has text, label"),
    "empty file": (bytes_of_reviews(b""), plan, r"'reviews.csv' is an empty file; it needs"),
    "unreadable file": (bytes_of_reviews(b"\x93\x00\xff\xfe\x00binary" * 50), plan, r"'reviews.csv' is not UTF-8 text: byte 0x93 in line 1; save it"),
    "model without weights": (model_without_weights, plan, r"`model.name` is 'model', a directory without weights \(\*.safetensors\); put"),
    "no model directory": (configured(model={"source": "directory", "name": "nowhere"}), plan, r"`model.name` is 'nowhere', and there is no directory"),
    "unpinned model": (configured(model={"source": "hub", "name": "a/b"}), plan, r"`model.revision` is empty; a hub source needs the commit"),
    "unpinned data": (configured(data=HUB_DATA | {"revision": "main"}), plan, r"`data.revision` is 'main'; a hub source needs the commit"),
    "results in the way": (results_in_the_way, plan, r"results is a file, and a directory of that name is needed .*; move it"),
    "label missing": (with_label(""), fetch_texts, r"'reviews.csv': 1 row has an empty label in column 'label' \(line 162\); fill in"),
    "label fractional": (with_label("2.5"), fetch_texts, r"'reviews.csv': 1 row has a fractional label, for instance '2.5' \(line 162\)"),
    "label of no class": (with_label("6"), fetch_texts, r"a label that is none of `data.labels`, for instance '6' \(line 162\); allowed: 1, 2, 3, 4, 5"),
    "class absent": (reviews(lambda lines: [line for line in lines if not line.endswith(",5")]), fetch_texts, r"no text has the label 5; every one of `data.labels` needs"),
    "text empty": (reviews(lambda lines: [",3", *lines]), fetch_texts, r"'reviews.csv': 1 row has an empty text in column 'text' \(line 2\); fill in"),
    "too few rows": (configured(data__train_size=5000), draw, r"class 1 has \d+ usable texts.* and needs 1014 \(`data.train_size` 5000, .*lower the sizes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(study, fault):
    spoil, step, message = FAULTS[fault]
    spoil(study)
    with pytest.raises(FAULTS_OF_THE_USER) as caught:
        step(study)
    require_a_line(str(caught.value), message)
    assert not any(path.name in ("train.parquet", "card.json") for path in study.rglob("*"))
    if step is fetch_texts:
        plan(study)
        assert not (study / "results").exists()


def require_a_line(said, message):
    """Exactly one line names it, and there are no more than two."""
    lines = [line for line in said.splitlines() if re.search(message, line)]
    assert len(lines) == 1, said
    assert len(lines[0]) < 600
    assert "Traceback" not in said
    return lines[0]


def test_a_place_that_may_not_be_written(study, monkeypatch):
    """Root may write everywhere, so the system's answer is imitated."""
    (study / "results").mkdir()
    refused = {str(study / "results")}
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in refused)
    with pytest.raises(records.DirectoryError, match=r"/results may not be written, and outputs go there; change"):
        plan(study)
    refused.clear()
    plan(study)
    refused.add(str(study))
    (study / "results").rmdir()
    with pytest.raises(records.DirectoryError, match=r"may not be written, and outputs go there; change"):
        plan(study)


@pytest.mark.parametrize(
    "block",
    [{"source": "packaged", "name": "smollm2-135m-instruct"}, {"source": "hub", "name": "a/b", "revision": COMMIT}],
    ids=lambda block: block["source"],
)
def test_no_room_for_the_model(study, monkeypatch, tmp_path, block):
    """A gibibyte is free; the hub's files are said to be of 16."""
    import huggingface_hub

    described = namedtuple("file", "rfilename size")
    answer = namedtuple("answer", "siblings")(
        [described("model.safetensors", 16 * 2**30), described("tokenizer.json", 9)]
    )
    shape = str(settings.ARCHITECTURES / "llama-3-8b.json")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: shape)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: answer)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(2**29))
    configured(model=block)(study)
    with pytest.raises(DiskFull, match=r"no room for .*: \d+\.\d GiB are needed and 0.5 GiB are free in .*; make"):
        fetch_base(study)
    assert not list(study.glob("results/model/base/*"))


def test_a_learning_rate_that_yaml_takes_for_a_string_is_accepted(study):
    text = (study / "config.yaml").read_text(encoding="utf-8").replace("learning_rate: 5.0e-3", "learning_rate: 5e-3")
    (study / "config.yaml").write_text(text, encoding="utf-8")
    assert isinstance(yaml.safe_load(text)["training"]["learning_rate"], str)
    assert plan(study).training.learning_rate == 0.005


# --- through the command


def refused(study, snakemake, *arguments, **environment):
    """What the command says when it refuses."""
    done = snakemake("-d", study, *arguments, check=False, **environment)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(study.glob("results/cells/*"))
    return done.stdout + done.stderr


def test_all_faults_of_the_configuration_at_once(study, snakemake):
    together = ("unknown key", "wrong type", "negative alpha", "unknown method")
    for fault in together:
        FAULTS[fault][0](study)
    said = refused(study, snakemake, "-n")
    for fault in together:
        require_a_line(said, FAULTS[fault][2])
    assert not (study / "results").exists()


@pytest.mark.parametrize(
    "fault", ["no file", "model without weights", "results in the way", "target set of another model"]
)
def test_faults_before_any_job(study, snakemake, fault):
    spoil, _, message = FAULTS[fault]
    spoil(study)
    require_a_line(refused(study, snakemake, "--cores", 1), message)
    assert not (study / "results").is_dir()


def test_a_fault_of_the_texts(study, snakemake):
    spoil, _, message = FAULTS["label fractional"]
    spoil(study)
    said = refused(study, snakemake, "--cores", 1, "results/data/source.parquet")
    job, itself, last = said.partition("\nNot finished:\n")
    require_a_line(job, message)  # as soon as it is found
    require_a_line(last, message)  # and last on the screen
    assert len(last.splitlines()) == 3
    assert not (study / "results" / "data" / "source.parquet").exists()


@pytest.fixture
def hub():
    """Address of a server that answers as the hub does for a gated model and for a data set that is not there."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            gated = "/models/" in self.path
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(json.dumps({}).encode())

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_gated_model_and_data_that_are_not_on_the_hub(study, snakemake, hub, tmp_path):
    """Both jobs run where there is a network, before any other, and say what to do."""
    configured(model={"source": "hub", "name": "someone/gated", "revision": COMMIT}, data=HUB_DATA)(study)
    said = refused(
        study, snakemake, "--cores", 2, "--keep-going", "results/data/card.json",
        HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "hf"), NO_PROXY="127.0.0.1", HF_TOKEN="hf_secret",
    )  # fmt: skip
    said = said.partition("\nNot finished:\n")[2]
    require_a_line(said, r"`model.name` 'someone/gated' is gated: accept its terms .*`hf auth login` or set HF_TOKEN")
    require_a_line(
        said, r"`data.name` 'someone/texts' is not on the hub, or is private and HF_TOKEN is not set; correct"
    )
    assert "hf_secret" not in said
    assert not list(study.glob("results/model/base/*"))
