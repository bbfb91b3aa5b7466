"""LoRAX at a7394ba: its source was read, not run. What it does with an adapter is what TGI took over from it."""

from __future__ import annotations

from ...adapter.runtimes import READ
from .tgi import TGI

LORAX = TGI._replace(
    id=READ["lorax"],
    sources={
        **TGI.sources,
        "files": "utils/adapter.py: load_module_map",
        "ranks": "adapters/lora.py: LoraWeights.load, utils/sgmv.py: pad_to_min_rank",
        "modules": "models/flash_llama.py: FlashLlama.adapter_target_to_layer",
        "fused": "adapters/lora.py: LoraWeights.load, by one kind of module",
        "partial_types": "adapters/lora.py: LoraWeights.load returns None",
        "factors": "adapters/lora.py: LoraConfig.map_weights_for_model, LoraWeights.load",
        "dtypes": "adapters/lora.py: LoraWeights.load",
        "models": "models/flash_llama.py: FlashLlama",
    },
)
