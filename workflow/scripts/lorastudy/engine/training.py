"""Fine-tuning of one cell: the paper's optimisation, carried out on packs.

An optimizer step has exactly ``batch_size`` texts. They are packed into micro-batches of at most
``micro_batch_tokens`` tokens; the loss is the cross-entropy summed over a micro-batch and divided by the texts of the
step. So the trajectory is that of a padded batch of the same texts, whatever the micro-batches are.

Adapters compute in the base's number format and are optimised in float32: in bfloat16, which has 8 significant bits,
an update below 1/256 of a weight would be lost.
"""

import dataclasses
import logging
import math
import resource
import signal
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from lorastudy.engine import batching, dropout, energy, model, parallel, passes
from lorastudy.engine.checkpoints import Checkpoints
from lorastudy.engine.optimizer import Optimizer
from lorastudy.jobs import logs
from lorastudy.planning import memory
from lorastudy.study.errors import Cause, StudyError

log = logging.getLogger("lorastudy")


LOG_COLUMNS = [
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "samples",
    "tokens",
    "seconds",
    "samples_per_second",
    "tokens_per_second",
]


CPU_MICRO_BATCH_TOKENS = 8192
CHECKPOINT_SHARE = 0.02  # of the time; where writing takes longer, checkpoints are rarer than configured


class TrainingError(StudyError):
    """A cell whose smallest micro-batch does not fit the memory."""

    cause = Cause.GPU_MEMORY


@dataclass
class Progress:
    """How far a cell is, and what it has cost so far.

    Attributes:
        step: optimizer steps done.
        samples: texts seen, repeated ones counted again.
        tokens: tokens seen.
        seconds: time spent in training, over all runs of the cell, loading and checkpoints included, start-up not.
        joules: energy of the GPU, likewise; None where a part of the training had no meter.
        energy_reason: why there is no figure, or what it is besides this cell's own.
        gpu_processes: processes on the GPU, this one among them: mean of ``gpu_readings`` readings; None without any.
        resumes: how often it went on from a checkpoint.
        micro_batch_tokens: the limit in force; lower than configured after running out of memory.
        checkpointed_layers: decoder layers that are computed again in the backward pass; likewise.
        rows: training log, one dictionary a logged step.
        status: ``running``, ``finished`` or ``diverged``.
    """

    micro_batch_tokens: int
    checkpointed_layers: int = 0
    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    joules: float | None = 0.0
    energy_reason: str | None = None
    gpu_processes: float | None = None
    gpu_readings: int = 0
    resumes: int = 0
    rows: list = field(default_factory=list)
    window: list = field(default_factory=list)
    status: str = "running"
    diverged_step: int | None = None
    diverged_learning_rate: float | None = None

    def read_processes(self, count):
        """Take a reading into ``gpu_processes``."""
        if count is not None:
            self.gpu_readings += 1
            self.gpu_processes = (self.gpu_processes or 0) + (count - (self.gpu_processes or 0)) / self.gpu_readings

    def enter_row(self, per_epoch, rate, norm):
        """Add a row to the training log.

        Args:
            per_epoch: optimizer steps of an epoch.
            rate, norm: learning rate and gradient norm of the last step.
        """
        self.rows.append(
            {
                "step": self.step,
                "epoch": self.step / per_epoch,
                "loss": sum(self.window) / len(self.window),
                "learning_rate": rate,
                "grad_norm": norm,
                "samples": self.samples,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "samples_per_second": self.samples / self.seconds,
                "tokens_per_second": self.tokens / self.seconds,
            }
        )
        self.window.clear()


class StopSignal:
    """Remembers the first SIGTERM, SIGUSR1 or SIGINT, so that a job can keep what it has before it ends."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self):
        self.number = None

    def __enter__(self):
        self.previous = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _remember(self, number, _frame):
        self.number = self.number or number


def train(peft_model, texts, labels, training, execution, seed, checkpoints: Checkpoints | None = None):
    """Train adapters and head in place.

    Args:
        peft_model: of ``model.add_adapters``.
        texts: token ids of each training text.
        labels: class index of each.
        training: ``settings.Training``; defines the result.
        execution: ``settings.Execution``; changes time and memory, the result only in rounding.
        seed: of the order of the texts and of dropout.
        checkpoints: where to resume from and save to.

    Returns:
        ``Progress`` with status ``finished`` or ``diverged`` (a loss or gradient that is not finite; the adapters are
        then as before that step).

    Raises:
        TrainingError: a single text does not fit the memory.
        logs.Interrupted: on SIGTERM, SIGUSR1 or SIGINT, after a last checkpoint.
    """
    return Training(peft_model, texts, labels, training, execution, seed, checkpoints).run()


class _Stopped(Exception):
    pass


class _Diverged(Exception):
    pass


class Training:
    """A cell in training. The arguments are those of ``train``.

    The host runs one step ahead of the device: a step's loss is read when the next has been started.
    """

    def __init__(self, peft_model, texts, labels, training, execution, seed, checkpoints=None):
        self.model, self.texts, self.labels = peft_model, texts, np.asarray(labels)
        self.execution, self.seed, self.checkpoints = execution, seed, checkpoints
        self.lengths = [len(text) for text in texts]
        self.plan = batching.steps(len(texts), training.batch_size, training.epochs, seed)
        self.per_epoch = math.ceil(len(texts) / training.batch_size)
        self.optimizer = Optimizer(peft_model, training, len(self.plan))
        self.progress = Progress(execution.micro_batch_tokens, execution.checkpointed_layers)
        self.device = next(iter(self.optimizer.parameters.values())).device
        self.rank, self.processes = parallel.rank_and_size()
        if checkpoints and (found := checkpoints.load()):
            self.restore(*found)
        model.set_training(peft_model, True)
        model.checkpoint_layers(peft_model, self.progress.checkpointed_layers)
        self.drops = dropout.drops(peft_model)
        self.passes = self.choose_passes()
        self.meter, self.spent = energy.Meter(), self.progress.joules
        self.clock, self.begun = _Clock(self.device), time.monotonic()
        self.before, self.first, self.pending = self.progress.seconds, self.progress.step, None
        self.due = self.begun + 60 * execution.checkpoint_minutes

    def restore(self, tensors, state):
        """Go on from a checkpoint."""
        self.optimizer.restore(tensors)
        self.progress = Progress(**{key: value for key, value in state.items() if key in Progress.__dataclass_fields__})
        self.progress.resumes += 1
        log.info("resumed after step %d of %d", self.progress.step, len(self.plan))

    def choose_passes(self):
        """How passes are carried out with the micro-batches in force."""
        if self.execution.graphs and passes.recordable(self.model, self.device):
            sizes = [sum(self.lengths[i] for i in group) for step in self.plan for group in self.groups(step)]
            if len(sizes) >= passes.FEW:
                texts = max(map(len, self.plan))
                return passes.Recorded(self.model, self.device, sizes, texts, max(self.lengths), self.drops)
        return passes.Eager(self.model, self.device)

    def groups(self, step):
        """A step's micro-batches: lists of texts."""
        lengths, limit = [self.lengths[i] for i in step], self.progress.micro_batch_tokens
        groups = batching.micro_batches(lengths, limit, self.processes)
        return [[int(step[i]) for i in members] for members in groups]

    def run(self):
        """Train to the end. Returns and raises as ``train``."""
        with StopSignal() as stop:
            try:
                for index in range(self.progress.step, len(self.plan)):
                    self.step(index, stop)
                    if (
                        self.checkpoints
                        and self.rank == 0
                        and time.monotonic() > self.due
                        and index + 1 < len(self.plan)
                    ):
                        self.save_in_between()
                self.settle()
            except _Stopped:
                self.stop(stop)
            except _Diverged:
                pass
        if self.progress.status == "running":
            self.progress.status = "finished"
        self.count()
        return self.progress

    def step(self, index, stop):
        """Start an optimizer step, and enter the one before."""
        loss = self.gradient(index, stop)
        started = index, _Seen(self.optimizer.step(index, loss))
        self.settle()
        self.pending = started

    def gradient(self, index, stop):
        """Gradient of an optimizer step, in the masters; mean loss of its texts (a tensor). With smaller packs where
        memory runs out."""
        while True:
            state, total = self.add_micro_batches(index, stop)
            if state == _DONE and self.rank == 0:
                self.optimizer.penalise()
            if self.processes > 1 and (state := parallel.largest(state, self.device)) == _DONE:
                parallel.add([*(flat.grad for flat in self.optimizer.flat.values()), total])
            if state == _DONE:
                return total
            # outside of the handler, since the traceback holds on to the tensors of the failed pass
            self.optimizer.clear()
            if state == _STOPPED:
                raise _Stopped
            self.take_less(max(self.lengths[i] for i in self.plan[index]))

    def add_micro_batches(self, index, stop):
        """This process's part of a step's gradient. Returns how it ended, and its part of the loss."""
        total, step = torch.zeros((), device=self.device), self.plan[index]
        for members in self.groups(step)[self.rank :: self.processes]:
            if stop.number:
                return _STOPPED, total
            keys = None
            if self.drops:
                keys = dropout.keys(self.seed, index, members, [self.lengths[i] for i in members])
            try:
                total += self.passes.add([self.texts[i] for i in members], self.labels[members], keys, len(step))
                self.optimizer.collect()
            except (torch.OutOfMemoryError, RuntimeError) as fault:
                if not _out_of_memory(fault):
                    raise
                return _NO_MEMORY, total
        return _DONE, total

    def take_less(self, longest):
        """Halve the micro-batches after running out of memory; at one text, compute every layer again instead."""
        layers, progress = model.count_layers(self.model), self.progress
        if progress.micro_batch_tokens > longest:
            progress.micro_batch_tokens = max(longest, progress.micro_batch_tokens // 2)
        elif progress.checkpointed_layers < layers:
            progress.checkpointed_layers = layers
            model.checkpoint_layers(self.model, layers)
        else:
            raise TrainingError(
                f"out of memory with a single text of {longest} tokens; lower `data.max_length` below it or run this "
                "cell on a device with more memory."
            )
        log.warning(
            "out of memory at step %d: micro_batch_tokens is %d and checkpointed_layers is %d from here on",
            progress.step + 1, progress.micro_batch_tokens, progress.checkpointed_layers,
        )  # fmt: skip
        self.passes = None  # its memory first
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.passes = self.choose_passes()

    def settle(self):
        """Enter the step whose update is under way.

        Raises:
            _Diverged: it was none, because something was not finite.
        """
        if self.pending is None:
            return
        (index, seen), self.pending = self.pending, None
        loss, norm = seen.read()
        rate, progress = self.optimizer.rate(index), self.progress
        if not (math.isfinite(loss) and math.isfinite(norm)):
            progress.status, progress.diverged_step, progress.diverged_learning_rate = "diverged", index + 1, rate
            log.error("diverged at step %d: loss %s, gradient norm %s, learning rate %.3g", index + 1, loss, norm, rate)
            raise _Diverged
        progress.step = index + 1
        progress.samples += len(self.plan[index])
        progress.tokens += sum(self.lengths[i] for i in self.plan[index])
        progress.window.append(loss)
        elapsed = self.clock.until(seen)
        progress.seconds = self.before + elapsed
        if progress.step % self.execution.log_every_steps == 0 or progress.step == len(self.plan):
            progress.enter_row(self.per_epoch, rate, norm)
            _tell(progress, len(self.plan), elapsed / (progress.step - self.first))
            progress.read_processes(self.meter.processes())

    def save_in_between(self):
        """Write a checkpoint, and set when the next is due."""
        self.settle()
        asked = time.monotonic()
        self.save()
        written = time.monotonic()
        self.due = written + max(60 * self.execution.checkpoint_minutes, (written - asked) / CHECKPOINT_SHARE)

    def save(self):
        self.count()
        self.checkpoints.save(self.progress.step, self.optimizer.tensors(), vars(self.progress))

    def count(self):
        """Bring time and energy up to now."""
        progress = self.progress
        progress.seconds = self.before + time.monotonic() - self.begun
        joules = self.meter.joules()
        progress.joules = None if self.spent is None or joules is None else self.spent + joules
        progress.read_processes(self.meter.processes())
        if self.meter.reason:
            progress.energy_reason = self.meter.reason
        elif self.processes > 1:
            progress.energy_reason = f"the energy of the first of {self.processes} GPUs"
        elif (progress.gpu_processes or 1) > 1:
            progress.energy_reason = energy.PART

    def stop(self, stop):
        """End on a signal, with a last checkpoint."""
        self.settle()
        if self.checkpoints and self.rank == 0:
            self.save()
        kept = f"kept a checkpoint after step {self.progress.step} of {len(self.plan)}"
        number = stop.number or signal.SIGTERM  # another process was told so
        raise logs.Interrupted(
            f"stopped by {signal.Signals(number).name}; {kept if self.checkpoints else 'kept nothing'}. "
            "Run the same command again to go on.", number,
        ) from None  # fmt: skip


_DONE, _NO_MEMORY, _STOPPED = range(3)  # of several processes' states the largest counts


class _Clock:
    """Seconds until a step was computed: by the device's own events, since the host runs ahead of it."""

    def __init__(self, device):
        self.begun, self.event = time.monotonic(), None
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()

    def until(self, seen):
        return self.event.elapsed_time(seen.event) / 1000 if self.event else time.monotonic() - self.begun


class _Seen:
    """A few numbers on their way from the device, which are waited for when they are read."""

    def __init__(self, values):
        self.event = None
        self.values = values
        if values.is_cuda:
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            # a host that waits sleeps: on a GPU with twenty cells, twenty waiting cores would start none
            self.event = torch.cuda.Event(enable_timing=True, blocking=True)
            self.event.record()

    def read(self):
        if self.event:
            self.event.synchronize()
        return self.values.tolist()


def fitted(execution, peft_model, cell, classes, head, lengths, training):
    """``execution`` with the empty keys filled in: micro-batch and checkpointing that train a cell fastest here.

    Args:
        execution: ``settings.Execution``.
        cell: ``grid.Cell``.
        classes, head: width of the classification head and ``lora.head``.
        lengths: tokens of each training text.
        training: ``settings.Training``.

    Returns:
        ``settings.Execution`` without empty keys.
    """
    tokens, layers = execution.micro_batch_tokens, execution.checkpointed_layers
    if torch.cuda.is_available() and (tokens is None or layers is None):
        allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
        step = sum(sorted(lengths, reverse=True)[: training.batch_size])
        found = memory.fit(
            peft_model.config.to_dict(), classes, cell, (allocated + free) / memory.GIB + memory.CONTEXT / memory.GIB,
            most_tokens=step if tokens is None else tokens, longest=max(lengths) if tokens is None else tokens,
            layers=layers, head=head, optimizer=training.optimizer, dtype=model.compute_dtype(peft_model),
            graphs=execution.graphs,
        )  # fmt: skip
        if found is None:
            log.warning("this cell is not expected to fit the GPU's %.1f GiB", (allocated + free) / memory.GIB)
        tokens = tokens or (found.micro_batch_tokens if found else max(lengths))
        if layers is None:
            layers = found.checkpointed_layers if found else model.count_layers(peft_model)
    execution = dataclasses.replace(
        execution, micro_batch_tokens=tokens or CPU_MICRO_BATCH_TOKENS, checkpointed_layers=layers or 0
    )
    log.info(
        "micro-batches of %d tokens, %d layers checkpointed",
        execution.micro_batch_tokens, execution.checkpointed_layers,
    )  # fmt: skip
    return execution


def _out_of_memory(fault):
    return isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in str(fault)


def _tell(progress, steps, seconds_a_step):
    row, left = progress.rows[-1], int((steps - progress.step) * seconds_a_step)
    log.info(
        "step %d/%d  loss %.4f  lr %.2e  %.1f samples/s  %.0f tokens/s  %d:%02d:%02d left",
        progress.step, steps, row["loss"], row["learning_rate"], row["samples_per_second"], row["tokens_per_second"],
        left // 3600, left // 60 % 60, left % 60,
    )  # fmt: skip


def peak_memory():
    """Peak memory of this process so far, in GiB: (allocated, reserved, what was measured).

    On a GPU the caching allocator's peaks; on a CPU the process's largest resident set, and nothing reserved.
    """
    if torch.cuda.is_available():
        return (
            torch.cuda.max_memory_allocated() / 2**30,
            torch.cuda.max_memory_reserved() / 2**30,
            "CUDA caching allocator",
        )
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, KiB elsewhere (getrusage(2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, None, "resident set of the process"
