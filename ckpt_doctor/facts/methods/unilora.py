"""Uni-LoRA: tuners/unilora."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE
from ...adapter.runtimes import PEFT
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def tells_no_layer(subject: Subject) -> bool:
    """No layer has a tensor: r, target_modules and proj_seed do it all."""
    return not subject.layers


UNILORA = Method(
    "UNILORA", REVIEWED,
    starts_random=True,
    tensors=(
        "save_indices=true: unilora_indices_A[r in] unilora_indices_B[out r]"
        " unilora_scales_A[r in] unilora_scales_B[out r]",
    ),
    shared=("base_model.unilora_theta_d[theta_d_length]",),
    buffers=r".*\.unilora_\w+$",
    words={"bias": ("all", "unilora_only")},
    harmless={
        "fan_in_fan_out": LAYOUT, "init_theta_d_bound": INIT, "init_weights": INIT, "unilora_dropout": DROPOUT,
    },
    nullable=("proj_seed",),
    layers_optional=True,
    rows=(
        Row(
            METHOD_BY_RELEASE, tells_no_layer,
            "the file says nothing of the layers: r, target_modules and proj_seed do it all",
            "tuners/unilora/model.py: UniLoraModel.generate_index", undecided=PEFT,
        ),
    ),
)  # fmt: skip
