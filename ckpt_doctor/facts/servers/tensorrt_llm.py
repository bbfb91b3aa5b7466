"""TensorRT-LLM at 007e181b, `lora_manager.py`: its source was read, not run."""

from __future__ import annotations

from ...adapter.runtimes import READ
from .record import ANY, MISLOADS, REJECTS, TAKES, UNKNOWN, Scale, Server

MAPPED = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3",
    "gate",
)  # fmt: skip
"""lora_manager.py: get_default_trtllm_modules_to_hf_modules."""

TENSORRT_LLM = Server(
    READ["tensorrt-llm"],
    # "adapter_model file does not exist in <folder>"
    files={"adapter_model.safetensors": TAKES, "adapter_model.bin": TAKES, ANY: REJECTS},
    newer_keys=TAKES,
    missing={"r": REJECTS, "lora_alpha": REJECTS, ANY: TAKES},  # KeyError
    r={"int": TAKES, "float": TAKES},
    lora_alpha={"int": TAKES, "float": TAKES, "fraction": TAKES, "text": TAKES, "null": REJECTS},
    bias=TAKES,
    saved_modules={"lm_head": UNKNOWN, "embed_tokens": UNKNOWN, ANY: TAKES},
    odd_rank_pattern=TAKES,
    target_forms={ANY: TAKES},
    target_names={ANY: TAKES},
    methods={ANY: TAKES},
    options={
        "lora_magnitude_vector": TAKES,
        "lora_bias": REJECTS,
        "alora_invocation_tokens": MISLOADS,
        "trainable_token_indices": MISLOADS,
        "init_lora_weights=pissa": MISLOADS,
        "init_lora_weights=olora": MISLOADS,
        "init_lora_weights=corda": MISLOADS,
        "init_lora_weights=loftq": MISLOADS,
        "init_lora_weights=lora_ga": MISLOADS,
    },
    scale=Scale("tensor", frozenset({"use_rslora"})),
    ranks={ANY: TAKES},
    uneven_ranks=TAKES,
    # "hf_module K is not in supported list"; a key of these two is skipped
    modules={**dict.fromkeys(MAPPED, TAKES), "lm_head": MISLOADS, "embed_tokens": MISLOADS, ANY: REJECTS},
    keys={"plain": TAKES, "no prefix": TAKES, "wrapped": TAKES, "other end": REJECTS},
    factors={"A alone": REJECTS, "B alone": REJECTS, "B alone in a fused group": REJECTS, "no rows": REJECTS},
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, "F64": TAKES},
    # "unsupported key K from HF LoRA weights"
    tensors={
        "magnitude": MISLOADS, "trainable tokens": MISLOADS, "bias": REJECTS, "bias of none": REJECTS, "norm": REJECTS,
        "norm in a layer": REJECTS, "factor of another tool": REJECTS, "tensor of a layer": REJECTS, "other": REJECTS,
    },
    models={"llama": TAKES},
    sources={
        "files": "models/convert_utils.py: get_model_path",
        "newer_keys": "lora_manager.py: LoraManager.load_from_hf reads single keys",
        "missing": "lora_manager.py: LoraManager.load_from_hf",
        "r": "lora_manager.py: LoraManager.load_from_hf",
        "lora_alpha": "lora_manager.py: LoraManager.load_from_hf",
        "bias": "lora_manager.py: LoraManager.load_from_hf does not read it",
        "saved_modules": "lora_manager.py: HfLoraLoader, which has an eye for those two",
        "odd_rank_pattern": "lora_manager.py: LoraManager.load_from_hf does not read it",
        "target_forms": "lora_manager.py: iterate_hf_lora goes by the tensors",
        "target_names": "lora_manager.py: iterate_hf_lora goes by the tensors",
        "methods": "lora_manager.py: LoraManager.load_from_hf does not read it",
        "options": "lora_manager.py: LoraManager.load_from_hf, HF_LORA_PATTERN",
        "scale": "lora_manager.py: LoraManager.load_from_hf",
        "ranks": "lora_manager.py: LoraManager.load_from_hf",
        "uneven_ranks": "lora_manager.py: LoraManager.load_from_hf",
        "modules": "lora_manager.py: iterate_hf_lora",
        "keys": "lora_manager.py: HF_LORA_PATTERN",
        "factors": "lora_manager.py: LoraManager.load_from_hf: KeyError, IndexError, division by zero",
        "dtypes": "lora_manager.py: LoraManager.load_from_hf",
        "tensors": "lora_manager.py: iterate_hf_lora; a magnitude is applied though use_dora is not set",
        "models": "lora_manager.py: LoraManager.load_from_hf, whose example is a Llama",
    },
)  # fmt: skip
