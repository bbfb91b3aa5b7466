"""PEANuT: tuners/peanut."""

from __future__ import annotations

from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

PEANUT = Method(
    "PEANUT", REVIEWED,
    tensors=(
        "peanut_A.weight[r out] peanut_B.weight[out r] peanut_encoders.#depth.weight[r r]"
        " peanut_decoders.#depth.weight[r r]",
    ),
    scale=("scaling", 1.0, ()),
    words={"act_fn": ("gelu", "silu", "tanh", "sigmoid", "linear")},
    harmless={"init_weights": INIT},
    alike={
        "act_fn": "taken from transformers' ACT2FN since 0.19 (layer.py: Linear)",
        "scaling": "a factor of the delta since 0.19 (layer.py: Linear)",
    },
)  # fmt: skip
