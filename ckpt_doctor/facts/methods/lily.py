"""Lily: tuners/lily."""

from __future__ import annotations

from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

LILY = Method(
    "LILY", REVIEWED,
    tensors=("lily_A.weight[r in] lily_B.weight[num_B*r out] lily_router.weight[num_B r]",),
    scale=("scaling", 1.0, ()),
    harmless={"init_weights": INIT},
    alike={"scaling": "a factor of the delta since 0.19 (layer.py: Linear.forward)"},
)  # fmt: skip
