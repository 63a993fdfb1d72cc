"""How each method puts trainable weights on a frozen classifier, and what AdaLoRA does besides while it trains.

LoRA's adapters are PEFT's too, but computed by ``decoder`` where it can; DoRA and AdaLoRA are computed by PEFT's layers,
full fine-tuning by transformers'.
"""

import torch
from peft import AdaLoraConfig, LoraConfig

from lorastudy.inputs import linear_layers
from lorastudy.study.grid import ADALORA_STEPS, HEAD_ALONE

HEAD = linear_layers.HEAD
NO_MODULES = "dummy-target-modules"  # PEFT's word for an adapter that has weights in ``modules_to_save`` alone
# shares of the steps before ranks are taken away, and after the last was; about those of Zhang et al. 2023 on GLUE
INITIAL, FINAL, BETWEEN = 0.1, 0.5, 0.002


def peft_config(cell, lora, decoder):
    """PEFT's description of what a cell trains.

    The paper's all-linear set (``lora.head: paper``) adds to the decoder's layers a head with a LoRA pair *and* a
    trainable base: the counts of its Table 4 are 2,621,440 r + 4,101 r + 20,480. PEFT 0.8 to 0.10 made that of
    ``all-linear``; current PEFT leaves the pair out whenever the whole head is in ``modules_to_save``. So the head is
    a target like any other and only the linear layer inside its LoRA wrapper is in ``modules_to_save``; the task
    type stays empty, because ``SEQ_CLS`` would put the whole head back there.

    Args:
        cell: ``grid.Cell`` of any method but ``full``.
        lora: ``settings.Lora``.
        decoder: ``linear_layers.Decoder`` of the model.

    Raises:
        base_model.ModelError: the model has not the modules that the target set names.
    """
    if cell.method == HEAD_ALONE:
        return LoraConfig(target_modules=NO_MODULES, modules_to_save=[HEAD], task_type="SEQ_CLS")
    chosen = linear_layers.targeted(decoder, cell.targets, cell.modules)
    names = linear_layers.short(decoder, chosen)
    common = {"lora_alpha": cell.alpha, "lora_dropout": lora.dropout, "bias": "none"}
    if cell.method == "adalora":
        ranks = {"init_r": linear_layers.adalora_start(cell.r), "target_r": cell.r}
        # steps are set when training begins
        return AdaLoraConfig(target_modules=names, task_type="SEQ_CLS", total_step=ADALORA_STEPS, **ranks, **common)
    common |= {"r": cell.r, "use_rslora": cell.scaling == "rank-stabilised", "use_dora": cell.method == "dora"}
    if linear_layers.has_pair(cell, lora.head):
        return LoraConfig(target_modules=[*names, HEAD], modules_to_save=[f"{HEAD}.base_layer"], **common)
    return LoraConfig(target_modules=names, task_type="SEQ_CLS", **common)


def plain_lora(peft_model):
    """Whether the adapters on a model are LoRA's (or none), so that ``decoder`` may compute it."""
    return all(config.peft_type == "LORA" and not config.use_dora for config in peft_model.peft_config.values())


def adaptive(peft_model):
    """Whether the adapters on a model are AdaLoRA's."""
    return any(config.peft_type == "ADALORA" for config in getattr(peft_model, "peft_config", {}).values())


class Allocation:
    """AdaLoRA's sharing out of ranks (Zhang et al. 2023), carried out by PEFT: they start at 1.5 r and end at r on average.

    Args:
        peft_model: with AdaLoRA's adapters.
        steps: optimizer steps in all, ``grid.ADALORA_STEPS`` or more.
    """

    def __init__(self, peft_model, steps):
        self.model = peft_model.base_model
        self.config = peft_model.peft_config["default"]
        self.config.total_step = steps
        self.config.tinit, self.config.tfinal = int(INITIAL * steps), min(int(FINAL * steps), steps - 2)
        self.config.deltaT = max(1, int(BETWEEN * steps))

    def add_penalty(self):
        """Add the gradient of the penalty that keeps the singular vectors orthogonal (equation 4), once a step."""
        norms = []
        for name, p in self.model.named_parameters():
            if p.requires_grad and ("lora_A" in name or "lora_B" in name):
                product = p @ p.T if "lora_A" in name else p.T @ p
                norms.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=p.device)))
        (self.config.orth_reg_weight * torch.stack(norms).mean()).backward()

    def update(self, step):
        """Score the ranks and take some away, after optimizer step ``step`` (from 1), before gradients are cleared."""
        self.model.update_and_allocate(step)

    def tensors(self):
        """Everything that a checkpoint must hold, by name."""
        kept = {}
        for kind in ("exp_avg_ipt", "exp_avg_unc"):
            kept |= {f"adalora.{kind}.{name}": p for name, p in getattr(self.model.rankallocator, kind).items()}
        pattern = self.config.rank_pattern or {}
        return kept | {f"adalora.rank_pattern.{name}": torch.tensor(kept_ranks) for name, kept_ranks in pattern.items()}

    def restore(self, tensors, device):
        """Undo of ``tensors``."""
        allocator = self.model.rankallocator
        allocator.reset_ipt()
        for name, tensor in tensors.items():
            if not name.startswith("adalora."):
                continue
            _, kind, parameter = name.split(".", 2)
            if kind == "rank_pattern":
                self.config.rank_pattern = (self.config.rank_pattern or {}) | {parameter: tensor.tolist()}
            else:
                getattr(allocator, kind)[parameter] = tensor.clone().to(device)
                allocator.ipt[parameter] = allocator.exp_avg_ipt[parameter]  # overwritten before it is read
