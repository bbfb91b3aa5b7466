"""torchtune's own names of a LoRA, which it writes as adapter_model.pt or adapter_N.pt, to PEFT.

Factors lie as in PEFT. Where torchtune turns the rotary pairs of q and k of a model that it loads, from halves to
neighbours, the rows of their B are turned as well, head by head, so that only a model that is named tells the order
(torchtune models/convert_weights.py: hf_to_tune, tune_to_peft_adapter_weights). Its own conversion turns the rows of
Qwen2, too, whose weights it loads unturned (models/qwen2/_convert_weights.py: qwen2_hf_to_tune), and never those of
DoRA's magnitudes.
"""

from __future__ import annotations

import re
from typing import Any

from ..adapter import Base, Joined, TensorInfo
from ..repairs.cuts import cut
from . import Converted, Foreign, Refused, Tool, Wants, lora

NAMES = {
    "attn.q_proj": "self_attn.q_proj", "attn.k_proj": "self_attn.k_proj", "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj", "mlp.w1": "mlp.gate_proj", "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}  # fmt: skip
"""torchtune's names in a layer, and transformers' (models/convert_weights.py: _FROM_HF)."""
PARTS = {"lora_a.weight": "lora_A", "lora_b.weight": "lora_B", "magnitude": "lora_magnitude_vector"}
TURNED = {"llama": True, "mistral": True, "gemma": True, "gemma2": True, "qwen2": False}
"""Type of a model → whether torchtune turns its rotary pairs (training/checkpointing/_checkpointer.py:
FullModelHFCheckpointer.load_checkpoint)."""
_KEY = re.compile(r"(?:layers\.([0-9]+)\.([a-z0-9_.]+)|output)\.(lora_a\.weight|lora_b\.weight|magnitude)")


def to_peft(foreign: Foreign) -> list[Converted]:
    """One adapter, for the model that is named. Raises Refused."""
    config = foreign.config
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise Refused("there is no adapter_config.json with r and lora_alpha beside it")
    base = foreign.base
    if base is None or not base.config:
        raise Wants(
            "--base MODEL", "the rows of q and k are in the order of torchtune's model: name the model with --base"
        )
    kind = base.config.get("model_type")
    if kind not in TURNED:
        raise Refused(f"what torchtune makes of a model of type {str(kind)[:40]} is not followed")
    modules: dict[str, dict[str, TensorInfo]] = {}
    for key, info in foreign.tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or (match[1] and match[2] not in NAMES):
            raise Refused(f"{key} has no counterpart")
        module = f"model.layers.{match[1]}.{NAMES[match[2]]}" if match[1] else _head(base)
        modules.setdefault(module, {})[PARTS[match[3]]] = info
    dora = any("lora_magnitude_vector" in parts for parts in modules.values())
    for module, parts in modules.items():
        if parts.keys() != {"lora_A", "lora_B", *(["lora_magnitude_vector"] if dora else [])}:
            raise Refused(f"{module} has not all of its factors")
        a, b = parts["lora_A"].shape, parts["lora_B"].shape
        if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
            raise Refused(f"{module} has factors {list(a)} and {list(b)}, and not of rank {rank}")
        if dora and parts["lora_magnitude_vector"].shape != (b[0],):
            raise Refused(f"{module} has a magnitude of another size than its output")
        if TURNED[kind] and module.endswith((".q_proj", ".k_proj")):
            heads = heads_of(
                base.config, "num_attention_heads" if module.endswith(".q_proj") else "num_key_value_heads"
            )
            for part in parts.keys() & {"lora_B", "lora_magnitude_vector"}:
                parts[part] = by_halves(parts[part], heads, module)
    others: dict[str, Any] = {"use_dora": True} if dora else {}
    if isinstance(config.get("base_model_name_or_path"), str):
        others["base_model_name_or_path"] = config["base_model_name_or_path"]
    return [lora(modules, r=rank, lora_alpha=alpha, **others)]


def _head(base: Base) -> str:
    """The name of the head. Raises Refused where it is tied, or not one of tokens."""
    classes = base.config.get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    if base.config.get("tie_word_embeddings") is not False or not first.endswith("ForCausalLM"):
        raise Refused("output has a counterpart only in a model whose head predicts tokens and is not tied")
    return "lm_head"


def heads_of(config: dict[str, object], key: str) -> int:
    heads = config.get(key, config.get("num_attention_heads"))
    if not isinstance(heads, int) or heads < 1:
        raise Refused(f"the model's config has no {key}")
    return heads


def by_halves(info: TensorInfo, heads: int, module: str) -> TensorInfo:
    """The rows of each head with those of even number first, then the others. Raises Refused."""
    rows = info.shape[0]
    if rows % (2 * heads):
        raise Refused(f"{module} has {rows} rows, which are not those of {heads} heads")
    size = rows // heads
    matrix = info if len(info.shape) == 2 else info._replace(shape=(rows, 1))
    halves = [range(head * size + half, (head + 1) * size, 2) for head in range(heads) for half in (0, 1)]
    parts = tuple(cut(matrix, rows_of_one) for rows_of_one in halves)
    return info._replace(source=Joined(parts, 0))


TOOL = Tool("torchtune", "adapter_config.json", "adapter_model.pt", to_peft)
