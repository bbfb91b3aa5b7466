"""LoKr: tuners/lokr."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt

from ...adapter.codes import CONVOLUTION, LOKR_DECOMPOSITION, SCALE_BY_RELEASE, SHAPE_MISMATCH
from ...adapter.runtimes import PEFT, between, since, upto
from ..config_keys import DROPOUT, INIT
from ..lycoris import (
    apart,
    conv1d_of_the_base,
    decomposed_unasked,
    has_scales,
    joint,
    may_be_conv1d,
    old_config,
    unscaled,
)
from ..names import Names, pattern_value
from ..record import Differs, Method, Row
from ..subject import Subject
from . import LARGEST_SIDE, REVIEWED


def rank(subject: Subject, module: str) -> int:
    """The rank that the config gives a layer; 0 for what is none."""
    r = pattern_value(subject.config.get("rank_pattern"), module, subject.config.get("r", 8))
    return r if type(r) is int and r > 0 else 0


def decomposed_otherwise(subject: Subject) -> Names:
    """Layers whose second matrix is whole, or in two, where r says otherwise."""
    misfits = []
    for module, layer in subject.layers.items():
        r, shapes = rank(subject, module), subject.shapes(layer)
        whole, first, second = shapes.get("lokr_w2"), shapes.get("lokr_w2_a"), shapes.get("lokr_w2_b")
        if r and whole and len(whole) >= 2 and r < max(whole[:2]) / 2:
            misfits.append(module)
        # of a convolution's flattened kernel only the output side shows
        flat = first and second and "lokr_t2" not in shapes and len(first) == len(second) == 2
        if r and not whole and flat and first and second and r >= max(first[0], second[1]) / 2:
            misfits.append(module)
    return misfits


def first_decomposed_otherwise(subject: Subject) -> Names:
    """Layers whose first matrix is whole, or in two, where decompose_both and r say otherwise."""
    both, misfits = subject.value("decompose_both"), []
    for module, layer in subject.layers.items():
        r, shapes = rank(subject, module), subject.shapes(layer)
        whole, first, second = shapes.get("lokr_w1", ()), shapes.get("lokr_w1_a", ()), shapes.get("lokr_w1_b", ())
        divides = bool(both) and r < max(whole or (*first[:1], *second[1:]), default=0) / 2
        if r and ((whole and divides) or (len(first) == len(second) == 2 and not divides)):
            misfits.append(module)
    return misfits


def factored_otherwise(subject: Subject) -> Names:
    """Layers of which a side is not the product that decompose_factor makes of it: the output's, and where the second
    matrix is whole the input's (in two, that of a convolution has the kernel in it).
    """
    factor, misfits = subject.value("decompose_factor"), []
    if type(factor) is not int:
        return []
    for module, layer in subject.layers.items():
        shapes = subject.shapes(layer)
        outer = shapes.get("lokr_w1") or shapes.get("lokr_w1_a")
        inner = shapes.get("lokr_w2") or shapes.get("lokr_w2_a")
        if outer and inner and len(outer) == 2 <= len(inner):
            sides = [(outer[0], inner[1 if "lokr_t2" in shapes else 0])]
            if "lokr_w2" in shapes:
                sides.append((shapes.get("lokr_w1_b", outer)[-1], inner[1]))
            if any(0 < one * two <= LARGEST_SIDE and one != split(one * two, factor) for one, two in sides):
                misfits.append(module)
    return misfits


@lru_cache
def split(size: int, factor: int) -> int:
    """The first of the two factors of a size: the one asked for, else the largest up to its root and to that one."""
    if factor > 0 and size % factor == 0:
        return factor
    limit = isqrt(size) if factor == -1 else min(isqrt(size), factor)
    return max((number for number in range(1, limit + 1) if size % number == 0), default=1)


def of_1d(subject: Subject) -> Names:
    """Layers whose kernel is that of a Conv1d, or that are one in the base model."""

    def flat(shapes: dict[str, tuple[int, ...]]) -> bool:
        kernel = shapes.get("lokr_t2", ())
        return (len(kernel) == 4 and kernel[3] == 1 < kernel[2]) or len(shapes.get("lokr_w2", ())) == 3

    return [*dict.fromkeys([*subject.having(lambda _, shapes: flat(shapes)), *conv1d_of_the_base(subject)])]


def sides(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Output and input of a linear layer: the products of those of both matrices, whole or in two."""
    matrices = []
    for name in ("lokr_w1", "lokr_w2"):
        whole = shapes.get(name) or (*shapes.get(f"{name}_a", ())[:1], *shapes.get(f"{name}_b", ())[1:])
        matrices.append(whole)
    (first, second) = matrices
    if "lokr_t2" in shapes or len(first) != 2 or len(second) != 2:
        return ()
    return first[0] * second[0], first[1] * second[1]


LOKR = Method(
    "LOKR", REVIEWED,
    tensors=(
        "lokr_w1[a b] | lokr_w1_a[a r] lokr_w1_b[r b]",
        "lokr_w2[c d ...] | lokr_w2_a[c r] lokr_w2_b[r d] | lokr_t2[r r k l] lokr_w2_a[r c] lokr_w2_b[r d]",
    ),
    sides=sides,
    scale=("alpha", 8, ("r",)),
    earlier=(upto("0.14"), old_config),
    nullable=("rank_dropout", "module_dropout"),
    words={"init_weights": ("lycoris",)},
    harmless={
        "init_weights": INIT, "module_dropout": DROPOUT, "rank_dropout": DROPOUT, "rank_dropout_scale": DROPOUT,
    },
    alike={
        "decompose_both": "decides on the first matrix, which is held against it (layer.py: LoKrLayer.update_layer)",
        "use_effective_conv2d": "of convolutions alone, whose kernels show it (layer.py: LoKrLayer.update_layer)",
    },
    ways_vary=True,
    rows=(
        Differs(
            SCALE_BY_RELEASE, {between("0.6", "0.13"): unscaled, between("0.14", "0.14"): joint, since("0.15"): apart},
            has_scales, "releases scale the layers by different numbers",
            "tuners/lokr/layer.py: LoKrLayer.get_delta_weight",
            ("alpha", "r", "alpha_pattern", "rank_pattern"),
        ),
        Row(
            LOKR_DECOMPOSITION, decomposed_otherwise,
            "r is not the one that decides on the matrices of {names}: they are ignored",
            "tuners/lokr/layer.py: LoKrLayer.update_layer", misloads=PEFT, keys=("r",),
        ),
        Row(
            LOKR_DECOMPOSITION, first_decomposed_otherwise,
            "decompose_both is not the one that decides on the matrices of {names}: they are ignored",
            "tuners/lokr/layer.py: LoKrLayer.update_layer", misloads=PEFT, keys=("decompose_both", "r"),
        ),
        Row(
            SHAPE_MISMATCH, factored_otherwise, "decompose_factor gives the matrices of {names} other sizes",
            "tuners/lokr/layer.py: factorization", rejects=PEFT, keys=("decompose_factor",),
        ),
        Row(
            CONVOLUTION, of_1d, "{names} is a Conv1d, which LoKr adapts from PEFT 0.18 on",
            "tuners/lycoris_utils.py: LycorisTuner._create_new_module", rejects=upto("0.17"),
        ),
        Row(
            CONVOLUTION, may_be_conv1d, "{names} may be a Conv1d, which LoKr adapts from PEFT 0.18 on",
            "tuners/lycoris_utils.py: LycorisTuner._create_new_module", undecided=upto("0.17"),
        ),
        Row(
            SHAPE_MISMATCH, decomposed_unasked, "{names} has a kernel of its own, without use_effective_conv2d",
            "tuners/lokr/layer.py: LoKrLayer.update_layer", rejects=PEFT, keys=("use_effective_conv2d",),
        ),
    ),
)  # fmt: skip
