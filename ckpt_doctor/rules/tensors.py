"""Rules about tensors: their names and types, and parts that are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter import Adapter
from ..findings import ERROR, NOTE, WARNING, Finding, rule
from ..layers import WRAPPERS, Layer
from ..runtimes import PEFT, peft

PREFIX = "base_model.model."
_NAMED = re.compile(r"\.lora_(?:embedding_)?[ABE]\.(?!weight$)[^.]+(?:\.weight)?$")
FACTORS = {
    "LORA": ({"lora_A", "lora_B"}, {"lora_embedding_A", "lora_embedding_B"}),
    "ADALORA": ({"lora_A", "lora_B", "lora_E"},),
}


def _factors(layers: dict[str, Layer]) -> list[str]:
    return [key for layer in layers.values() for key in layer.factors.values()]


@rule
def foreign_prefix(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Keys that PEFT does not look for are ignored in silence (a warning from 0.14): the adapter does nothing."""
    wrong = [
        key for key in _factors(layers)
        if not key.startswith(PREFIX) or key.startswith((PREFIX + "module.", PREFIX + PREFIX))
        or any(f".{wrapper}" in key for wrapper in WRAPPERS)
    ]  # fmt: skip
    if wrong:
        message = f"{len(wrong)} keys do not start as PEFT names them ({wrong[0]}): they are ignored in silence"
        yield Finding("CD401", "foreign-prefix", ERROR, message, tuple(wrong), misloaded_by=PEFT)


@rule
def adapter_name_in_key(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Keys with an adapter's name in them (`.lora_A.default.weight`): ignored in silence up to PEFT 0.20."""
    wrong = [key for key in _factors(layers) if _NAMED.search(key)]
    if wrong:
        message = f"{len(wrong)} keys have an adapter's name in them ({wrong[0]}): up to PEFT 0.20 they are ignored"
        severity = WARNING if all(".default" in key for key in wrong) else ERROR
        ids = peft("0.2", "0.20") if severity == WARNING else PEFT
        yield Finding("CD402", "adapter-name-in-key", severity, message, tuple(wrong), misloaded_by=ids)


@rule
def missing_factor(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """A layer without all of its factors: the missing ones stay as initialised, often at random."""
    whole = FACTORS.get(adapter.peft_type or "")
    if not whole:
        return
    stray = {"lora_E"} if adapter.peft_type == "LORA" else set()  # ignored
    wrong = [module for module, layer in layers.items() if set(layer.factors) - stray not in whole]
    if wrong:
        keys = tuple(key for module in wrong for key in layers[module].factors.values())
        message = f"{len(wrong)} layers lack a factor ({wrong[0]}): it stays as it was initialised"
        yield Finding("CD403", "missing-factor", ERROR, message, keys, misloaded_by=PEFT)


@rule
def weight_suffix(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """LoRA's factors are modules with a `.weight`, an Embedding's and AdaLoRA's are bare; others are ignored."""
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    wrong = [
        key for layer in layers.values() for name, key in layer.factors.items()
        if key.endswith(".weight") is not (adapter.peft_type == "LORA" and name in ("lora_A", "lora_B"))
    ]  # fmt: skip
    if wrong and not (adapter.peft_type == "LORA" and all(".lora_E" in key for key in wrong)):
        message = f"{len(wrong)} keys do not end as PEFT names them ({wrong[0]}): they are ignored in silence"
        yield Finding("CD407", "weight-suffix", ERROR, message, tuple(wrong), misloaded_by=PEFT)


@rule
def mangled_key(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Names in which older releases replace too much when they put the adapter's name into a key.

    `k.replace(suffix, …)` up to 0.17 hits every "weight" in a path, and `split("lora_")` every "lora_"; up to 0.14 the
    names in modules_to_save are replaced wherever they occur (utils/save_and_load.py: set_peft_model_state_dict). The
    tensors then match nothing, in silence.
    """
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    saved = (adapter.config or {}).get("modules_to_save")
    saved = [name for name in saved if isinstance(name, str)] if isinstance(saved, list) else []
    lost: dict[str, frozenset[str]] = {}
    for key in _factors(layers):
        path, _, end = key.removeprefix(PREFIX).rpartition(".lora_")
        if "lora_" in path or ("weight" in path and end.endswith("weight")):
            lost[key] = peft("0.3", "0.17")
        elif any(name in path for name in saved):
            lost[key] = peft("0.3", "0.14")
    if lost:
        message = f"older releases mangle {len(lost)} keys ({next(iter(lost))}), and then ignore them in silence"
        ids = frozenset[str]().union(*lost.values())
        yield Finding("CD405", "mangled-key", NOTE, message, tuple(lost), misloaded_by=ids)


@rule
def factor_dtype(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Factors that are not floating point become something else in silence (int8 becomes zero); what torch has no name
    for is undecided.
    """
    floats = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
    wrong = [key for key in _factors(layers) if adapter.tensors[key].dtype not in floats]
    if wrong and adapter.peft_type in ("LORA", "ADALORA"):  # others have indices, too
        dtypes = sorted({adapter.tensors[key].dtype for key in wrong})
        message = f"{len(wrong)} factors are {', '.join(dtypes)} ({wrong[0]}), which no release computes with"
        whole = all(dtype[0] in "IUB" for dtype in dtypes)
        yield Finding(
            "CD406", "factor-dtype", ERROR, message, tuple(wrong), misloaded_by=PEFT if whole else frozenset(),
            undecided_for=frozenset() if whole else PEFT, needs=None if whole else "a load in that release",
        )  # fmt: skip


@rule
def adapter_name(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """The name that the adapter is loaded under occurs in a key of AdaLoRA's rank_pattern.

    PEFT tests `adapter_name in name` as a substring and then takes one part more off the key
    (tuners/adalora/model.py: resize_modules_by_rank_pattern), so the module is not found.
    """
    pattern = (adapter.config or {}).get("rank_pattern")
    if adapter.peft_type != "ADALORA" or not isinstance(pattern, dict):
        return
    name = adapter.loaded_as
    wrong = [key for key in pattern if key.split(".")[: -2 if name in key else -1][-1:] != _module_end(key)]
    if wrong:
        message = f"loaded under the name {name!r}, {wrong[0]} of rank_pattern is taken for another module"
        yield Finding("CD106", "adapter-name", ERROR, message, (), ("rank_pattern",), peft("0.3"))


def _module_end(key: str) -> list[str]:
    return key.partition(".lora_E")[0].split(".")[-1:]
