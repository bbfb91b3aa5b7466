"""Rules about config values and what goes with them in the tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter import Adapter
from ..findings import ERROR, NOTE, WARNING, Finding, rule
from ..layers import Layer, module_of, pattern_value
from ..runtimes import PEFT, peft

CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that write the base weights when an adapter is loaded (LoraLayer.reset_lora_parameters)."""


@rule
def adalora_unsupported(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """PEFT 0.2 has no AdaLoRA; 0.3 and 0.4 fail where lora_dropout is 0 (lora_dropout_layer is not a Module)."""
    if adapter.peft_type == "ADALORA" and adapter.config:
        dropout = adapter.config.get("lora_dropout", 0)
        old = peft("0.2") - peft("0.3") if dropout else peft("0.2", "0.4")
        message = "PEFT 0.2 has no AdaLoRA" + ("" if dropout else ", and 0.3 and 0.4 need a lora_dropout above 0")
        causal = peft("0.3", "0.4") - old if adapter.config.get("task_type") == "CAUSAL_LM" else frozenset[str]()
        yield Finding("CD301", "adalora-unsupported", NOTE, message, (), ("peft_type",), old | causal)


@rule
def schedule(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """AdaLoRA's schedule is not one: PEFT 0.15 and newer raise while the config is read, though a loaded adapter
    never uses it (tuners/adalora/config.py: __post_init__).
    """
    config = adapter.config or {}
    if adapter.peft_type != "ADALORA":
        return
    total, first, last = (config.get(key, 0) for key in ("total_step", "tinit", "tfinal"))
    numbers = all(isinstance(value, (int, float)) for value in (total, first, last))
    if total is None or not numbers or total <= 0 or first >= total - last:
        message = f"the schedule (total_step {total}, tinit {first}, tfinal {last}) is none that a newer PEFT accepts"
        keys = ("total_step", "tinit", "tfinal")
        yield Finding("CD302", "adalora-schedule", ERROR, message, (), keys, peft("0.15"))


@rule
def base_changing_init(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """init_lora_weights names a method that changes the base weights when the adapter is loaded.

    0.6 and older take any string as true and leave the base as it is; from 0.7 an unknown one raises.
    """
    init = (adapter.config or {}).get("init_lora_weights")
    if adapter.peft_type == "LORA" and isinstance(init, str) and init.lower().startswith(CHANGES_BASE):
        known = {"pissa": "0.10", "olora": "0.12", "lora_ga": "0.19"}
        first = next((release for name, release in known.items() if init.lower().startswith(name)), None)
        rejected = peft("0.7") - peft(first) if first else peft("0.7")
        message = f"init_lora_weights {init!r} changes the base weights at load, which PEFT 0.6 and older do not"
        yield Finding(
            "CD303", "base-changing-init", NOTE, message, (), ("init_lora_weights",), rejected, peft("0.2", "0.6")
        )


@rule
def unknown_init(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """init_lora_weights names a method that a release does not know: from 0.7 it raises, though it matters to none."""
    init = (adapter.config or {}).get("init_lora_weights")
    if adapter.peft_type != "LORA" or not isinstance(init, str) or init.lower().startswith(CHANGES_BASE):
        return
    known = {"gaussian": "0.2", "eva": "0.14", "orthogonal": "0.16"}
    first = known.get(init.lower())
    if first != "0.2":
        rejected = peft("0.7") - peft(first) if first else peft("0.7")
        message = f"init_lora_weights is {init!r}, which {'no' if first is None else 'not every'} PEFT release knows"
        yield Finding("CD305", "unknown-init", NOTE if first else ERROR, message, (), ("init_lora_weights",), rejected)


@rule
def null_value(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A config value is null where PEFT computes with it: TypeError or AttributeError while the model is built."""
    config = adapter.config or {}
    if adapter.peft_type == "LORA":
        null = {"r": PEFT, "lora_alpha": PEFT, "lora_dropout": PEFT, "rank_pattern": peft("0.6")}
    elif adapter.peft_type == "ADALORA":
        null = {"init_r": PEFT, "lora_alpha": PEFT, "lora_dropout": PEFT}
    else:
        return
    for key, rejected in {**null, "loftq_config": peft("0.7", "0.18")}.items():
        if key in config and config[key] is None:
            severity = NOTE if key == "loftq_config" else ERROR
            yield Finding("CD306", "null-value", severity, f"{key} is null", (), (key,), rejected)


@rule
def adalora_and_lora_options(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Options of LoRA that AdaLoRA refuses from 0.11 on, though it never uses them (AdaLoraConfig.__post_init__)."""
    config = adapter.config or {}
    if adapter.peft_type == "ADALORA":
        if config.get("use_dora"):
            message = "use_dora is set, which AdaLoRA does not have"
            yield Finding("CD307", "adalora-option", ERROR, message, (), ("use_dora",), peft("0.11"))
        if config.get("loftq_config"):
            message = "loftq_config is set, which AdaLoRA does not have"
            yield Finding("CD307", "adalora-option", NOTE, message, (), ("loftq_config",), peft("0.11", "0.13"))


@rule
def target_modules(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """target_modules matches no layer, or leaves out layers that have tensors: those are ignored in silence."""
    config = adapter.config or {}
    target = config.get("target_modules")
    if not layers or target is None or adapter.peft_type == "ADAPTION_PROMPT":  # it counts layers, see CD509
        return
    if isinstance(target, str) and target.lower() == "all-linear":
        message = "target_modules is all-linear, which PEFT 0.7 and older do not know"
        yield Finding("CD308", "all-linear", NOTE, message, (), ("target_modules",), peft("0.2", "0.7"))
        return
    if not any(targets(target, module) for module in layers):
        message = f"target_modules ({str(target)[:60]}) matches none of the layers in the file"
        yield Finding("CD309", "no-target", ERROR, message, (), ("target_modules",), PEFT)


def targets(target: object, module: str) -> bool:
    """Whether target_modules names a module (tuners/tuners_utils.py: check_target_module_exists)."""
    if isinstance(target, str):
        try:
            return re.fullmatch(target, module) is not None
        except re.error:
            return False
    return isinstance(target, list) and any(module == name or module.endswith(f".{name}") for name in target)


@rule
def bias_spelling(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Trained biases under the names of one side of PEFT 0.7 only: the other side ignores them in silence.

    0.7 and newer call the bias of an adapted module `.base_layer.bias`, older ones `.bias`.
    """
    bias = (adapter.config or {}).get("bias", "none")
    if bias not in ("all", "lora_only") or adapter.peft_type not in ("LORA", "ADALORA"):
        return
    named = {module_of(key) for key in adapter.tensors if key.endswith(".bias")}
    new = {module for module in layers if module + ".base_layer.bias" in named}
    old = {module for module in layers if module + ".bias" in named}
    missing = frozenset[str]()
    if not new and not old:
        if bias == "lora_only":
            missing = PEFT
    else:
        missing |= peft("0.2", "0.6") if new - old else frozenset()
        missing |= peft("0.7") if old - new else frozenset()
    if missing:
        keys = tuple(key for key in adapter.tensors if key.endswith(".bias"))
        lost = "no bias is in the file" if missing == PEFT else "the biases are named for one side of PEFT 0.7 only"
        severity = WARNING if missing == PEFT else NOTE
        yield Finding(
            "CD304", "bias-spelling", severity, f"bias is {bias!r} and {lost}", keys, ("bias",), misloaded_by=missing
        )


@rule
def not_judged(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """What this version does not judge yet of LoRA: convolutions, DoRA, lora_bias, ambiguous patterns."""
    config = adapter.config
    if config is None:
        return
    what = None
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return  # see rules/methods.py
    if config.get("use_dora") and adapter.peft_type == "LORA":
        what = "DoRA"
    elif config.get("lora_bias"):
        what = "lora_bias"
    elif any(len(adapter.tensors[key].shape) > 2 for layer in layers.values() for key in layer.factors.values()):
        what = "a convolution"
    elif adapter.peft_type == "LORA" and not _patterns_are_plain(config, layers):
        what = "a rank or alpha pattern that releases match differently"
    if what:
        message = f"{what} is not judged by this version"
        yield Finding("CD901", "not-judged", NOTE, message, undecided_for=PEFT, needs="a newer ckpt-doctor")


def _patterns_are_plain(config: dict[str, object], layers: dict[str, Layer]) -> bool:
    """Whether every release from 0.6 on matches the patterns alike: full module paths, one key set in both."""
    patterns = [p for p in (config.get("rank_pattern"), config.get("alpha_pattern")) if p]
    keys = [set(p) for p in patterns if isinstance(p, dict)]
    if len(keys) != len(patterns) or (len(keys) > 1 and keys[0] != keys[1]):
        return False
    return all(
        [module for module in layers if pattern_value({key: True}, module, False)] in ([], [key])
        for key in set().union(*keys)
    )
