"""What a cell needs of a GPU's memory, predicted from the model's configuration alone.

Nothing here needs torch: the scheduler asks for every cell of a grid while it plans. Sizes are bytes unless a name
says GiB. The terms follow what the engine allocates (``decoder``, ``training``); ``docs/performance.md`` holds them
against measured peaks.
"""

import math
from dataclasses import asdict, dataclass

from lorastudy.study import paper

GIB = 2**30
NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256  # weights a scale, scales a scale of the second quantization
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 + 2 * 4 / 256}  # bytes a parameter; 8-bit moments have a scale for each 256
CONTEXT = int(0.6 * GIB)  # CUDA context, kernels and library workspaces outside of the allocator
FRAGMENTATION = 1.03  # reserved over allocated, with expandable segments
KEPT_RANK = 64  # of larger adapters a rounded copy would cost more memory than it saves time
BLOCK_RANK = 16  # up to it a block-diagonal matrix of the second factors saves products
SMALLEST_STEP = 256  # micro-batches are tried in multiples of this many tokens


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like decoder.

    Attributes:
        hidden, inner: width of the residual stream and of the feed-forward block.
        layers, vocabulary: numbers of decoder layers and of embedding rows.
        queries, keys: output widths of the query and of the key (and value) projection.
        heads: query heads.
    """

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    queries: int
    keys: int
    heads: int

    @classmethod
    def of(cls, architecture):
        """From a model's configuration (the dictionary in its ``config.json``)."""
        hidden, heads = architecture["hidden_size"], architecture["num_attention_heads"]
        width = architecture.get("head_dim") or hidden // heads
        return cls(
            hidden=hidden,
            inner=architecture["intermediate_size"],
            layers=architecture["num_hidden_layers"],
            vocabulary=architecture["vocab_size"],
            queries=heads * width,
            keys=(architecture.get("num_key_value_heads") or heads) * width,
            heads=heads,
        )

    @property
    def linear(self):
        """Weights of the linear layers of one decoder layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner)

    @property
    def other(self):
        """Weights of embedding and norms."""
        return self.hidden * (self.vocabulary + 2 * self.layers + 1)


@dataclass(frozen=True)
class Need:
    """Bytes by what they hold. ``total`` is the peak of the allocator."""

    base: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    dequantization: int
    workspace: int

    @property
    def total(self):
        return sum(asdict(self).values())

    @property
    def on_gpu(self):
        """What a scheduler should be asked for, in bytes: the peak with fragmentation and what lies outside of the allocator."""
        return math.ceil(self.total * FRAGMENTATION + CONTEXT)

    def as_gib(self):
        """The same in GiB, with ``total``: a row of a table."""
        return {name: size / GIB for name, size in asdict(self).items()} | {"total": self.total / GIB}


def base(architecture, quantized, dtype="bfloat16"):
    """Bytes of the base model without a language-model head.

    Args:
        architecture: dictionary of ``config.json``.
        quantized: linear layers in NF4 with double quantization (Dettmers et al. 2023): half a byte a weight, a byte
            for each block of 64, four bytes for each 256 blocks. Embedding and norms stay in ``dtype``.
    """
    shape, size = Shape.of(architecture), NUMBER[dtype]
    linear = shape.layers * shape.linear
    if quantized:
        linear *= 0.5 + 1 / NF4_BLOCK + 4 / (NF4_BLOCK * NF4_NESTED_BLOCK)
        return int(linear + shape.other * size)
    return int((linear + shape.other) * size)


def training(
    architecture,
    classes,
    cell,
    micro_batch_tokens,
    checkpointed_layers=0,
    *,
    dtype="bfloat16",
    head="paper",
    optimizer="adamw",
):
    """Peak of fine-tuning a cell.

    Args:
        architecture: dictionary of ``config.json``.
        classes: width of the classification head.
        cell: anything with ``method``, ``targets`` and ``r``, as ``grid.Cell``.
        micro_batch_tokens: tokens of a forward and backward pass.
        checkpointed_layers: decoder layers that keep their input alone and are computed again in the backward pass.
        head: ``lora.head`` of the configuration.
        optimizer: ``training.optimizer`` of the configuration.

    Returns:
        ``Need``.
    """
    shape, size = Shape.of(architecture), NUMBER[dtype]
    quantized = cell.method == "qlora"
    trainable = paper.trainable_parameters(architecture, classes, cell.targets, head, cell.r)
    tokens = micro_batch_tokens
    # the last layer computes all but keys and values for the last token of each text alone
    whole = max(shape.layers - 1, 0)
    checkpointed = min(checkpointed_layers, whole)
    activations = tokens * (
        checkpointed * size * shape.hidden
        + (whole - checkpointed) * _kept_a_token(shape, cell, size)
        + size * (2 * shape.hidden + 2 * shape.keys)
    )
    again = _kept_a_token(shape, cell, size) if checkpointed == whole else 0
    return Need(
        base=base(architecture, quantized, dtype) + classes * shape.hidden * 4,
        adapters=4 * trainable + size * _rounded(shape, cell),
        gradients=4 * trainable,
        optimizer=int(MOMENTS[optimizer] * trainable),
        activations=int(activations),
        dequantization=_largest_stack(shape) * size if quantized else 0,
        workspace=int(tokens * (again + size * (3 * shape.inner + 4 * shape.hidden))),
    )


def evaluation(architecture, classes, cell, tokens, *, dtype="bfloat16", head="paper"):
    """Peak of evaluating a cell (or the base model, ``cell`` None) with ``tokens`` a forward pass. Returns ``Need``."""
    shape, size = Shape.of(architecture), NUMBER[dtype]
    quantized = cell is not None and cell.method == "qlora"
    trainable = paper.trainable_parameters(architecture, classes, cell.targets, head, cell.r) if cell else 0
    return Need(
        base=base(architecture, quantized, dtype) + classes * shape.hidden * 4,
        adapters=size * (trainable + _rounded(shape, cell)) if cell else 0,
        gradients=0,
        optimizer=0,
        activations=0,
        dequantization=_largest_stack(shape) * size if quantized else 0,
        workspace=int(tokens * size * (3 * shape.inner + 4 * shape.hidden + shape.queries + 2 * shape.keys)),
    )


def _rounded(shape, cell):
    """Numbers in ``decoder.Rounded``: copies of small adapters, the second factors side by side while very small."""
    if cell.r > KEPT_RANK:
        return 0
    stacks = [((shape.queries, shape.keys, shape.keys), shape.hidden), ((shape.hidden,), shape.queries)]
    if cell.targets == "all-linear":
        stacks += [((shape.inner, shape.inner), shape.hidden), ((shape.hidden,), shape.inner)]
    return shape.layers * sum(
        cell.r * (len(outputs) * inputs + sum(outputs) * (len(outputs) if cell.r <= BLOCK_RANK else 1))
        for outputs, inputs in stacks
    )


def _kept_a_token(shape, cell, size):
    """Bytes a token that a layer keeps for its backward pass: its input, queries, keys, values, attention's output and
    log-sum, the residual stream between the two blocks, gate and up; and the adapters' inner values."""
    inner = 3 + 1 + (3 if cell.targets == "all-linear" else 0)
    return size * (2 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 2 * shape.inner + inner * cell.r) + 4 * (
        shape.heads + 2
    )


def _largest_stack(shape):
    """Weights of the largest group of linear layers that are expanded from NF4 at once: gate and up."""
    return shape.hidden * max(2 * shape.inner, shape.queries + 2 * shape.keys)


@dataclass(frozen=True)
class Fit:
    """How a cell is carried out on a GPU: settings of ``execution`` and what they need."""

    micro_batch_tokens: int
    checkpointed_layers: int
    need: Need


# Time in units of a token's forward pass, as measured on an H100 (docs/performance.md): a forward pass, a backward pass
# (frozen weights get no gradient) and the checkpointed layers' second forward pass; in each of them NF4 weights are
# expanded once, and the host starts the kernels, which takes as long whatever the tokens are.
PASSES, EXPANSION_TOKENS, HOST_TOKENS = 2, 230, 2500


def fit(
    architecture,
    classes,
    cell,
    gpu_gib,
    most_tokens=16384,
    longest=512,
    layers=None,
    *,
    dtype="bfloat16",
    head="paper",
    optimizer="adamw",
):
    """The micro-batch and the checkpointing level that train a cell fastest in a GPU's memory.

    Args:
        gpu_gib: memory of the GPU that this process may use.
        most_tokens: a larger micro-batch is of no use, since an optimizer step has no more tokens.
        longest: tokens of the longest text; a micro-batch holds at least one.
        layers: checkpointed layers, where that is settled already.

    Returns:
        ``Fit``; None where not even one text fits with every layer checkpointed.
    """
    count = Shape.of(architecture).layers
    available = (gpu_gib * GIB - CONTEXT) / FRAGMENTATION
    quantized = cell.method == "qlora"

    def need(tokens, checkpointed):
        return training(architecture, classes, cell, tokens, checkpointed, dtype=dtype, head=head, optimizer=optimizer)

    best = None
    sizes = {longest, max(longest, most_tokens), *range(longest, most_tokens, SMALLEST_STEP)}
    for tokens in sorted(sizes, reverse=True):
        level = layers
        if level is None:
            whole = need(tokens, 0).total
            a_layer = (whole - need(tokens, 1).total) or 1
            level = min(math.ceil((whole - available) / a_layer), count - 1) if whole > available else 0
        if need(tokens, level).total > available:
            continue
        passes = PASSES + min(level / count, 1)
        cost = passes * max(tokens + EXPANSION_TOKENS * quantized, HOST_TOKENS) / tokens
        if best is None or cost < best[0]:
            best = (cost, Fit(tokens, level, need(tokens, level)))
    return best[1] if best else None
