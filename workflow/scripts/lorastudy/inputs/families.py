"""Which base models are computed exactly, read from a ``config.json`` alone: without torch, without weights.

Texts are packed end to end and each attends to itself alone. transformers builds no mask for that; whatever a family
would say by a mask, or by a state that runs along the row, would be lost without a word. So a family is admitted after
its packed logits were held to those of padded texts (``tests/engine/test_families.py``), and all others are refused.
"""

# Decoders whose attention says everything by its arguments: windows, caps of the scores, sinks.
EXACT = frozenset(
    {
        "arcee", "biogpt", "deepseek_v3", "diffllama", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2",
        "gpt_bigcode", "gpt_neox", "gpt_oss", "helium", "hunyuan_v1_dense", "jetmoe", "llama", "minicpm3", "ministral3",
        "mistral", "mixtral", "olmo", "olmo2", "olmo3", "persimmon", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe",
        "seed_oss", "smollm3", "starcoder2",
    }
)  # fmt: skip
# Decoders that say their window by the mask alone: exact where no text is longer than it.
EXACT_WITHIN_WINDOW = frozenset({"phimoe", "qwen2_moe"})
# Decoders that are a Llama's but for biases, norms of heads, windows and layers without positions (``engine.decoder``).
FUSED = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


AMPERE = (8, 0)  # compute capability from which NVIDIA's GPUs compute in bfloat16


def without_bfloat16(name, capability):
    """Why a GPU cannot compute in bfloat16; None if it can."""
    if capability >= AMPERE:
        return None
    return (
        f"config: `model.dtype` is bfloat16, and {name} (compute capability {capability[0]}.{capability[1]}) has no "
        "bfloat16; set `model.dtype: float32`, or take a GPU from Ampere on (8.0: A100, RTX 30, L4, H100)."
    )


def faults(config, called, max_length=None):
    """Why a base model cannot be fine-tuned here, one line a reason, none if it can.

    Args:
        config: dictionary of its ``config.json``.
        called: how the model is called in the lines, for instance "`model.name` 'a/b'".
        max_length: tokens of the longest text; None if it does not matter.
    """
    family = config.get("model_type")
    if family not in EXACT | EXACT_WITHIN_WINDOW:
        yield _unknown(config, called)
        return
    if method := quantization(config):
        yield (
            f"config: {called} is quantized already ({method}); take the model in 16 or 32 bits that it was made from: "
            "QLoRA cells quantize it themselves, and LoRA cells need it as it is."
        )
    if odd := set(config.get("layer_types") or ()) - LAYER_TYPES:
        yield f"config: {called} has layers of the type {', '.join(sorted(odd))}, which packed texts would mix; choose another."
    if config.get("use_bidirectional_attention"):
        yield f"config: {called} lets tokens see those after them (use_bidirectional_attention); choose a causal decoder."
    if max_length is not None:
        yield from _too_long(config, called, max_length)


def _unknown(config, called):
    family = config.get("model_type")
    if not family:
        return f"config: {called} has a config.json without `model_type`; put the model's own there."
    if isinstance(config.get("text_config"), dict):
        return (
            f"config: {called} is a {family}, which reads more than text; take a model of the text alone "
            f"({config['text_config'].get('model_type', 'its text_config')}), saved by itself."
        )
    return (
        f"config: {called} is a {family}, a family whose packed texts were not shown to give the results of single ones; "
        f"choose one of {', '.join(sorted(EXACT | EXACT_WITHIN_WINDOW))}."
    )


def _too_long(config, called, max_length):
    limit = positions(config)
    if limit is not None and max_length > limit:
        yield (
            f"config: `data.max_length` is {max_length} and {called} has {limit} positions (tokens that it was trained "
            f"to read at once); lower `data.max_length` to {limit} or choose a model of longer texts."
        )
    for rope in _ropes(config):
        short = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        if rope_type(rope) == "longrope" and short and limit and short < max_length <= limit:
            yield (
                f"config: `data.max_length` is {max_length}, and beyond {short} tokens {called} computes a text otherwise "
                f"when it is beside a longer one (longrope); lower `data.max_length` to {short}."
            )
            return
    window = config.get("sliding_window")
    if (
        config["model_type"] in EXACT_WITHIN_WINDOW
        and window is not None
        and config.get("use_sliding_window", True)
        and max_length > window
    ):
        yield (
            f"config: `data.max_length` is {max_length} and {called} sees {window} tokens at once (sliding_window), which "
            f"packed texts of this family cannot be told; lower `data.max_length` to {window}."
        )


def quantization(config):
    """How a model's weights are quantized; None if they are not."""
    block = config.get("quantization_config")
    if not block:
        return None
    return str(block.get("quant_method") or block.get("quant_algo") or "in an unnamed way")


def positions(config):
    """Tokens of the longest text that a model has positions for; None where its configuration does not say."""
    return config.get("max_position_embeddings") or config.get("n_positions")


def rope_type(rope):
    return rope.get("rope_type") or rope.get("type") or "default"


def _ropes(config):
    """The rotary embeddings' parameters: one dictionary, or one per layer type; under its older name too."""
    for block in (config.get("rope_parameters"), config.get("rope_scaling")):
        if block:
            yield from [part for part in block.values() if isinstance(part, dict)] or [block]
