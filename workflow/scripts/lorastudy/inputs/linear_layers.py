"""The linear layers of a decoder: what a target set means in it, and how many parameters a cell trains.

Families name their layers differently (``q_proj``, ``qkv_proj``, ``c_attn``, ``query_key_value``), so that nothing is
decided by names: the model is built without weights and looked at. Of a Llama without biases the same follows from a
few products, for which planning needs no torch.
"""

import importlib.util
import json
import math
from dataclasses import dataclass
from functools import cache

from lorastudy.inputs.base_model import ModelError
from lorastudy.study import architecture as architectures
from lorastudy.study.grid import ALL_LINEAR, ATTENTION, CONTROLS, FULL, HEAD_ALONE, MLP

ADALORA_START = 1.5  # rank at which AdaLoRA begins over the one it ends at (Zhang et al. 2023, section 4)
HEAD = "score"  # the classification head of every decoder in transformers


@dataclass(frozen=True)
class Linear:
    """A linear layer.

    Attributes:
        name: within the classifier, for instance ``model.layers.0.self_attn.q_proj``.
        outputs, inputs: its widths.
        block: ``attention``, ``mlp`` (whatever else is in a decoder layer) or ``other`` (outside of the layers).
    """

    name: str
    outputs: int
    inputs: int
    block: str


@dataclass(frozen=True)
class Decoder:
    """What planning and adapters need to know of a decoder.

    Attributes:
        kind: its class in transformers.
        hidden: width of the residual stream, which the head reads.
        layers: decoder layers.
        parameters: all of its parameters; no head among them.
        linears: its linear layers, in the model's order.
        unreachable: (name, block) of the matrices in its layers that are not weights of a linear layer, as of experts.
    """

    kind: str
    hidden: int
    layers: int
    parameters: int
    linears: tuple
    unreachable: tuple = ()

    @property
    def other(self):
        """Parameters that are not weights of linear layers: embedding, norms, biases, experts."""
        return self.parameters - sum(linear.outputs * linear.inputs for linear in self.linears)


def of(architecture):
    """The ``Decoder`` of a model's configuration (the dictionary in its ``config.json``)."""
    return _of(_text(architecture))


def of_cell(architecture, cell):
    """The linear layers that a cell's adapters are on; none of a control. Raises as ``targeted``."""
    return _of_cell(_text(architecture), cell.method in CONTROLS, cell.targets, cell.modules)


def _text(architecture):
    """Something that can be remembered: planning asks for the same model some thousand times."""
    return json.dumps(architecture, sort_keys=True)


@cache
def _of_cell(text, control, targets, modules):
    return () if control else tuple(targeted(_of(text), targets, modules))


@cache
def _of(text):
    architecture = json.loads(text)
    return _llama(architecture) if _is_plain_llama(architecture) else read(build(architecture))


def _is_plain_llama(architecture):
    biased = architecture.get("attention_bias") or architecture.get("mlp_bias")
    return architecture.get("model_type", "llama") == "llama" and not biased


def _llama(architecture):
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    heads, layers = architecture["num_attention_heads"], architecture["num_hidden_layers"]
    width = architecture.get("head_dim") or hidden // heads
    queries, keys = heads * width, (architecture.get("num_key_value_heads") or heads) * width
    parts = [
        ("self_attn.q_proj", queries, hidden, ATTENTION),
        ("self_attn.k_proj", keys, hidden, ATTENTION),
        ("self_attn.v_proj", keys, hidden, ATTENTION),
        ("self_attn.o_proj", hidden, queries, ATTENTION),
        ("mlp.gate_proj", inner, hidden, MLP),
        ("mlp.up_proj", inner, hidden, MLP),
        ("mlp.down_proj", hidden, inner, MLP),
    ]
    linears = [Linear(f"model.layers.{index}.{name}", *rest) for index in range(layers) for name, *rest in parts]
    norms_and_embedding = hidden * (architecture["vocab_size"] + 2 * layers + 1)
    parameters = norms_and_embedding + sum(linear.outputs * linear.inputs for linear in linears)
    return Decoder("LlamaModel", hidden, layers, parameters, tuple(linears))


def build(architecture, classes=2):
    """The classifier of a configuration, without weights (on torch's meta device).

    Raises:
        ModelError: transformers has no classifier of this family.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    known = {key: value for key, value in architecture.items() if key not in {"id2label", "label2id", "num_labels"}}
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**known, num_labels=classes))
    except ValueError as fault:
        raise ModelError(
            f"config: `model.name`: transformers builds no classifier of a {architecture.get('model_type')} "
            f"({str(fault).splitlines()[0][:120]}); choose another model."
        ) from None


def read(classifier):
    """The ``Decoder`` of a built classifier, before adapters are on it. Its weights may be quantized."""
    prefix = classifier.base_model_prefix
    decoder, config = getattr(classifier, prefix), classifier.config.get_text_config()
    layers = layers_of(decoder, config.num_hidden_layers)
    where = next(name for name, module in decoder.named_modules() if module is layers) + "."
    attention = tuple(name + "." for name, module in decoder.named_modules() if "Attention" in type(module).__name__)
    linears, unreachable = [], []
    for name, module in decoder.named_modules():
        block = "other"
        if name.startswith(where):
            block = ATTENTION if f"{name}.".startswith(attention) else MLP
        if widths := _widths(module):
            linears.append(Linear(f"{prefix}.{name}", *widths, block))
        elif block != "other" and type(module).__name__ != "Embedding":
            own = module.named_parameters(recurse=False)
            unreachable += [(weight.dim(), f"{prefix}.{name}.{of}", block) for of, weight in own if weight.dim() > 1]
    unreachable.sort(key=lambda found: -found[0])  # experts before what chooses them
    return Decoder(
        type(decoder).__name__,
        config.hidden_size,
        len(layers),
        _size(decoder, linears),
        tuple(linears),
        tuple((name, block) for _, name, block in unreachable),
    )


def layers_of(decoder, count):
    """The list of decoder layers, whatever a family calls it."""
    import torch

    return next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)


def _widths(module):
    """(outputs, inputs) of a linear layer; None of anything else. GPT-2's ``Conv1D`` is one with its weight on its side."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    return (module.nf, module.weight.shape[0]) if isinstance(module, Conv1D) else None


def _size(decoder, linears):
    """Parameters of a decoder; of quantized weights, which are packed two to a byte, as many as they stand for."""
    packed = {f"{linear.name}.weight".split(".", 1)[1]: linear.outputs * linear.inputs for linear in linears}
    return sum(packed.get(name, weight.numel()) for name, weight in decoder.named_parameters())


# --- target sets


def targeted(decoder, targets, modules=None):
    """The linear layers of a target set.

    Args:
        targets: ``attention``, ``mlp``, ``all-linear``, or the name of a set of the configuration.
        modules: what a set of the configuration names: ends of the layers' names.

    Raises:
        ModelError: the decoder has not what the set names, or has parts of it that adapters do not reach.
    """
    if modules is not None:
        return _named(decoder, targets, modules)
    blocks = {ATTENTION: {ATTENTION}, MLP: {MLP}, ALL_LINEAR: {ATTENTION, MLP, "other"}}[targets]
    if beyond := [name for name, block in decoder.unreachable if block in blocks]:
        raise ModelError(
            f"config: `grid.targets` has {targets}, and {decoder.kind} keeps weights of it outside of linear layers "
            f"({_within_layer(beyond[0])}), where no adapter goes; {_rather(decoder, targets)}."
        )
    chosen = [linear for linear in decoder.linears if linear.block in blocks]
    if len({_layer(linear.name) for linear in chosen if linear.block != "other"}) < decoder.layers:
        raise ModelError(
            f"config: `grid.targets` has {targets}, and not every layer of {decoder.kind} has such a block; name the "
            "layers that you mean in `grid.target_sets`."
        )
    return chosen


def _named(decoder, targets, modules):
    for end in modules:
        if not any(_ends(linear.name, end) for linear in decoder.linears):
            known = dict.fromkeys(_within_layer(linear.name) for linear in decoder.linears)
            raise ModelError(
                f"config: `grid.target_sets.{targets}` names {end!r}, and no linear layer of {decoder.kind} ends so; its "
                f"linear layers: {', '.join(known)}."
            )
    return [linear for linear in decoder.linears if any(_ends(linear.name, end) for end in modules)]


def _rather(decoder, targets):
    if targets != ATTENTION and not any(block == ATTENTION for _, block in decoder.unreachable):
        return "take attention, or name linear layers in `grid.target_sets`"
    return "name linear layers in `grid.target_sets`"


def _ends(name, end):
    return name == end or name.endswith(f".{end}")


def _layer(name):
    """Number of the layer that a module is in; None outside of the layers."""
    return next((part for part in name.split(".") if part.isdigit()), None)


def _within_layer(name):
    """A module's name after the number of its layer: ``self_attn.q_proj``."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[0] + 1 :] if numbers else parts)


def short(decoder, chosen):
    """The fewest words that name these layers and no others, as PEFT takes them: ends of names.

    ``q_proj`` where all of that name are meant, ``mlp.c_proj`` where GPT-2 has another ``c_proj``, else whole names.
    """
    wanted, ends = {linear.name for linear in chosen}, {}
    others = [linear.name for linear in decoder.linears if linear.name not in wanted]
    for linear in chosen:
        within = _within_layer(linear.name)
        tries = (within.rpartition(".")[2], within, linear.name)
        ends[next(end for end in tries if not any(_ends(name, end) for name in others))] = None
    return list(ends)


def check(model, cells, study_directory="."):
    """Find out before any job whether the base model has what the cells' target sets name, if it is here already.

    Args:
        model: ``settings.Model``.
        cells: ``grid.Cell``.

    Raises:
        ModelError: one line per target set that it has not.
    """
    base = architectures.of_study(model, study_directory)
    if not base.assumed and countable(base.config):
        require(base.config, cells)


def require(architecture, cells):
    """The same of a model's configuration.

    Args:
        architecture: the model's configuration as a dictionary.
        cells: ``grid.Cell``.

    Raises:
        ModelError: one line per target set that it has not.
    """
    faults = {}
    for cell in cells:
        try:
            of_cell(architecture, cell)
        except ModelError as fault:
            faults[str(fault)] = None
    if faults:
        raise ModelError("\n".join(faults))


def needs_torch(architecture):
    """Whether a model has to be built, without weights, to know its linear layers."""
    return not _is_plain_llama(architecture)


def countable(architecture):
    """Whether the linear layers of a model can be known here: where planning has no torch, only a Llama's are."""
    return not needs_torch(architecture) or all(map(importlib.util.find_spec, ("torch", "transformers")))


# --- counts


def trainable_parameters(architecture, classes, cell, head):
    """Trainable parameters of a cell by counting matrices: a check on the count of the built model.

    Args:
        architecture: the model's configuration as a dictionary.
        classes: width of the classification head.
        cell: ``grid.Cell``.
        head: ``lora.head``; with ``paper`` the head of LoRA's all-linear set has a pair too (``study.paper``).
    """
    decoder, chosen = of(architecture), of_cell(architecture, cell)
    own = decoder.hidden * classes
    if cell.method == HEAD_ALONE:
        return own
    if cell.method == FULL:
        return own + decoder.parameters
    widths = sum(linear.outputs + linear.inputs for linear in chosen)
    if cell.method == "adalora":  # singular vectors and values, at the rank that it starts from
        start = adalora_start(cell.r)
        return start * (widths + len(chosen)) + own
    if cell.method == "dora":  # a magnitude for each output (Liu et al. 2024)
        return cell.r * widths + sum(linear.outputs for linear in chosen) + own
    pair = cell.r * (decoder.hidden + classes) if has_pair(cell, head) else 0
    return cell.r * widths + pair + own


def adalora_start(r):
    """Rank at which the adapters of AdaLoRA begin."""
    return math.ceil(ADALORA_START * r)


def has_pair(cell, head):
    """Whether the head carries a LoRA pair beside its trainable weights, as the paper's all-linear set does."""
    return head == "paper" and cell.targets == ALL_LINEAR and cell.method in {"lora", "qlora"}
