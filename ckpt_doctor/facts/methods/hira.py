"""HiRA: tuners/hira."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Method
from . import REVIEWED

HIRA = Method(
    "HIRA", REVIEWED,
    tensors=("hira_A[r in ...] hira_B[out r ...] | hira_embedding_A[r in] hira_embedding_B[out r]",),
    patterns={},
    words={"init_weights": ("gaussian",)},
    harmless={
        "fan_in_fan_out": LAYOUT, "hira_dropout": DROPOUT, "init_weights": INIT,
        "rank_pattern": "layers are made of the config's r all the same (layer.py: dispatch_default)",
    },
)  # fmt: skip
