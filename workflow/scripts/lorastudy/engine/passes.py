"""Forward and backward passes of micro-batches: carried out kernel by kernel, or recorded once and replayed.

A pass of Llama-3-8B is nearly 3,000 kernels, which the host takes 120 ms or more to start: as long as 2,500 tokens take to
compute. A recorded pass (a CUDA graph) is started at once. It computes on fixed addresses and a fixed number of tokens, so a
few sizes are recorded, and a micro-batch is filled up to the next of them by one more text without a label
(``batching.Frame``), which changes neither loss nor gradient. Recorded passes take turns in the same memory.
"""

import gc
import logging
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lorastudy.engine import attention, batching, decoder, model

log = logging.getLogger("lorastudy")

STEP = 64  # tokens: recorded sizes are multiples of it
FEW = 8  # passes; to record is not worth while for fewer
# What recording a pass costs, in tokens computed meanwhile, times the weights of a decoder layer's linear layers: both grow
# with the number of layers. Measured on an H100 (docs/performance.md).
RECORDING = 1.8e12


class Eager:
    """Passes carried out kernel by kernel.

    Args:
        peft_model: of ``model.add_adapters``.
        device: that it is on.
    """

    def __init__(self, peft_model, device):
        self.model, self.device = peft_model, device

    def add(self, texts, labels, keys, share):
        """Add a micro-batch's part of the gradient to the parameters' ``grad``.

        Args:
            texts: token ids of each text.
            labels: class index of each.
            keys: of their dropout, ``dropout.keys``; None without.
            share: texts of the optimizer step.

        Returns:
            Its part of the mean loss, a tensor; valid until the next call.
        """
        return compute(self.model, batching.pack(texts, self.device, labels, keys, share))


class Recorded(Eager):
    """Passes recorded as CUDA graphs, each size when it is first needed.

    Args:
        sizes: tokens of each micro-batch to come.
        texts: of a micro-batch, at most.
        longest: tokens of the longest text.
        keys: whether there is dropout.
        recorder: ``Recorder`` of the device.
    """

    def __init__(self, peft_model, device, sizes, texts, longest, keys, recorder=None):
        super().__init__(peft_model, device)
        self.texts, self.longest, self.keys = texts + 1, longest, keys
        weights = decoder.fused(peft_model).weights_of_a_layer
        # a token more, so that there always is a text without a label that is not empty
        self.sizes = recorded_sizes([size + 1 for size in sizes], RECORDING / weights)
        self.next_lower = dict(zip(self.sizes, [min(sizes) + 1, *self.sizes]))
        self.graphs, self.recorder = {}, recorder or Recorder(device)

    def add(self, texts, labels, keys, share):
        graph = self.graph(sum(len(text) for text in texts), len(texts))
        if graph is None:
            return super().add(texts, labels, keys, share)
        batching.copy(graph.frame.fill(texts, labels, keys, share), graph.numbers)
        graph.recording.replay()
        return graph.recording.result

    def graph(self, tokens, texts):
        """The recorded pass for a micro-batch; None for one that was not to come."""
        index = bisect_left(self.sizes, tokens + 1)
        if index == len(self.sizes) or tokens < self.next_lower[self.sizes[index]] - 1 or texts >= self.texts:
            return None
        # the largest first, so that all others fit into its memory
        for size in [self.sizes[-1]] * (not self.graphs) + [self.sizes[index]]:
            if size not in self.graphs:
                self.graphs[size] = self.record(size)
        return self.graphs[self.sizes[index]]

    def record(self, size):
        """Record a pass of so many tokens."""
        frame = batching.Frame(size, self.texts)
        # without labels, so that what is computed on the way to a recording adds nothing to the gradients
        texts = np.array_split(np.zeros(size - 1, dtype=np.int32), min(self.texts, size) - 1)
        numbers = batching.on_device(frame.fill(texts), self.device)
        longest = max(self.longest, size - self.next_lower[size] + 1, len(texts[0]))
        recording = self.recorder.record(lambda: compute(self.model, frame.read(numbers, longest, self.keys)))
        log.info("recorded a pass of %d tokens, one of %d sizes", size, len(self.sizes))
        return Graph(frame, numbers, recording)


@dataclass(frozen=True)
class Graph:
    """A recorded pass: where its pack goes, and how it is done again."""

    frame: batching.Frame
    numbers: torch.Tensor
    recording: "Recording"


class Recorder:
    """Records what functions start on a GPU; all recordings compute in the same memory, one at a time."""

    def __init__(self, device):
        # before what is done beside a pass: the expansion of weights to come (``projections.Scratch``)
        self.device, self.stream = device, torch.cuda.Stream(device, priority=-1)
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, function):
        """``Recording`` of ``function``, which is also called once without, since kernels are compiled and buffers made at
        their first use."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            function()
            torch.cuda.synchronize(self.device)
            gc.collect()
            torch.cuda.empty_cache()
            recording = Recording(function, self.pool)
        current.wait_stream(self.stream)
        return recording


class Recording:
    """What a function started on a GPU, to be started again.

    Attributes:
        result: what the function returned; its tensors have new values after each replay.
    """

    def __init__(self, function, pool):
        self.graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile: NCCL's asks for events
        self.graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            self.result = function()
        except BaseException:
            with suppress(RuntimeError):  # what broke it off is raised
                self.graph.capture_end()
            raise
        self.graph.capture_end()

    def replay(self):
        self.graph.replay()


def compute(peft_model, pack):
    """Forward and backward pass of a pack with labels; its part of the mean loss."""
    logits = model.classify(peft_model, pack)
    total = F.cross_entropy(logits, pack.labels, reduction="sum", ignore_index=batching.IGNORED)
    loss = (total / pack.share).squeeze()
    loss.backward()
    return loss.detach()


def recordable(peft_model, device):
    """Whether a model's passes can be recorded: nothing in them waits for the device."""
    if device.type != "cuda" or not (fast := decoder.fused(peft_model)):
        return False
    return attention.has_flash(fast.dtype, device)


def recorded_sizes(sizes, price):
    """The sizes that are worth recording.

    Fewer of them mean more tokens that fill up. The sizes are chosen for which tokens and recordings together cost least
    (dynamic programming over the sizes in ascending order: each recorded size serves those down to the next lower one).

    Args:
        sizes: tokens of each pass to come.
        price: of recording a size, in tokens.

    Returns:
        Ascending multiples of ``STEP``; the largest holds the largest of ``sizes``.
    """
    rounded = {}
    for size in sizes:
        rounded.setdefault(-(-size // STEP) * STEP, []).append(size)
    steps = sorted(rounded)
    count, total = [0], [0]
    for step in steps:
        count.append(count[-1] + len(rounded[step]))
        total.append(total[-1] + sum(rounded[step]))
    best = [(0.0, None)]  # least cost of the passes up to each step, and where its last recorded size begins
    for end in range(1, len(steps) + 1):

        def cost(begin, end=end):
            filled = (count[end] - count[begin]) * steps[end - 1] - (total[end] - total[begin])
            return best[begin][0] + filled + price, begin

        best.append(min(map(cost, range(end))))
    chosen, end = [], len(steps)
    while end:
        chosen.append(steps[end - 1])
        end = best[end][1]
    return chosen[::-1]
