"""Tensors → adapted layers: the rank inference. Parses leniently, so that one fault does not hide another."""

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import cached_property, lru_cache
from itertools import repeat
from operator import add
from typing import Any, TypeGuard

from ..adapter import NUMBER, Adapter, Even, Form, Layer, Names, are_few, forms, numbered_alike
from .kinds import Kinds, reads_numbers
from .methods import record
from .names import PREFIX, pattern_value
from .patterns import TooCostly, once

# an adapter's name may stand behind the factor; a `.bias` there is lora_bias's own
_KEY = re.compile(r"(?P<module>.+?)\.(?P<factor>lora_(?:embedding_)?[ABE])(?:\.(?!weight|bias$)[^.]+)?(?:\.weight)?")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PREFIXES = (PREFIX, "module.")

RANK_AXIS = {"lora_A": 0, "lora_B": 1, "lora_E": 0, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""The axis of a factor that counts the rank: A `[r, in]`, B `[out, r]`, E `[r, 1]`, an embedding's A `[r, V]`."""

_Rest = tuple[int | None, float | None, float | None]
"""The rank, alpha and scale of a layer."""


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


class Layers(Mapping[str, Layer]):
    """The adapted layers of a file, by module; those that are not the first of a kind are made when one is asked for.

    `factors` are the keys of the factors by module, `kinds` the modules of one rank, alpha and scale, which are the
    `rests` of each kind.
    """

    def __init__(self, factors: dict[str, dict[str, str]], kinds: Kinds, rests: list[_Rest]) -> None:
        self._factors = factors
        self._kinds = kinds
        self._rests = rests
        self._firsts = {modules[0]: rest for modules, rest in zip(kinds, rests, strict=True)}

    @cached_property
    def _made(self) -> dict[str, Layer]:
        rests: dict[str, _Rest] = {}
        for modules, rest in zip(self._kinds, self._rests, strict=True):
            rests.update(dict.fromkeys(modules, rest))
        # what Layer does, in a quarter of the time
        every: Any = map(add, self._factors.items(), map(rests.__getitem__, self._factors))
        return dict(zip(self._factors, map(tuple.__new__, repeat(Layer), every), strict=False))

    def __getitem__(self, module: str) -> Layer:
        rest = self._firsts.get(module)
        return Layer(module, self._factors[module], *rest) if rest else self._made[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self._factors)

    def __len__(self) -> int:
        return len(self._factors)

    def __contains__(self, module: object) -> bool:
        return module in self._factors

    def keys(self) -> KeysView[str]:
        """The modules, in the order of the file."""
        return self._factors.keys()

    def values(self) -> ValuesView[Layer]:
        """The layers, in the order of the file."""
        return self._made.values()

    def items(self) -> ItemsView[str, Layer]:
        """The layers by module, in the order of the file."""
        return self._made.items()

    def __repr__(self) -> str:
        return repr(self._made)


def layers(adapter: Adapter) -> tuple[Mapping[str, Layer], Kinds]:
    """The adapted layers of an adapter, in the order of their tensors, by module; and their modules by kind."""
    known = record(adapter.peft_type)
    if known and known.tensors:
        from .method_layers import layers_of_method

        found = layers_of_method(adapter, known.name)
        return found, [[module] for module in found]
    tensors, config = adapter.tensors, adapter.config or {}
    shaped = forms(tensors)
    names = tensors.names if isinstance(tensors, Even) else tuple(tensors)
    few = names.few if isinstance(names, Names) else are_few(names)
    parts = _parted(names) if few else once(tensors, "parts", lambda: _part(names))
    factors, alike, kinds, places = parts
    if not isinstance(tensors, Even):
        numbers: dict[object, int] = {}
        columns = [numbers.setdefault(form, len(numbers)) for form in shaped.values()]
        formed = [(kind, *[columns[at] for at in here]) for kind, here in zip(alike, places, strict=True)]
        kinds = _grouped(factors, formed)
    each = [[module] for module in factors] if reads_numbers(config) else kinds
    scaled = each if config.get("alpha_pattern") else kinds
    rests = [_layer(adapter, shaped, modules[0], factors[modules[0]])[2:] for modules in scaled]
    return Layers(factors, scaled, rests), each


def _grouped(modules: Iterable[str], kinds: Sequence[object]) -> Kinds:
    members: dict[object, list[str]] = {}
    for module, kind in zip(modules, kinds, strict=True):
        members.setdefault(kind, []).append(module)
    return [*members.values()]


_Parts = tuple[dict[str, dict[str, str]], list[int], Kinds, list[list[int]]]
"""What the names of tensors tell of the layers: the keys of the factors of each, by module; which of them have names
that differ in numbers only, and these together; and where the factors stand in the file."""


@lru_cache(8)
def _parted(names: Names | tuple[str, ...]) -> _Parts:
    return _part(names)


def _part(names: Iterable[str]) -> _Parts:
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
    factors = {module: factors for module, (factors, _, _) in by_module.items()}
    places = [places for _, _, places in by_module.values()]
    return factors, numbered, _grouped(by_module, numbered), places


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
    alpha = alpha_of(config, module, "lora_alpha", 8)
    if alpha is None or not rank:
        return Layer(module, factors, rank, alpha, None)
    return Layer(module, factors, rank, alpha, alpha / (rank**0.5 if config.get("use_rslora") is True else rank))


def alpha_of(config: dict[str, object], module: str, key: str, default: Any) -> float | None:
    """The alpha of a layer, by its pattern or a key of the config; None where they do not tell it."""
    try:
        return number(pattern_value(config.get("alpha_pattern"), module, config.get(key, default)))
    except TooCostly:
        return None


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


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a config is a number, which true is not."""
    return type(value) in (int, float)


def number(value: object) -> float | None:
    """A value of a config as a number, true as 1; None where it is none, or too large for a float."""
    try:
        return float(value) if isinstance(value, (int, float)) else None  # true is 1, as in PEFT
    except OverflowError:  # beyond 1.8e308
        return None
