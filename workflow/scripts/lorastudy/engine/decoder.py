"""A Llama decoder, or one of its relatives, under LoRA, with a backward pass written by hand.

What the layers of transformers and PEFT compute, carried out with less traffic and less memory: projections that read
the same input are one matrix product; all adapters on that input share one product for their first factor, and their
second factors are added by the matrix product itself; elementwise work is fused (``kernels``); of a layer no more is
kept than its backward pass cannot cheaply compute again; 4-bit weights are expanded once for each use, into one
of two buffers; the last layer computes all but keys and values for the last token of each text alone, since nothing else
reaches the classification head. Unsloth and LoRAFusion fuse LoRA in the same spirit. Relatives (``families.FUSED``) have
biases, norms of heads, windows or layers without positions besides.

The adapters are float32 parameters and enter the computation rounded to the base's number format. The backward pass
adds their gradients, in float32, to the parameters' ``grad`` itself, where autograd would start a kernel for each.
"""

import logging
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from lorastudy.engine import attention, kernels, projections
from lorastudy.engine.dropout import Dropout
from lorastudy.engine.heads import Heads
from lorastudy.engine.projections import Rounded, Scratch, Stack
from lorastudy.inputs import families

log = logging.getLogger("lorastudy")

ATTRIBUTE, PLAIN = "packed_decoder", "plain"
_again = threading.local()


def fused(model):
    """The fast form of a transformers model's decoder; None where there is none, and ``plain`` is what computes it.

    Made on first use, and anew when adapters were put on since. Weights of projections that read the same input are
    moved into one tensor; the modules see their parts of it.

    Args:
        model: classifier or language model, with or without PEFT adapters.
    """
    decoder = _of(model)
    kept = decoder.__dict__.get(ATTRIBUTE)
    if kept == PLAIN:
        return None
    modules = [module for layer in getattr(decoder, "layers", []) for module in _projections(layer)]
    if kept is None or [*map(id, kept[0])] != [*map(id, modules)]:
        reason = _obstacle(decoder, modules)
        if reason:
            log.info("computing with the layers of transformers and PEFT: %s", reason)
        # not by setattr, which would make its tensors parameters of the model once more
        kept = decoder.__dict__[ATTRIBUTE] = (modules, None if reason else Decoder(decoder))
    return kept[1]


def use_plain(model):
    """Let the layers of transformers and PEFT compute the model."""
    _of(model).__dict__[ATTRIBUTE] = PLAIN


def _of(model):
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(model, model.base_model_prefix)


def _obstacle(decoder, modules):
    """Why this decoder cannot be computed here, in a few words; None if it can."""
    return next(_obstacles(decoder, modules), None)


def _obstacles(decoder, modules):
    """Everything that stands in the way; each is looked for only where those before it are absent."""
    if decoder.config.model_type not in families.FUSED:
        yield f"{type(decoder).__name__} is built otherwise than a Llama"
    if decoder.config.hidden_act not in {"silu", "swish"}:
        yield f"its activation is {decoder.config.hidden_act}"
    if decoder.device.type == "cuda" and torch.cuda.get_device_capability(decoder.device) < families.AMPERE:
        yield f"{torch.cuda.get_device_name(decoder.device)} is older than the kernels are for"
    for layer in decoder.layers:
        q, k, v, *_, gate, up, _ = (getattr(module, "base_layer", module) for module in _projections(layer))
        if any(len({linear.bias is None for linear in group}) > 1 for group in ([q, k, v], [gate, up])):
            yield "some of its projections have biases and others have none"
    for module in modules:
        base = getattr(module, "base_layer", module)
        if type(base).__name__ not in {"Linear", "Linear4bit"}:
            yield f"its projections are {type(base).__name__}"
        dropouts = projections.parts(module, "lora_dropout")
        if any(getattr(part, "p", 0) and not isinstance(part, Dropout) for part in dropouts):
            yield "the masks of its adapters' dropout are drawn and not computed"
        if len(projections.parts(module, "lora_A")) > 1 or getattr(module, "merged", False):
            yield "it has several adapters or merged ones"


def _projections(layer):
    """The seven linear layers of a Llama's decoder layer; empty for a layer that has others."""
    attend, feed = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    found = [getattr(attend, f"{name}_proj", None) for name in "qkvo"]
    found += [getattr(feed, f"{name}_proj", None) for name in ("gate", "up", "down")]
    return () if None in found else tuple(found)


@contextmanager
def _recomputing():
    _again.now = True
    try:
        yield
    finally:
        _again.now = False


class Layer:
    """A decoder layer's stacks and norms."""

    def __init__(self, layer, config, scratch, last):
        q, k, v, o, gate, up, down = _projections(layer)
        self.last = last
        self.width, self.scale = layer.self_attn.head_dim, layer.self_attn.scaling
        self.window = getattr(layer.self_attn, "sliding_window", getattr(config, "sliding_window", None))
        self.queries = config.num_attention_heads * self.width
        self.keys = config.num_key_value_heads * self.width
        self.turned = Heads(layer.self_attn, self.queries, self.keys)
        self.input_norm, self.inner_norm = layer.input_layernorm, layer.post_attention_layernorm
        if last:
            self.query, self.key_value = Stack([q], scratch, 0), Stack([k, v], scratch, 0)
            self.attention_parameters = [*self.query.parameters, *self.key_value.parameters]
        else:
            self.projections = Stack([q, k, v], scratch, 0)
            self.attention_parameters = self.projections.parameters
        self.out, self.gate_up, self.down = (
            Stack([o], scratch, 1),
            Stack([gate, up], scratch, 0),
            Stack([down], scratch, 1),
        )
        self.feed_parameters = [*self.out.parameters, *self.gate_up.parameters, *self.down.parameters]

    def stacks(self):
        first = (self.query, self.key_value) if self.last else (self.projections,)
        return *first, self.out, self.gate_up, self.down

    def late(self, inner):
        """What the adapters of gate and up add as these are read; None where it was added before."""
        return kernels.Adapters(inner, tuple(self.gate_up.separate_ups())) if self.gate_up.small else None

    def heads(self, states):
        return states.unflatten(1, (-1, self.width))


class Decoder:
    """The fast form of a ``LlamaModel`` or a relative of it.

    Attributes:
        dtype: number format that it computes in.
        weights_of_a_layer: of the linear layers of a decoder layer.
        checkpointed_layers: so many layers, from the first on, keep their input alone. The last layer is not among
            them, since it keeps little.
    """

    def __init__(self, model):
        scratch, count = Scratch(), len(model.layers)
        self.model = model
        self.layers = [
            Layer(layer, model.config, scratch, last=index == count - 1) for index, layer in enumerate(model.layers)
        ]
        self.checkpointed_layers = 0
        *like, last = (layer.stacks() for layer in self.layers)
        groups = [list(group) for group in zip(*like)] + [[stack] for stack in last]
        self.scratch, self.rounded = scratch, Rounded(groups, model.embed_tokens.weight.dtype)
        self.dtype = model.embed_tokens.weight.dtype
        stacks = self.layers[0].stacks()
        self.weights_of_a_layer = sum(outputs * inputs for outputs, inputs in (stack.shape for stack in stacks))
        self.drops = any(stack.masks for layer in self.layers for stack in layer.stacks())

    def __call__(self, pack):
        """Normalised hidden state of the last token of each text of a ``batching.Pack``, shape (texts, width)."""
        self.rounded.refresh()
        self.scratch.begin()
        hidden = self.model.embed_tokens(pack.input_ids[0])
        rows = self._rows(pack, hidden)

        def through(layer, hidden):
            before = BeforeLast if layer.last else Before
            query, key, value, residual = before.apply(hidden, rows, layer, *layer.attention_parameters)
            mixed = attention.attend(
                layer.heads(query), layer.heads(key), layer.heads(value),
                pack.boundaries, pack.max_length, layer.scale, last=layer.last, window=layer.window,
            )  # fmt: skip
            return After.apply(mixed.flatten(1), residual, rows, layer, *layer.feed_parameters)

        for index, layer in enumerate(self.layers):
            if torch.is_grad_enabled() and index < self.checkpointed_layers and not layer.last:
                hidden = checkpoint(
                    through, layer, hidden, use_reentrant=False, preserve_rng_state=False,
                    context_fn=lambda: (nullcontext(), _recomputing()),
                )  # fmt: skip
            else:
                hidden = through(layer, hidden)
        return self.model.norm(hidden)

    def _rows(self, pack, hidden):
        cos, sin = (part[0].contiguous() for part in self.model.rotary_emb(hidden[None], pack.position_ids))
        ends, keys, end_keys = pack.ends, None, None
        if self.model.training and self.drops:
            if pack.keys is None:
                raise ValueError("dropout needs a pack with keys")
            keys, end_keys = pack.keys, pack.keys[:, ends].contiguous()
        return Rows(cos, sin, ends, keys, end_keys)


@dataclass(frozen=True)
class Rows:
    """What is known of each token of a pack.

    Attributes:
        cos, sin: rotary positions, (T, head width).
        ends: index of the last token of each text.
        keys, end_keys: of the dropout of all tokens, and of the last of each text; None where nothing is dropped.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    ends: torch.Tensor
    keys: torch.Tensor | None
    end_keys: torch.Tensor | None

    def keys_in(self, layer):
        """Keys of the rows that a layer has after its attention."""
        return self.end_keys if layer.last else self.keys


class Before(torch.autograd.Function):
    """From the residual stream to rotated queries and keys, and values; hands the stream on."""

    @staticmethod
    def forward(ctx, hidden, rows, layer, *parameters):
        norm = layer.input_norm
        x, rstd = kernels.norm(hidden, norm.weight, norm.variance_epsilon)
        states, inner = layer.projections.forward(x, rows.keys)
        kept = layer.turned.forward(states[:, : layer.queries + layer.keys], rows.cos, rows.sin)
        ctx.save_for_backward(hidden, rstd, inner, *kept)
        ctx.layer, ctx.rows = layer, rows
        return *states.split([layer.queries, layer.keys, layer.keys], dim=1), hidden

    @staticmethod
    def backward(ctx, d_query, d_key, d_value, d_residual):
        hidden, rstd, inner, *kept = ctx.saved_tensors
        layer, stack, rows = ctx.layer, ctx.layer.projections, ctx.rows
        dy = d_query.new_empty(len(d_query), layer.queries + 2 * layer.keys)
        for only, d, out in zip((0, 1), (d_query, d_key), dy.split([layer.queries, layer.keys, layer.keys], dim=1)):
            of_part = kept[2 * only : 2 * only + 2]
            layer.turned.backward(d, rows.cos, rows.sin, of_part, out, only)
        dy[:, layer.queries + layer.keys :].copy_(d_value)
        d = stack.inner_gradient(dy, inner, rows.keys)
        norm = layer.input_norm
        if ctx.needs_input_grad[0]:
            dx = stack.input_gradient(dy, d, rows.keys)
            d_hidden, x = kernels.norm_backward(dx, hidden, rstd, norm.weight, d_residual)
        else:
            d_hidden, x = None, kernels.norm(hidden, norm.weight, norm.variance_epsilon)[0]
        stack.outer_gradients(d, x, rows.keys)
        return d_hidden, None, None, *[None] * len(layer.attention_parameters)


class BeforeLast(torch.autograd.Function):
    """As ``Before``, with queries and residual stream of the last token of each text alone."""

    @staticmethod
    def forward(ctx, hidden, rows, layer, *parameters):
        norm = layer.input_norm
        x, rstd = kernels.norm(hidden, norm.weight, norm.variance_epsilon)
        states, inner = layer.key_value.forward(x, rows.keys)
        key, value = states.split([layer.keys, layer.keys], dim=1)
        kept = layer.turned.forward(key, rows.cos, rows.sin, 1)
        query, query_inner = layer.query.forward(x[rows.ends], rows.end_keys)
        kept += layer.turned.forward(query, rows.cos[rows.ends], rows.sin[rows.ends], 0)
        ctx.save_for_backward(hidden, rstd, inner, query_inner, *kept)
        ctx.layer, ctx.rows = layer, rows
        return query, key, value, hidden[rows.ends]

    @staticmethod
    def backward(ctx, d_query, d_key, d_value, d_residual):
        hidden, rstd, inner, query_inner, *kept = ctx.saved_tensors
        layer, rows, ends = ctx.layer, ctx.rows, ctx.rows.ends
        dy = d_key.new_empty(len(d_key), 2 * layer.keys)
        layer.turned.backward(d_key, rows.cos, rows.sin, kept[:2], dy[:, : layer.keys], 1)
        dy[:, layer.keys :].copy_(d_value)
        dq = torch.empty_like(d_query)
        layer.turned.backward(d_query, rows.cos[ends], rows.sin[ends], kept[2:], dq, 0)
        d = layer.key_value.inner_gradient(dy, inner, rows.keys)
        d_inner = layer.query.inner_gradient(dq, query_inner, rows.end_keys)
        norm = layer.input_norm
        if ctx.needs_input_grad[0]:
            dx = layer.key_value.input_gradient(dy, d, rows.keys)
            dx.index_add_(0, ends, layer.query.input_gradient(dq, d_inner, rows.end_keys))
            skip = torch.zeros_like(hidden).index_add_(0, ends, d_residual)
            d_hidden, x = kernels.norm_backward(dx, hidden, rstd, norm.weight, skip)
        else:
            d_hidden, x = None, kernels.norm(hidden, norm.weight, norm.variance_epsilon)[0]
        layer.query.outer_gradients(d_inner, x[ends], rows.end_keys)
        layer.key_value.outer_gradients(d, x, rows.keys)
        return d_hidden, None, None, *[None] * len(layer.attention_parameters)


class After(torch.autograd.Function):
    """From attention's output and the residual stream to the stream after the feed-forward block."""

    @staticmethod
    def forward(ctx, mixed, residual, rows, layer, *parameters):
        norm, keys = layer.inner_norm, rows.keys_in(layer)
        update, out_inner = layer.out.forward(mixed, keys)
        middle, x, rstd = kernels.add_norm(residual, update, norm.weight, norm.variance_epsilon)
        gate_up, inner = layer.gate_up.forward(x, keys, late=layer.gate_up.small)
        del x
        product = kernels.swiglu(gate_up, layer.late(inner))
        # computed again for a checkpoint, only what is kept matters: the last product is left out
        again = getattr(_again, "now", False)
        result, down_inner = layer.down.forward(product, keys, inner_only=again)
        ctx.save_for_backward(mixed, out_inner, middle, rstd, inner, gate_up, down_inner)
        ctx.layer, ctx.keys = layer, keys
        return torch.empty_like(middle) if again else result.add_(middle)

    @staticmethod
    def backward(ctx, d_result):
        mixed, out_inner, middle, rstd, inner, gate_up, down_inner = ctx.saved_tensors
        layer, keys = ctx.layer, ctx.keys
        d = layer.down.inner_gradient(d_result, down_inner, keys)
        beside = layer.down.beside(d, keys, d_result.dtype) if layer.down.small else None
        d_product = layer.down.input_gradient(d_result, d, keys, late=layer.down.small)
        adapted = bool(layer.down.adapters)
        dy, product = kernels.swiglu_backward(d_product, gate_up, adapted, layer.late(inner), beside)
        del d_product
        layer.down.outer_gradients(d, product, keys)
        del product
        d = layer.gate_up.inner_gradient(dy, inner, keys)
        dx = layer.gate_up.input_gradient(dy, d, keys)
        del dy
        d_middle, x = kernels.norm_backward(dx, middle, rstd, layer.inner_norm.weight, d_result)
        del dx
        layer.gate_up.outer_gradients(d, x, keys)
        d = layer.out.inner_gradient(d_middle, out_inner, keys)
        layer.out.outer_gradients(d, mixed, keys)
        return layer.out.input_gradient(d_middle, d, keys), d_middle, None, None, *[None] * len(layer.feed_parameters)
