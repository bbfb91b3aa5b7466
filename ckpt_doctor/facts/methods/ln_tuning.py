"""LN tuning: tuners/ln_tuning."""

from __future__ import annotations

from ...adapter.codes import MISSING_TENSOR, OTHER_SIZE
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


BIAS = "ln_tuning_layers.bias"


def of_another_bias(subject: Subject) -> Names:
    """Layers with a bias of which the module in the base model has none, and those without where that has one."""
    base = subject.base
    return subject.having(
        lambda layer, shapes: (
            base is not None and layer.module in base.weights and (BIAS in shapes) != (layer.module in base.biases)
        )
    )


def without_a_bias(subject: Subject) -> Names:
    """Layers without a bias where others of their name have one, and no base model tells which of them have any."""
    if subject.base is not None:
        return []
    with_one = {module.rpartition(".")[2] for module in subject.having(lambda _, shapes: BIAS in shapes)}
    return subject.having(lambda layer, shapes: BIAS not in shapes and layer.module.rpartition(".")[2] in with_one)


LN_TUNING = Method(
    "LN_TUNING", REVIEWED,
    tensors=("ln_tuning_layers.weight[...] ln_tuning_layers.bias[...]?",),
    rows=(
        Row(
            OTHER_SIZE, of_another_size, "the weight of {names} does not have the size that it has in the base model",
            "tuners/ln_tuning/layer.py: LNTuningLayer.update_layer", rejects=since("0.11"),
        ),
        Row(
            MISSING_TENSOR, of_another_bias, "{names} has a bias in the file or in the base model alone",
            "tuners/ln_tuning/layer.py: LNTuningLayer.update_layer", misloads=since("0.11"),
        ),
        Row(
            MISSING_TENSOR, without_a_bias, "{names} has no bias, and others of its name have one",
            "tuners/ln_tuning/layer.py: LNTuningLayer.update_layer", undecided=since("0.11"),
        ),
    ),
)  # fmt: skip
