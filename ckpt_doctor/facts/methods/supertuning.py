"""Supertuning: tuners/supertuning."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT
from ..record import Method
from . import REVIEWED

SUPERTUNING = Method(
    "SUPERTUNING", REVIEWED,
    tensors=(
        "supertuning_values[n] supertuning_indices[n]?",
        "r!=none: supertuning_lora_A.weight[r in] supertuning_lora_B.weight[out r]",
    ),
    scale=("lora_alpha", None, ("r",)),
    kinds={"lora_alpha": (int, float), "r": (int,)},
    harmless={"init_weights": INIT, "lora_dropout": DROPOUT},
    alike={
        "lora_alpha": "alpha / r since 0.21 (layer.py: SupertuningLayer.update_layer)",
        "save_precomputed_indices": "the same are chosen where the file has none (layer.py: SupertuningLayer)",
        "select_top": "which weights are chosen, since 0.21 (layer.py: SupertuningLayer)",
        "sparsity": "how many weights are chosen; a load raises at another number (layer.py: SupertuningLayer)",
    },
)  # fmt: skip
