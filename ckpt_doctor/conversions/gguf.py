"""Adapters of llama.cpp (GGUF) to PEFT, where its names of tensors lead back to one name.

`NAME.weight.lora_a` `[r, in]` and `.lora_b` `[out, r]` are PEFT's A and B; the scale is alpha over the rank of the
tensor (llama.cpp src/llama-adapter.h: llama_adapter_lora_weight.get_scale). Of the architecture "llama" the rows of q
and k were turned when it was converted, from halves to neighbours, head by head (conversion/llama.py:
LlamaModel.permute).
"""

from __future__ import annotations

import re
from typing import Any

from ..adapter import TensorInfo
from . import Converted, Foreign, Refused, Tool, Wants, lora
from .torchtune import by_halves, heads_of

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""llama.cpp's names in a block, and transformers' (gguf-py gguf/tensor_mapping.py: TensorNameMap)."""
TYPES = {"llama": {"llama": True, "mistral": True}, "qwen2": {"qwen2": False}, "qwen3": {"qwen3": False}}
"""Architecture of llama.cpp → types of models that have these names, and whether it turns their q and k
(conversion/llama.py: LlamaModel; conversion/qwen.py: Qwen2Model, Qwen3Model). It has other classes under the same
architecture, whose layers are called otherwise in transformers (Qwen2-Audio, Voxtral)."""
_KEY = re.compile(r"(?:blk\.([0-9]+)\.([a-z_]+)|(output))\.weight\.(lora_[ab])")


def to_peft(foreign: Foreign) -> list[Converted]:
    """One adapter, for the model that is named. Raises Refused."""
    values = foreign.config
    architecture, alpha = values.get("general.architecture"), values.get("adapter.lora.alpha")
    if values.get("general.type") != "adapter" or values.get("adapter.type") != "lora":
        raise Refused("it is no LoRA of llama.cpp")
    if architecture not in TYPES:
        raise Refused(f"the names of {str(architecture)[:40]} are not followed")
    if not isinstance(alpha, float) or not 0 < alpha < 1e30:
        raise Refused("adapter.lora.alpha is no scale")
    if values.get("adapter.alora.invocation_tokens"):
        raise Refused("it is an activated LoRA, whose tokens llama.cpp keeps")
    config = foreign.base.config if foreign.base else {}
    if not config:
        raise Wants("--base MODEL", "its names, and the rows of q and k, are llama.cpp's: name the model with --base")
    kind = config.get("model_type")
    if kind not in TYPES[architecture]:
        raise Refused(f"what llama.cpp makes of a model of type {str(kind)[:40]} is not followed")
    modules: dict[str, dict[str, TensorInfo]] = {}
    for key, info in foreign.tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or (match[1] and match[2] not in NAMES):
            raise Refused(f"{key} has no counterpart")
        module = f"model.layers.{match[1]}.{NAMES[match[2]]}" if match[1] else "lm_head"
        modules.setdefault(module, {})["lora_A" if match[4] == "lora_a" else "lora_B"] = info
    if not modules:
        raise Refused("it holds no layer")
    ranks = {}
    for module, parts in modules.items():
        if parts.keys() != {"lora_A", "lora_B"} or any(len(info.shape) != 2 for info in parts.values()):
            raise Refused(f"{module} has not two factors of two dimensions")
        ranks[module] = parts["lora_A"].shape[0]
        if parts["lora_B"].shape[1] != ranks[module]:
            raise Refused(f"the factors of {module} do not agree on a rank")
        if TYPES[architecture][kind] and module.endswith((".q_proj", ".k_proj")):
            heads = heads_of(config, "num_attention_heads" if module.endswith(".q_proj") else "num_key_value_heads")
            parts["lora_B"] = by_halves(parts["lora_B"], heads, module)
    rank = max(ranks.values())
    # alpha is one number, so layers of another rank have another scale by themselves
    uneven = {module: other for module, other in ranks.items() if other != rank}
    more: dict[str, Any] = {"rank_pattern": uneven} if uneven else {}
    return [lora(modules, r=rank, lora_alpha=int(alpha) if alpha == int(alpha) else alpha, **more)]


TOOL = Tool("llama.cpp", "", "", to_peft)
