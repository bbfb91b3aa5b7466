"""A LoRA resolver of vLLM: an adapter that a request names is examined, repaired where that is exact, and then loaded.

vLLM asks its resolvers for an adapter that it does not know, gets a LoRARequest with a path, and loads what lies there
(0.33.0, lora/resolver.py: LoRAResolver; entrypoints/openai/models/serving.py: OpenAIServingModels.resolve_lora).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import vllm
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

import ckpt_doctor

log = logging.getLogger("vllm.front_door")


class FrontDoor(LoRAResolver):
    """Adapters in the folders below one, by their names there.

    `model` is the name that their configs give the base model, where the server has it under another; `max_rank` is the
    --max-lora-rank of the server, which no resolver is told.
    """

    def __init__(self, root: str, model: str | None = None, max_rank: int | None = None) -> None:
        self.root = os.path.realpath(root)
        self.model = model
        self.max_rank = max_rank
        self.runtime = f"vllm=={vllm.__version__.partition('+')[0]}"
        self._one = ThreadPoolExecutor(1)  # one adapter at a time, beside the loop that serves requests

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter, or a repaired copy of it; None, and a line in the log, where there is none to be loaded."""
        path = await asyncio.get_running_loop().run_in_executor(self._one, self.ready, base_model_name, lora_name)
        if path is None:
            return None
        # the server gives it another number
        return LoRARequest(lora_name=lora_name, lora_int_id=zlib.crc32(lora_name.encode()) + 1, lora_path=path)

    def ready(self, base_model_name: str, lora_name: str) -> str | None:
        """The path to load from; None where there is none."""
        try:
            folder = os.path.realpath(os.path.join(self.root, lora_name))
            config = os.path.join(folder, "adapter_config.json")
            if os.path.commonpath((self.root, folder)) != self.root or not os.path.isfile(config):
                return None  # a name that comes from a request leads nowhere else
            with open(config, encoding="utf-8") as file:
                trained_for = json.load(file).get("base_model_name_or_path")
            if trained_for != (self.model or base_model_name):
                log.warning("%r is not served: it is of the model %r", lora_name, trained_for)
                return None
            with warnings.catch_warnings(record=True) as doubts:
                warnings.simplefilter("always", UserWarning)
                base = base_model_name if os.path.isdir(base_model_name) else None
                path = ckpt_doctor.preload(folder, self.runtime, base=base, max_rank=self.max_rank)
        except (ckpt_doctor.AdapterError, OSError, ValueError, AttributeError, RecursionError) as error:
            log.warning("%r is not served: %s", lora_name, error)
            return None
        for doubt in doubts:
            log.warning("%r is served, but %s", lora_name, doubt.message)
        if str(path) != folder:
            log.info("%r is served from %s, which computes the same", lora_name, path)
        return str(path)


def register() -> None:
    """What vLLM calls in each of its processes (vllm/plugins/__init__.py: load_general_plugins)."""
    root = os.environ.get("FRONT_DOOR_ADAPTERS")
    if not root:
        return
    if not os.path.isdir(root):
        raise ValueError(f"FRONT_DOOR_ADAPTERS={root} is no folder")
    rank = os.environ.get("FRONT_DOOR_MAX_RANK")
    door = FrontDoor(root, os.environ.get("FRONT_DOOR_MODEL"), int(rank) if rank else None)
    LoRAResolverRegistry.register_resolver("ckpt-doctor", door)
