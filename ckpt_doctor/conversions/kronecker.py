"""LoKr's factors in PEFT, whose sizes follow from the config (tuners/lokr/layer.py: LoKrLayer.update_layer)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..adapter import TensorInfo
from . import Converted, Refused
from .images import KERNELS, Layer, adapter

MOST = 1 << 20
"""The largest size of a weight that is looked at: what divides it is found by trying."""


class _Sizes(NamedTuple):
    """Of w1 and w2: rows and columns, without a kernel's; and whether each is one matrix, not the product of two."""

    w1: tuple[int, int]
    w2: tuple[int, int]
    whole1: bool
    whole2: bool


Factors = dict[str, TensorInfo]


def kronecker(part: str, modules: Mapping[str, Factors], alpha_of: Callable[[str, Factors, int], float]) -> Converted:
    """A LoKr of PEFT. Where both factors are whole, its scale is 1, whatever alpha says (lycoris modules/lokr.py).

    Raises Refused where no config makes factors of these sizes.
    """
    layers, sizes = {}, {}
    for module, factors in modules.items():
        if "dora_scale" in factors:
            raise Refused(f"{module} has a dora_scale, and PEFT's LoKr has none")
        sizes[module] = it = _sizes(module, factors)
        inner = [factors[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in factors]
        if len(set(inner)) > 1 or 0 in inner:
            raise Refused(f"the factors of {module} do not agree on a rank")
        rank = inner[0] if inner else max(it.w2)
        alpha = alpha_of(module, factors, rank) if inner else rank
        kept = {name: info for name, info in factors.items() if name not in ("alpha", "dora_scale")}
        layers[module] = Layer(kept, rank, alpha)
    both = any(not it.whole1 for it in sizes.values())
    candidates = [-1, *sorted({size for it in sizes.values() for size in it.w1})]
    for factor in candidates[:64]:
        if all(_makes(factor, both, layers[module].rank, it) for module, it in sizes.items()):
            sized = {"decompose_both": both, "decompose_factor": factor, "use_effective_conv2d": False}
            return adapter("LOKR", part, layers, **sized)
    raise Refused("no rank and decompose_factor of PEFT's LoKr give all layers factors of these sizes")


def weight_of(module: str, factors: Mapping[str, TensorInfo]) -> tuple[int, int]:
    """Rows and columns of the weight, without a kernel's. Raises Refused."""
    it = _sizes(module, factors)
    return it.w1[0] * it.w2[0], it.w1[1] * it.w2[1]


def _sizes(module: str, factors: Mapping[str, TensorInfo]) -> _Sizes:
    shapes = {name: info.shape for name, info in factors.items()}
    found: list[tuple[tuple[int, int], bool]] = []
    for name in ("lokr_w1", "lokr_w2"):
        whole, pair = shapes.get(name), (shapes.get(f"{name}_a"), shapes.get(f"{name}_b"))
        a, b = pair
        if whole is not None and pair == (None, None) and (len(whole) == 2 or (len(whole) == 4 and name == "lokr_w2")):
            found.append(((whole[0], whole[1]), True))
        elif whole is None and a is not None and b is not None and len(a) == len(b) == 2 and a[1] == b[0]:
            kernel = 9 if name == "lokr_w2" and module.rpartition(".")[2] in KERNELS else 1
            if b[1] % kernel:
                raise Refused(f"{module} has {list(b)}, and not the kernel of its layer")
            found.append(((a[0], b[1] // kernel), False))
        else:
            raise Refused(f"{module} has not the factors of a LoKr")
    (w1, whole1), (w2, whole2) = found
    if not all(0 < one * other <= MOST for one, other in zip(w1, w2, strict=True)):
        raise Refused(f"{module} has factors of {list(w1)} and {list(w2)}")
    return _Sizes(w1, w2, whole1, whole2)


def _makes(factor: int, both: bool, rank: int, it: _Sizes) -> bool:
    """Whether PEFT makes factors of these sizes."""
    rows, columns = (one * other for one, other in zip(it.w1, it.w2, strict=True))
    made = tuple(_divided(size, factor) for size in (rows, columns))
    if made != tuple(zip(it.w1, it.w2, strict=True)):
        return False
    return it.whole1 == (not (both and rank < max(it.w1) / 2)) and it.whole2 == (rank >= max(it.w2) / 2)


def _divided(size: int, factor: int) -> tuple[int, int]:
    """The two sizes whose product is the one (tuners/lokr/layer.py: factorization): the factor, or else the divisor
    nearest to the root that is not above it.
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    best = 1
    for divisor in range(2, int(size**0.5) + 1):
        if size % divisor == 0 and (factor < 0 or divisor <= factor):
            best = divisor
    return best, size // best
