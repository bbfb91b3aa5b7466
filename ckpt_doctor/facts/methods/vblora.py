"""VB-LoRA: tuners/vblora."""

from __future__ import annotations

from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import Method
from . import REVIEWED

VBLORA = Method(
    "VBLORA", REVIEWED,
    tensors=(
        "save_only_topk_weights=false: vblora_logits_A[r m num_vectors] vblora_logits_B[n r num_vectors]",
        "save_only_topk_weights=true: vblora_logits_A_topk_indices[r m topk] vblora_logits_B_topk_indices[n r topk]"
        " vblora_logits_A_topk_weights[r m topk-1] vblora_logits_B_topk_weights[n r topk-1]",
    ),
    shared=("base_model.vblora_vector_bank[num_vectors vector_length]",),
    words={"bias": ("all", "vblora_only")},
    harmless={
        "fan_in_fan_out": LAYOUT, "init_logits_std": INIT, "init_vector_bank_bound": INIT, "vblora_dropout": DROPOUT,
    },
    alike={"topk": "how many vectors are mixed, since 0.13 (layer.py: Linear._get_low_rank_matrix)"},
    starts_random=True,
)  # fmt: skip
