"""OFT: tuners/oft, written anew twice: its files are of 0.7 – 0.13, of 0.14 – 0.15, or of 0.16 and newer."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

from ...adapter.codes import OFT_GENERATION, SHAPE_MISMATCH
from ...adapter.runtimes import PEFT, between, since, upto
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..forms import Config
from ..names import Names, pattern_value
from ..record import Differs, Method, Row
from ..subject import Subject
from . import LARGEST_SIDE, REVIEWED


def is_of_0_13(config: Config) -> bool:
    """The config is of the first generation: its r counts blocks, and has a pattern."""
    return "oft_block_size" not in config


def has_no_block_size(subject: Subject) -> bool:
    """The config is of the first generation."""
    return is_of_0_13(subject.config)


def factors(subject: Subject) -> set[str]:
    """The factors of all layers."""
    return {factor for layer in subject.layers.values() for factor in layer.factors}


def is_of_0_16(subject: Subject) -> bool:
    """The tensors are of 0.16 and newer: the free numbers of a skew-symmetric matrix."""
    return "oft_R.weight" in factors(subject)


def is_older(subject: Subject) -> bool:
    """The tensors are of 0.15 and older: whole blocks."""
    return not is_of_0_16(subject) and "oft_r" in factors(subject)


def is_of_0_14(subject: Subject) -> bool:
    """The tensors are of 0.14 and 0.15: whole blocks, and a scale."""
    return is_older(subject) and ("oft_s" in factors(subject) or not has_no_block_size(subject))


def has_a_long_series(subject: Subject) -> bool:
    """The rotation is a series that is cut off so late that releases do it in different places.

    Constrained to `eps`, the rotation is so small that the terms in question vanish.
    """
    config = subject.config
    series, terms, eps = (subject.value(key) for key in ("use_cayley_neumann", "num_cayley_neumann_terms", "eps"))
    tiny = config.get("coft") and isinstance(eps, float) and eps <= 0.01
    return bool(is_of_0_16(subject) and series and not tiny and not (type(terms) is int and terms <= 2))


def cut_otherwise(subject: Subject) -> Names:
    """Layers that are not cut into as many blocks, or into blocks of the size, that the config makes of their side."""
    return subject.having(lambda layer, shapes: _is_cut_so(subject, layer.module, shapes) is False)


def perhaps_cut_otherwise(subject: Subject) -> Names:
    """Layers with one block for all, of another size than the config says: it may not divide the side."""
    return subject.having(lambda layer, shapes: _is_cut_so(subject, layer.module, shapes) is None)


def _is_cut_so(subject: Subject, module: str, shapes: dict[str, tuple[int, ...]]) -> bool | None:
    """Whether the blocks are those of the config; None where the side of the layer would tell."""
    shape = shapes.get("oft_R.weight") or shapes.get("oft_r")
    if not shape or not shape[0]:
        return True  # other rules say so
    blocks, size = shape[0], _side_of_triangle(shape[-1]) if "oft_R.weight" in shapes else shape[-1]
    r, block_size, shared = subject.value("r"), subject.value("oft_block_size"), subject.value("block_share")
    if has_no_block_size(subject):
        wanted = pattern_value(subject.config.get("rank_pattern"), module, r)
        return bool(shared) or type(wanted) is not int or wanted in (0, blocks)
    if type(r) is not int or type(block_size) is not int:
        return True
    side: int | None = blocks * size
    if shared:
        weights = subject.base.weights if subject.base else {}
        inner = weights.get(module, ())[1:]
        side = inner[0] * (inner[1] ** 2 if len(inner) > 1 else 1) if inner else None
    if side is None:
        return True if block_size in (0, size) else None
    if not 0 < side <= LARGEST_SIDE:
        return True
    return size == (fitted(side, block_size) if block_size else side // fitted(side, r) if r else size)


def _side_of_triangle(elements: int) -> int:
    """The side of a skew-symmetric matrix of which so many elements are free; 0 where there is none."""
    side = (1 + isqrt(1 + 8 * elements)) // 2
    return side if side * (side - 1) // 2 == elements else 0


@lru_cache
def fitted(side: int, asked: int) -> int:
    """The divisor of a side that is taken for the one asked for: it, or the nearest, and of two the smaller one
    (tuners/oft/layer.py: OFTLayer.adjust_oft_parameters).
    """
    if asked >= side:
        return side
    small = [number for number in range(1, isqrt(side) + 1) if side % number == 0]
    return min((*small, *(side // number for number in small)), key=lambda number: (abs(number - asked), number))


BY_RELEASE = "OFT computes in other ways in older and newer releases, and reads other tensors"

OFT = Method(
    "OFT", REVIEWED,
    tensors=(
        "block_share=false: oft_r[* n n] oft_s[out 1]? | oft_R.weight[* tri(n)]",
        "block_share=true: oft_r[1 n n] oft_s[out 1]? | oft_R.weight[1 tri(n)]",
    ),
    patterned=is_of_0_13,
    nullable=("eps", "num_cayley_neumann_terms", "module_dropout"),
    words={"bias": ("all", "oft_only")},
    harmless={
        "fan_in_fan_out": LAYOUT, "init_weights": INIT, "module_dropout": DROPOUT,
        "alpha_pattern": "a rotation has no alpha (tuners/oft/model.py: OFTModel._create_and_replace)",
    },
    alike={
        "coft": "the same constraint within a generation (layer.py: OFTRotationModule._project_batch)",
        "eps": "the same constraint within a generation (layer.py: OFTRotationModule._project_batch)",
        "oft_block_size": "fitted to the side of a layer, as its blocks are (layer.py: OFTLayer.adjust_oft_parameters)",
    },
    one_of=(("r", "oft_block_size"),),
    rows=(
        Row(
            SHAPE_MISMATCH, cut_otherwise, "r and oft_block_size make other blocks of the side of {names}",
            "tuners/oft/layer.py: OFTLayer.update_layer", rejects=PEFT, keys=("r", "rank_pattern", "oft_block_size"),
        ),
        Row(
            SHAPE_MISMATCH, perhaps_cut_otherwise,
            "the block of {names} is of another size than oft_block_size, which may not divide its side",
            "tuners/oft/layer.py: OFTLayer.adjust_oft_parameters", undecided=PEFT, keys=("oft_block_size",),
        ),
        Row(
            OFT_GENERATION, has_no_block_size, BY_RELEASE, "tuners/oft/config.py: OFTConfig.check_kwargs",
            rejects=since("0.14"), keys=("oft_block_size",),
        ),
        Row(
            OFT_GENERATION, is_of_0_16, BY_RELEASE, "tuners/oft/layer.py: OFTLayer.update_layer", misloads=upto("0.15"),
        ),
        Row(
            OFT_GENERATION, is_older, BY_RELEASE, "tuners/oft/layer.py: OFTRotationModule",
            rejects=between("0.16", "0.20"), misloads=since("0.21"),
        ),
        Row(
            OFT_GENERATION, is_of_0_14, BY_RELEASE, "tuners/oft/layer.py: OFTLayer.update_layer", misloads=upto("0.13"),
        ),
        Differs(
            OFT_GENERATION, {between("0.16", "0.17"): "a longer series", since("0.18"): "a series cut off earlier"},
            has_a_long_series, "OFT cuts its series off in another place from PEFT 0.18 on",
            "tuners/oft/layer.py: OFTRotationModule._cayley_batch",
            ("num_cayley_neumann_terms", "use_cayley_neumann"),
        ),
    ),
)  # fmt: skip
