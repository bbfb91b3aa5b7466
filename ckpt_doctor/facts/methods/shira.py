"""SHiRA: tuners/shira."""

from __future__ import annotations

from math import prod

from ...adapter.codes import METHOD_BY_RELEASE, SHAPE_MISMATCH
from ...adapter.runtimes import PEFT
from ..config_keys import INIT, LAYOUT
from ..names import Names
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def counted_otherwise(subject: Subject) -> Names:
    """Layers whose number of weights is no multiple of r."""
    r = subject.value("r")
    if type(r) is not int or r < 1:
        return []
    return subject.having(lambda _, shapes: prod(shapes.get("shira_weight", (0,))) % r != 0)


def lacks_positions(subject: Subject) -> Names:
    """Layers whose weights' positions are not in the file."""
    return subject.having(lambda layer, _: "shira_indices" not in layer.factors)


SHIRA = Method(
    "SHIRA", REVIEWED,
    tensors=("shira_weight[n] shira_indices[2 n]?",),
    nullable=("mask_type",),
    kinds={"random_seed": (int,)},
    harmless={
        "fan_in_fan_out": LAYOUT, "init_weights": INIT,
        "random_seed": "of the positions of the weights, which are in the file (model.py: ShiraModel)",
    },
    rows=(
        Row(
            SHAPE_MISMATCH, counted_otherwise, "the shapes of the tensors are not what the config says for {names}",
            "tuners/shira/layer.py: ShiraLayer.update_layer", rejects=PEFT, keys=("r",),
        ),
        Row(
            METHOD_BY_RELEASE, lacks_positions, "the positions of the weights of {names} are not in the file",
            "tuners/shira/layer.py: ShiraLayer.update_layer", undecided=PEFT,
        ),
    ),
)  # fmt: skip
