"""Rules about the names of tensors: prefixes, adapter names, and factors that are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter import Adapter
from ..findings import ERROR, WARNING, Finding, rule
from ..layers import Layer
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
        if not key.startswith(PREFIX) or "._orig_mod." in key or key.startswith((PREFIX + "module.", PREFIX + PREFIX))
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
    wrong = [module for module, layer in layers.items() if set(layer.factors) not in whole]
    if wrong:
        keys = tuple(key for module in wrong for key in layers[module].factors.values())
        message = f"{len(wrong)} layers lack a factor ({wrong[0]}): it stays as it was initialised"
        yield Finding("CD403", "missing-factor", ERROR, message, keys, misloaded_by=PEFT)
