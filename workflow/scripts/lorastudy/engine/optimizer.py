"""AdamW on float32 masters, whatever the number format of the parameters is."""

import math

import torch
from bitsandbytes.optim import AdamW8bit
from transformers import get_scheduler

from lorastudy.engine import methods, model

ALIGNMENT = 64  # numbers: parts of a tensor begin where vector loads can


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
        slices, size = {}, 0
        for name, p in parameters.items():
            slices[name] = slice(size, size + p.numel())
            size += -(-p.numel() // ALIGNMENT) * ALIGNMENT
        device = next(iter(parameters.values())).device
        flat = torch.nn.Parameter(torch.zeros(size, device=device))
        flat.grad = torch.zeros_like(flat)
        for name, p in parameters.items():
            part = flat.detach()[slices[name]].view(p.shape)
            part.copy_(p.detach())
            self.masters[name] = p if p.dtype == torch.float32 else torch.nn.Parameter(part)
            self.masters[name].data = part
            self.masters[name].grad = flat.grad[slices[name]].view(p.shape)
        return flat

    def _copies(self):
        """Masters with the parameters that are their rounded copies."""
        return [(self.masters[name], p) for name, p in self.parameters.items() if p is not self.masters[name]]

    def collect(self):
        """Add the gradients of a micro-batch to the masters', in float32."""
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
        if copies := self._copies():
            with torch.no_grad():
                torch._foreach_copy_([p for _, p in copies], [master for master, _ in copies])

    def rate(self, index):
        """The adapters' learning rate at a step; the head's where it is trained alone."""
        return self.rates[0] * self.factor(index)

    def tensors(self):
        """Everything that a checkpoint must hold of masters and moments, by name."""
        kept = {}
        for kind, flat in self.flat.items():
            kept[f"master.{kind}"] = flat
            for key, value in self.adamw.state.get(flat, {}).items():
                kept[f"{key}.{kind}"] = torch.as_tensor(value)
        return kept | (self.allocation.tensors() if self.allocation else {})

    def restore(self, tensors):
        """Undo of ``tensors``."""
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
