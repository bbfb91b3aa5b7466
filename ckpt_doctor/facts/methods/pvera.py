"""PVeRA: tuners/pvera."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE, SHAPE_MISMATCH
from ...adapter.runtimes import PEFT, since
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..projections import other_width
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def samples(subject: Subject) -> bool:
    """Each forward draws numbers."""
    value = subject.value("sample_at_inference")
    return value is not False and bool(value)


def may_sample(subject: Subject) -> bool:
    """sample_at_inference is nothing, and not false."""
    value = subject.value("sample_at_inference")
    return value is not False and not value


PVERA = Method(
    "PVERA", REVIEWED,
    tensors=("pvera_lambda_b[out] pvera_lambda_d[2*r]",),
    shared=("save_projection=true: base_model.pvera_A[2*r *] base_model.pvera_B[* r]?",),
    demanded=("base_model.pvera_A",),
    shared_sized=since("0.21"),
    words={"bias": ("all", "pvera_only")},
    kinds={"generator_seed": (int,)},
    harmless={
        "d_initial": INIT, "fan_in_fan_out": LAYOUT, "init_weights": INIT, "pvera_dropout": DROPOUT,
        "generator_seed": "of what training draws, and of a row where inference does (layer.py: PveraLayer)",
    },
    alike={
        "projection_prng_key": "seeds the projections alike since 0.19 (model.py: PveraModel)",
        "save_projection": "the same projections are drawn where they are not in the file (model.py: PveraModel)",
    },
    rows=(
        Row(
            SHAPE_MISMATCH, other_width, "the shape of {names} is not what the layers need",
            "tuners/pvera/model.py: PveraModel", rejects=since("0.21"), keys=("save_projection",),
            read=True,
        ),
        Row(
            METHOD_BY_RELEASE, samples, "sample_at_inference: each forward computes something else",
            "tuners/pvera/layer.py: PveraLayer", misloads=PEFT, keys=("sample_at_inference",),
        ),
        Row(
            METHOD_BY_RELEASE, may_sample, "sample_at_inference is neither true nor false",
            "tuners/pvera/layer.py: PveraLayer", undecided=PEFT, keys=("sample_at_inference",),
            read=True,
        ),
    ),
)  # fmt: skip
