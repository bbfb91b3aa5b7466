"""OFT: tuners/oft, written anew twice: its files are of 0.7 – 0.13, of 0.14 – 0.15, or of 0.16 and newer."""

from __future__ import annotations

from ...adapter.codes import OFT_GENERATION
from ...adapter.runtimes import between, since, upto
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..forms import Config
from ..record import Differs, Method, Row
from ..subject import Subject
from . import REVIEWED


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


BY_RELEASE = "OFT computes in other ways in older and newer releases, and reads other tensors"

OFT = Method(
    "OFT", REVIEWED,
    tensors=(
        "block_share=false: oft_r[r~ n n] oft_s[out 1]? | oft_R.weight[r~ tri(oft_block_size)~]",
        "block_share=true: oft_r[1 n n] oft_s[out 1]? | oft_R.weight[1 tri(oft_block_size)~]",
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
    },
    one_of=(("r", "oft_block_size"),),
    rows=(
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
