"""Give adapters to vLLM's own LoRA manager on a CPU, and compare what its layers hold with what the adapters mean.

usage: ENVIRONMENT/bin/python in_vllm.py BASE ADAPTER:MEANING...     One line of JSON an adapter.

What is meant goes through vLLM's own loader of the model: the weights of the merged model less those of the model are
the delta in vLLM's names, fused and reordered as vLLM does it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(
    VLLM_LOGGING_LEVEL="CRITICAL", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_CPU_KVCACHE_SPACE="1",
    OMP_NUM_THREADS="1", PYTHONPATH=str(Path(__file__).parent / "site"),
)  # fmt: skip
from stand_ins import stand_in_for

stand_in_for("xgrammar", "torchvision")

import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()

import deltas
import torch

OPERATORS = torch.library.Library("_C", "FRAGMENT")
OPERATORS.define("gelu_quick(Tensor(a!) out, Tensor input) -> ()")

from vllm.config import set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.layers import LogitsProcessorWithLoRA, VocabParallelEmbeddingWithLoRA
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.model_executor.model_loader.utils import get_model_architecture

MAX_RANK = 16
LINEAR = ("lora_a_stacked", "lora_b_stacked")


def without_kernels(model: torch.nn.Module) -> None:
    """Experts with LoRA ask for a kernel of a GPU when they are made: they get one that is never run."""
    from vllm.lora.layers import fused_moe
    from vllm.model_executor.layers.fused_moe.experts.lora_experts_mixin import LoRAExpertsMixin
    from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEKernelModularImpl

    class Kernel:
        impl = FusedMoEKernelModularImpl.__new__(FusedMoEKernelModularImpl)
        fused_experts = type("Experts", (LoRAExpertsMixin,), {"set_lora_context": lambda *_: None})()
        prepare_finalize = None

        def supports_lora(self) -> bool:
            return True

    fused_moe.FusedMoEModularMethod = lambda method, _: method
    for module in model.modules():
        method = getattr(getattr(module, "routed_experts", None), "quant_method", None)
        if method is not None and not isinstance(method.moe_kernel, Kernel):
            alike = {"is_monolithic": False, "supports_internal_mk": True}
            method.__class__ = type(type(method).__name__, (type(method),), alike)
            method.moe_kernel = Kernel()


class Server:
    """The model twice: one for weights, one with LoRA."""

    def __init__(self, base: str, config: Any) -> None:
        self.config = config
        kind, _ = get_model_architecture(config.model_config)
        self.loader = deltas.Loader(kind(vllm_config=config), deltas.weights(base))
        config.compilation_config.static_forward_context.clear()
        self.model = kind(vllm_config=config)
        without_kernels(self.model)
        self.count = 0

    def start(self) -> None:
        """Wrap the layers. Raises ValueError where the class has no LoRA."""
        self.worker = LRUCacheWorkerLoRAManager(
            self.config, torch.device("cpu"), getattr(self.model, "embedding_modules", {})
        )
        self.worker.create_lora_manager(self.model, self.config)
        self.layers = self.worker._adapter_manager
        self.bypassed = self._bypassed()

    def _bypassed(self) -> set[str]:
        """Wrapped layers that another object still holds as they were, and so multiplies without LoRA."""
        inner = {
            id(layer.base_layer): name for name, layer in self.layers.modules.items() if hasattr(layer, "base_layer")
        }
        holders = [module for module in self.model.modules() if not hasattr(module, "base_layer")]
        holders += [
            held for module in holders for held in vars(module).values() if type(held).__module__.startswith("vllm.v1")
        ]
        return {inner[id(held)] for holder in holders for held in vars(holder).values() if id(held) in inner}

    def apply(self, adapter: str) -> deltas.Weights:
        """Load an adapter as the engine does; what its layers hold then."""
        self.layers.remove_all_adapters()
        for layer in self.layers.modules.values():
            layer.reset_lora(0)
        self.count += 1
        lora = self.worker._load_adapter(LoRARequest(adapter, self.count, str(Path(adapter).resolve())))
        self.layers.add_adapter(lora)
        self.layers.activate_adapter(lora.id)
        applied: deltas.Weights = {}
        for name, layer in self.layers.modules.items():
            if name not in self.bypassed:
                applied |= _held(name, layer) | self._head(name, layer)
        return applied

    def _head(self, name: str, layer: Any) -> deltas.Weights:
        """A classifier that is kept whole, less the model's."""
        if not hasattr(layer, "full_module_enabled") or not bool(layer.full_module_enabled[0]):
            return {}
        labels, before = layer.full_module_num_labels[0], self.loader.before
        whole = {"weight": layer.full_weight_stacked[0, 0, :labels], "bias": layer.full_bias_stacked[0, :labels]}
        return {key: held - before[key] for part, held in whole.items() if (key := f"{name}.{part}") in before}


def _held(name: str, layer: Any) -> deltas.Weights:
    """The deltas in the first slot of a layer, in the shape of its weights."""
    if hasattr(layer, "w13_lora_a_stacked"):
        if not int(layer.adapter_enabled[0]):
            return {}
        up, down = (
            [b[0] @ a[0] for a, b in zip(getattr(layer, f"{part}_lora_a_stacked"), getattr(layer, f"{part}_lora_b_stacked"), strict=True)]
            for part in ("w13", "w2")
        )  # fmt: skip
        return {f"{name}.routed_experts.w13_weight": torch.cat(up, 1), f"{name}.routed_experts.w2_weight": down[0]}
    a, b = (getattr(layer, each, ()) for each in LINEAR)
    if isinstance(layer, LogitsProcessorWithLoRA):
        return {f"{name}.weight": b[0, 0] @ a[0, 0]}
    if isinstance(layer, VocabParallelEmbeddingWithLoRA):
        return {f"{name}.weight": a[0] @ b[0, 0].T}
    return (
        {f"{name}.weight": torch.cat([up[0, 0] @ down[0, 0] for down, up in zip(a, b, strict=True)])} if len(a) else {}
    )


def engine(base: str, lora: bool) -> Any:
    """The engine's config."""
    arguments = EngineArgs(
        model=base, skip_tokenizer_init=True, enable_lora=lora, max_lora_rank=MAX_RANK, max_loras=1,
        dtype="float32", max_model_len=16, enforce_eager=True,
    )  # fmt: skip
    return arguments.create_engine_config()


def main(base: str) -> None:
    """Start the engine's parts, and tell. A server that starts without LoRA alone rejects all."""
    torch.set_default_dtype(torch.float32)
    outcome = "absent"
    try:
        engine(base, lora=False)
        outcome = "rejects"
        config = engine(base, lora=True)
        with set_current_vllm_config(config):
            init_distributed_environment(1, 0, f"tcp://127.0.0.1:{deltas.free_port()}", 0, "gloo")
            initialize_model_parallel(1, 1)
            outcome = "absent"
            server = Server(base, config)
            outcome = "rejects"
            server.start()
            deltas.tell(server.apply, server.loader.wanted)
    except Exception as error:
        for adapter, _ in deltas.jobs():
            deltas.say(adapter, outcome=outcome, why=f"does not start: {deltas.failure(error)}")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
