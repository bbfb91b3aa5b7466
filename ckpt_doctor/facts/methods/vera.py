"""VeRA: tuners/vera."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE, SHAPE_MISMATCH
from ...adapter.runtimes import between, since
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..projections import other_width
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED

SQUARE = {"q_proj", "k_proj", "v_proj", "query", "key", "value", "q", "k", "v"}
"""Names of layers that have one shape in a model without grouped attention."""


def outs(subject: Subject) -> set[tuple[int, ...]]:
    """The sizes of the outputs of the layers."""
    return {
        shapes["vera_lambda_b"] for shapes in map(subject.shapes, subject.layers.values()) if "vera_lambda_b" in shapes
    }


def of_several_shapes(subject: Subject) -> bool:
    """Layers have several shapes: those of the base model, or else outputs of several sizes."""
    if subject.base is not None and subject.layers.keys() <= subject.base.weights.keys():
        return len({subject.base.weights[module] for module in subject.layers}) > 1
    return len(outs(subject)) > 1


def of_several_names(subject: Subject) -> bool:
    """Layers have several names, which may well differ in their inputs."""
    leaves = {module.rpartition(".")[2] for module in subject.layers}
    if subject.base is not None and subject.layers.keys() <= subject.base.weights.keys():
        return False
    return not of_several_shapes(subject) and len(leaves) > 1 and not leaves <= SQUARE


def of_another_seed(subject: Subject) -> bool:
    """The projections are in the file, and drawn from a seed that is not the default."""
    return bool(subject.value("save_projection")) and subject.value("projection_prng_key") != 0


ONE_SHAPE = "PEFT 0.11 wants the layers of VeRA to have one shape"

VERA = Method(
    "VERA", REVIEWED,
    tensors=("vera_lambda_b[out] vera_lambda_d[r]",),
    shared=("save_projection=true: base_model.vera_A[r *] base_model.vera_B[* r]?",),
    demanded=("base_model.vera_A",),
    shared_sized=since("0.21"),
    words={"bias": ("all", "vera_only")},
    harmless={"d_initial": INIT, "fan_in_fan_out": LAYOUT, "init_weights": INIT, "vera_dropout": DROPOUT},
    alike={
        "projection_prng_key": "seeds the projections alike since 0.11 (model.py: VeraModel._init_vera_A_vera_B)",
        "save_projection": "the same projections are drawn where they are not in the file (model.py: VeraModel)",
    },
    rows=(
        Row(
            METHOD_BY_RELEASE, of_another_seed,
            "projection_prng_key is set: up to PEFT 0.20 the projections are drawn anew, and those in the file ignored",
            "tuners/vera/model.py: VeraModel._init_vera_A_vera_B", undecided=between("0.11", "0.20"),
            keys=("projection_prng_key",), needs="whether the projections are those of that seed",
        ),
        Row(
            SHAPE_MISMATCH, other_width, "the shape of {names} is not what the layers need",
            "tuners/vera/model.py: VeraModel", rejects=since("0.21"), keys=("save_projection",),
        ),
        Row(
            METHOD_BY_RELEASE, of_several_shapes, ONE_SHAPE, "tuners/vera/model.py: VeraModel._find_first_dim",
            rejects=between("0.11", "0.11"),
        ),
        Row(
            METHOD_BY_RELEASE, of_several_names, ONE_SHAPE, "tuners/vera/model.py: VeraModel._find_first_dim",
            undecided=between("0.11", "0.11"),
        ),
    ),
)  # fmt: skip
