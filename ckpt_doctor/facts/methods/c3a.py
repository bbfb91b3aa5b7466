"""C3A: tuners/c3a."""

from __future__ import annotations

from ...adapter.runtimes import since
from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

C3A = Method(
    "C3A", REVIEWED,
    tensors=("c3a_kernel[m n block_size]",),
    words={
        "init_weights": (True, False, "gaussian", "kaiming_uniform"),
        "bias": ("all", "c3a_only"),
    },
    harmless={"init_weights": INIT},
    starts_random=True,
    tasks_checked=since("0.18"),
)  # fmt: skip
