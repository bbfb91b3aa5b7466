"""GraLoRA: tuners/gralora."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Method
from . import REVIEWED

GRALORA = Method(
    "GRALORA", REVIEWED,
    tensors=(
        "gralora_A[gralora_k m r] gralora_B[gralora_k r n]",
        "hybrid_r!=0: gralora_A_general.weight[hybrid_r in] gralora_B_general.weight[out hybrid_r]",
    ),
    scale=("alpha", 64, ("r", "hybrid_r")),
    words={"bias": ("all", "gralora_only")},
    harmless={"fan_in_fan_out": LAYOUT, "gralora_dropout": DROPOUT, "init_weights": INIT},
    alike={"alpha": "alpha / (r + hybrid_r) since 0.19 (layer.py: GraloraLayer.update_layer)"},
)  # fmt: skip
