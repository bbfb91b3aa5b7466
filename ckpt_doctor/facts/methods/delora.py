"""DeLoRA: tuners/delora."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT
from ..record import Method
from . import REVIEWED

DELORA = Method(
    "DELORA", REVIEWED,
    tensors=("delora_A[r in] delora_B[out r] delora_lambda[1] delora_w_norm[in]?",),
    nullable=("module_dropout",),
    words={"bias": ("all", "delora_only")},
    harmless={"delora_lambda": INIT, "init_weights": INIT, "lambda_pattern": INIT, "module_dropout": DROPOUT},
)  # fmt: skip
