"""LN tuning: tuners/ln_tuning."""

from __future__ import annotations

from ...adapter.codes import OTHER_SIZE
from ...adapter.runtimes import since
from ..names import Names
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def of_another_size(subject: Subject) -> Names:
    """Layers whose weight, which is one of the base model's own, is not of the size that it has there."""
    weights = subject.base.weights if subject.base is not None else {}
    return subject.having(
        lambda layer, shapes: weights.get(layer.module) not in (None, shapes.get("ln_tuning_layers.weight"))
    )


LN_TUNING = Method(
    "LN_TUNING", REVIEWED,
    tensors=("ln_tuning_layers.weight[...] ln_tuning_layers.bias[...]?",),
    rows=(
        Row(
            OTHER_SIZE, of_another_size, "the weight of {names} does not have the size that it has in the base model",
            "tuners/ln_tuning/layer.py: LNTuningLayer.update_layer", rejects=since("0.11"),
        ),
    ),
)  # fmt: skip
