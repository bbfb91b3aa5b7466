"""layer_replication: on which models PEFT repeats layers (tuners/tuners_utils.py: replicate_layers), and which of these
then stop where they keep a cache.
"""

from __future__ import annotations

import re

_PLACES = re.compile(r"(?:model\.)*(?:bert\.)?(?:layers|encoder\.layer|h)\.\d+\.")

NO_CACHE = {
    "exaone4": "4.54",
    **dict.fromkeys(
        (
            "cohere2", "dots1", "gemma2", "gemma3_text", "gpt_oss", "llama4_text", "ministral", "modernbert-decoder",
            "olmo3", "qwen2", "qwen3", "smollm3", "vaultgemma",
        ),
        "4.56",
    ),
}  # fmt: skip
"""Types of models → the transformers that has an IndexError first. Their config lists the kind of each layer, and PEFT
leaves it as it is, so the cache has no place for layers that are new (cache_utils.py: DynamicCache). Run in 4.53 to
4.57; dots1 was read."""


def is_repeated(module: str) -> bool:
    """Whether a module lies where PEFT looks for the layers to repeat."""
    return _PLACES.match(module) is not None
