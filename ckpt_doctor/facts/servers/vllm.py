"""vLLM 0.33.0: its LoRA manager was run on a tiny Llama, and the slot buffers compared with PEFT 0.21.2.

0.32.0, 0.11.0 and 0.8.5: their source was read, not run. 0.8 is the last in which V0 is what people ran, 0.11 the last
before LoRA on experts and without rank_pattern, 0.32 the last that looks up no names of a language model alone; what
lies between was not looked at.
"""

from __future__ import annotations

from ...adapter.runtimes import RAN
from .record import ANY, MISLOADS, REJECTS, TAKES, UNKNOWN, Scale, Server

WAY = frozenset({
    "heads", "base copies", "experts", "towers", "language names", "bare names", "inner embeddings", "inner packed",
    "any module", "shared modules", "one vocabulary", "backend", "pooling",
})  # fmt: skip
"""What the newest has of `Server.way`."""

VLLM = Server(
    RAN["vllm"],
    files={
        "adapter_model.safetensors": TAKES, "adapter_model.bin": TAKES, "adapter_model.pt": TAKES, ANY: REJECTS,
    },
    no_tensors=REJECTS,  # StopIteration
    newer_keys=TAKES,
    missing={"r": REJECTS, "lora_alpha": REJECTS, "target_modules": REJECTS, "peft_type": TAKES},
    r={"int": TAKES, "float": TAKES, ANY: REJECTS},
    lora_alpha={"int": TAKES, "float": TAKES, "fraction": TAKES, ANY: REJECTS},
    bias=REJECTS,
    saved_modules={"classifier": TAKES, "score": TAKES, ANY: REJECTS},
    odd_rank_pattern=REJECTS,
    target_forms={ANY: TAKES},
    target_names={ANY: TAKES},
    methods={ANY: TAKES},
    no_factors=REJECTS,
    options={
        "use_dora": REJECTS,
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
    over_limit=REJECTS,
    rank_flags=(1, 8, 16, 32, 64, 128, 256, 320, 512),
    modules={ANY: TAKES},
    fused={},
    partial_types=TAKES,
    keys={"plain": TAKES, "other end": REJECTS},  # of a wrapped name the class decides, where it has LoRA at all
    factors={"flat": REJECTS, "A alone": REJECTS, "B alone": REJECTS, "B alone in a fused group": MISLOADS},
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, "F64": TAKES, "F8_E4M3": TAKES},
    tensors={
        "magnitude": REJECTS, "trainable tokens": REJECTS, "bias": REJECTS, "bias of none": REJECTS, "norm": REJECTS,
        "norm in a layer": REJECTS, "embedding or head": REJECTS, "factor of another tool": REJECTS,
        "tensor of a layer": REJECTS, "other": REJECTS,
    },
    way=WAY,
    largest_vocabulary=258_048,
    says={
        "files": "<folder> doesn't contain tensors",
        "missing": "Missing required configuration fields: {...}",
        "r": "LoRA rank `r` must be a positive integer, got 0.",
        "bias": "Adapter bias is not supported.",
        "saved_modules": 'vLLM only supports modules_to_save being either None or ["classifier", "score"]',
        "odd_rank_pattern": "LoRA rank for `K` in `rank_pattern` must be a positive integer, got V.",
        "options": "vLLM does not (yet) support ...",
        "keys": "… is unsupported LoRA weight",
        "tensors": "… is unsupported LoRA weight",
    },
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
        "way": "ran",
        "largest_vocabulary": "lora/layers/logits_processor.py: LogitsProcessorWithLoRA.create_lora_weights",
    },
)  # fmt: skip

VLLM_0_32_0 = VLLM._replace(
    id="vllm==0.32.0",
    way=WAY - {"language names", "heads", "backend", "pooling"},
    sources={
        **{field: f"read: equal to {VLLM.id}, of which: {source}" for field, source in VLLM.sources.items()},
        "way": "lora/model_manager.py: LoRAModelManager._get_lora_layer_weights; what classifies or embeds (which "
        "heads it takes whole hangs on score_type) and models/transformers, which are otherwise, were not looked at",
    },
)

VLLM_0_11_0 = Server(
    "vllm==0.11.0",
    # of a .bin the config's target_modules are held against the class, and not the tensors
    files={"adapter_model.safetensors": TAKES, "adapter_model.bin": UNKNOWN, "adapter_model.pt": UNKNOWN, ANY: REJECTS},
    no_tensors=MISLOADS,  # nothing is found for any module, and the base is served
    newer_keys=TAKES,
    missing={"r": REJECTS, "lora_alpha": REJECTS, "target_modules": REJECTS, "peft_type": TAKES},
    r={"int": TAKES, "float": TAKES},
    lora_alpha={"int": TAKES, "float": TAKES, "fraction": TAKES, "text": REJECTS, "null": REJECTS},
    bias=REJECTS,
    saved_modules={ANY: REJECTS},
    odd_rank_pattern=TAKES,
    target_forms={ANY: TAKES},
    target_names={ANY: TAKES},
    methods={ANY: TAKES},
    no_factors=REJECTS,
    options={
        "use_dora": REJECTS,
        "lora_magnitude_vector": REJECTS,
        "lora_bias": REJECTS,  # "Adapter bias cannot be used for ... without --enable-lora-bias"
        "alora_invocation_tokens": MISLOADS,
        "layer_replication": MISLOADS,
        "trainable_token_indices": REJECTS,
        "init_lora_weights=pissa": MISLOADS,
        "init_lora_weights=olora": MISLOADS,
        "init_lora_weights=corda": MISLOADS,
        "init_lora_weights=loftq": MISLOADS,
        "init_lora_weights=lora_ga": MISLOADS,
    },
    scale=Scale("config", frozenset({"use_rslora"})),
    ranks={ANY: TAKES},
    uneven_ranks=TAKES,
    over_limit=REJECTS,
    rank_flags=(8, 16, 32, 64, 128, 256, 320, 512),
    modules={ANY: TAKES},
    fused={},
    partial_types=TAKES,
    keys={"plain": TAKES, "other end": REJECTS},
    factors={"flat": REJECTS, "B alone": REJECTS, "B alone in a fused group": MISLOADS},
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, "F64": TAKES, "F8_E4M3": TAKES},
    tensors={
        "magnitude": REJECTS, "trainable tokens": REJECTS, "bias": REJECTS, "bias of none": REJECTS, "norm": REJECTS,
        "norm in a layer": REJECTS, "embedding or head": REJECTS, "factor of another tool": REJECTS,
        "tensor of a layer": REJECTS, "other": REJECTS,
    },
    way=frozenset({"bare names", "inner embeddings", "inner packed"}),
    largest_vocabulary=257_024 - 256,  # of which lora_extra_vocab_size are for added tokens
    says={
        **{field: words for field, words in VLLM.says.items() if field not in ("r", "odd_rank_pattern")},
        "bias": "Adapter bias cannot be used without bias_enabled.",
        "saved_modules": "vLLM only supports modules_to_save being None.",
    },
    sources={
        "files": "lora/models.py: LoRAModel.from_local_checkpoint",
        "no_tensors": "lora/models.py: LoRAModel.from_lora_tensors, LoRAModelManager.activate_adapter",
        "newer_keys": "lora/peft_helper.py: PEFTHelper.from_dict",
        "missing": "lora/peft_helper.py: PEFTHelper.from_dict",
        "r": "lora/peft_helper.py: PEFTHelper.__post_init__",
        "lora_alpha": "lora/peft_helper.py: PEFTHelper.__post_init__",
        "bias": "lora/peft_helper.py: PEFTHelper.validate_legal; --enable-lora-bias was not looked at",
        "saved_modules": "lora/peft_helper.py: PEFTHelper._validate_features",
        "odd_rank_pattern": "lora/peft_helper.py: PEFTHelper has no such field",
        "target_forms": "lora/models.py: LoRAModel.from_local_checkpoint goes by the tensors of a safetensors file",
        "target_names": "lora/models.py: LoRAModel.from_local_checkpoint goes by the tensors of a safetensors file",
        "methods": "lora/peft_helper.py: PEFTHelper has no such field",
        "no_factors": "lora/utils.py: parse_fine_tuned_lora_name; of a bias check_unexpected_modules",
        "options": "lora/peft_helper.py: PEFTHelper has but use_dora; lora/models.py: activate_adapter",
        "scale": "lora/peft_helper.py: PEFTHelper.__post_init__, lora/lora_weights.py: LoRALayerWeights.optimize",
        "ranks": "lora/layers/base_linear.py: BaseLinearLayerWithLoRA.set_lora",
        "uneven_ranks": "lora/layers/base_linear.py: BaseLinearLayerWithLoRA.set_lora",
        "over_limit": "lora/peft_helper.py: PEFTHelper.validate_legal; of rank_pattern the buffers are too small",
        "rank_flags": "config/lora.py: LoRAConfig.__post_init__",
        "modules": "lora/models.py: LoRAModel.from_local_checkpoint, by the model's class",
        "fused": "lora/lora_weights.py: PackedLoRALayerWeights.pack",
        "partial_types": "lora/models.py: LoRAModelManager.activate_adapter",
        "keys": "lora/utils.py: parse_fine_tuned_lora_name",
        "factors": "lora/layers/base_linear.py: BaseLinearLayerWithLoRA.set_lora; column_parallel_linear.py: "
        "MergedColumnParallelLinearWithLoRA.set_lora",
        "dtypes": "lora/models.py: LoRAModel.from_lora_tensors",
        "tensors": "lora/utils.py: parse_fine_tuned_lora_name; of a bias check_unexpected_modules",
        "way": "lora/models.py: LoRAModel, LoRAModelManager; lora/utils.py; model_executor/utils.py: "
        "get_packed_modules_mapping",
        "largest_vocabulary": "lora/layers/logits_processor.py: LogitsProcessorWithLoRA.create_lora_weights",
    },
)  # fmt: skip

VLLM_0_8_5 = VLLM_0_11_0._replace(
    id="vllm==0.8.5",
    files={"adapter_model.safetensors": TAKES, "adapter_model.bin": UNKNOWN, ANY: REJECTS},
    way=frozenset(),
    sources={
        **VLLM_0_11_0.sources,
        "scale": "lora/peft_helper.py: PEFTHelper.__post_init__, lora/lora.py: LoRALayerWeights.optimize",
        "ranks": "lora/layers.py: BaseLinearLayerWithLoRA.set_lora",
        "uneven_ranks": "lora/layers.py: BaseLinearLayerWithLoRA.set_lora",
        "rank_flags": "config.py: LoRAConfig.__post_init__",
        "fused": "lora/lora.py: PackedLoRALayerWeights.pack",
        "factors": "lora/layers.py: BaseLinearLayerWithLoRA.set_lora, MergedColumnParallelLinearWithLoRA.set_lora",
        "way": "lora/models.py: LoRAModel, LoRAModelManager; lora/utils.py: get_supported_lora_modules",
        "largest_vocabulary": "lora/layers.py: LogitsProcessorWithLoRA.create_lora_weights",
    },
)

OLDER = (VLLM_0_32_0, VLLM_0_11_0, VLLM_0_8_5)
