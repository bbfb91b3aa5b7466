"""vLLM 0.33.0: its LoRA manager was run on a tiny Llama, and the slot buffers compared with PEFT 0.21.2."""

from __future__ import annotations

from ...runtimes import RAN
from .record import ANY, MISLOADS, REJECTS, TAKES, Scale, Server

VLLM = Server(
    RAN["vllm"],
    # "<folder> doesn't contain tensors"
    files={
        "adapter_model.safetensors": TAKES, "adapter_model.bin": TAKES, "adapter_model.pt": TAKES, ANY: REJECTS,
    },
    no_tensors=REJECTS,  # StopIteration
    newer_keys=TAKES,
    # "Missing required configuration fields: {...}"
    missing={"r": REJECTS, "lora_alpha": REJECTS, "target_modules": REJECTS, "peft_type": TAKES},
    r={"int": TAKES, "float": TAKES, ANY: REJECTS},  # "LoRA rank `r` must be a positive integer, got 0."
    lora_alpha={"int": TAKES, "float": TAKES, "fraction": TAKES, ANY: REJECTS},
    bias=REJECTS,  # "Adapter bias is not supported."
    saved_modules={"classifier": TAKES, "score": TAKES, ANY: REJECTS},
    odd_rank_pattern=REJECTS,  # "LoRA rank for `K` in `rank_pattern` must be a positive integer, got V."
    target_forms={ANY: TAKES},
    target_names={ANY: TAKES},
    methods={ANY: TAKES},
    no_factors=REJECTS,
    options={
        "use_dora": REJECTS,  # "vLLM does not yet support DoRA."
        "lora_magnitude_vector": REJECTS,
        "lora_bias": REJECTS,
        "alora_invocation_tokens": REJECTS,
        "layer_replication": REJECTS,
        "trainable_token_indices": REJECTS,
        "use_bdlora": REJECTS,
        "use_qalora": REJECTS,
        "init_lora_weights=pissa": REJECTS,
        "init_lora_weights=olora": REJECTS,
        "init_lora_weights=corda": REJECTS,
        "init_lora_weights=loftq": REJECTS,
        "init_lora_weights=lora_ga": MISLOADS,
    },
    scale=Scale("config", frozenset({"use_rslora", "alpha_pattern", "rank_pattern"})),
    ranks={ANY: TAKES},
    uneven_ranks=TAKES,
    over_limit=REJECTS,  # "LoRA rank 17 is greater than max_lora_rank 16."
    rank_flags=(1, 8, 16, 32, 64, 128, 256, 320, 512),
    modules={ANY: TAKES},
    fused={},
    partial_types=TAKES,
    keys={"plain": TAKES, "wrapped": MISLOADS, "other end": REJECTS},  # "<key> is unsupported LoRA weight"
    factors={"flat": REJECTS, "A alone": REJECTS, "B alone": REJECTS, "B alone in a fused group": MISLOADS},
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, "F64": TAKES},
    tensors={
        "magnitude": REJECTS, "trainable tokens": REJECTS, "bias": REJECTS, "bias of none": REJECTS, "norm": REJECTS,
        "norm in a layer": REJECTS, "embedding or head": REJECTS, "factor of another tool": REJECTS,
        "tensor of a layer": REJECTS, "other": REJECTS,
    },
    models={ANY: TAKES},
    # a name that is one of the model's, in another place, is dropped with a debug line only, as PEFT drops it
    places={"unknown module": REJECTS, "elsewhere": TAKES, "all elsewhere": MISLOADS, "beyond": TAKES},
    sizes={"larger out": REJECTS, "larger in": REJECTS},
    sources={
        "files": "ran; lora/lora_model.py: LoRAModel.from_local_checkpoint",
        "no_tensors": "ran",
        "newer_keys": "ran",
        "missing": "ran; lora/peft_helper.py: PEFTHelper.from_dict",
        "r": "ran",
        "lora_alpha": "ran",
        "bias": "ran; lora/peft_helper.py: PEFTHelper.validate_legal",
        "saved_modules": "ran; lora/peft_helper.py: PEFTHelper.validate_legal",
        "odd_rank_pattern": "ran",
        "target_forms": "ran",
        "target_names": "ran",
        "methods": "ran: peft_type is never read",
        "no_factors": "ran",
        "options": "ran; use_bdlora, use_qalora, corda, loftq, lora_ga: lora/peft_helper.py: PEFTHelper",
        "scale": "ran; lora/peft_helper.py: PEFTHelper",
        "ranks": "ran",
        "uneven_ranks": "ran",
        "over_limit": "ran",
        "rank_flags": "config/lora.py: MaxLoRARanks",
        "modules": "ran",
        "fused": "ran",
        "partial_types": "ran",
        "keys": "ran; lora/utils.py: parse_fine_tuned_lora_name",
        "factors": "ran: IndexError, TypeError, AssertionError; a half in a fused group is dropped",
        "dtypes": "ran",
        "tensors": "ran; lora/utils.py: parse_fine_tuned_lora_name",
        "models": "ran on architectures that it has LoRA for; the others wait for a table",
        "places": "ran; lora/lora_model.py: check_unexpected_modules",
        "sizes": "ran; smaller factors are padded with zeros",
    },
)  # fmt: skip
