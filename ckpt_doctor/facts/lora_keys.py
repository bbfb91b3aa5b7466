"""The config keys of LoRA and AdaLoRA: which the rules follow, which mean nothing to a loaded adapter, and their types.

Whatever a key says that is neither its default nor of these is unknown.
"""

from __future__ import annotations

from .config_keys import DROPOUT, INIT, LAYOUT

TRAINING = "read by the allocator and the loss alone, which training runs (tuners/adalora/model.py, layer.py)"
ORIGIN = "where the adapter comes from, or how it is run (config.py: PeftConfigMixin)"

HARMLESS = {
    "lora_dropout": DROPOUT, "fan_in_fan_out": LAYOUT, "auto_mapping": ORIGIN, "base_model_name_or_path": ORIGIN,
    "inference_mode": ORIGIN, "peft_version": ORIGIN, "revision": ORIGIN, "eva_config": INIT, "corda_config": INIT,
    "lora_ga_config": INIT, "loftq_config": INIT, "megatron_core": "read where megatron_config is set alone",
    "qalora_group_size": "read where use_qalora is set alone", "beta1": TRAINING, "beta2": TRAINING,
    "deltaT": TRAINING, "orth_reg_weight": TRAINING, "target_r": TRAINING, "tfinal": TRAINING, "tinit": TRAINING,
    "total_step": TRAINING,
}  # fmt: skip
"""Keys that no forward of a loaded adapter reads, with the reason; a rule says where a value of one stops a load."""

FOLLOWED = frozenset({
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "bias", "enable_lora", "ensure_weight_tying",
    "exclude_modules", "init_lora_weights", "init_r", "layer_replication", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_bias", "megatron_config", "merge_weights", "modules_to_save",
    "peft_type", "r", "rank_pattern", "target_modules", "target_parameters", "task_type", "trainable_token_indices",
    "use_bdlora", "use_dora", "use_qalora", "use_rslora",
})  # fmt: skip
"""Keys whose values rules follow to what a release makes of them."""

NUMBER = (int, float)
SCALAR = (*NUMBER, bool)
"""What is only computed with: true is 1, and false 0."""

KINDS: dict[str, tuple[type, ...]] = {
    "alora_invocation_tokens": (list,), "alpha_pattern": (dict,), "arrow_config": (dict,), "auto_mapping": (dict,),
    "base_model_name_or_path": (str,), "beta1": NUMBER, "beta2": NUMBER, "bias": (str,), "corda_config": (dict,),
    "deltaT": (int,), "eva_config": (dict,), "exclude_modules": (list, str), "init_lora_weights": (bool, str),
    "kasa_config": (dict,), "layer_replication": (list,), "layers_pattern": (list, str),
    "layers_to_transform": (list, int), "loftq_config": (dict,), "lora_alpha": SCALAR, "lora_dropout": SCALAR,
    "lora_ga_config": (dict,), "megatron_config": (dict,), "megatron_core": (str,), "modules_to_save": (list,),
    "monteclora_config": (dict,), "orth_reg_weight": SCALAR, "peft_type": (str,), "peft_version": (str,),
    "qalora_group_size": (int,), "r": (int,), "init_r": (int,), "target_r": (int,), "tfinal": (int,), "tinit": (int,),
    "total_step": (int,), "rank_pattern": (dict,), "revision": (str,), "runtime_config": (dict,),
    "target_modules": (list, str), "target_parameters": (list,), "task_type": (str,),
    "trainable_token_indices": (list, dict), "use_bdlora": (dict,), "velora_config": (dict,), "enable_lora": (list,),
}  # fmt: skip
"""The types of values, other than null where that is the default, and than flags, whose default is one."""

ITEMS: dict[str, tuple[type, ...]] = {
    "alora_invocation_tokens": (int,), "alpha_pattern": SCALAR, "exclude_modules": (str,), "layer_replication": (list,),
    "layers_pattern": (str,), "layers_to_transform": (int,), "modules_to_save": (str,), "target_modules": (str,),
    "target_parameters": (str,),
}  # fmt: skip
"""The types of what a list or an object holds."""

FIELDS = {"use_bdlora": {"match_strict", "nblocks", "target_modules_bd_a", "target_modules_bd_b"}}
"""What an object may hold (tuners/lora/config.py: BdLoraConfig)."""

UNREAD = {
    "ADALORA": {"r": "init_r is the rank of its layers (tuners/adalora/model.py: AdaLoraModel._create_and_replace)"}
}
"""Keys that a method has and no release reads, whatever they hold (loaded as a word and as null in 7 releases)."""
