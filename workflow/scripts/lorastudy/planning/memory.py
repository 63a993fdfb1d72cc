"""What a cell needs of a GPU's memory, predicted from the model's configuration alone.

Of a Llama nothing here needs torch: the scheduler asks for every cell of a grid while it plans. Sizes are bytes unless
a name says GiB. The terms follow what the engine allocates (``decoder``, ``training``); ``docs/performance.md`` holds
them against measured peaks of a Llama (``measured``). What transformers' and PEFT's layers compute, other families and
other methods than LoRA, is bounded from above (``Plain``).
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass

from lorastudy.inputs import families, linear_layers
from lorastudy.study.grid import FULL, HEAD_ALONE

GIB = 2**30
NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256  # weights a scale, scales a scale of the second quantization
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 + 2 * 4 / 256}  # bytes per parameter; 8-bit moments have a scale for each 256
CONTEXT = int(0.6 * GIB)  # CUDA context, kernels and library workspaces outside of the allocator
FRAGMENTATION = 1.03  # reserved over allocated, with expandable segments
KEPT_RANK = 64  # of larger adapters a rounded copy would cost more memory than it saves time
SAVED = 1.8  # numbers that transformers' layers keep for each input and output of a linear layer; 0.7 to 1.8 were seen
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
        norms: heads of a token that are normed before attention (Qwen3), queries and keys.
    """

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    queries: int
    keys: int
    heads: int
    norms: int = 0

    @classmethod
    def of(cls, architecture):
        """From a model's configuration (the dictionary in its ``config.json``)."""
        hidden, heads = architecture["hidden_size"], architecture["num_attention_heads"]
        width = architecture.get("head_dim") or hidden // heads
        groups = architecture.get("num_key_value_heads") or heads
        return cls(
            hidden=hidden,
            inner=architecture["intermediate_size"],
            layers=architecture["num_hidden_layers"],
            vocabulary=architecture["vocab_size"],
            queries=heads * width,
            keys=groups * width,
            heads=heads,
            norms=heads + groups if architecture.get("model_type") == "qwen3" else 0,
        )

    @property
    def linear(self):
        """Weights of the linear layers of one decoder layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner)

    def stacks(self):
        """Linear layers that read the same input, by their names and outputs, and that input's width."""
        return (
            ({"q_proj": self.queries, "k_proj": self.keys, "v_proj": self.keys}, self.hidden),
            ({"o_proj": self.hidden}, self.queries),
            ({"gate_proj": self.inner, "up_proj": self.inner}, self.hidden),
            ({"down_proj": self.hidden}, self.inner),
        )

    def kept_a_token(self, cell, targets, size):
        """Bytes a token that a layer keeps for its backward pass: its input, queries, keys, values, attention's output and
        log-sum, the residual stream between the two blocks, gate and up; heads before their norm; and the adapters' inner
        values."""
        inner = len(targets) / self.layers * (cell.r or 0)
        widths = 2 * self.hidden + 2 * self.queries + 2 * self.keys + 2 * self.inner
        widths += (self.queries + self.keys) * bool(self.norms)
        return size * (widths + inner) + 4 * (self.heads + 2 + self.norms)

    def copies(self, cell, targets):
        """Numbers in ``decoder.Rounded``: copies of small adapters, the second factors side by side while very small."""
        if not targets or cell.r > KEPT_RANK:
            return 0
        names = Counter(linear.name.rpartition(".")[2] for linear in targets)
        total = 0
        for outputs, inputs in self.stacks():
            adapted = sum(names[name] for name in outputs) / self.layers
            side_by_side = adapted if cell.r <= BLOCK_RANK else min(adapted, 1)
            total += cell.r * (adapted * inputs + sum(outputs.values()) * side_by_side)
        return int(self.layers * total)

    def last_layer(self, size):
        """Bytes a token that the last layer keeps, which computes all but keys and values for the last tokens alone."""
        return size * (2 * self.hidden + (3 if self.norms else 2) * self.keys)

    def passing(self, size):
        """Bytes a token of what comes and goes within a layer."""
        return size * (3 * self.inner + 4 * self.hidden)

    def evaluating(self, size):
        return self.passing(size) + size * (self.queries + 2 * self.keys)

    def expanded(self):
        """Weights of the two groups of linear layers that are expanded from NF4 at a time: gate and up, and down."""
        return self.hidden * (max(2 * self.inner, self.queries + 2 * self.keys) + max(self.inner, self.queries))

    def beside_tokens(self, cell, targets):
        return 0


@dataclass(frozen=True)
class Plain:
    """A decoder as transformers' and PEFT's layers compute it, bounded from above.

    Held against the tensors that autograd saves in eight families (``tests/planning/test_memory.py``): of a frozen decoder's
    activations they keep up to ``SAVED`` numbers for each input and output of a linear layer; adapters add what follows.
    """

    decoder: linear_layers.Decoder

    @property
    def layers(self):
        return self.decoder.layers

    def kept_a_token(self, cell, targets, size):
        inputs, outputs = _widths(targets)
        kept = size * SAVED * sum(_widths(self.decoder.linears))
        kept += size * (inputs + 2 * len(targets) * (cell.r or 0))  # dropped inputs, inner values
        if cell.method == "dora":  # the outputs of base and adapter, and their scaled sum
            kept += 4 * size * outputs
        elif cell.method == "adalora":  # computed in float32
            kept += 4 * (inputs + outputs)
        return kept / self.layers

    def copies(self, cell, targets):
        return 0

    def last_layer(self, size):
        """No layer is shortened: this is what the embedding and the last norm keep."""
        return 6 * size * self.decoder.hidden

    def passing(self, size):
        return 8 * size * max(max(linear.inputs, linear.outputs) for linear in self.decoder.linears)

    evaluating = passing

    def expanded(self):
        return max(linear.inputs * linear.outputs for linear in self.decoder.linears)

    def beside_tokens(self, cell, targets):
        """Numbers that come and go whatever the tokens are: DoRA's norm of a whole weight, which PEFT gets by way of a
        unit matrix."""
        if cell is None or cell.method != "dora":
            return 0
        return max(linear.inputs**2 + 4 * linear.inputs * linear.outputs for linear in targets)


def _widths(linears):
    return sum(linear.inputs for linear in linears), sum(linear.outputs for linear in linears)


def measured(architecture, method=None):
    """Whether the predicted memory was held against peaks on a GPU: so it is for a Llama that the fused decoder computes."""
    return not linear_layers.needs_torch(architecture) and _fused(architecture, method)


def _fused(architecture, method):
    """Whether ``decoder.Decoder`` computes a cell, and not transformers' and PEFT's layers."""
    known = architecture.get("model_type", "llama") in families.FUSED
    return (
        known
        and architecture.get("hidden_act", "silu") in {"silu", "swish"}
        and method not in {"dora", "adalora", FULL}
    )


def _computed(architecture, cell):
    """``Shape`` of what the fused decoder computes, else ``Plain``."""
    fused = _fused(architecture, cell and cell.method)
    return Shape.of(architecture) if fused else Plain(linear_layers.of(architecture))


@dataclass(frozen=True)
class Need:
    """Bytes by what they hold. ``total`` is the peak of what is allocated.

    ``recording`` is not part of it: before a pass of a further size is recorded it is carried out once, while what those
    recorded before it compute in stays reserved (``passes.Recorder``).
    """

    base: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    dequantization: int
    workspace: int
    recording: int = 0

    @property
    def total(self):
        return self.reserved - self.recording

    @property
    def reserved(self):
        return sum(asdict(self).values())

    @property
    def on_gpu(self):
        """What a scheduler should be asked for, in bytes: the peak with fragmentation and what lies outside of the allocator."""
        return math.ceil(self.reserved * FRAGMENTATION + CONTEXT)

    def as_gib(self):
        """The same in GiB, with ``total``: a row of a table."""
        return {name: size / GIB for name, size in asdict(self).items()} | {"total": self.total / GIB}


def base(architecture, quantized, dtype="bfloat16"):
    """Bytes of the base model without a language-model head.

    Args:
        architecture: dictionary of ``config.json``.
        quantized: linear layers in NF4 with double quantization (Dettmers et al. 2023): half a byte a weight, a byte
            for each block of 64, four bytes for each 256 blocks. Embedding, norms and experts stay in ``dtype``.
    """
    decoder, size = linear_layers.of(architecture), NUMBER[dtype]
    linear = sum(linear.inputs * linear.outputs for linear in decoder.linears)
    if quantized:
        linear *= 0.5 + 1 / NF4_BLOCK + 4 / (NF4_BLOCK * NF4_NESTED_BLOCK)
        return int(linear + decoder.other * size)
    return int((linear + decoder.other) * size)


def step_tokens(batch_size, max_length):
    """The most tokens that an optimizer step can have, and so its largest micro-batch."""
    return batch_size * max_length


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
    graphs=True,
):
    """Peak of fine-tuning a cell.

    Args:
        architecture: dictionary of ``config.json``.
        classes: width of the classification head.
        cell: ``grid.Cell``.
        micro_batch_tokens: tokens of a forward and backward pass.
        checkpointed_layers: decoder layers that keep their input alone and are computed again in the backward pass.
        head: ``lora.head`` of the configuration.
        optimizer: ``training.optimizer`` of the configuration.
        graphs: ``execution.graphs`` of the configuration: whether passes are recorded where they can be.

    Returns:
        ``Need``.
    """
    shape, size, quantized = _computed(architecture, cell), NUMBER[dtype], cell.method == "qlora"
    decoder, targets = linear_layers.of(architecture), linear_layers.of_cell(architecture, cell)
    trainable = linear_layers.trainable_parameters(architecture, classes, cell, head)
    tokens = micro_batch_tokens
    # the last layer computes all but keys and values for the last token of each text alone
    whole = max(shape.layers - 1, 0) if isinstance(shape, Shape) else shape.layers
    checkpointed = min(checkpointed_layers, whole)
    kept = shape.kept_a_token(cell, targets, size) if _has_backward(cell) else 0
    stream = size * decoder.hidden if _has_backward(cell) else 0
    activations = tokens * (checkpointed * stream + (whole - checkpointed) * kept + shape.last_layer(size))
    again = kept if checkpointed == whole else 0
    workspace = tokens * (again + shape.passing(size)) + size * shape.beside_tokens(cell, targets)
    recorded = graphs and isinstance(shape, Shape) and dtype != "float32"  # which flash attention does not compute
    return Need(
        base=base(architecture, quantized, dtype) + classes * decoder.hidden * 4,
        adapters=_masters(cell, trainable, dtype) + size * shape.copies(cell, targets),
        gradients=(4 + _copy(shape, cell, size)) * trainable,
        optimizer=int(
            (MOMENTS[optimizer] + (12 if cell.method == "adalora" else 0)) * trainable
        ),  # scores of the ranks
        activations=int(activations),
        dequantization=shape.expanded() * size if quantized else 0,
        workspace=int(workspace),
        recording=int(activations + workspace) if recorded else 0,
    )


def _has_backward(cell):
    """Whether anything below the head is trained, so that the decoder keeps what a backward pass needs."""
    return cell.method != HEAD_ALONE


def _masters(cell, trainable, dtype):
    """Bytes of the float32 parameters that are optimised, beside the base; in float32 full fine-tuning's are the base."""
    return 0 if cell.method == FULL and dtype == "float32" else 4 * trainable


def _copy(shape, cell, size):
    """Bytes a parameter of rounded copies' gradients, of adapters that PEFT's layers compute in the base's format."""
    return size if isinstance(shape, Plain) and cell.method != "adalora" and size < 4 else 0


def evaluation(architecture, classes, cell, tokens, *, dtype="bfloat16", head="paper"):
    """Peak of evaluating a cell (or the base model, ``cell`` None) with ``tokens`` a forward pass. Returns ``Need``."""
    shape, size = _computed(architecture, cell), NUMBER[dtype]
    quantized = cell is not None and cell.method == "qlora"
    beside, targets = 0, linear_layers.of_cell(architecture, cell) if cell else ()
    if cell is not None and cell.method != FULL:  # whose weights are the base's own
        beside = linear_layers.trainable_parameters(architecture, classes, cell, head) + shape.copies(cell, targets)
    return Need(
        base=base(architecture, quantized, dtype) + classes * linear_layers.of(architecture).hidden * 4,
        adapters=size * beside,
        gradients=0,
        optimizer=0,
        activations=0,
        dequantization=shape.expanded() * size if quantized else 0,
        workspace=int(tokens * shape.evaluating(size) + size * shape.beside_tokens(cell, targets)),
    )


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
    graphs=True,
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
    count = linear_layers.of(architecture).layers
    available = (gpu_gib * GIB - CONTEXT) / FRAGMENTATION
    quantized = cell.method == "qlora"

    def need(tokens, checkpointed):
        return training(
            architecture, classes, cell, tokens, checkpointed,
            dtype=dtype, head=head, optimizer=optimizer, graphs=graphs,
        )  # fmt: skip

    best = None
    sizes = {longest, max(longest, most_tokens), *range(longest, most_tokens, SMALLEST_STEP)}
    for tokens in sorted(sizes, reverse=True):
        level = layers
        if level is None:
            whole = need(tokens, 0).reserved
            a_layer = (whole - need(tokens, 1).reserved) or 1
            level = min(math.ceil((whole - available) / a_layer), count - 1) if whole > available else 0
        if need(tokens, level).reserved > available:
            continue
        passes = PASSES + min(level / count, 1)
        cost = passes * max(tokens + EXPANSION_TOKENS * quantized, HOST_TOKENS) / tokens
        if best is None or cost < best[0]:
            best = (cost, Fit(tokens, level, need(tokens, level)))
    return best[1] if best else None
