"""The linear layers of a decoder that read the same input, with their adapters: one product forward, one backward."""

from contextlib import contextmanager

import torch
from bitsandbytes.functional import dequantize_4bit

from lorastudy.engine import kernels
from lorastudy.engine.dropout import Dropout
from lorastudy.planning.memory import BLOCK_RANK, KEPT_RANK

MASKED_RANK = 64  # up to it a product draws the mask of its input itself


def parts(module, name):
    """What PEFT keeps under that name for each adapter of a module."""
    return list(getattr(module, name, {}).values())


class Stack:
    """Linear layers that read the same input, with their adapters, as one matrix product.

    Args:
        modules: ``torch.nn.Linear`` or bitsandbytes' ``Linear4bit``, plain or inside PEFT's LoRA layer.
        scratch: where 4-bit weights are expanded, shared by all stacks.
        slot: 0 or 1, which of its buffers; stacks that follow each other take turns.

    Attributes:
        adapters: for each, its columns of the output and its columns of the inner values.
        parameters: first and second factor of each adapter, in turn.
        kept: rounded copies of the factors (see ``Rounded``); None where they are rounded at each use.
        masks: the adapters' ``dropout.Dropout``; empty without dropout.
    """

    def __init__(self, modules, scratch, slot):
        linears = [getattr(module, "base_layer", module) for module in modules]
        self.scratch, self.slot, self.layers = scratch, slot, len(modules)
        self.shape = (sum(linear.out_features for linear in linears), linears[0].in_features)
        self.quantized = None
        if type(linears[0]).__name__ == "Linear4bit":
            self.quantized = Quantized([linear.weight for linear in linears])
            scratch.reserve(self, linears[0].weight)
        else:
            self.stacked = _stacked([linear.weight for linear in linears])
        biases = [linear.bias.data for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        self.adapters, self.parameters, self.scale, self.kept = [], [], 1.0, None
        start = inner = 0
        for module, linear in zip(modules, linears):
            for down, up in zip(parts(module, "lora_A"), parts(module, "lora_B")):
                rank = down.weight.shape[0]
                self.adapters.append((slice(start, start + linear.out_features), slice(inner, inner + rank)))
                self.parameters += [down.weight, up.weight]
                (self.scale,) = module.scaling.values()
                inner += rank
            start += linear.out_features
        self.ranks = inner
        # its masks differ from module to module, so that the adapters no longer read the same numbers
        self.masks = [part for module in modules for part in parts(module, "lora_dropout") if _drops(part)]
        if self.masks:
            device = linears[0].weight.device
            self.sites = torch.tensor([part.site for part in self.masks], dtype=torch.int32, device=device)

    def weight(self):
        """All weights, shape (sum of outputs, inputs); valid until any stack is asked again."""
        return self.stacked if self.quantized is None else self.scratch.expanded(self)

    def down(self, dtype):
        """First factors of all adapters below each other, shape (sum of ranks, inputs)."""
        return _joined(self.parameters[::2], dtype) if self.kept is None else self.kept[0]

    def ups(self, dtype):
        """The second factors, as products to be done: (columns of the output, columns of the inner values, matrix)."""
        if self.kept is None:
            whole, start, products = _joined(self.parameters[1::2], dtype), 0, []
            for columns, ranks in self.adapters:
                rows = columns.stop - columns.start
                products.append((columns, ranks, whole[start : start + rows]))
                start += rows
            return products
        return self.kept[1]

    def forward(self, x, keys, *, inner_only=False, late=False):
        """Outputs, side by side; and the adapters' scaled inner values, which the backward pass needs.

        Args:
            keys: of the rows' dropout; None where nothing is dropped. Likewise below.
            late: the outputs are without the adapters' part, which is added as they are read.
        """
        inner = self.inner(x, keys) if self.adapters else None
        if inner_only:
            return None, inner
        y = x @ self.weight().T if self.bias is None else torch.addmm(self.bias, x, self.weight().T)
        for columns, ranks, up in self.ups(x.dtype) if self.adapters and not late else ():
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

    def input_gradient(self, dy, d, keys, *, late=False):
        """Gradient of the input.

        Args:
            late: it is without the adapters' part, which is added as it is read.
        """
        dx = dy @ self.weight()
        if not self.adapters or late:
            return dx
        down = self.down(dy.dtype)
        if not self.dropping(keys):
            return dx.addmm_(d, down)
        if not self.wide:
            return kernels.drop_input_gradient(dx, d, down, keys, self.sites, self.masks[0].threshold)
        for index, (_, ranks) in enumerate(self.adapters):
            dx += self.drop(d[:, ranks] @ down[ranks], keys, index)
        return dx

    @property
    def small(self):
        """Whether each layer has an adapter, whose second factor is kept rounded, small enough to be added late."""
        return self.kept is not None and len(self.adapters) == self.layers

    def separate_ups(self):
        """The second factors of a stack that is ``small``, one by one."""
        return self.kept[2]

    def beside(self, d, keys, dtype):
        """``kernels.Beside`` of a stack of one layer: what is added late to the gradient of its input."""
        keys = keys if self.dropping(keys) else None
        site, threshold = (self.masks[0].site, self.masks[0].threshold) if self.masks else ((0, 0), 0)
        return kernels.Beside(d, self.down(dtype), keys, site, threshold)

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


class Scratch:
    """Two buffers for expanded weights, each as large as the largest stack that uses it.

    While a pass is recorded, the weights that come next are expanded beside a product and what follows it, on a stream
    that gives way to theirs: expansion waits for memory, a product for the matrix units. What comes next is known from the
    pass before, which took the same stacks in the same order.
    """

    def __init__(self):
        self.elements, self.buffers, self.like, self.side = [0, 0], None, None, None
        self.order, self.taken = [], []
        self.held, self.coming = [None, None], [None, None]

    def reserve(self, stack, packed):
        outputs, inputs = stack.shape
        self.elements[stack.slot] = max(self.elements[stack.slot], outputs * inputs)
        self.like = packed

    def begin(self):
        """A pass begins: nothing is taken over from the last but its order."""
        self.order, self.taken = self.taken, []
        self.held, self.coming = [None, None], [None, None]

    def expanded(self, stack):
        """A stack's weights, valid until the next is asked for."""
        out, slot = self.buffer(stack), stack.slot
        if self.coming[slot] is not None:
            torch.cuda.current_stream(out.device).wait_event(self.coming[slot])
            self.coming[slot] = None
        if self.held[slot] is not stack:
            stack.quantized.expand(out)
            self.held[slot] = stack
        self.taken.append(stack)
        if self.ahead() and (following := self.following()) is not None:
            self.expand_beside(following)
        return out

    def ahead(self):
        """Whether to expand ahead. Where the host starts each kernel, two streams cost it more than they save."""
        return self.like.is_cuda and torch.cuda.is_current_stream_capturing()

    def following(self):
        """The stack that will be asked for next, if its buffer is free to be filled; else None."""
        count = len(self.taken)
        if self.taken != self.order[:count] or count == len(self.order):
            return None
        following = self.order[count]
        return following if following.slot != self.taken[-1].slot else None

    def expand_beside(self, stack):
        out = self.buffer(stack)
        if self.held[stack.slot] is stack:
            return
        self.held[stack.slot] = stack
        with self.beside(out.device) as side:
            stack.quantized.expand(out)
            self.coming[stack.slot] = side and side.record_event()

    @contextmanager
    def beside(self, device):
        """Another stream, which has waited for the products so far; on a CPU none."""
        if device.type != "cuda":
            yield None
            return
        if self.side is None:
            self.side = torch.cuda.Stream(device)
        self.side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self.side):
            yield self.side

    def buffer(self, stack):
        """Where a stack's weights go."""
        if self.buffers is None or self.buffers[0].device != self.like.device:
            with torch.inference_mode(False):  # so that training may use what an evaluation made
                self.buffers = [
                    torch.empty(elements, dtype=self.like.quant_state.dtype, device=self.like.device)
                    for elements in self.elements
                ]
        outputs, inputs = stack.shape
        return self.buffers[stack.slot][: outputs * inputs].view(stack.shape)


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
            device = first.parameters[0].device
            with torch.inference_mode(False):
                downs = torch.zeros(len(stacks), first.ranks, first.shape[1], dtype=dtype, device=device)
                ups = torch.zeros(
                    len(stacks), first.shape[0], first.ranks if block else rank, dtype=dtype, device=device
                )
            for index, (columns, ranks) in enumerate(first.adapters):
                self.parts.append((downs[:, ranks], [stack.parameters[2 * index] for stack in stacks]))
                inner = ranks if block else slice(None)
                self.parts.append((ups[:, columns, inner], [stack.parameters[2 * index + 1] for stack in stacks]))
            for stack, down, up in zip(stacks, downs, ups):
                products = [(columns, ranks, up[columns]) for columns, ranks in stack.adapters]
                everything = [(slice(0, stack.shape[0]), slice(0, stack.ranks), up)]
                separate = [up[columns, ranks if block else slice(None)] for columns, ranks in stack.adapters]
                stack.kept = (down, everything if block else products, separate)

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


def _drops(part):
    return isinstance(part, Dropout) and part.threshold > 0


def _gradient(parameter):
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
