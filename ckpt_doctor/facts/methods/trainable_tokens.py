"""Trainable tokens: tuners/trainable_tokens."""

from __future__ import annotations

from ...adapter.runtimes import since
from ..config_keys import INIT
from ..record import Method
from . import REVIEWED, TIED

TRAINABLE_TOKENS = Method(
    "TRAINABLE_TOKENS", REVIEWED,
    tensors=("trainable_tokens_delta[#token_indices *]",),
    harmless={"init_weights": INIT},
    starts_random=True,
    targets=TIED,
    tasks_checked=since("0.18"),
)  # fmt: skip
