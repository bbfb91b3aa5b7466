"""GLoRA: tuners/glora."""

from __future__ import annotations

from ...adapter.runtimes import NONE
from ..config_keys import INIT
from ..record import Method
from . import REVIEWED

GLORA = Method(
    "GLORA", REVIEWED,
    tensors=(
        "config_A_B=lora: glora_A.Xd[out r] glora_A.Xu[r in] glora_B.Xd[out r] glora_B.Xu[r in]",
        "config_A_B=vector: glora_A.X[out 1] glora_B.X[out 1]",
        "config_A_B=constant: glora_A.X[1] glora_B.X[1]",
        "config_A_B=none: glora_A.zeros[out in] glora_B.zeros[out in]",
        # of a layer without a bias C, D and E are nothing, whatever the config says (layer.py: GloraLayer.update_layer)
        "config_C=lora: glora_C.Xd[in r] glora_C.Xu[r 1] | glora_C.zeros[in 1]",
        "config_C=vector: glora_C.X[in 1] | glora_C.zeros[in 1]",
        "config_C=none: glora_C.zeros[in 1]",
        "config_D_E=vector: glora_D.X[out] glora_E.X[out] | glora_D.zeros[out] glora_E.zeros[out]",
        "config_D_E=constant: glora_D.X[1] glora_E.X[1] | glora_D.zeros[out] glora_E.zeros[out]",
        "config_D_E=none: glora_D.zeros[out] glora_E.zeros[out]",
    ),
    words={
        "bias": ("all", "glora_only"), "config_A_B": ("vector", "constant", "none"), "config_C": ("vector", "none"),
        "config_D_E": ("vector", "none"),
    },
    harmless={"init_weights": INIT},
    takes_default=NONE,
)  # fmt: skip
