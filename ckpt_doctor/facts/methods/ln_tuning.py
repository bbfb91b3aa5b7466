"""LN tuning: tuners/ln_tuning."""

from __future__ import annotations

from ..record import REVIEWED, Method

LN_TUNING = Method("LN_TUNING", REVIEWED, tensors=("ln_tuning_layers.weight[...] ln_tuning_layers.bias[...]?",))
