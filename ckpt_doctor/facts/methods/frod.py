"""FRoD: tuners/frod."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE, MISSING_TENSOR, SHAPE_MISMATCH
from ...adapter.runtimes import PEFT
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..names import Names
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def lacks_projections(subject: Subject) -> bool:
    """save_projection is set, or is absent, and no projection is in the file."""
    return subject.value("save_projection") is True and not any(
        key.startswith("base_model.frod_") for key in subject.tensor_shapes
    )


def makes_projections(subject: Subject) -> bool:
    """The projections are made anew of the weights of the base model."""
    return subject.value("save_projection") is False


def odd_projections(subject: Subject) -> Names:
    """Projections that are not a square, pairs of numbers, and the sides of a square, for each kind of layer."""
    misfits = []
    for key, shape in subject.tensor_shapes.items():
        kind = key.split(".")[1] if key.startswith("base_model.frod_") else ""
        square = len(shape) == 2 and shape[0] == shape[1] > 0
        fine = {"frod_V": square, "frod_s_indices": len(shape) == 2 == shape[0], "frod_s_size": shape == (2,)}
        if not fine.get(kind, True):
            misfits.append(key)
    return misfits


MADE = "what projections are made of that are not in the file, of which a row speaks (model.py: FrodModel)"

FROD = Method(
    "FROD", REVIEWED,
    tensors=("frod_lambda_l[n] frod_lambda_s_values[*]",),
    buffers=r"base_model\.frod_\w+(?:\.|$)",
    words={"bias": ("all", "frod_only")},
    harmless={
        "fan_in_fan_out": LAYOUT, "frod_dropout": DROPOUT, "init_weights": INIT,
        "projection_prng_key": MADE, "regularization_alpha": MADE, "sparse_rate": MADE,
        "progressbar": "what a load prints (model.py: FrodModel)",
    },
    rows=(
        Row(
            MISSING_TENSOR, lacks_projections, "the projections are missing",
            "tuners/frod/model.py: FrodModel._remap_adapter_state_dict_for_load", rejects=PEFT,
            keys=("save_projection",),
        ),
        Row(
            METHOD_BY_RELEASE, makes_projections, "the projections are made anew of the base model's weights",
            "tuners/frod/model.py: FrodModel", undecided=PEFT, keys=("save_projection",),
            read=True,
        ),
        Row(
            SHAPE_MISMATCH, odd_projections, "the shape of {names} is not what the config says",
            "tuners/frod/model.py: FrodModel", rejects=PEFT,
        ),
    ),
)  # fmt: skip
