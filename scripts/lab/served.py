"""Tiny models of architectures that people serve, as nets.py has those for PEFT. Runs in a server's environment."""

from __future__ import annotations

from typing import Any

from nets import DECODER, GEMMA, MIXED, TEXT, TOKENS, Net

LATER: dict[str, Any] = {**DECODER, "head_dim": 4, "rope_theta": 10000.0}
MOE = {"moe_intermediate_size": 12, "num_experts_per_tok": 2, "norm_topk_prob": True}
SEEN = {"image_token_id": 40, "video_token_id": 41, "vision_start_token_id": 42, "vision_end_token_id": 43}
TOWER = {"depth": 2, "hidden_size": 16, "num_heads": 4, "intermediate_size": 24, "out_hidden_size": 16, "patch_size": 4}
CLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8,
        "patch_size": 4, "model_type": "clip_vision_model", "projection_dim": 16}  # fmt: skip
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_ssm": 32, "mamba_n_groups": 1,
         "mamba_chunk_size": 8, "mamba_expand": 2}  # fmt: skip
ROPE = {"mrope_section": [2, 1, 1], "rope_type": "default", "type": "default", "rope_theta": 10000.0}
WIDE = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "rope_parameters": ROPE}
PHIMOE = {"rope_scaling": None, "num_local_experts": 3}
VISUAL = "ForConditionalGeneration"


def _text(name: str, **settings: Any) -> Net:
    """A language model by the name of its classes."""
    return Net(f"{name}Config", {**LATER, **settings}, f"{name}ForCausalLM")


NETS = {
    "llama": _text("Llama"), "llama-tied": _text("Llama", tie_word_embeddings=True), "qwen3": _text("Qwen3"),
    "gemma": _text("Gemma", **GEMMA), "gemma2": _text("Gemma2", **GEMMA),
    "gemma3-text": Net("Gemma3TextConfig", {**LATER, **GEMMA, "sliding_window_pattern": 2}, "Gemma3ForCausalLM"),
    "granite": _text("Granite"), "granitemoe": _text("GraniteMoe", **MIXED), "olmo": _text("Olmo"),
    "cohere": _text("Cohere", logit_scale=1.0), "starcoder2": _text("Starcoder2", use_bias=True),
    "nemotron": _text("Nemotron"), "falcon-h1": _text("FalconH1", **MAMBA), "ernie": _text("Ernie4_5"),
    "ernie-moe": _text("Ernie4_5_Moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=12, moe_layer_start_index=1),
    "seed-oss": _text("SeedOss"), "smollm3": _text("SmolLM3"), "glm": _text("Glm"), "glm4": _text("Glm4"),
    "phi": Net("PhiConfig", {**DECODER}, "PhiForCausalLM"), "phimoe": _text("Phimoe", **PHIMOE),
    "mixtral": _text("Mixtral", **MIXED), "qwen2moe": _text("Qwen2Moe", **MOE, num_experts=4, shared_expert_intermediate_size=12),
    "hunyuan": _text("HunYuanDenseV1"), "exaone4": _text("Exaone4", sliding_window=None, layer_types=["full_attention"] * 2), "apertus": _text("Apertus"),
    "arcee": _text("Arcee"), "helium": _text("Helium"), "lfm2": _text("Lfm2", full_attn_idxs=[1], block_ff_dim=24),
    "dots1": _text("Dots1", **MOE, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1),
    "gptneox": Net("GPTNeoXConfig", {**TEXT, "intermediate_size": 24, "rotary_pct": 0.5}, "GPTNeoXForCausalLM"),
    "opt": Net("OPTConfig", {**TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16}, "OPTForCausalLM"),
    "qwen25vl": Net("Qwen2_5_VLConfig", {
        **TOKENS, **SEEN, "text_config": {**LATER, **WIDE},
        "vision_config": {**TOWER, "fullatt_block_indexes": [1], "window_size": 8},
    }, f"Qwen2_5_VL{VISUAL}"),
    "qwen3vl": Net("Qwen3VLConfig", {
        **TOKENS, **SEEN, "text_config": {**LATER, **WIDE},
        "vision_config": {**TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    }, f"Qwen3VL{VISUAL}"),
    "llava": Net("LlavaConfig", {
        "text_config": {**LATER, "model_type": "llama"}, "vision_config": CLIP, "image_token_index": 40,
    }, f"Llava{VISUAL}"),
}  # fmt: skip
"""As nets.NETS; what an environment's transformers cannot build is left out there."""
