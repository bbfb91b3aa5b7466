"""TGI (text-generation-inference) at a7394ba: its source was read, not run."""

from __future__ import annotations

from ...adapter.runtimes import READ
from .record import ANY, MISLOADS, REJECTS, TAKES, Scale, Server

MAPPED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
UNPADDED = (8, *range(16, 129, 16))
"""Ranks that its kernels take as they are. Others are padded and the new rank is written to the config, by which the
kinds of modules that come later may be scaled."""

TGI = Server(
    READ["tgi"],
    files={"*.safetensors": TAKES},
    shards=TAKES,
    no_tensors=MISLOADS,
    missing={"r": TAKES, "lora_alpha": TAKES, "target_modules": TAKES},
    r={"int": TAKES, "float": TAKES, ANY: REJECTS},
    lora_alpha={"int": TAKES, "float": TAKES, "fraction": TAKES, ANY: REJECTS},
    bias=TAKES,
    saved_modules={ANY: TAKES},
    target_forms={ANY: TAKES},
    target_names={ANY: TAKES},
    methods={"LORA": TAKES, "ADALORA": MISLOADS, ANY: REJECTS},
    no_factors=MISLOADS,
    options={
        "lora_magnitude_vector": MISLOADS,
        "init_lora_weights=pissa": MISLOADS,
        "init_lora_weights=olora": MISLOADS,
        "init_lora_weights=corda": MISLOADS,
        "init_lora_weights=loftq": MISLOADS,
        "init_lora_weights=lora_ga": MISLOADS,
    },
    scale=Scale("config", frozenset({"use_rslora"})),
    ranks={str(rank): TAKES for rank in UNPADDED},
    modules={**dict.fromkeys(MAPPED, TAKES), ANY: MISLOADS},
    fused={},
    partial_types=MISLOADS,
    keys={"plain": TAKES, ANY: MISLOADS},
    factors={"flat": REJECTS, "A alone": MISLOADS, "B alone": MISLOADS, "B alone in a fused group": MISLOADS},
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, "F64": TAKES},
    tensors={
        "magnitude": TAKES, "trainable tokens": MISLOADS, "bias": MISLOADS, "bias of none": TAKES, "norm": MISLOADS,
        "norm in a layer": MISLOADS, "embedding or head": MISLOADS, "factor of another tool": MISLOADS,
    },
    models={"llama": TAKES},
    places={"all elsewhere": MISLOADS},
    sources={
        "files": "utils/hub.py: _adapter_weight_files_from_dir",
        "shards": "utils/adapter.py: load_module_map",
        "no_tensors": "adapters/lora.py: LoraConfig.map_weights_for_model",
        "missing": "adapters/lora.py: LoraConfig.load, by PEFT's own defaults",
        "r": "adapters/lora.py: get_scaling_factor",
        "lora_alpha": "adapters/lora.py: get_scaling_factor",
        "bias": "adapters/lora.py: LoraConfig.load does not read it",
        "saved_modules": "adapters/lora.py: LoraConfig.load does not read it",
        "target_forms": "adapters/lora.py: LoraConfig.map_weights_for_model goes by the tensors",
        "target_names": "adapters/lora.py: LoraConfig.map_weights_for_model goes by the tensors",
        "methods": "adapters/lora.py: LoraConfig.load reads what other methods' configs have not; lora_E is dropped",
        "no_factors": "adapters/lora.py: LoraConfig.map_weights_for_model",
        "options": "adapters/lora.py: LoraConfig.load does not read them, and what is no factor is dropped",
        "scale": "adapters/lora.py: get_scaling_factor",
        "ranks": "adapters/lora.py: LoraWeights.prepare_weights, punica_sgmv.pad_rank",
        "modules": "utils/adapter.py: get_attn_weights, get_mlp_weights, build_layer_weight_lookup",
        "fused": "adapters/lora.py: LoraWeights.prepare_weights, by one kind of module",
        "partial_types": "adapters/lora.py: LoraWeights.prepare_weights returns None",
        "keys": "adapters/lora.py: LoraConfig.map_weights_for_model",
        "factors": "adapters/lora.py: LoraConfig.map_weights_for_model, LoraWeights.prepare_weights",
        "dtypes": "adapters/lora.py: LoraWeights.prepare_weights",
        "tensors": "adapters/lora.py: LoraConfig.map_weights_for_model drops them, PEFT some of them as well",
        "models": "utils/adapter.py: build_layer_weight_lookup, as a Llama has it",
        "places": "adapters/lora.py: LoraConfig.map_weights_for_model",
    },
)  # fmt: skip
