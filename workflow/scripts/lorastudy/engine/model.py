"""The base model, its quantized form, its classification head and its adapters."""

import logging
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from lorastudy.engine import attention, decoder, dropout, methods
from lorastudy.inputs import base_model, linear_layers
from lorastudy.study import records
from lorastudy.study.grid import FULL

HEAD = linear_layers.HEAD

log = logging.getLogger("lorastudy")


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
    config = _configuration(directory, num_labels=classes)
    if config.pad_token_id is None:
        # Nothing here is ever padded, but whoever loads the adapter with plain transformers needs one.
        config.pad_token_id = base_model.pad_token_id(AutoTokenizer.from_pretrained(directory), config.vocab_size)
    model = _load(AutoModelForSequenceClassification, directory, config, dtype, on, new=f"{HEAD}.weight")
    head = getattr(model, HEAD)
    fresh = torch.empty(head.weight.shape, dtype=torch.float32)
    fresh.normal_(std=config.initializer_range, generator=torch.Generator().manual_seed(seed))
    head.weight.data = fresh.to(head.weight.device)
    set_training(model, False)
    return model


def load_language_model(directory, dtype, on=None):
    """The base model under its own language-model head, with packed attention, frozen.

    Raises:
        base_model.ModelError: it has none.
    """
    return _load(AutoModelForCausalLM, directory, _configuration(directory), dtype, on).eval()


def _configuration(directory, **changes):
    """The base model's configuration, as it computes here.

    Its own dropout is off: the base is frozen, and a result must not depend on how texts are packed. A padding token
    beyond the embedding, which transformers would not load, is none.
    """
    config = AutoConfig.from_pretrained(directory, **changes)
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, (int, float)) and value:
            log.info("the base model's own %s of %s is switched off", key, value)
            setattr(config, key, type(value)(0))
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        config.pad_token_id = None
    return config


def _load(kind, directory, config, dtype, on, new=None):
    """A model with packed attention, frozen, all of its weights read from ``directory``.

    Args:
        kind: auto class of transformers.
        new: name of the weights that are drawn anew by the caller, whether the files have them (of a classifier that
            was fine-tuned before, with any number of classes) or not.

    Raises:
        base_model.ModelError: the files lack weights, which transformers would draw at random.
    """
    base_model.require_format(dtype)
    attention.register()
    model, read = kind.from_pretrained(
        directory,
        config=config,
        dtype=getattr(torch, dtype),
        attn_implementation=attention.NAME,
        device_map={"": on or base_model.device()},
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    lost = sorted({*read["missing_keys"], *(name for name, *_ in read["mismatched_keys"])} - {new})
    if lost:
        raise base_model.ModelError(
            f"the weights in {directory} are not all of a {type(model).__name__}: {lost[0]} is missing or of another size, "
            f"the first of {len(lost)}; take a model that was saved whole."
        )
    model.config.use_cache = False
    return model.requires_grad_(False)


def quantize(directory, output, dtype):
    """Write the base model in NF4 with double quantization (Dettmers et al. 2023, section 3), once for all cells.

    The linear layers of the decoder are quantized; embedding, norms and head are not. Saving and loading is exact.

    Args:
        dtype: name of the number format that the weights are expanded to in computation.
    """
    base_model.require_format(dtype)
    size = sum(file.stat().st_size for file in Path(directory).glob("*.safetensors"))
    base_model.require_space(output, size // 2, "the quantized model")
    # the decoder alone: heads are drawn anew for every cell, and are never quantized
    model = AutoModel.from_pretrained(
        directory,
        config=_configuration(directory),
        dtype=getattr(torch, dtype),
        device_map={"": base_model.device()},
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
    records.open_as_others(*Path(output).glob("*.safetensors"))
    AutoTokenizer.from_pretrained(directory).save_pretrained(output)
    origin = base_model.fingerprint(directory) | {"quantization": "NF4, double quantization", "compute_dtype": dtype}
    records.write_json(Path(output) / "origin.json", origin)


def add_adapters(model, cell, lora, seed=None, *, fused=True):
    """Make what a cell trains trainable on a classifier of ``load_classifier``: adapters and head, or all of it.

    Args:
        seed: of the adapters' first values; the cell's by default.
        fused: compute with ``decoder.Decoder`` where model and method allow it; else with transformers' and PEFT's layers.

    Returns:
        ``peft.PeftModel`` in which adapters and head, and nothing else, require gradients; for full fine-tuning the
        classifier itself, all of which does.

    Raises:
        base_model.ModelError: the model has not the modules that the target set names.
    """
    torch.manual_seed(cell.seed if seed is None else seed)
    if cell.method == FULL:
        decoder.use_plain(model)
        return _settle_dtypes(model.requires_grad_(True), trainable=True)
    config = methods.peft_config(cell, lora, linear_layers.read(model))
    peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
    if not (fused and methods.plain_lora(peft_model)):
        decoder.use_plain(peft_model)
    return _settle_dtypes(peft_model, trainable=True)


def load_adapters(model, directory):
    """Put what a cell saved on a classifier of ``load_classifier``; same logits as when it was saved."""
    if not Path(directory, "adapter_config.json").exists():
        return _load_weights(model, directory)
    peft_model = PeftModel.from_pretrained(model, directory, autocast_adapter_dtype=False)
    if not methods.plain_lora(peft_model):
        decoder.use_plain(peft_model)
    return _settle_dtypes(peft_model, trainable=False).requires_grad_(False)


def _load_weights(model, directory):
    """Weights of a whole classifier, as full fine-tuning leaves them, in place of a model's own."""
    missing = set(model.state_dict())
    for file in sorted(Path(directory).glob("*.safetensors")):
        tensors = load_file(file)
        model.load_state_dict(tensors, strict=False)
        missing -= set(tensors)
    if missing:
        raise base_model.ModelError(f"{directory} has no weights {min(missing)}; train the cell again.")
    return model


def save_adapters(peft_model, directory, base):
    """Write adapters and head as PEFT does, naming the base by ``base`` (its origin) and not by a local path.

    Adapters are written in the format that they computed in. After full fine-tuning, the whole classifier is written, as
    transformers does.
    """
    if not hasattr(peft_model, "peft_config"):
        peft_model.save_pretrained(directory, safe_serialization=True)
        return
    for config in peft_model.peft_config.values():
        config.base_model_name_or_path = base["name"]
        config.revision = base["revision"]
        if isinstance(config.target_modules, set):  # else written in any order
            config.target_modules = sorted(config.target_modules)
    compute = _adapters_compute_in(peft_model)
    # copies, because training holds all that it trains in one tensor
    state = {
        name: value.clone() if f".{HEAD}." in name else value.to(compute, copy=True) if "lora_" in name else value
        for name, value in peft_model.state_dict().items()
    }
    # no embedding is trained: PEFT need not ask the hub for its size
    peft_model.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False, state_dict=state)
    records.open_as_others(*Path(directory).glob("*.safetensors"))
    card = Path(directory, "README.md")
    card.unlink(missing_ok=True)  # PEFT's is an empty form


def trainable(model):
    """(trainable, all) parameters of a model of ``add_adapters``, as PEFT counts."""
    if hasattr(model, "peft_config"):
        return model.get_nb_trainable_parameters()
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def compute_dtype(model):
    """Name of the format that a model computes in."""
    return str(_compute_dtype(model)).removeprefix("torch.")


def _compute_dtype(model):
    """Number format of the decoder's matrices that are not quantized (the embedding at least)."""
    return next(
        p.dtype
        for name, p in model.named_parameters()
        if p.dtype.is_floating_point and p.dim() > 1 and "lora_" not in name and not in_head(name)
    )


def _adapters_compute_in(peft_model):
    """Number format that adapters enter the computation in. AdaLoRA's stay float32, since their ranks are scored by the
    parameters and gradients themselves."""
    return torch.float32 if methods.adaptive(peft_model) else _compute_dtype(peft_model)


def in_head(name):
    """Whether a parameter of that name is part of the classification head."""
    return f".{HEAD}." in f".{name}"


def _settle_dtypes(peft_model, trainable):
    """The head and its pair in float32. Adapters in the format of the computation (no cast of every input), except
    where they are trained by the fused decoder, which rounds its float32 parameters itself."""
    dropout.install(peft_model)
    compute = _adapters_compute_in(peft_model)
    masters = trainable and decoder.fused(peft_model)
    for name, parameter in peft_model.named_parameters():
        if in_head(name) or ("lora_" in name and masters):
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
    dropout.enter(classifier, pack)
    return getattr(classifier, HEAD)(last_hidden_states(classifier, pack).float())


def checkpoint_layers(model, count):
    """Let the first ``count`` decoder layers keep their input alone and compute the rest again in the backward pass."""
    if fast := decoder.fused(model):
        fast.checkpointed_layers = count
        return
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    if count:
        classifier.gradient_checkpointing_enable({"use_reentrant": False})
    decoder_layers = linear_layers.layers_of(getattr(classifier, classifier.base_model_prefix), count_layers(model))
    for index, layer in enumerate(decoder_layers):
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
    model = linear_layers.build(architecture, classes).requires_grad_(False)
    with torch.device("meta"):
        return trainable(add_adapters(model, cell, lora, fused=False))
