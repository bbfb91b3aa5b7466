"""Tensors → the layers of a method other than LoRA's, as its record says. Parses leniently, as `layers.py` does."""

import re

from ..adapter import Adapter, Layer
from .forms import RANKS, Group, fits, nearest, parse
from .layers import alpha_of, module_of, number
from .methods import record

_names: dict[str, tuple[set[str], set[str]]] = {}


def groups(method: str) -> tuple[Group, ...]:
    """The tensors of a layer of a method, parsed; none for LoRA's and for methods without layers."""
    known = record(method)
    return parse(known.tensors) if known else ()


def divide(method: str, key: str) -> tuple[str, str, str | None] | None:
    """A key of a method → module, factor, and an adapter's name where one stands in it.

    `m.lily_A.weight` → (m, lily_A.weight, None), `m.lily_A.default.weight` → (m, lily_A.weight, default).
    """
    if method not in _names:
        names = {re.sub(r"#\w+", "0", name) for group in groups(method) for way in group.ways for name in way}
        _names[method] = {name.partition(".")[0] for name in names}, names
    heads, names = _names[method]
    parts = key.split(".")
    for at in range(len(parts) - 1, 0, -1):
        if parts[at] in heads:
            tail = parts[at + 1 :]
            plain = ["0" if part.isdecimal() else part for part in tail]
            named = bool(tail) and ".".join([parts[at], *plain]) not in names
            named = named and ".".join([parts[at], *plain[1:]]) in names
            factor = ".".join([parts[at], *(tail[1:] if named else tail)])
            return ".".join(parts[:at]), factor, tail[0] if named else None
    return None


def layers_of_method(adapter: Adapter, method: str) -> dict[str, Layer]:
    """The layers of a method other than LoRA's."""
    by_module: dict[str, dict[str, str]] = {}
    for key in adapter.tensors:
        divided = divide(method, key)
        if divided:
            by_module.setdefault(module_of(divided[0]), {})[divided[1]] = key
    by_module.pop("base_model", None)  # what VeRA and others share between the layers, by the names of factors
    return {module: _other_layer(adapter, method, module, factors) for module, factors in by_module.items()}


def _other_layer(adapter: Adapter, method: str, module: str, factors: dict[str, str]) -> Layer:
    """A layer of a method other than LoRA's, read as its record says."""
    config = adapter.config or {}
    shapes = {factor: adapter.tensors[key].shape for factor, key in factors.items()}
    ranks: set[int | None] = set()
    for group in groups(method):
        for factor, (sizes, _) in nearest(group, shapes).items():
            if factor in shapes and fits(sizes, shapes[factor]):
                ranks.update(RANKS[size](n) for size, n in zip(sizes, shapes[factor], strict=False) if size in RANKS)
    rank = ranks.pop() if len(ranks) == 1 else None
    known = record(method)
    key, default, divisors = (known and known.scale) or ("", None, ())
    alpha = alpha_of(config, module, key, default) if key else None
    parts = [rank if part == "r" and rank else number(config.get(part, 0)) for part in divisors]
    below = sum(part for part in parts if part) if divisors else 1.0
    scaling = None if alpha is None or not below else alpha / below
    if method == "DEFT" and not alpha:  # PEFT 0.20, tuners/deft/layer.py: update_layer
        scaling = 1.0
    return Layer(module, factors, rank, alpha, scaling)
