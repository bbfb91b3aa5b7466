"""Poly: tuners/poly."""

from __future__ import annotations

from ..record import INIT, REVIEWED, Method

POLY = Method(
    "POLY", REVIEWED,
    tensors=(
        "poly_lora_A[n_splits n_skills m r] poly_lora_B[n_splits n_skills r n]"
        " poly_router.module_logits[n_tasks n_splits*n_skills]",
    ),
    nullable=("poly_type",),
    harmless={"init_weights": INIT},
)  # fmt: skip
