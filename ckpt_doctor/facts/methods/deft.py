"""DEFT: tuners/deft."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Method
from . import REVIEWED

DEFT = Method(
    "DEFT", REVIEWED,
    tensors=("deft_P[out r]", "para=false: deft_R[r in]"),
    scale=("alpha", None, ("r",)),
    nullable=("init_scale",),
    words={"decomposition_method": ("qr",), "bias": ("all", "deft_only")},
    kinds={"alpha": (int, float)},
    harmless={"deft_dropout": DROPOUT, "fan_in_fan_out": LAYOUT, "init_scale": INIT, "init_weights": INIT},
    alike={
        "alpha": "alpha / r (layer.py: DeftLayer.update_layer), the same code since 0.20",
        "decomposition_method": "the same code since 0.20 (layer.py)",
    },
)  # fmt: skip
