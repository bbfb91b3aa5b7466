"""MiSS: tuners/miss."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT
from ..record import Method
from . import REVIEWED

MISS = Method(
    "MISS", REVIEWED,
    tensors=(
        "init_weights=bat: miss_block[n r r]",
        "init_weights=mini: miss_block[r mini_r]",
        "init_weights!=bat,mini: miss_block[r out]",
    ),
    nullable=("mini_r",),
    words={"init_weights": ("bat", "mini"), "bias": ("all", "miss_only")},
    harmless={
        "init_weights": INIT + "; bat and mini have tensors of other shapes",
        "mini_r": "a size of mini alone (layer.py: MissLayer.update_layer)",
        "miss_dropout": DROPOUT,
    },
)  # fmt: skip
