"""HRA: tuners/hra."""

from __future__ import annotations

from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

HRA = Method(
    "HRA", REVIEWED,
    tensors=("hra_u[in r]",),
    words={"bias": ("all", "hra_only")},
    harmless={"init_weights": INIT},
    alike={"apply_GS": "Gram-Schmidt of the vectors, the same since 0.12 (layer.py: HRALinear.get_delta_weight)"},
)  # fmt: skip
