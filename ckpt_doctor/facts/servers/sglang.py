"""SGLang 0.5.23: its LoRAManager and memory pool were run on a tiny Llama, and the pool compared with PEFT 0.21.2."""

from __future__ import annotations

from ...adapter.runtimes import RAN
from .record import ANY, MISLOADS, REJECTS, TAKES, Scale, Server

KNOWN = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj",
    "embed_tokens", "lm_head",
)  # fmt: skip

SGLANG = Server(
    RAN["sglang"],
    files={"*.safetensors": TAKES, "*.bin": TAKES, "*.pt": TAKES, ANY: REJECTS},
    no_tensors=MISLOADS,
    newer_keys=TAKES,
    missing={"r": REJECTS, "lora_alpha": REJECTS, "target_modules": REJECTS, "peft_type": REJECTS},  # KeyError
    r={"int": TAKES, ANY: REJECTS},
    lora_alpha={"int": TAKES, "float": TAKES, "fraction": TAKES, ANY: REJECTS},
    bias=TAKES,
    saved_modules={ANY: TAKES},
    odd_rank_pattern=TAKES,
    target_forms={"list": TAKES, "all-linear": TAKES, ANY: REJECTS},
    target_names={**dict.fromkeys(KNOWN, TAKES), ANY: REJECTS},
    methods={"LORA": TAKES, ANY: REJECTS},
    no_factors=MISLOADS,
    options={
        "use_dora": REJECTS,
        "lora_magnitude_vector": REJECTS,
        "lora_bias": MISLOADS,
        "alora_invocation_tokens": MISLOADS,
        "layer_replication": REJECTS,
        "trainable_token_indices": MISLOADS,
        "init_lora_weights=pissa": MISLOADS,
        "init_lora_weights=olora": MISLOADS,
        "init_lora_weights=corda": MISLOADS,
        "init_lora_weights=loftq": MISLOADS,
        "init_lora_weights=lora_ga": MISLOADS,
        "target_parameters": REJECTS,
    },
    scale=Scale("config"),
    ranks={ANY: TAKES},
    uneven_ranks=REJECTS,
    over_limit=REJECTS,
    modules={ANY: TAKES},
    # v missing is a KeyError, q or gate missing "Cannot find target module name"
    fused={"q_proj": ("v_proj",), "k_proj": ("q_proj", "v_proj"), "v_proj": ("q_proj",), "up_proj": ("gate_proj",)},
    partial_types=TAKES,
    keys={"plain": TAKES, "other end": TAKES},
    factors={
        "flat": REJECTS, "A alone": REJECTS, "B alone": MISLOADS, "B alone in a fused group": MISLOADS,
        "no rows": REJECTS, "two ranks": REJECTS,
    },
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, "F64": TAKES, "F8_E4M3": TAKES},
    tensors={
        "magnitude": REJECTS, "trainable tokens": MISLOADS, "bias": MISLOADS, "bias of none": TAKES, "norm": MISLOADS,
        "norm in a layer": REJECTS, "embedding or head": MISLOADS, "factor of another tool": MISLOADS,
        "tensor of a layer": REJECTS,
    },
    says={
        "target_forms": "Only 'all' or 'all-linear' can be used as the string for target module",
        "target_names": "... is incompatible with the current LoRA memory pool configuration",
        "fused": "Cannot find target module name for ...",
    },
    sources={
        "files": "ran",
        "no_tensors": "ran",
        "newer_keys": "ran",
        "missing": "ran; srt/lora/lora_config.py: LoRAConfig",
        "r": "ran: division by zero, or TypeError when the batch is made",
        "lora_alpha": "ran",
        "bias": "ran: never read",
        "saved_modules": "ran: never read",
        "odd_rank_pattern": "ran: rank_pattern is never read",
        "target_forms": "ran; srt/lora/utils.py: get_normalized_target_modules",
        "target_names": "ran; srt/lora/utils.py: _KNOWN_LORA_TARGET_MODULES",
        "methods": "ran: an assertion without a message",
        "no_factors": "ran",
        "options": "ran; corda, loftq, lora_ga are never read, as pissa and olora are not",
        "scale": "ran; srt/lora/lora.py: LoRAAdapter",
        "ranks": "ran",
        "uneven_ranks": "ran: every tensor must have the config's r rows",
        "over_limit": "ran",
        "modules": "ran",
        "fused": "ran; srt/lora/lora.py: LoRAAdapter",
        "partial_types": "ran",
        "keys": "ran: the number of the layer and a part of the name are enough",
        "factors": "ran: AssertionError or IndexError when the batch is made; a lone lora_B is dropped",
        "dtypes": "ran",
        "tensors": "ran",
    },
)  # fmt: skip
