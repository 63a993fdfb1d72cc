"""A cell's adapters in the form that PEFT itself writes for a classifier, so that others' programs read them.

The paper's all-linear head is a linear layer with a LoRA pair whose base is trained too (``model.lora_config``). PEFT
loads that, but what builds on it does not: its task type is empty, and merging leaves the trained base behind. Both
parts are linear, so that their sum is a plain head, W + scale B A, which is what PEFT keeps in ``modules_to_save``.
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from lorastudy.engine.model import HEAD
from lorastudy.study import records

PREFIX = f"base_model.model.{HEAD}."


def write(adapter, output):
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` of a cell to the directory ``output``.

    Args:
        adapter: directory of ``model.save_adapters``.

    The result is of task type ``SEQ_CLS`` with the head whole and in float32; it predicts what the cell does.
    """
    config = records.read_json(Path(adapter) / "adapter_config.json")
    tensors = load_file(Path(adapter) / "adapter_model.safetensors")
    if f"{PREFIX}base_layer.weight" in tensors:
        whole, down, up = (tensors.pop(f"{PREFIX}{part}.weight").float() for part in ("base_layer", "lora_A", "lora_B"))
        tensors[f"{PREFIX}weight"] = whole + scale(config) * up @ down
        config["target_modules"] = [name for name in config["target_modules"] if name != HEAD]
        config |= {"modules_to_save": [HEAD], "task_type": "SEQ_CLS", "auto_mapping": None}
    if isinstance(config["target_modules"], list):  # which PEFT writes in any order
        config["target_modules"].sort()
    output = Path(output)
    save_file(tensors, output / "adapter_model.safetensors", metadata={"format": "pt"})
    records.open_as_others(output / "adapter_model.safetensors")
    (output / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def scale(config):
    """Factor of B A: alpha / r, or alpha over the root of r where it is rank-stabilised (Kalajdzievski 2023)."""
    return config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
