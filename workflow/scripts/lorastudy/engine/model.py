"""The base model, its quantized form, its classification head and its adapters."""

from pathlib import Path

from lorastudy.engine import attention, decoder
from lorastudy.inputs import base_model
from lorastudy.study import records

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
HEAD = "score"


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
        config.pad_token_id = base_model.pad_token_id(AutoTokenizer.from_pretrained(directory))
    model = AutoModelForSequenceClassification.from_pretrained(
        directory,
        config=config,
        dtype=getattr(torch, dtype),
        attn_implementation=attention.NAME,
        device_map={"": on or base_model.device()},
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


def load_language_model(directory, dtype, on=None):
    """The base model under its own language-model head, with packed attention, frozen."""
    import torch
    from transformers import AutoModelForCausalLM

    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        attn_implementation=attention.NAME,
        device_map={"": on or base_model.device()},
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
    base_model.require_space(output, size // 2, "the quantized model")
    # the decoder alone: heads are drawn anew for every cell, and are never quantized
    model = AutoModel.from_pretrained(
        directory,
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
        base_model.ModelError: the model has not the modules that the target set names.
    """
    import torch
    from peft import get_peft_model

    torch.manual_seed(cell.seed if seed is None else seed)
    try:
        peft_model = get_peft_model(model, lora_config(cell, lora), autocast_adapter_dtype=False)
    except ValueError as fault:
        raise base_model.ModelError(
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
    records.open_as_others(*Path(directory).glob("*.safetensors"))
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
