"""BOFT: tuners/boft."""

from __future__ import annotations

from ...adapter.codes import CONVOLUTION
from ...adapter.runtimes import between, since
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Differs, Method
from ..subject import Subject
from . import REVIEWED


def has_convolution(subject: Subject) -> bool:
    """A layer is a convolution, whose scale is [1, out]; a Linear has it the other way round."""
    shapes = (subject.shapes(layer).get("boft_s", ()) for layer in subject.layers.values())
    return any(len(shape) == 2 and shape[0] == 1 < shape[1] for shape in shapes)


BOFT = Method(
    "BOFT", REVIEWED,
    tensors=("boft_R[* boft_block_num~ boft_block_size~ boft_block_size~] boft_s[* *]",),
    buffers=r".*\.boft_P$",
    nullable=("boft_n_butterfly_factor",),
    words={"bias": ("all", "boft_only")},
    harmless={"boft_dropout": DROPOUT, "fan_in_fan_out": LAYOUT, "init_weights": INIT},
    one_of=(("boft_block_num", "boft_block_size"),),
    rows=(
        Differs(
            CONVOLUTION, {between("0.11", "0.13"): "a scale as it is", since("0.14"): "a transposed scale"},
            has_convolution, "BOFT of a convolution is not the same in every release",
            "tuners/boft/layer.py: Conv2d.forward",
        ),
    ),
)  # fmt: skip
