"""Tensors → adapted layers: the rank inference. Parses leniently, so that one fault does not hide another."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import add
from typing import Any

from ..adapter import NUMBER, Adapter, Columns, Form, Layer, forms, numbered_alike
from .kinds import Kinds, reads_numbers
from .methods import record
from .names import PREFIX, are_few, pattern_value

_KEY = re.compile(r"(?P<module>.+?)\.(?P<factor>lora_(?:embedding_)?[ABE])(?:\.(?!weight)[^.]+)?(?:\.weight)?")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PREFIXES = (PREFIX, "module.")

RANK_AXIS = {"lora_A": 0, "lora_B": 1, "lora_E": 0, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""The axis of a factor that counts the rank: A `[r, in]`, B `[out, r]`, E `[r, 1]`, an embedding's A `[r, V]`."""


def module_of(key: str) -> str:
    """The name of the module within the base model: without PEFT's, torch's and the launchers' prefixes."""
    for wrapper in WRAPPERS:
        key = key.replace(wrapper, "")
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                key, stripped = key[len(prefix) :], True
    return key


def layers(adapter: Adapter) -> tuple[dict[str, Layer], Kinds]:
    """The adapted layers of an adapter, in the order of their tensors, by module; and their modules by kind."""
    known = record(adapter.peft_type)
    if known and known.tensors:
        from .method_layers import layers_of_method

        found = layers_of_method(adapter, known.name)
        return found, [[module] for module in found]
    tensors, config = adapter.tensors, adapter.config or {}
    shaped = forms(tensors)
    names = tuple(tensors)
    parts = _parted(names) if are_few(names) else _part(names)
    modules, heads, alike, alike_modules, places = parts
    kinds: Sequence[object] = alike
    if not (isinstance(tensors, Columns) and tensors.even):
        numbers: dict[object, int] = {}
        columns = [numbers.setdefault(form, len(numbers)) for form in shaped.values()]
        kinds = [(kind, *[columns[at] for at in here]) for kind, here in zip(alike, places, strict=True)]
    like = modules if config.get("alpha_pattern") else kinds  # layers of one rank, alpha and scale
    firsts = dict(zip(reversed(like), reversed(heads), strict=True))
    rests = {key: _layer(adapter, shaped, *head)[2:] for key, head in firsts.items()}
    # what Layer does, in a quarter of the time
    made = map(tuple.__new__, repeat(Layer), map(add, heads, map(rests.__getitem__, like)))
    found = dict(zip(modules, made, strict=True))
    if reads_numbers(config):
        return found, [[module] for module in modules]
    return found, alike_modules if kinds is alike else _grouped(modules, kinds)


def _grouped(modules: list[str], kinds: Sequence[object]) -> Kinds:
    members: dict[object, list[str]] = {}
    for module, kind in zip(modules, kinds, strict=True):
        members.setdefault(kind, []).append(module)
    return [*members.values()]


_Parts = tuple[list[str], list[tuple[str, dict[str, str]]], list[int], Kinds, list[list[int]]]
"""What the names of tensors tell of the layers: the module of each, beside it the keys of its factors; which of them
have names that differ in numbers only, and these together; and where the factors stand in the file."""


@lru_cache(8)
def _parted(names: tuple[str, ...]) -> _Parts:
    return _part(names)


def _part(names: Collection[str]) -> _Parts:
    """The layers that the names of tensors tell, in their order."""
    by_module: dict[str, tuple[dict[str, str], list[int], list[int]]] = {}
    patterns: dict[str, tuple[int, str, int, int]] = {}
    for at, (key, alike) in enumerate(zip(names, numbered_alike(names), strict=True)):
        pattern = patterns.get(alike)
        if pattern is None:
            pattern = patterns[alike] = (len(patterns), *_pattern(alike))
        number, factor, start, after = pattern
        if not factor:
            continue
        module = key[start:-after] if after else _module_in(key)
        layer = by_module.get(module)
        if layer is None:
            by_module[module] = {factor: key}, [number], [at]
        else:
            layer[0][factor] = key
            layer[1].append(number)
            layer[2].append(at)
    kinds: dict[tuple[int, ...], int] = {}
    numbered = [kinds.setdefault(tuple(numbers), len(kinds)) for _, numbers, _ in by_module.values()]
    heads = [(module, factors) for module, (factors, _, _) in by_module.items()]
    places = [places for _, _, places in by_module.values()]
    return [*by_module], heads, numbered, _grouped([*by_module], numbered), places


def _pattern(key: str) -> tuple[str, int, int]:
    """What tensors are whose names differ from a key in numbers only: which factor ("" for none), and how many
    characters are before the module and behind it, 0 where that is not the same.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return "", 0, 0
    end, module = match.end("module"), module_of(match["module"])
    tail = key[end:]
    if not key[:end].endswith(module) or NUMBER.search(tail):
        return match["factor"], 0, 0
    return match["factor"], end - len(module), len(tail)


def _module_in(key: str) -> str:
    match = _KEY.fullmatch(key)
    return module_of(match["module"] if match else key)


def _layer(adapter: Adapter, shaped: Mapping[str, Form], module: str, factors: dict[str, str]) -> Layer:
    config = adapter.config or {}
    ranks = set()
    for factor, key in factors.items():
        shape = shaped[key][1]
        ranks.add(shape[RANK_AXIS[factor]] if len(shape) >= 2 else None)
    rank = ranks.pop() if len(ranks) == 1 else None
    if ranks and groups_of(shaped, factors) > 1:
        rank = shaped[factors["lora_A"]][1][0]
    if adapter.peft_type == "ADALORA":
        alpha = number(config.get("lora_alpha", 8))
        init_r = number(config.get("init_r", 12))
        if alpha is None or init_r is None or rank is None:
            return Layer(module, factors, rank, alpha, None)
        # PEFT, tuners/adalora/layer.py: update_layer and forward (ranknum stays init_r after a load)
        return Layer(module, factors, rank, alpha, (alpha if alpha > 0 else float(rank)) / (init_r + 1e-5))
    alpha = number(pattern_value(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    if alpha is None or not rank:
        return Layer(module, factors, rank, alpha, None)
    return Layer(module, factors, rank, alpha, alpha / (rank**0.5 if config.get("use_rslora") is True else rank))


def groups_of(shaped: Mapping[str, Form], factors: dict[str, str]) -> int:
    """The groups of a convolution that the shapes of its factors tell: B is `[out, r / groups, 1, 1]` from PEFT 0.16 on
    (tuners/lora/layer.py: _ConvNd.update_layer), `[out, r, 1, 1]` before.
    """
    if factors.keys() != {"lora_A", "lora_B"}:
        return 1
    a, b = (shaped[factors[name]][1] for name in ("lora_A", "lora_B"))
    if not 2 < len(a) == len(b) or not b[1] or a[0] % b[1] or any(size != 1 for size in b[2:]):
        return 1
    return a[0] // b[1]


def pattern_module(key: str) -> str:
    """`blocks.0.up.lora_E` (or with an adapter's name behind it) of an AdaLoRA rank_pattern → `blocks.0.up`."""
    head, mark, _ = key.rpartition(".lora_E")
    return head if mark else key


def number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) else None  # true is 1, as in PEFT
    except OverflowError:  # beyond 1.8e308
        return None
