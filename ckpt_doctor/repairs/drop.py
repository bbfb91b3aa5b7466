"""Layers left out that a server has no place for: no repair, as what is left computes something else."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from ..adapter import Adapter, codes
from ..adapter.findings import Finding, numbers
from ..facts.names import PREFIX, named
from ..facts.subject import Subject
from ..facts.targets import OUT_PROJ
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
    surely = {*keys}  # so that a plan that drops what is lost comes to an end
    gone = _outermost(modules(surely))
    tensors = {
        key: info for key, info in subject.tensors.items()
        if key not in surely and not _is_below(gone, key.removeprefix(PREFIX))
    }  # fmt: skip
    adapter = subject.adapter._replace(tensors=tensors)
    left = subject.changed(adapter)
    whole = [name for name in subject.saved_whole if any(f".{name}." in f".{key}" for key in left.others)]
    if whole != subject.saved_whole:
        adapter = with_config(adapter, modules_to_save=whole or None)
    target = subject.config.get("target_modules")
    if not isinstance(target, list):
        return adapter
    return with_config(adapter, target_modules=named(target, (module.removesuffix(OUT_PROJ) for module in left.layers)))


def _outermost(modules: Iterable[str]) -> list[str]:
    """Modules that lie in no other of them, sorted, each with a dot behind."""
    found: list[str] = []
    for module in sorted(f"{module}." for module in modules):
        if not (found and module.startswith(found[-1])):
            found.append(module)
    return found


def _is_below(outer: list[str], name: str) -> bool:
    """Whether a name begins with one of `_outermost`: that can only be the last which is no greater."""
    at = bisect_right(outer, name)
    return at > 0 and name.startswith(outer[at - 1])


def modules(keys: Iterable[str]) -> list[str]:
    """The modules that tensors are of, by the names that the model has for them."""
    bare = (key.removeprefix(PREFIX) for key in keys)
    stems = (key.partition(".lora_")[0] if ".lora_" in key else key.rpartition(".")[0] for key in bare)
    return list(dict.fromkeys(stems))
