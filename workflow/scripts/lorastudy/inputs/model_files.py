"""What the files of a model directory tell without torch: whether one is missing, in the way, or has no language-model head."""

import json
from pathlib import Path

from lorastudy.study import records

# how checkpoints call the weights that turn hidden states into words
NO_LANGUAGE_HEAD = "the base model has no language-model head"
LANGUAGE_HEADS = ("lm_head.", "embed_out.", "output_projection.")


def incomplete(directory):
    """Why a directory is no base model, to be read after "a directory"; None if it is one.

    Args:
        directory: as ``save_pretrained`` writes it.
    """
    names = {path.name for path in Path(directory).iterdir()}
    for wanted, what in (("config.json", "configuration"), ("*.safetensors", "weights")):
        if not any(Path(directory).glob(wanted)):
            return (
                f"without {what} ({wanted}); put a model there as save_pretrained writes it (safetensors; pickled weights "
                "are not read)."
            )
    if fault := lacking(names):
        return fault
    for index in Path(directory).glob("*.safetensors.index.json"):
        parts = set(records.read_json(index)["weight_map"].values())
        if lost := sorted(parts - names):
            return f"without {lost[0]}: {len(lost)} of the {len(parts)} files of weights that {index.name} names are missing; add them."
    return None


def lacking(names):
    """The same, from the names of the files alone: is there a fast tokenizer, and nothing in the way?"""
    if "adapter_config.json" in names:
        return (
            "with an adapter beside the weights (adapter_config.json), which transformers would put on without a word; take "
            "the base model alone, or merge the adapter into it and save that."
        )
    if "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names:
        return None
    if "tokenizer.model" in names:
        return (
            "with a tokenizer.model and without tokenizer.json, the fast form that cutting texts needs; where sentencepiece "
            "and protobuf are installed, AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY) writes it."
        )
    return "without tokenizer (tokenizer.json); put it beside the weights as save_pretrained writes it."


def has_language_head(directory):
    """Whether a model directory has the weights that turn hidden states into words, so that it can be prompted.

    A bare decoder and a saved classifier have none, unless their words share the embedding's weights.
    """
    return turns_into_words(records.read_json(Path(directory) / "config.json"), tensor_names(directory))


def turns_into_words(config, names):
    """The same, from the dictionary of ``config.json`` and the names of the weights."""
    from transformers import AutoConfig

    # by the family's own default where the file does not say
    shared = AutoConfig.for_model(**config).get_text_config().tie_word_embeddings
    return bool(shared) or any(name.startswith(LANGUAGE_HEADS) for name in names)


def tensor_names(directory):
    """Names of all weights in a directory's safetensors files, from the files' headers."""
    names = set()
    for path in Path(directory).glob("*.safetensors"):
        with path.open("rb") as file:
            names |= set(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
    return names - {"__metadata__"}
