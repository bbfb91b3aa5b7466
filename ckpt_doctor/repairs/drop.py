"""Layers left out that a server has no place for: no repair, as what is left computes something else."""

from __future__ import annotations

from collections.abc import Iterable

from ..adapter import Adapter, codes
from ..adapter.findings import Finding, numbers
from ..facts.names import PREFIX
from ..facts.subject import Subject
from ..facts.targets import targeted
from . import with_config

OF_LAYERS = numbers(codes.SERVER_CLASS, codes.SERVER_NOT_IN_BASE)
"""What is found of layers that the model's class in a server does not serve, or not under this name."""
OF_TENSORS = numbers(codes.SERVER_TENSOR)


def lost(subject: Subject, findings: Iterable[Finding], asked: frozenset[str]) -> list[str]:
    """The tensors of layers and of modules saved whole that one of some servers rejects, or drops without a word."""
    whole = [f".{name}." for name in subject.saved_whole]
    found: dict[str, None] = {}
    for finding in findings:
        if not asked & (finding.rejected_by | finding.misloaded_by):
            continue
        if finding.code in OF_LAYERS:
            found.update(dict.fromkeys(finding.tensors))
        elif finding.code in OF_TENSORS:
            found.update(dict.fromkeys(key for key in finding.tensors if any(name in f".{key}" for name in whole)))
    return [key for key in found if key in subject.tensors]


def without(subject: Subject, keys: Iterable[str]) -> Adapter:
    """The adapter without the modules of some tensors, and without names in its config that nothing is left of."""
    lost = {*keys}  # which surely go, so that a plan that drops what is lost comes to an end
    gone = tuple(f"{module}." for module in modules(lost))
    tensors = {
        key: info for key, info in subject.tensors.items()
        if key not in lost and not key.removeprefix(PREFIX).startswith(gone)
    }  # fmt: skip
    adapter = subject.adapter._replace(tensors=tensors)
    whole = [name for name in subject.saved_whole if any(f".{name}." in f".{key}" for key in tensors)]
    if whole != subject.saved_whole:
        adapter = with_config(adapter, modules_to_save=whole or None)
    target = subject.config.get("target_modules")
    if not isinstance(target, list):
        return adapter
    left = subject.changed(adapter).layers
    kept = [name for name in target if any(targeted({"target_modules": [name]}, module, (0, 21)) for module in left)]
    return with_config(adapter, target_modules=kept)


def modules(keys: Iterable[str]) -> list[str]:
    """The modules that tensors are of, by the names that the model has for them."""
    bare = (key.removeprefix(PREFIX) for key in keys)
    stems = (key.partition(".lora_")[0] if ".lora_" in key else key.rpartition(".")[0] for key in bare)
    return list(dict.fromkeys(stems))
