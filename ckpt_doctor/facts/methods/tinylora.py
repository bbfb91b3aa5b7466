"""TinyLoRA: tuners/tinylora."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE, MISSING_TENSOR, SHAPE_MISMATCH
from ...adapter.runtimes import NONE, PEFT, between, since
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..names import Names
from ..record import ANEW, Differs, Method, Row
from ..subject import Subject
from . import REVIEWED


def vectors(subject: Subject) -> Names:
    """The trained vectors; weight_tying says how many layers share one."""
    tying = subject.value("weight_tying")
    share = tying if isinstance(tying, (int, float)) and 0 <= tying <= 1 else 1
    total = max(1, round(len(subject.layers) * (1.0 - share)))
    return [f"base_model.tinylora_v.{number}" for number in range(total)]


def lacks_vectors(subject: Subject) -> Names:
    """Trained vectors that are missing."""
    return [key for key in vectors(subject) if key not in subject.tensor_shapes]


def other_length(subject: Subject) -> Names:
    """Trained vectors that are not of length u."""
    return [
        key
        for key in vectors(subject)
        if subject.tensor_shapes.get(key, (subject.value("u"),)) != (subject.value("u"),)
    ]


def lacks_projections(subject: Subject) -> Names:
    """Layers whose projection is not in the file."""
    return subject.having(lambda layer, _: "tinylora_P" not in layer.factors)


TINYLORA = Method(
    "TINYLORA", REVIEWED,
    tensors=("tinylora_A[r in]? tinylora_B[out r]? tinylora_P[u r r]?",),
    buffers=r"base_model\.tinylora_v(?:\.|$)",
    nullable=("init_v_bound",),
    words={"bias": ("all", "tinylora_only"), "init_weights": ("uniform",)},
    harmless={
        "fan_in_fan_out": LAYOUT, "init_v_bound": INIT, "init_weights": INIT, "tinylora_dropout": DROPOUT,
    },
    alike={
        "projection_seed": "of projections that are not in the file, of which the row speaks (layer.py: TinyLoraLayer)",
        "weight_tying": "how many layers share a vector since 0.19 (model.py: TinyLoraModel._create_and_replace)",
    },
    starts_random=True,
    takes_default=NONE,
    rows=(
        Row(
            MISSING_TENSOR, lacks_vectors, "{names} is missing", "tuners/tinylora/model.py: TinyLoraModel",
            misloads=PEFT, keys=("weight_tying",),
        ),
        Row(
            SHAPE_MISMATCH, other_length, "the shape of {names} is not what the config says",
            "tuners/tinylora/model.py: TinyLoraModel", rejects=PEFT, keys=("u",),
        ),
        Differs(
            METHOD_BY_RELEASE, {between("0.19", "0.19"): ANEW, since("0.20"): "by projection_seed"}, lacks_projections,
            "PEFT 0.19 draws projections that are not saved from another seed, by Python's hash of a layer's name",
            "tuners/tinylora/layer.py: TinyLoraLayer._init_projection", ("save_projection",),
        ),
    ),
)  # fmt: skip
