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

from lorastudy.engine import batching, dropout, energy, methods, model, parallel
from lorastudy.engine.checkpoints import Checkpoints
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
ALIGNMENT = 64  # numbers: parts of a tensor begin where vector loads can


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
        resumes: how often it was taken up from a checkpoint.
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


class Optimizer:
    """AdamW on float32 masters of a model's trainable parameters.

    All masters lie in one tensor for the adapters and one for the head, their gradients likewise, so that a step is a
    few kernels and not a few for each of hundreds of parameters. A parameter that is float32 becomes a part of its
    tensor; one in another format has its master there.

    Args:
        peft_model: its parameters that require gradients are optimised.
        training: ``settings.Training``.
        steps: optimizer steps in all, which the schedule needs.
    """

    def __init__(self, peft_model, training, steps):
        import torch
        from transformers import get_scheduler

        self.parameters = {name: p for name, p in peft_model.named_parameters() if p.requires_grad}
        self.masters, self.flat = {}, {}
        for kind, of_head in (("adapters", False), ("head", True)):
            # a cell that trains the head alone has no adapters
            if found := {name: p for name, p in self.parameters.items() if model.in_head(name) is of_head}:
                self.flat[kind] = self._flatten(found)
        rates = {"adapters": training.learning_rate, "head": training.head_learning_rate or training.learning_rate}
        self.rates = tuple(rates[kind] for kind in self.flat)
        self.allocation = methods.Allocation(peft_model, steps) if methods.adaptive(peft_model) else None
        groups = [{"params": [flat]} for flat in self.flat.values()]
        self.in_8_bits = training.optimizer == "adamw_8bit"
        if self.in_8_bits:
            from bitsandbytes.optim import AdamW8bit

            self.adamw = AdamW8bit(groups, weight_decay=training.weight_decay)
        else:
            self.adamw = torch.optim.AdamW(groups, weight_decay=training.weight_decay, fused=True)
        warmup = math.ceil(training.warmup_ratio * steps)
        # transformers' schedules as functions of the step: nothing to restore after a resume
        self.factor = get_scheduler(training.scheduler, self.adamw, warmup, steps).lr_lambdas[0]
        self.max_norm = training.max_grad_norm
        self.failed = torch.zeros((), device=self.flat["head"].device)

    def _flatten(self, parameters):
        """One float32 tensor of all values, with one of all gradients; masters become parts of it."""
        import torch

        places, size = {}, 0
        for name, p in parameters.items():
            places[name] = slice(size, size + p.numel())
            size += -(-p.numel() // ALIGNMENT) * ALIGNMENT
        place = next(iter(parameters.values())).device
        flat = torch.nn.Parameter(torch.zeros(size, device=place))
        flat.grad = torch.zeros_like(flat)
        for name, p in parameters.items():
            part = flat.detach()[places[name]].view(p.shape)
            part.copy_(p.detach())
            self.masters[name] = p if p.dtype == torch.float32 else torch.nn.Parameter(part)
            self.masters[name].data = part
            self.masters[name].grad = flat.grad[places[name]].view(p.shape)
        return flat

    def _copies(self):
        """Masters with the parameters that are their rounded copies."""
        return [(self.masters[name], p) for name, p in self.parameters.items() if p is not self.masters[name]]

    def collect(self):
        """Add the gradients of a micro-batch to the masters', in float32."""
        import torch

        present = [(master, p) for master, p in self._copies() if p.grad is not None]
        if present:
            torch._foreach_add_([m.grad for m, _ in present], [p.grad.float() for _, p in present])
        for _, parameter in present:
            parameter.grad = None

    def penalise(self):
        """Add the gradient of what a method adds to the loss, once a step."""
        if self.allocation:
            self.allocation.add_penalty()

    def clear(self):
        for flat in self.flat.values():
            flat.grad.zero_()
        for _, parameter in self._copies():
            parameter.grad = None

    def step(self, index, loss):
        """Update masters and parameters, if loss and gradient are finite and always were.

        Nothing here waits for the device: the next step is prepared while this one is computed.

        Args:
            index: of the step, from 0.
            loss: mean loss of the step's texts, a tensor.

        Returns:
            Tensor of loss and L2 norm of the gradient (before it is scaled down to ``max_grad_norm``).
        """
        import torch

        limit = math.inf if self.max_norm is None else self.max_norm
        norm = torch.nn.utils.clip_grad_norm_(list(self.flat.values()), limit)
        seen = torch.stack([loss.float(), norm.float()])
        self.failed = torch.maximum(self.failed, (~seen.isfinite().all()).float())
        # how torch's gradient scaler tells a fused optimizer to leave everything as it is
        self.adamw.grad_scale, self.adamw.found_inf = None, self.failed
        if self.in_8_bits and self.failed.item():  # which bitsandbytes does not read: here the host has to wait
            self.clear()
            return seen
        for group, rate in zip(self.adamw.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(index)
        self.adamw.step()
        self._round()
        if self.allocation and not self.failed.item():
            self.allocation.update(index + 1)
        self.clear()
        return seen

    def _round(self):
        import torch

        if copies := self._copies():
            with torch.no_grad():
                torch._foreach_copy_([p for _, p in copies], [master for master, _ in copies])

    def rate(self, index):
        """The adapters' learning rate at a step; the head's where it is trained alone."""
        return self.rates[0] * self.factor(index)

    def tensors(self):
        """Everything that a checkpoint must hold of masters and moments, by name."""
        import torch

        kept = {}
        for kind, flat in self.flat.items():
            kept[f"master.{kind}"] = flat
            for key, value in self.adamw.state.get(flat, {}).items():
                kept[f"{key}.{kind}"] = torch.as_tensor(value)
        return kept | (self.allocation.tensors() if self.allocation else {})

    def restore(self, tensors):
        """Undo of ``tensors``."""
        import torch

        with torch.no_grad():
            for kind, flat in self.flat.items():
                flat.copy_(tensors[f"master.{kind}"])
                of_this = {name.removesuffix(f".{kind}"): name for name in tensors if name.endswith(f".{kind}")}
                del of_this["master"]
                # clones, because a tensor read from a file may share its memory map
                state = {key: tensors[name].clone().to(flat.device) for key, name in of_this.items()}
                if self.in_8_bits and state:
                    state["step"] = state["step"].item()
                self.adamw.state[flat] = state
        if self.allocation:
            self.allocation.restore(tensors, self.failed.device)
        self._round()


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


class _Stopped(Exception):
    pass


def train(peft_model, texts, labels, training, execution, seed, checkpoints: Checkpoints | None = None):
    """Train adapters and head in place.

    Args:
        peft_model: of ``model.add_adapters``.
        texts: token ids of each training text.
        labels: class index of each.
        training: ``settings.Training``; defines the result.
        execution: ``settings.Execution``; changes time and memory, the result only in rounding.
        seed: of the order of the texts (and of dropout).
        checkpoints: where to resume from and save to.

    Returns:
        ``Progress`` with status ``finished`` or ``diverged`` (a loss or gradient that is not finite; the adapters are
        then as before that step).

    Raises:
        TrainingError: a single text does not fit the memory.
        logs.Interrupted: on SIGTERM, SIGUSR1 or SIGINT, after a last checkpoint.
    """
    import torch

    plan = batching.steps(len(texts), training.batch_size, training.epochs, seed)
    per_epoch = math.ceil(len(texts) / training.batch_size)
    lengths = [len(text) for text in texts]
    optimizer = Optimizer(peft_model, training, len(plan))
    progress = Progress(execution.micro_batch_tokens, execution.checkpointed_layers)
    place = next(iter(optimizer.parameters.values())).device
    torch.manual_seed(seed)
    if checkpoints and (found := checkpoints.load()):
        tensors, state = found
        _restore_random_state(tensors)
        optimizer.restore(tensors)
        progress = Progress(**{key: value for key, value in state.items() if key in Progress.__dataclass_fields__})
        progress.resumes += 1
        log.info("resumed after step %d of %d", progress.step, len(plan))
    model.set_training(peft_model, True)
    model.checkpoint_layers(peft_model, progress.checkpointed_layers)
    meter, spent = energy.Meter(), progress.joules
    rank, processes = parallel.place()
    first_process = rank == 0
    clock = _Clock(place)
    begun, before, first = time.monotonic(), progress.seconds, progress.step
    due = begun + 60 * execution.checkpoint_minutes

    def count():
        progress.seconds = before + time.monotonic() - begun
        joules = meter.joules()
        progress.joules = None if spent is None or joules is None else spent + joules
        progress.read_processes(meter.processes())
        if meter.reason:
            progress.energy_reason = meter.reason
        elif processes > 1:
            progress.energy_reason = f"the energy of the first of {processes} GPUs"
        elif (progress.gpu_processes or 1) > 1:
            progress.energy_reason = energy.PART

    def save():
        count()
        checkpoints.save(progress.step, optimizer.tensors() | _random_state(), vars(progress))

    def settle(pending):
        """Enter a step whose update is under way; False if it was none because something was not finite."""
        index, seen = pending
        loss, norm = seen.read()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            progress.status, progress.diverged_step = "diverged", index + 1
            progress.diverged_learning_rate = optimizer.rate(index)
            log.error(
                "diverged at step %d: loss %s, gradient norm %s, learning rate %.3g",
                index + 1, loss, norm, progress.diverged_learning_rate,
            )  # fmt: skip
            return False
        progress.step = index + 1
        progress.samples += len(plan[index])
        progress.tokens += sum(lengths[i] for i in plan[index])
        progress.window.append(loss)
        elapsed = clock.until(seen)
        progress.seconds = before + elapsed
        if progress.step % execution.log_every_steps == 0 or progress.step == len(plan):
            pace = elapsed / (progress.step - first)
            _log(progress, per_epoch, len(plan), optimizer.rate(index), norm, pace)
            progress.read_processes(meter.processes())
        return True

    with StopSignal() as stop:
        pending = None
        for index in range(progress.step, len(plan)):
            try:
                loss = _gradient(
                    peft_model, optimizer, texts, labels, lengths, plan[index], progress, place, stop, (seed, index)
                )
            except _Stopped:
                if pending and not settle(pending):
                    break
                if checkpoints and first_process:
                    save()
                kept = f"kept a checkpoint after step {progress.step} of {len(plan)}" if checkpoints else "kept nothing"
                number = stop.number or signal.SIGTERM  # another process was told so
                raise logs.Interrupted(
                    f"stopped by {signal.Signals(number).name}; {kept}. Run the same command again to go on.", number
                ) from None
            update = index, _Seen(optimizer.step(index, loss))
            if pending and not settle(pending):
                break
            pending = update
            if checkpoints and first_process and time.monotonic() > due and index + 1 < len(plan):
                if not settle(pending):
                    break
                pending, asked = None, time.monotonic()
                save()
                written = time.monotonic()
                due = written + max(60 * execution.checkpoint_minutes, (written - asked) / CHECKPOINT_SHARE)
        else:
            if pending:
                settle(pending)
    if progress.status == "running":
        progress.status = "finished"
    count()
    return progress


class _Clock:
    """Seconds until a step was computed: by the device's own events, since the host runs ahead of it."""

    def __init__(self, place):
        import torch

        self.begun, self.event = time.monotonic(), None
        if place.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()

    def until(self, seen):
        return self.event.elapsed_time(seen.event) / 1000 if self.event else time.monotonic() - self.begun


class _Seen:
    """A few numbers on their way from the device, which are waited for when they are read."""

    def __init__(self, values):
        import torch

        self.event = None
        self.values = values
        if values.is_cuda:
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()

    def read(self):
        if self.event:
            self.event.synchronize()
        return self.values.tolist()


def _gradient(peft_model, optimizer, texts, labels, lengths, chosen, progress, place, stop, key):
    """Gradient of one optimizer step, in the masters; mean loss of its texts (a tensor). Smaller packs when memory runs
    out. Random states are as before where it stops half-way."""
    import torch
    import torch.nn.functional as F

    random_state = _random_state()
    rank, processes = parallel.place()
    while True:
        state, total = _DONE, torch.zeros((), device=place)
        groups = batching.micro_batches([lengths[i] for i in chosen], progress.micro_batch_tokens, processes)
        for members in groups[rank::processes]:
            if stop.number:
                state = _STOPPED
                break
            try:
                picked = [chosen[i] for i in members]
                keys = dropout.keys(*key, picked, [lengths[i] for i in picked])
                pack = batching.pack([texts[i] for i in picked], place, keys)
                target = torch.tensor([int(labels[i]) for i in picked], device=place)
                loss = F.cross_entropy(model.classify(peft_model, pack), target, reduction="sum") / len(chosen)
                loss.backward()
                optimizer.collect()
                total += loss.detach()
            except (torch.OutOfMemoryError, RuntimeError) as fault:
                if not _out_of_memory(fault):
                    raise
                state = _NO_MEMORY
                break
        if state == _DONE and rank == 0:
            optimizer.penalise()
        if processes > 1 and (state := parallel.largest(state, place)) == _DONE:
            parallel.add([*(flat.grad for flat in optimizer.flat.values()), total])
        if state == _DONE:
            return total
        # outside of the handler, since the traceback holds on to the tensors of the failed pass
        optimizer.clear()
        _restore_random_state(random_state)
        if state == _STOPPED:
            raise _Stopped
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _take_less(peft_model, progress, max(lengths[i] for i in chosen))


_DONE, _NO_MEMORY, _STOPPED = range(3)  # of several processes' states the largest counts


def _take_less(peft_model, progress, longest):
    """Halve the micro-batches after running out of memory; at one text, compute every layer again instead."""
    layers = model.count_layers(peft_model)
    if progress.micro_batch_tokens > longest:
        progress.micro_batch_tokens = max(longest, progress.micro_batch_tokens // 2)
    elif progress.checkpointed_layers < layers:
        progress.checkpointed_layers = layers
        model.checkpoint_layers(peft_model, layers)
    else:
        raise TrainingError(
            f"out of memory with a single text of {longest} tokens; lower `data.max_length` below it or run this "
            "cell on a device with more memory."
        )
    log.warning(
        "out of memory at step %d: micro_batch_tokens is %d and checkpointed_layers is %d from here on",
        progress.step + 1,
        progress.micro_batch_tokens,
        progress.checkpointed_layers,
    )


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
    import torch

    tokens, layers = execution.micro_batch_tokens, execution.checkpointed_layers
    if torch.cuda.is_available() and (tokens is None or layers is None):
        allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
        step = sum(sorted(lengths, reverse=True)[: training.batch_size])
        found = memory.fit(
            peft_model.config.to_dict(), classes, cell, (allocated + free) / memory.GIB + memory.CONTEXT / memory.GIB,
            most_tokens=step if tokens is None else tokens, longest=max(lengths) if tokens is None else tokens,
            layers=layers, head=head, optimizer=training.optimizer, dtype=model.compute_dtype(peft_model),
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
    import torch

    return isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in str(fault)


def _random_state():
    """State of the random generators, which only dropout uses."""
    import torch

    state = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random.cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(tensors):
    import torch

    torch.set_rng_state(tensors["random.cpu"].cpu())
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"].cpu())


def _log(progress, per_epoch, steps, rate, norm, seconds_a_step):
    row = {
        "step": progress.step,
        "epoch": progress.step / per_epoch,
        "loss": sum(progress.window) / len(progress.window),
        "learning_rate": rate,
        "grad_norm": norm,
        "samples": progress.samples,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "samples_per_second": progress.samples / progress.seconds,
        "tokens_per_second": progress.tokens / progress.seconds,
    }
    progress.rows.append(row)
    progress.window.clear()
    left = int((steps - progress.step) * seconds_a_step)
    log.info(
        "step %d/%d  loss %.4f  lr %.2e  %.1f samples/s  %.0f tokens/s  %d:%02d:%02d left",
        progress.step, steps, row["loss"], rate, row["samples_per_second"], row["tokens_per_second"],
        left // 3600, left // 60 % 60, left % 60,
    )  # fmt: skip


def peak_memory():
    """Peak memory of this process so far, in GiB: (allocated, reserved, what was measured).

    On a GPU the caching allocator's peaks; on a CPU the process's largest resident set, and nothing reserved.
    """
    import torch

    if torch.cuda.is_available():
        return (
            torch.cuda.max_memory_allocated() / 2**30,
            torch.cuda.max_memory_reserved() / 2**30,
            "CUDA caching allocator",
        )
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, KiB elsewhere (getrusage(2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, None, "resident set of the process"
