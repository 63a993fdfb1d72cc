"""Tiny random models of every family that packed texts are exact for, in the variants that differ in attention."""

WINDOW = 3
SHAPE = {
    "vocab_size": 260, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258,
}  # fmt: skip
ALTERNATING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
UPPER_LAYERS = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}
WIDE_HEADS = {"head_dim": 32}  # queries wider than the residual stream
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "qk_nope_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
GPT2 = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.1, "resid_pdrop": 0.1}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 16, "factor": 4.0,
}  # fmt: skip
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}  # fmt: skip
DUAL_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GEMMA2 = WIDE_HEADS | ALTERNATING | {"query_pre_attn_scalar": 16}

# name → model type, what its configuration has besides SHAPE
FAMILIES = {
    "Llama 3": ("llama", {}),
    "Llama 3.2, scaled rope": ("llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True} | WIDE_HEADS),
    "Llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "Mistral": ("mistral", {"sliding_window": None}),
    "Mistral, window": ("mistral", {"sliding_window": WINDOW}),
    "Qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen2, window": ("qwen2", UPPER_LAYERS),
    "Qwen3": ("qwen3", WIDE_HEADS),
    "Qwen3, window": ("qwen3", WIDE_HEADS | UPPER_LAYERS),
    "Gemma": ("gemma", WIDE_HEADS),
    "Gemma 2": ("gemma2", GEMMA2 | {"attn_logit_softcapping": 0.5}),
    "Gemma 2, no cap": ("gemma2", GEMMA2 | {"attn_logit_softcapping": None}),
    "Gemma 3": ("gemma3_text", GEMMA2 | {"rope_parameters": DUAL_ROPE}),
    "Phi-3": ("phi3", {}),
    "Phi-3, window": ("phi3", {"sliding_window": WINDOW}),
    "Phi-3.5, longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", ALTERNATING),
    "SmolLM3": ("smollm3", {"no_rope_layers": [1, 1, 1, 0]}),
    "SmolLM3, window": ("smollm3", {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True} | ALTERNATING),
    "Arcee": ("arcee", {}),
    "BioGPT": ("biogpt", {}),
    "DeepSeek V3": ("deepseek_v3", LATENT | EXPERTS | {"n_group": 2, "topk_group": 1, "n_routed_experts": 4, "first_k_dense_replace": 1}),
    "DiffLlama": ("diffllama", {}),
    "EXAONE 4": ("exaone4", ALTERNATING),
    "GLM": ("glm", WIDE_HEADS),
    "GLM 4": ("glm4", WIDE_HEADS),
    "GPT-2": ("gpt2", GPT2),
    "GPT BigCode": ("gpt_bigcode", GPT2),
    "GPT-NeoX": ("gpt_neox", {}),
    "gpt-oss": ("gpt_oss", WIDE_HEADS | {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Helium": ("helium", {"head_dim": 16}),
    "HunYuan": ("hunyuan_v1_dense", WIDE_HEADS),
    "JetMoE": ("jetmoe", {}),
    "MiniCPM3": ("minicpm3", LATENT),
    "Ministral 3": ("ministral3", {"sliding_window": WINDOW}),
    "Mixtral": ("mixtral", {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "OLMo": ("olmo", {}),
    "Persimmon": ("persimmon", {}),
    "Phi": ("phi", {}),
    "Phi-3.5 MoE": ("phimoe", {"num_local_experts": 4, "sliding_window": None}),
    "Qwen2 MoE": ("qwen2_moe", EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 32}),
    "Qwen3 MoE": ("qwen3_moe", WIDE_HEADS | EXPERTS | UPPER_LAYERS | {"num_experts": 4}),
    "Seed-OSS": ("seed_oss", WIDE_HEADS),
    "StarCoder2": ("starcoder2", {"sliding_window": WINDOW}),
}  # fmt: skip


def config_of(name, classes=5):
    """The transformers configuration of a row of ``FAMILIES``."""
    from transformers import AutoConfig

    family, more = FAMILIES[name]
    return AutoConfig.for_model(family, **(SHAPE | more), num_labels=classes)


def save(name, directory, seed=0, causal=False):
    """Write a classifier (or language model) of random weights, norms and biases among them, as a model directory."""
    import torch
    from lorastudy.inputs import base_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    model = kind.from_config(config_of(name), dtype=torch.float32)
    for parameter in model.parameters():  # else norms are all alike and biases zero
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    base_model.byte_tokenizer().save_pretrained(directory)
    return directory
