"""Poly: tuners/poly."""

from __future__ import annotations

from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

POLY = Method(
    "POLY", REVIEWED,
    tensors=(
        "poly_lora_A[n_splits n_skills m r] poly_lora_B[n_splits n_skills r n]"
        " poly_router.module_logits[n_tasks n_splits*n_skills]",
    ),
    nullable=("poly_type",),
    harmless={"init_weights": INIT},
)  # fmt: skip
