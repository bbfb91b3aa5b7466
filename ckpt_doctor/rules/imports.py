"""Rules about modules that a config makes a program import, which runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..adapter.codes import AUTO_MAPPING_IMPORT, CONFIG_IMPORTS_CODE, MEGATRON_CONFIG
from ..adapter.findings import Finding
from ..adapter.runtimes import between, since
from ..facts.subject import Subject
from .declared import rule

MEGATRON = "megatron.core"
"""What PEFT imports where megatron_core is absent (LoraConfig)."""

INSTALLED = ("transformers", "diffusers", "lerobot", "peft", "torch", "__main__")
"""Where models come from that PEFT's own list lets through (auto.py: get_default_import_allowlist), PEFT with what it
needs, and the program that runs anyway."""


@rule
def megatron(subject: Subject) -> Iterator[Finding]:
    """PEFT imports the module that megatron_core names, before it looks at a layer: 0.7 to 0.19 whatever it is
    (tuners/lora/model.py: _create_new_module), 0.20 and newer only `megatron.…` (tuners/lora/tp_layer.py:
    dispatch_megatron). Other releases and methods import nothing.

    Loaded in 0.5.0, 0.6.2, 0.7.1, 0.8.2, 0.12.0, 0.13.2, 0.15.2, 0.18.1, 0.19.1, 0.20.0 and 0.21.2 with a module that
    leaves a mark: from 0.7.1 to 0.19.1 it ran, after which 0.7.1 loads the adapter and the others do so if the module
    has a `tensor_parallel`. What it changes on the way nothing tells, so those count as computing something else; where
    there is no such module they raise ModuleNotFoundError. 0.20 and 0.21 raise ValueError. What is no name of a module
    is an exception in all of them, and so is megatron_config beside use_dora. `megatron.core` itself is what Megatron's
    users have; elsewhere it is a ModuleNotFoundError. A loaded adapter computes the same without these keys.
    """
    config = subject.config
    if subject.method != "LORA" or not config.get("megatron_config"):
        return
    core, keys, reading = config.get("megatron_core", MEGATRON), ("megatron_config", "megatron_core"), since("0.7")
    if config.get("use_dora"):
        message = "megatron_config is set beside use_dora, which PEFT 0.9 and newer refuses"
        yield MEGATRON_CONFIG(message, keys=keys, rejects=since("0.9"))
    elif not isinstance(core, str) or not core or core.startswith("."):
        message = f"megatron_config is set, and megatron_core is {json.dumps(core)[:60]}, which names no module"
        yield MEGATRON_CONFIG(message, keys=keys, rejects=reading)
    elif core == MEGATRON:
        message = "megatron_config is set, so PEFT imports megatron.core, and fails where Megatron is not installed"
        needs = "whether Megatron is installed where it is loaded"
        yield MEGATRON_CONFIG(message, keys=keys, undecided=reading, needs=needs)
    else:
        running = reading if core.startswith("megatron.") else between("0.7", "0.19")
        message = f"megatron_config makes PEFT import megatron_core, {json.dumps(core)[:60]}, and so run code"
        yield CONFIG_IMPORTS_CODE(message, keys=keys, rejects=reading - running, misloads=running)


@rule
def prompt_from_elsewhere(subject: Subject) -> Iterator[Finding]:
    """A prompt that starts from a text asks for a tokenizer at load, and PEFT 0.7 passes it tokenizer_kwargs
    (tuners/prompt_tuning/model.py: PromptEmbedding), so that trust_remote_code runs what tokenizer_name_or_path holds:
    it ran in 0.7.1, not in 0.8.2, 0.9.0 and 0.13.2, which leave the text alone in inference mode. A multitask prompt
    starts from a file of the config's choice, which 0.6 to 0.12 unpickle; that was read, not run
    (tuners/multitask_prompt_tuning/model.py: MultitaskPromptEmbedding).
    """
    config = subject.config
    kwargs = config.get("tokenizer_kwargs")
    if isinstance(kwargs, dict) and kwargs.get("trust_remote_code") and config.get("tokenizer_name_or_path"):
        message = "tokenizer_kwargs has trust_remote_code, with which PEFT 0.7 runs code of tokenizer_name_or_path"
        keys = ("tokenizer_kwargs", "tokenizer_name_or_path")
        others = frozenset[str]() if config.get("inference_mode") is True else since("0.8")
        yield CONFIG_IMPORTS_CODE(
            message, keys=keys, misloads=between("0.7", "0.7"), undecided=others,
            needs="whether inference_mode is set" if others else None,
        )  # fmt: skip
    if config.get("prompt_tuning_init_state_dict_path"):
        message = "prompt_tuning_init_state_dict_path names a file that PEFT 0.6 to 0.12 unpickle"
        yield CONFIG_IMPORTS_CODE(
            message, keys=("prompt_tuning_init_state_dict_path",), undecided=between("0.6", "0.12"),
            needs="what that file holds",
        )  # fmt: skip


@rule
def auto_mapping(subject: Subject) -> Iterator[Finding]:
    """PEFT writes the module of the base model's class there (peft_model.py: save_pretrained). AutoPeftModel imports it
    (auto.py: _BaseAutoPeftModel.from_pretrained); PeftModel, which the verdicts are about, never does.
    """
    config = subject.config
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if isinstance(library, str) and config.get("task_type") is None and library.split(".")[0] not in INSTALLED:
        message = (
            f"AutoPeftModel of PEFT 0.4 to 0.19 imports auto_mapping's module {json.dumps(library)[:60]}, and so runs"
        )
        message += " it; PeftModel.from_pretrained does not"
        yield AUTO_MAPPING_IMPORT(message, keys=("auto_mapping",))
