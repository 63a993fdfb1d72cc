"""A Llama decoder under LoRA, with a backward pass written by hand.

What the layers of transformers and PEFT compute, carried out with less traffic and less memory: projections that read
the same input are one matrix product; all adapters on that input share one product for their first factor, and their
second factors are added by the matrix product itself; elementwise work is fused (``kernels``); of a layer no more is
kept than its backward pass cannot cheaply compute again; 4-bit weights are expanded once for each use, into one
buffer; the last layer computes all but keys and values for the last token of each text alone, since nothing else
reaches the classification head. Unsloth and LoRAFusion fuse LoRA in the same spirit.

The adapters are float32 parameters and enter the computation rounded to the base's number format. The backward pass
adds their gradients, in float32, to the parameters' ``grad`` itself, where autograd would start a kernel for each.
"""

import logging
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from lorastudy.engine import attention, kernels
from lorastudy.engine.dropout import Dropout
from lorastudy.planning.memory import BLOCK_RANK, KEPT_RANK

log = logging.getLogger("lorastudy")

ATTRIBUTE, PLAIN = "packed_decoder", "plain"
MASKED_RANK = 64  # up to it a product draws the mask of its input itself
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
    if type(decoder).__name__ != "LlamaModel":
        return f"{type(decoder).__name__} is not a Llama"
    if decoder.config.hidden_act not in {"silu", "swish"}:
        return f"its activation is {decoder.config.hidden_act}"
    for module in modules:
        base = getattr(module, "base_layer", module)
        if base.bias is not None:
            return "its projections have biases"
        if type(base).__name__ not in {"Linear", "Linear4bit"}:
            return f"its projections are {type(base).__name__}"
        if any(getattr(part, "p", 0) and not isinstance(part, Dropout) for part in _parts(module, "lora_dropout")):
            return "the masks of its adapters' dropout are drawn and not computed"
        if len(_parts(module, "lora_A")) > 1 or getattr(module, "merged", False):
            return "it has several adapters or merged ones"
    return None


def _projections(layer):
    """The seven linear layers of a Llama's decoder layer; empty for a layer that has others."""
    attend, feed = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    found = [getattr(attend, f"{name}_proj", None) for name in "qkvo"]
    found += [getattr(feed, f"{name}_proj", None) for name in ("gate", "up", "down")]
    return () if None in found else tuple(found)


def _parts(module, name):
    return list(getattr(module, name, {}).values())


def _drops(part):
    return isinstance(part, Dropout) and part.threshold > 0


@contextmanager
def _recomputing():
    _again.now = True
    try:
        yield
    finally:
        _again.now = False


class Stack:
    """Linear layers that read the same input, with their adapters, as one matrix product.

    Args:
        modules: ``torch.nn.Linear`` or bitsandbytes' ``Linear4bit``, plain or inside PEFT's LoRA layer.
        scratch: where 4-bit weights are expanded, shared by all stacks.

    Attributes:
        adapters: for each, its columns of the output and its columns of the inner values.
        parameters: first and second factor of each adapter, in turn.
        kept: rounded copies of the factors (see ``Rounded``); None where they are rounded at each use.
        masks: the adapters' ``dropout.Dropout``; empty without dropout.
    """

    def __init__(self, modules, scratch):
        linears = [getattr(module, "base_layer", module) for module in modules]
        self.scratch = scratch
        self.shape = (sum(linear.out_features for linear in linears), linears[0].in_features)
        self.quantized = None
        if type(linears[0]).__name__ == "Linear4bit":
            self.quantized = Quantized([linear.weight for linear in linears])
            scratch.reserve(self.shape, linears[0].weight)
        else:
            self.stacked = _stacked([linear.weight for linear in linears])
        self.adapters, self.parameters, self.scale, self.kept = [], [], 1.0, None
        start = inner = 0
        for module, linear in zip(modules, linears):
            for down, up in zip(_parts(module, "lora_A"), _parts(module, "lora_B")):
                rank = down.weight.shape[0]
                self.adapters.append((slice(start, start + linear.out_features), slice(inner, inner + rank)))
                self.parameters += [down.weight, up.weight]
                (self.scale,) = module.scaling.values()
                inner += rank
            start += linear.out_features
        self.ranks = inner
        # its masks differ from module to module, so that the adapters no longer read the same numbers
        self.masks = [part for module in modules for part in _parts(module, "lora_dropout") if _drops(part)]
        if self.masks:
            device = linears[0].weight.device
            self.sites = torch.tensor([part.site for part in self.masks], dtype=torch.int32, device=device)

    def weight(self):
        """All weights, shape (sum of outputs, inputs); valid until any stack is asked again."""
        return self.stacked if self.quantized is None else self.quantized.expand(self.scratch.take(self.shape))

    def down(self, dtype):
        """First factors of all adapters below each other, shape (sum of ranks, inputs)."""
        return _joined(self.parameters[::2], dtype) if self.kept is None else self.kept[0]

    def ups(self, dtype):
        """The second factors, as products to be done: (columns of the output, columns of the inner values, matrix)."""
        if self.kept is None:
            whole, start, parts = _joined(self.parameters[1::2], dtype), 0, []
            for columns, ranks in self.adapters:
                rows = columns.stop - columns.start
                parts.append((columns, ranks, whole[start : start + rows]))
                start += rows
            return parts
        return self.kept[1]

    def forward(self, x, keys, inner_only=False):
        """Outputs, side by side; and the adapters' scaled inner values, which the backward pass needs.

        Args:
            keys: of the rows' dropout; None where nothing is dropped. Likewise below.
        """
        inner = self.inner(x, keys) if self.adapters else None
        if inner_only:
            return None, inner
        y = x @ self.weight().T
        for columns, ranks, up in self.ups(x.dtype) if self.adapters else ():
            y[:, columns].addmm_(inner[:, ranks], up.T)
        return y, inner

    def inner(self, x, keys):
        down, scale = self.down(x.dtype), self.scaling(keys)
        if self.dropping(keys) and not self.wide:
            return kernels.drop_inner(x, down, keys, self.sites, self.masks[0].threshold, scale)
        inner = x.new_empty(len(x), self.ranks)
        if not self.dropping(keys):
            return torch.addmm(inner, x, down.T, beta=0, alpha=scale, out=inner)
        for index, (_, ranks) in enumerate(self.adapters):
            inner[:, ranks].addmm_(self.drop(x, keys, index), down[ranks].T, beta=0, alpha=scale)
        return inner

    def inner_gradient(self, dy, inner, keys):
        """Gradient of the inner values before their scaling. Adds those of the second factors to the parameters'."""
        if not self.adapters:
            return None
        d, scale = dy.new_empty(inner.shape), self.scaling(keys)
        for columns, ranks, up in self.ups(dy.dtype):
            d[:, ranks].addmm_(dy[:, columns], up, beta=0, alpha=scale)
        for parameter, (columns, ranks) in zip(self.parameters[1::2], self.adapters):
            _accumulate(parameter, dy[:, columns].T, inner[:, ranks])
        return d

    def outer_gradients(self, d, x, keys):
        """Add the gradients of the first factors to the parameters'."""
        if self.dropping(keys) and not self.wide:
            totals = [_gradient(parameter) for parameter in self.parameters[::2]]
            kernels.drop_outer(d, x, totals, keys, self.sites, self.masks[0].threshold)
            return
        for index, (_, ranks) in enumerate(self.adapters):
            read = self.drop(x, keys, index) if self.dropping(keys) else x
            _accumulate(self.parameters[2 * index], d[:, ranks].T, read)

    def input_gradient(self, dy, d, keys):
        """Gradient of the input."""
        dx = dy @ self.weight()
        if not self.adapters:
            return dx
        down = self.down(dy.dtype)
        if not self.dropping(keys):
            return dx.addmm_(d, down)
        if not self.wide:
            return kernels.drop_input_gradient(dx, d, down, keys, self.sites, self.masks[0].threshold)
        for index, (_, ranks) in enumerate(self.adapters):
            dx += self.drop(d[:, ranks] @ down[ranks], keys, index)
        return dx

    def dropping(self, keys):
        return bool(self.masks) and keys is not None

    @property
    def wide(self):
        """Whether the products with masked inputs are large enough to be left to the libraries, the masked input stored."""
        return self.ranks > MASKED_RANK * len(self.adapters)

    def scaling(self, keys):
        """Of the inner values; makes up for what is dropped too."""
        return self.scale * (self.masks[0].scale if self.dropping(keys) else 1.0)

    def drop(self, x, keys, index):
        """What an adapter reads of ``x``, not scaled up yet."""
        return kernels.drop(x, keys, self.masks[index].site, self.masks[index].threshold, 1.0)


class Quantized:
    """NF4 weights of the linear layers of a stack, expanded together.

    On a GPU their parts are moved into one tensor each, where the blocks allow it; the layers see their own.

    Args:
        weights: ``bitsandbytes.nn.Params4bit``.
    """

    def __init__(self, weights):
        self.weights, self.joined = weights, None
        states = [weight.quant_state for weight in weights]
        if not weights[0].is_cuda or not all(map(_doubly_quantized, states)):
            return
        data = _moved([weight.data.reshape(-1) for weight in weights])
        scales = _moved([state.absmax for state in states])
        outer = _moved([state.state2.absmax for state in states])
        for weight, state, *parts in zip(weights, states, data[1], scales[1], outer[1]):
            weight.data, state.absmax, state.state2.absmax = parts[0].view(weight.shape), parts[1], parts[2]
        offsets = torch.cat([state.offset.reshape(1).expand(len(part)) for state, part in zip(states, outer[1])])
        self.joined = (data[0], states[0].code, scales[0], states[0].state2.code, outer[0], offsets.contiguous())

    def expand(self, out):
        """Write all weights to ``out``, to the last bit as bitsandbytes expands them."""
        from bitsandbytes.functional import dequantize_4bit

        if self.joined is not None:
            return kernels.expand(*self.joined, out)
        start = 0
        for weight in self.weights:
            rows = weight.quant_state.shape[0]
            out[start : start + rows] = dequantize_4bit(weight.data, weight.quant_state)
            start += rows
        return out


def _doubly_quantized(state):
    """Whether a weight is in the form that ``kernels.expand`` reads, its blocks of scales not shared with the next."""
    return (
        state.quant_type == "nf4"
        and state.blocksize == 64
        and state.nested
        and state.state2.blocksize == 256
        and len(state.absmax) % 256 == 0
    )


def _moved(tensors):
    """One tensor of several flat ones, and its parts."""
    whole = torch.cat(tensors)
    return whole, whole.split([len(tensor) for tensor in tensors])


class Rounded:
    """Copies of the adapters' factors in the format of the computation, made once for each change of the parameters.

    Without them every product would be preceded by a cast, and with a small rank a layer spends more time on starting
    kernels than on computing. Like factors of all layers lie in one tensor, so that two kernels refresh them all.

    Args:
        groups: lists of ``Stack`` that are alike, over the layers.
        dtype: of the copies.
    """

    def __init__(self, groups, dtype):
        self.parts, self.state = [], None
        for stacks in groups:
            first = stacks[0]
            rank = first.adapters[0][1].stop if first.adapters else 0
            if not 0 < rank <= KEPT_RANK:
                continue
            # of small factors one block-diagonal matrix makes one product of several
            block = rank <= BLOCK_RANK
            place = first.parameters[0].device
            with torch.inference_mode(False):
                downs = torch.zeros(len(stacks), first.ranks, first.shape[1], dtype=dtype, device=place)
                ups = torch.zeros(
                    len(stacks), first.shape[0], first.ranks if block else rank, dtype=dtype, device=place
                )
            for index, (columns, ranks) in enumerate(first.adapters):
                self.parts.append((downs[:, ranks], [stack.parameters[2 * index] for stack in stacks]))
                inner = ranks if block else slice(None)
                self.parts.append((ups[:, columns, inner], [stack.parameters[2 * index + 1] for stack in stacks]))
            for stack, down, up in zip(stacks, downs, ups):
                products = [(columns, ranks, up[columns]) for columns, ranks in stack.adapters]
                everything = [(slice(0, stack.shape[0]), slice(0, stack.ranks), up)]
                stack.kept = (down, everything if block else products)

    def refresh(self):
        """Copy the factors again, unless nothing can have changed them since the last time.

        Under training they are always copied: a fused optimizer changes parameters without counting up their version.
        """
        state = None if torch.is_grad_enabled() else [(p.data_ptr(), p._version) for _, ps in self.parts for p in ps]
        if state is None or state != self.state:
            with torch.inference_mode(False), torch.no_grad():
                for copy, parameters in self.parts:
                    copy.copy_(torch.stack(parameters))
            self.state = state


def _stacked(weights):
    """One tensor of all weights, of which each becomes a part."""
    first = weights[0]
    if len(weights) == 1:
        return first.data
    rows, following = sum(len(weight) for weight in weights), first.data_ptr()
    for weight in weights:
        if weight.data_ptr() != following or weight.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            break
        following += weight.numel() * weight.element_size()
    else:
        return torch.as_strided(first.data, (rows, first.shape[1]), (first.shape[1], 1))
    whole = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, whole.split([len(weight) for weight in weights])):
        weight.data = part
    return whole


def _joined(parameters, dtype):
    return (torch.cat(parameters) if len(parameters) > 1 else parameters[0]).to(dtype)


def _accumulate(parameter, a, b):
    """Add a @ b to a parameter's gradient, in the float32 that the matrix units sum in."""
    total = _gradient(parameter)
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.ops.aten.addmm.dtype_out(total, a, b, total.dtype, out=total)
    else:
        total.add_(a @ b)


def _gradient(parameter):
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class Scratch:
    """A buffer for expanded weights: as large as the largest stack, used by one product at a time."""

    def __init__(self):
        self.elements, self.buffer, self.like = 0, None, None

    def reserve(self, shape, packed):
        self.elements = max(self.elements, shape[0] * shape[1])
        self.like = packed

    def take(self, shape):
        if self.buffer is None or self.buffer.device != self.like.device:
            with torch.inference_mode(False):  # so that training may use what an evaluation made
                self.buffer = torch.empty(self.elements, dtype=self.like.quant_state.dtype, device=self.like.device)
        return self.buffer[: shape[0] * shape[1]].view(shape)


class Layer:
    """A decoder layer's stacks and norms."""

    def __init__(self, layer, config, scratch, last):
        q, k, v, o, gate, up, down = _projections(layer)
        self.last = last
        self.width = layer.self_attn.head_dim
        self.scale = layer.self_attn.scaling
        self.queries = config.num_attention_heads * self.width
        self.keys = config.num_key_value_heads * self.width
        self.input_norm, self.inner_norm = layer.input_layernorm, layer.post_attention_layernorm
        if last:
            self.query, self.key_value = Stack([q], scratch), Stack([k, v], scratch)
            self.attention_parameters = [*self.query.parameters, *self.key_value.parameters]
        else:
            self.projections = Stack([q, k, v], scratch)
            self.attention_parameters = self.projections.parameters
        self.out, self.gate_up, self.down = (Stack(group, scratch) for group in ([o], [gate, up], [down]))
        self.feed_parameters = [*self.out.parameters, *self.gate_up.parameters, *self.down.parameters]

    def stacks(self):
        first = (self.query, self.key_value) if self.last else (self.projections,)
        return *first, self.out, self.gate_up, self.down

    def heads(self, states):
        return states.unflatten(1, (-1, self.width))


class Decoder:
    """The fast form of a ``LlamaModel``.

    Attributes:
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
        self.rounded = Rounded(groups, model.embed_tokens.weight.dtype)
        self.drops = any(stack.masks for layer in self.layers for stack in layer.stacks())

    def __call__(self, pack):
        """Normalised hidden state of the last token of each text of a ``batching.Pack``, shape (texts, width)."""
        self.rounded.refresh()
        hidden = self.model.embed_tokens(pack.input_ids[0])
        rows = self._rows(pack, hidden)

        def through(layer, hidden):
            before = BeforeLast if layer.last else Before
            query, key, value, residual = before.apply(hidden, rows, layer, *layer.attention_parameters)
            mixed = attention.attend(
                layer.heads(query), layer.heads(key), layer.heads(value),
                pack.boundaries, pack.max_length, layer.scale, last=layer.last,
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
        turned = states[:, : layer.queries + layer.keys]
        kernels.rotate(turned, rows.cos, rows.sin, layer.width, out=turned)
        ctx.save_for_backward(hidden, rstd, inner)
        ctx.layer, ctx.rows = layer, rows
        return *states.split([layer.queries, layer.keys, layer.keys], dim=1), hidden

    @staticmethod
    def backward(ctx, d_query, d_key, d_value, d_residual):
        hidden, rstd, inner = ctx.saved_tensors
        layer, stack, rows = ctx.layer, ctx.layer.projections, ctx.rows
        dy = d_query.new_empty(len(d_query), layer.queries + 2 * layer.keys)
        parts = dy.split([layer.queries, layer.keys, layer.keys], dim=1)
        kernels.rotate(d_query, rows.cos, rows.sin, layer.width, out=parts[0], backward=True)
        kernels.rotate(d_key, rows.cos, rows.sin, layer.width, out=parts[1], backward=True)
        parts[2].copy_(d_value)
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
        kernels.rotate(key, rows.cos, rows.sin, layer.width, out=key)
        query, query_inner = layer.query.forward(x[rows.ends], rows.end_keys)
        kernels.rotate(query, rows.cos[rows.ends], rows.sin[rows.ends], layer.width, out=query)
        ctx.save_for_backward(hidden, rstd, inner, query_inner)
        ctx.layer, ctx.rows = layer, rows
        return query, key, value, hidden[rows.ends]

    @staticmethod
    def backward(ctx, d_query, d_key, d_value, d_residual):
        hidden, rstd, inner, query_inner = ctx.saved_tensors
        layer, rows, ends = ctx.layer, ctx.rows, ctx.rows.ends
        dy = d_key.new_empty(len(d_key), 2 * layer.keys)
        kernels.rotate(d_key, rows.cos, rows.sin, layer.width, out=dy[:, : layer.keys], backward=True)
        dy[:, layer.keys :].copy_(d_value)
        dq = kernels.rotate(
            d_query, rows.cos[ends], rows.sin[ends], layer.width, out=torch.empty_like(d_query), backward=True
        )
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
        gate_up, inner = layer.gate_up.forward(x, keys)
        del x
        product = kernels.swiglu(gate_up)
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
        d_product = layer.down.input_gradient(d_result, d, keys)
        dy, product = kernels.swiglu_backward(d_product, gate_up, product=bool(layer.down.adapters))
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
