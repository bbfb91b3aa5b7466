"""RoAd: tuners/road."""

from __future__ import annotations

from math import prod

from ...adapter.codes import SHAPE_MISMATCH
from ...adapter.runtimes import PEFT
from ..config_keys import INIT
from ..names import Names
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def grouped_otherwise(subject: Subject) -> Names:
    """Layers whose output is no multiple of group_size."""
    group = subject.value("group_size")
    parts = {"road_2": 4, "road_4": 8}.get(str(subject.value("variant")), 2)

    def is_misfit(shapes: dict[str, tuple[int, ...]]) -> bool:
        out = 4 * prod(next(iter(shapes.values()))) // parts
        return type(group) is int and (group <= 0 or out % group != 0)

    return subject.having(lambda _, shapes: is_misfit(shapes))


ROAD = Method(
    "ROAD", REVIEWED,
    tensors=("road_theta[n] road_alpha[n]",),
    words={"variant": ("road_2", "road_4")},
    harmless={"init_weights": INIT},
    alike={
        "group_size": "the same code since 0.18 (layer.py: _prepare_cols)",
        "variant": "the same code since 0.18 (layer.py: _prepare_cols)",
    },
    rows=(
        Row(
            SHAPE_MISMATCH, grouped_otherwise, "the shapes of the tensors are not what the config says for {names}",
            "tuners/road/layer.py: RoadLayer.update_layer", rejects=PEFT, keys=("group_size", "variant"),
        ),
    ),
)  # fmt: skip
