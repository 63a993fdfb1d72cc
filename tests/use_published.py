"""Use published cells as someone would who has nothing of this project: their cards' code, PEFT and transformers alone.

python use_published.py DIRECTORY…, each with ``publish/``, ``model/`` and ``texts.json`` (``text`` and ``input_ids`` of each).
Prints JSON: for each directory what was found.
"""

import json
import os
import re
import sys
from pathlib import Path

import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, pipeline


def probabilities(model, texts):
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([text["input_ids"]])).logits[0].float() for text in texts]
    return torch.stack(logits).softmax(-1).tolist()


def use(directory):
    texts = json.loads((directory / "texts.json").read_text(encoding="utf-8"))
    os.chdir(directory / "publish")
    code = re.search(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert code.count('BASE, ADAPTER = "a model"') == 1
    card = {}
    exec(code.replace('"a model"', repr(str(directory / "model"))), card)
    found = {
        "tokens": [
            card["tokenizer"](card["BEFORE"] + text["text"] + card["AFTER"], max_length=card["MAX_LENGTH"])["input_ids"]
            for text in texts
        ],
        "labels": [card["classify"](text["text"]) for text in texts],
        "card": probabilities(card["model"], texts),
    }
    config = json.loads(Path("adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(directory / "model")
    Path("adapter_config.json").write_text(json.dumps(config))
    # the second argument only matters for a base model that is a classifier itself
    how = {"num_labels": len(card["CLASSES"]), "ignore_mismatched_sizes": True}
    found["auto"] = probabilities(AutoPeftModelForSequenceClassification.from_pretrained(".", **how).eval(), texts)
    merged = card["model"].merge_and_unload()
    merged.save_pretrained(directory / "merged")
    card["plain"].save_pretrained(directory / "merged")
    again = AutoModelForSequenceClassification.from_pretrained(directory / "merged", attn_implementation="eager").eval()
    found["merged"] = probabilities(again, texts)
    answer = pipeline("text-classification", str(directory / "merged"), device="cpu")
    filled = {text["text"]: card["BEFORE"] + text["text"] + card["AFTER"] for text in texts}
    short = [text for text, whole in filled.items() if len(card["plain"](whole)["input_ids"]) <= card["MAX_LENGTH"]]
    asked = [filled[text] for text in short]
    found["pipeline"] = {text: said["label"] for text, said in zip(short, answer(asked), strict=True)}
    return found


results = {name: use(Path(name)) for name in sys.argv[1:]}
assert not any("lorastudy" in name for name in sys.modules)
print(json.dumps(results))
