"""Bone: tuners/bone, in PEFT up to 0.18; MiSS took its place."""

from __future__ import annotations

from ...adapter.runtimes import NONE
from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

BONE = Method(
    "BONE", REVIEWED,
    tensors=("init_weights=bat: bone_block[n r r]", "init_weights!=bat: bone_block[r out]"),
    words={"init_weights": ("bat",), "bias": ("all", "bone_only")},
    harmless={"init_weights": INIT + "; bat has tensors of another shape"},
    takes_default=NONE,
)  # fmt: skip
