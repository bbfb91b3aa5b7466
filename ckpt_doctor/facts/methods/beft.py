"""BEFT: tuners/beft."""

from __future__ import annotations

from ..record import INIT, REVIEWED, Method

BEFT = Method("BEFT", REVIEWED, tensors=("beft_bias[1 out]",), harmless={"init_weights": INIT})
