"""The names under which a release looks for the tensors of an adapter, and the tensors that it does not find.

set_peft_model_state_dict (utils/save_and_load.py) maps the names of a file to those of the model, and the load that
follows is not strict: a tensor whose name is no other than the one that is looked for is ignored, in silence. Only a
tensor that is found meets a shape.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from ..adapter import Layer, are_few
from ..adapter.runtimes import PEFT, between, upto
from .layers import WRAPPERS
from .methods import LORAS
from .names import PREFIX
from .tasks import saved_whole

_USUAL = (".lora_A.weight", ".lora_B.weight")
_NAMED = r"\.lora_(?:embedding_)?[ABE]\.(?!weight$)[^.]+(?:\.weight)?$"
_FOREIGN_FACTOR = r"\.adapter\.linear_(?:in|out)\.weight$"
_FACTOR_END = r"magnitude_vector|B\.bias|(?:embedding_)?[ABE](?:\.(?!weight_)|$)"

_COPY = "modules_to_save"

Unread = dict[str, frozenset[str]]
"""Tensor → the releases that do not find it."""


class Lookup(NamedTuple):
    """The tensors that are not found, by what is wrong with their names."""

    foreign: Unread
    """Not below `base_model.model.`, or with a launcher's wrapper in between."""
    named: Unread
    """A factor with an adapter's name in it: 0.21 takes `.lora_A.default.weight`."""
    unending: Unread
    """LoRA's factors are modules with a `.weight`, an Embedding's and AdaLoRA's are bare."""
    mangled: Unread
    """`k.replace(suffix, …)` up to 0.17 hits every "weight" in a path, and `split("lora_")` every "lora_"; up to 0.14
    the names in modules_to_save are replaced wherever they occur."""
    stray: Unread
    """An AdaLoRA's lora_E in a LoRA."""
    others: Unread
    """Of LoRA in another way than PEFT's: torchtune's, Megatron's, quantised factors."""

    @property
    def unread(self) -> Unread:
        """All of them."""
        together: Unread = {}
        for unread in self:
            for key, ids in unread.items():
                together[key] = together.get(key, frozenset()) | ids
        return together


def look_up(method: str, config: dict[str, object], layers: Mapping[str, Layer], tensors: Iterable[str]) -> Lookup:
    """The tensors that releases do not find; of a method with a record those of layers, below another prefix."""
    factors = tuple((name, key) for layer in layers.values() for name, key in layer.factors.items())
    names, saved = tuple(tensors), tuple(saved_whole(config))
    known = _look_up if are_few(names) and are_few(saved) else _look_up.__wrapped__
    return known(method, saved, bool(layers), factors, names)


@lru_cache(16)
def _look_up(
    method: str, saved: tuple[str, ...], layered: bool, factors: tuple[tuple[str, str], ...], tensors: tuple[str, ...]
) -> Lookup:
    own = {key for _, key in factors}
    if method not in LORAS:
        below = "" if not layered else "base_model."  # of a prompt nothing is
        strays = [key for key in tensors if key not in own and (not key.startswith(below) or _is_wrapped(key))]
        foreign = dict.fromkeys((*(key for _, key in factors if not _is_below(key)), *strays), PEFT)
        return Lookup(foreign, {}, {}, dict(_replaced(saved, tensors)), {}, {})
    others = {key: PEFT for key in tensors if key not in own and _is_other(key, saved)}
    return Lookup(
        foreign={key: PEFT for key in tensors if key not in others and not _is_below(key)},
        named={key: upto("0.20") if ".default" in key else PEFT for _, key in factors if _is_named(key)},
        unending={
            key: PEFT for name, key in factors
            if key.endswith(".weight") is not (method == "LORA" and name in ("lora_A", "lora_B"))
            and not (method == "LORA" and name == "lora_E")
        },
        mangled={**dict(_replaced(saved, [key for key in tensors if key not in own])),
                 **dict(_mangled(saved, [key for _, key in factors]))},
        stray={key: PEFT for name, key in factors if name == "lora_E" and method == "LORA"},
        others=others,
    )  # fmt: skip


def _is_named(key: str) -> bool:
    """Whether an adapter's name stands behind that of a factor."""
    usual = key.endswith(_USUAL) and key.count(".lora_") == 1
    return not usual and re.search(_NAMED, key) is not None


def _is_below(key: str) -> bool:
    return key.startswith(PREFIX) and not _is_wrapped(key)


def _is_wrapped(key: str) -> bool:
    doubled = key.startswith((PREFIX + "module.", PREFIX + PREFIX))
    return doubled or any(f".{wrapper}" in key for wrapper in WRAPPERS)


def _mangled(saved: tuple[str, ...], factors: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for key in factors:
        path, _, end = key.removeprefix(PREFIX).rpartition(".lora_")
        if "lora_" in path or ("weight" in path and end.endswith("weight")):
            yield key, between("0.3", "0.17")
        elif any(name in path for name in saved):
            yield key, between("0.3", "0.14")


def _replaced(saved: tuple[str, ...], keys: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Tensors that get another name than their module's copy has: `layernorm` is in `layernorm_before.bias`, too. All
    that is there of a copy by its name in memory lies beside the tensor that is loaded.
    """
    for key in keys if saved else ():
        inside = f".{key}"
        own = next((f"{name}." for name in saved if f"{name}." in inside), None)  # as PEFT compares ends
        meant = inside.replace(own, f"{own}{_COPY}.", 1) if own else inside
        made = (inside.replace(name, f"{name}.{_COPY}") for name in saved if name in inside)
        if f".{_COPY}." not in inside and ".original_module." not in inside and any(name != meant for name in made):
            yield key, between("0.3", "0.14")


def _is_other(key: str, saved: tuple[str, ...]) -> bool:
    if any(f".{name}." in f".{key}" for name in saved):
        return False
    tail = key.rpartition(".lora_")[2] if ".lora_" in key else ""
    return (bool(tail) and not re.match(_FACTOR_END, tail)) or bool(re.search(_FOREIGN_FACTOR, key))
