"""What can be known before anything is computed: can model and data be had, what holds a cell, what will it cost.

The configuration and local files are checked whenever the workflow starts; here come the questions that need a
network, a look at the machine or arithmetic over the whole grid. Nothing is fetched and nothing trained.
"""

import re
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lorastudy.inputs import base_model, families, hub, linear_layers, model_files, package_index
from lorastudy.inputs.sources import packaged
from lorastudy.jobs import machine, nvidia
from lorastudy.planning import hardware, memory
from lorastudy.study import layout, records
from lorastudy.study.errors import StudyError

OK, NOTE, FAULT, UNKNOWN = "ok", "note", "fault", "not checked"
TIMEOUT = 15  # seconds that the hub or the package index may take to answer
# of the peak, six operations a weight and token: an H100 reached 0.6 to 0.8 in training at the shape of Llama-3-8B, and
# 0.5 in evaluation (docs/results); cells of small models reach less
GPU_UTILISATION = 0.5
CPU_UTILISATION = 0.5  # of the rate of plain matrix products; cells of the embedded study reach 0.5 to 1
GB = 10**9


class CheckError(StudyError):
    """Faults that would end the study later."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``state`` is OK, NOTE (worth knowing), FAULT or UNKNOWN (it could not be checked),
    ``text`` says why."""

    what: str
    state: str
    text: str


@dataclass(frozen=True)
class Device:
    """What cells may run on.

    Attributes:
        name: as printed.
        gib: memory; None for a CPU, whose need is not predicted.
        flops: rate that a cell reaches, FLOP/s; None if not known.
        watts: power; None if not known. Of a GPU that of the board at full load, from NVIDIA's data sheets.
    """

    name: str
    gib: float | None
    flops: float | None
    watts: float | None


def known_gpus():
    """The GPUs that every study is held against."""
    rate = {name: hardware.PEAK[name] * 1e12 * GPU_UTILISATION for name in ("a100", "h100")}
    return [
        Device("A100 40 GB", 40 * GB / memory.GIB, rate["a100"], 400),
        Device("A100 80 GB", 80 * GB / memory.GIB, rate["a100"], 400),
        Device("H100 80 GB", 80 * GB / memory.GIB, rate["h100"], 700),
    ]


def here(dtype):
    """The ``Device`` of this machine: its first GPU, or its CPU at the rate of a short measurement in ``dtype``."""
    found = nvidia.query("name", "memory.total", "power.limit", gpu=0)
    if not found:
        rate = _cpu_rate(dtype)
        return Device(f"this CPU, {machine.cpu_name()}", None, rate and rate * CPU_UTILISATION, None)
    name, size, watts = found[0]
    gib = (nvidia.number(size) or nvidia.machine_memory_mb()) / 1024
    called = name or "GPU without a name"
    return Device(f"this {called}", gib, hardware.peak(called) * 1e12 * GPU_UTILISATION, nvidia.number(watts))


def number_format(dtype):
    """``Finding`` where this machine's GPU cannot compute in the study's number format; none otherwise."""
    for name, capability in nvidia.query("name", "compute_cap", gpu=0) if dtype == "bfloat16" else ():
        numbers = tuple(map(int, re.findall(r"\d+", capability or ""))) or families.AMPERE
        if fault := families.without_bfloat16(f"this {name}", numbers):
            yield Finding("number format", FAULT, fault)


def _cpu_rate(dtype, size=512, seconds=0.3):
    """FLOP/s of matrix products on this machine, as busy as it is now; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    one = torch.ones(size, size, dtype=getattr(torch, dtype))
    one @ one
    begun, products = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        one @ one
        products += 1
    return 2 * size**3 * products / (time.monotonic() - begun)


# --- access


def access(study, study_directory="."):
    """``Finding`` of the model and of the data of a ``settings.Settings``."""
    directory = Path(study_directory, "results")
    if base_model.is_fetched(study.model, study_directory):
        yield Finding("model", OK, f"{study.model.name} is in {layout.BASE}")
    else:
        yield _source("model", study.model, study_directory)
    if (directory / "data" / "source.parquet").exists():
        yield Finding("data", OK, f"{study.data.name or study.data.train_file} is in results/data")
    else:
        yield _source("data", study.data, study_directory)


def _source(what, block, study_directory):
    match block.source:
        case "hub":
            return _on_hub(what, block)
        case "packaged":
            packages = base_model.PACKAGED if what == "model" else packaged.PACKAGES
            return _in_index(what, packages[block.name]["requirement"])
        case "random":
            made = "weights of the shape" if what == "model" else "texts"
            return Finding(what, OK, f"random {made} {block.name}, made here")
        case "directory":
            return Finding(
                what, OK, f"{layout.named(block.name, study_directory)} has configuration, weights and tokenizer"
            )
        case _:
            return Finding(what, OK, f"{', '.join(filter(None, (block.train_file, block.test_file)))} can be read")


def _on_hub(what, block):
    """Whether this account may read a pinned model or data set on the hub: its first file is asked for, not fetched."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    kind = "model" if what == "model" else "dataset"
    try:
        info = getattr(HfApi(), f"{kind}_info")(
            block.name, revision=block.revision, timeout=TIMEOUT, files_metadata=True
        )
        files = [file for file in info.siblings if not file.rfilename.startswith(".git")]
        if what == "model" and not any(file.rfilename.endswith(".safetensors") for file in files):
            text = f"`model.name` {block.name!r} has no safetensors weights at this revision; choose another."
            return Finding(what, FAULT, text)
        # the description is public even where the files are gated
        address = hf_hub_url(block.name, files[0].rfilename, repo_type=kind, revision=block.revision)
        get_hf_file_metadata(address, timeout=TIMEOUT)
    except Exception as fault:  # its kinds differ from one version of the client to the next
        why = hub.refusal(fault, block, what)
        return Finding(what, FAULT if why.final else UNKNOWN, why.text)
    size = sum(file.size or 0 for file in files if what == "data" or file.rfilename.endswith(".safetensors"))
    return Finding(what, OK, f"{block.name} can be read on the hub at {block.revision[:12]}, {size / GB:.1f} GB")


def base(study, study_directory="."):
    """``Finding``s of what the base model can be used for; none where ``access`` says why it is not known."""
    model, base = study.model, None
    if model.source == "directory":
        base = layout.named(model.name, study_directory)
    elif base_model.is_fetched(model, study_directory):
        base = Path(study_directory, layout.BASE)
    if base:  # its configuration was found to be in order before this job
        yield from _of_base(records.read_json(base / "config.json"), model_files.tensor_names(base))
    elif model.source == "hub":
        yield from _of_base_on_hub(study)


def _of_base_on_hub(study):
    from huggingface_hub import HfApi

    model = study.model
    try:
        files = HfApi().model_info(model.name, revision=model.revision, timeout=TIMEOUT).siblings
        config = base_model.hub_usable(model, files, study.data.max_length)
        names = HfApi().get_safetensors_metadata(model.name, revision=model.revision).weight_map
    except base_model.ModelError as fault:
        for line in str(fault).splitlines():
            yield Finding("base", FAULT, line)
    except Exception as fault:  # as in access, which tells of most of them
        why = hub.refusal(fault, model, "model")
        if not why.final:
            yield Finding("base", UNKNOWN, why.text)
    else:
        yield from _of_base(config, names)


def _of_base(config, names):
    limit = families.positions(config)
    until = f" of {limit:,} positions" if limit else ""
    yield Finding("base", OK, f"a {config['model_type']}{until}; packed texts give what single ones give")
    if not model_files.turns_into_words(config, names):
        text = f"{model_files.NO_LANGUAGE_HEAD}, so that it cannot be prompted; that row of the tables stays empty"
        yield Finding("prompted baseline", NOTE, text)


def _in_index(what, requirement):
    """Whether the package index has a pinned package."""
    name, version = requirement.split("==")
    try:
        found = package_index.versions(name)
    except subprocess.TimeoutExpired as late:
        return Finding(what, UNKNOWN, f"{requirement}: the package index did not answer within {late.timeout:g} s.")
    if found is None:
        return Finding(what, UNKNOWN, f"{requirement}: pip finds no such package; is there a network on this machine?")
    if version not in found:
        return Finding(what, FAULT, f"{requirement} is not in the package index that pip is configured for.")
    return Finding(what, OK, f"{requirement} is in the package index")


# --- target sets


def targets(estimate, base):
    """``Finding`` of the linear layers that the cells' adapters go on.

    Args:
        estimate: ``resources.Estimate``, for the cells.
        base: ``architecture.Architecture`` of the base model.
    """
    if base.assumed:
        text = "the model is not here yet; whether it has the target sets is found out when it is fetched"
        return Finding("targets", UNKNOWN, text)
    if not linear_layers.countable(base.config):
        return Finding("targets", UNKNOWN, "without torch the linear layers of this model cannot be looked at")
    try:
        linear_layers.require(base.config, estimate.cells.values())
    except base_model.ModelError as fault:
        return Finding("targets", FAULT, str(fault).replace("\n", " "))
    return Finding("targets", OK, f"{linear_layers.of(base.config).kind} has the linear layers of every target set")


# --- memory


def fits(study, estimate, devices, shape):
    """What holds which cells: a row for each (method, targets, r), which alone decide.

    Args:
        estimate: ``resources.Estimate``, for cells and number of classes.
        shape: the model's configuration as a dictionary.

    Returns:
        list of (method, targets, r, cells, GiB with the estimate's micro-batch, [``memory.Fit`` or None a device]).
    """
    execution, options = study.execution, {"dtype": study.model.dtype, "head": study.lora.head}
    tokens, layers = execution.micro_batch_tokens, execution.checkpointed_layers
    in_training = {"optimizer": study.training.optimizer, "graphs": execution.graphs}
    cells = estimate.cells.values()
    groups = Counter((cell.method, cell.targets, cell.r) for cell in cells)
    example = {(cell.method, cell.targets, cell.r): cell for cell in cells}
    # as training chooses: no more than an optimizer step has, at least one text, or what is configured
    most, longest = estimate.micro_batch_tokens, tokens or study.data.max_length
    rows = []
    for key, count in sorted(groups.items(), key=lambda group: tuple(map(_order, group[0]))):
        cell = estimate.sized(example[key])
        trained = memory.training(shape, estimate.classes, cell, most, layers or 0, **in_training, **options)
        evaluated = memory.evaluation(shape, estimate.classes, cell, execution.evaluation_tokens, **options)
        found = [
            memory.fit(shape, estimate.classes, cell, device.gib, most, longest, layers, **in_training, **options)
            for device in devices
        ]
        rows.append((*key, count, max(trained.on_gpu, evaluated.on_gpu) / memory.GIB, found))
    return rows


def _order(part):
    """Controls, which have no targets and no r, come first."""
    return (part is not None, part)


def space(study, estimate, shape, study_directory="."):
    """``Finding`` of the disk: base, its quantized form and the adapters of all cells that are not there yet."""
    directory = Path(study_directory).absolute()
    cells, size = estimate.cells, memory.NUMBER[study.model.dtype]
    need = 0
    if not (directory / layout.BASE).exists():
        need += memory.base(shape, False, study.model.dtype)
    if any(cell.method == "qlora" for cell in cells.values()) and not (directory / layout.NF4).exists():
        need += memory.base(shape, True, study.model.dtype)
    for name, cell in cells.items():
        if not (layout.cell(name, directory) / "adapter").exists():
            one = estimate.sized(cell)
            need += size * linear_layers.trainable_parameters(shape, estimate.classes, one, study.lora.head)
    free = shutil.disk_usage(directory).free
    text = f"{need / memory.GIB:.1f} GiB needed for what is still to come (checkpoints not counted), {free / memory.GIB:.1f} GiB free"
    return Finding(
        "disk", OK if need <= free else FAULT, text if need <= free else f"{text} in {directory}; make room."
    )


# --- cost


@dataclass(frozen=True)
class Prediction:
    """Cost of a whole study on a device; ``remaining`` of its hours are still to come. None where a factor is unknown."""

    device: Device
    hours: float | None
    remaining: float | None
    energy_kwh: float | None
    co2e_kg: float | None
    money: float | None


def predictions(study, estimate, done, devices, measured=None):
    """``Prediction`` on each device.

    Args:
        estimate: ``resources.Estimate``, for the operations of each job.
        done: ids of the cells and baselines that have a result.
        measured: FLOP/s of the finished cells, for the last device (this machine); None without any.
    """
    flop = {name: estimate.finetune_flop(name) + estimate.evaluate_flop(name) for name in estimate.cells}
    flop |= {name: estimate.baseline_flop(name) for name in ("head", "prompt")}
    left = sum(size for name, size in flop.items() if name not in done)
    for index, device in enumerate(devices):
        rate = measured if measured and index == len(devices) - 1 else device.flops
        hours = sum(flop.values()) / rate / 3600 if rate else None
        energy = _product(hours, study.cost.power_watts or device.watts, 1 / 1000)
        yield Prediction(
            device,
            hours,
            left / rate / 3600 if rate else None,
            energy,
            _product(energy, study.cost.carbon_intensity, 1 / 1000),
            _product(hours, study.cost.price_per_hour, 1),
        )


def _product(one, other, scale):
    return None if one is None or other is None else one * other * scale


def finished(study_directory, estimate):
    """Ids of cells and baselines with a result, and the mean FLOP/s of the cells among them (None without one)."""
    done, flop, seconds = set(), 0, 0
    for name in estimate.cells:
        directory = layout.cell(name, study_directory)
        if not ((directory / "metrics.json").exists() and (directory / "training.json").exists()):
            continue
        done.add(name)
        trained, tested = (records.read_json(directory / f"{kind}.json") for kind in ("training", "metrics"))
        if trained["status"] == "finished" and tested["evaluation"]:
            flop += estimate.finetune_flop(name) + estimate.evaluate_flop(name)
            seconds += trained["seconds"] + tested["evaluation"]["seconds"]
    done |= {n for n in ("head", "prompt") if (layout.baseline(n, study_directory) / "metrics.json").exists()}
    return done, flop / seconds if seconds else None
