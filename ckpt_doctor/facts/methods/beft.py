"""BEFT: tuners/beft."""

from __future__ import annotations

from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

BEFT = Method("BEFT", REVIEWED, tensors=("beft_bias[1 out]",), harmless={"init_weights": INIT})
