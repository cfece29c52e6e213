"""Every family of causal models that transformers can build, built small from its config, with random weights."""

from __future__ import annotations

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

V = 99
SIZES = {
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers num_blocks",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads num_key_value_heads",
    32: "hidden_size n_embd d_model embed_dim dim word_embed_proj_dim emb_dim embedding_size",
    64: "intermediate_size n_inner ffn_dim encoder_ffn_dim decoder_ffn_dim ffn_hidden_size moe_intermediate_size",
    128: "max_position_embeddings n_positions",
    8: "head_dim",
    V: "vocab_size",
}
SMALL = {name: size for size, names in SIZES.items() for name in names.split()}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_expand": 2}
INDEX = {"index_head_dim": 16, "index_n_heads": 4}
PER_LAYER = {"vocab_size_per_layer_input": V, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
DECODER = {"is_decoder": True}
# What a family wants besides, or other than, the sizes above. Where logits are scaled or capped, visibly so.
OWN = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 3.0},
    "gemma2": {"final_logit_softcapping": 0.05},
    "axk1": {**LATENT, **EXPERTS, "head_dim": None},
    "bailing_hybrid": {**LATENT, **LINEAR},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "big_bird": {**DECODER, "attention_type": "original_full"},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": {**LATENT, **EXPERTS, "head_dim": None},
    "deepseek_v3": {**LATENT, **EXPERTS, "head_dim": None},
    "deepseek_v32": {**LATENT, **EXPERTS, **INDEX},
    "dots1": {**EXPERTS, "n_shared_experts": 1, "moe_intermediate_size": 64},
    "dots3_note_text": {**LATENT, **EXPERTS, **INDEX, "layer_types": ["indexed_attention"] * 2},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64, "mamba_chunk_size": 8},
    "gemma3n_text": {**PER_LAYER, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma4_text": PER_LAYER,
    "glm_moe_dsa": {**LATENT, **EXPERTS, **INDEX},
    "falcon": {"head_dim": None},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**LATENT, **LINEAR, "num_experts": 8, "linear_num_heads": 4, "linear_head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {**LATENT, "head_dim": 8, "qk_head_dim": 16},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "chunk_size": 8},
    "prophetnet": {"num_hidden_layers": None},
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR,
    "qwen3_next": LINEAR,
    "qwen4_exp_text": LINEAR,
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [8, 24],
        "attn_layers": ["lsh"],
    },
    "xlm": {"causal": True},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "youtu": {**LATENT, "head_dim": None},
    **dict.fromkeys(
        (
            "bert bert-generation camembert data2vec-text electra ernie megatron-bert rembert roberta "
            "roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl"
        ).split(),
        DECODER,
    ),
}


def small_config(kind: type[PreTrainedConfig], **own) -> PreTrainedConfig:
    """A config with the sizes of `SMALL` where its family has such a setting, in its parts too."""
    usual, given = kind(), {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    for name, size in SMALL.items():
        try:
            value = getattr(usual, name)
        except Exception:  # some families refuse to name a size that varies from layer to layer
            continue
        if isinstance(value, (int, float)) or (value is None and name in ("head_dim", "num_key_value_heads")):
            given[name] = size
    for name in kind.sub_configs or {}:
        part = getattr(usual, name, None)
        if isinstance(part, PreTrainedConfig):
            given[name] = small_config(type(part), **OWN.get(part.model_type, {})).to_dict()
    given |= own
    return kind(**{k: v for k, v in given.items() if not (v is None and k in SMALL)})


def small_model(family: str, **own) -> PreTrainedModel:
    """The causal model of a family, as `AutoModelForCausalLM` calls it, for texts of the ids below 99."""
    kind = getattr(transformers, CLASSES[family])
    described = CONFIG_MAPPING[family]
    if described.sub_configs and isinstance(kind.config_class, type):  # only the text part of a larger model
        described = kind.config_class
    config = small_config(described, **{**OWN.get(described.model_type, {}), **own})
    with torch.device("meta"):
        size = sum(p.numel() for p in kind(config).parameters())
    if size > 20_000_000:
        raise ValueError(f"a small {family} has {size} parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()
