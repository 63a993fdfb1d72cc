"""A model with adapters that do something."""

import torch
from lorastudy.engine import model
from lorastudy.study.settings import Lora


def perturbed(base, cell, fused, dtype="float32", rate=0.0):
    """A model in training whose adapters do something: PEFT starts their second factors from zero.

    Args:
        rate: of the adapters' dropout.
    """
    peft_model = model.add_adapters(model.load_classifier(base, 5, dtype, 1), cell, Lora(rate, "paper"), fused=fused)
    generator = torch.Generator().manual_seed(2)
    for name, p in peft_model.named_parameters():
        if "lora_B" in name:
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.05)
    model.set_training(peft_model, True)
    return peft_model
