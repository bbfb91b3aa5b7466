"""RandLoRA: tuners/randlora."""

from __future__ import annotations

from ...adapter.runtimes import since
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Method
from . import REVIEWED

SEEDED = "how the projections are drawn, the same code since 0.16 (model.py: RandLoraModel)"

RANDLORA = Method(
    "RANDLORA", REVIEWED,
    tensors=("randlora_lambda[r n] randlora_gamma[n *] randlora_A[...]? randlora_B[...]?",),
    buffers=r"base_model\.randlora_[AB](?:\.|$)",
    scale=("randlora_alpha", 640, ("r",)),
    words={"bias": ("all", "randlora_only")},
    harmless={"fan_in_fan_out": LAYOUT, "init_weights": INIT, "randlora_dropout": DROPOUT},
    alike={
        "projection_prng_key": SEEDED, "sparse": SEEDED, "very_sparse": SEEDED,
        "randlora_alpha": "alpha / r since 0.16 (layer.py: RandLoraLayer.update_layer)",
        "save_projection": "the same projections are drawn where they are not in the file (model.py: RandLoraModel)",
    },
    tasks_checked=since("0.20"),
)  # fmt: skip
