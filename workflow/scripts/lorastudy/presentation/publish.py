"""A cell in the form that the hub expects of a PEFT model: model card and records. Nothing is uploaded."""

import shutil
from pathlib import Path

import jinja2

from lorastudy.study import records, settings
from lorastudy.study.errors import StudyError
from lorastudy.study.grid import METHODS

CARD = settings.REPOSITORY / "workflow" / "report"
TEMPLATE = "model_card.md.j2"
DOI = "10.3390/app15063087"
TARGETS = {"all-linear": "all linear layers", "attention": "attention projections", "mlp": "feed-forward layers"}
METRICS = {"accuracy": "accuracy", "f1": "f1", "precision": "precision", "recall": "recall"}  # ours → the hub's names


class PublishError(StudyError):
    """A cell that cannot be published."""


def write(cell_directory, card_file, output, study_name):
    """Write ``README.md`` and the two records to ``output``; ``engine.exchange`` adds the adapter.

    Args:
        cell_directory: ``results/cells/<cell>``.
        card_file: the data card.
        output: directory, made new.
        study_name: title of the study.

    Raises:
        PublishError: the cell did not finish, or has no adapter.
    """
    cell_directory, output = Path(cell_directory), Path(output)
    measured, trained = (records.read_json(cell_directory / f"{name}.json") for name in ("metrics", "training"))
    if measured["status"] != "finished":
        raise PublishError(f"{cell_directory.name} is {measured['status']}; choose a finished cell.")
    if not (cell_directory / "adapter" / "adapter_config.json").exists():
        raise PublishError(
            f"{cell_directory.name} is a whole model and no adapter; {cell_directory / 'adapter'} has it as transformers reads it."
        )
    data = records.read_json(card_file)
    output.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", "training.json"):
        shutil.copyfile(cell_directory / name, output / name)
    text = model_card(cell_directory.name, measured, trained, data, study_name)
    (output / "README.md").write_text(text, encoding="utf-8")


def model_card(name, measured, trained, data, study_name):
    """Text of the model card, with the hub's metadata in front.

    Args:
        name: id of the cell.
        measured, trained: its records.
        data: the data card.
    """
    from huggingface_hub import EvalResult, ModelCardData

    config, cell = measured["provenance"]["config"], measured["cell"]
    base, on_hub = config["model"], config["model"]["source"] == "hub"
    task = {"task_type": "text-classification", "task_name": "Text classification"}
    source = {
        "dataset_type": data["name"] or "local",
        "dataset_name": data["name"] or "local texts",
        "dataset_split": "test",
        "dataset_revision": data["revision"] if data["source"] == "hub" else None,
    }
    metadata = ModelCardData(
        base_model=base["name"] if on_hub else None,
        datasets=[data["name"]] if data["source"] == "hub" else None,
        library_name="peft",
        pipeline_tag="text-classification",
        tags=["sentiment-analysis", cell["method"], f"doi:{DOI}"],
        model_name=name,
        eval_results=[
            EvalResult(**task, **source, metric_type=theirs, metric_value=measured["metrics"][ours])
            for ours, theirs in METRICS.items()
        ],
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(CARD), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["python"] = repr
    before, _, after = config["data"]["template"].partition("{text}")
    body = environment.get_template(TEMPLATE).render(
        name=name,
        study=study_name,
        cell=cell,
        config=config,
        measured=measured,
        trained=trained,
        data=data,
        classes=data["class_names"],
        method=METHODS[cell["method"]],
        targets=TARGETS.get(cell["targets"], f"the target set {cell['targets']}"),
        before=before,
        after=after,
        doi=DOI,
    )
    return f"---\n{metadata}\n---\n\n{body}"
