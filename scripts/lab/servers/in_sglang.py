"""Give adapters to SGLang's own LoRA manager on a CPU, and compare what its pool holds with what the adapters mean.

usage: ENVIRONMENT/bin/python in_sglang.py BASE ADAPTER:MEANING...     One line of JSON an adapter.

What is meant goes through SGLang's own loader of the model, as in in_vllm.py. The server is one that was started with
`--lora-target-modules all`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
warnings.filterwarnings("ignore")
from stand_ins import stand_in_for

stand_in_for("gguf", "sgl_kernel", "torchvision", "tvm_ffi", "vllm")

import torch


def _unpinned(make: Callable[..., Any]) -> Callable[..., Any]:
    """A maker of tensors without the option that wants a GPU."""
    return lambda *arguments, **options: make(*arguments, **{k: v for k, v in options.items() if k != "pin_memory"})


for _name in ("arange", "empty", "full", "ones", "tensor", "zeros"):
    setattr(torch, _name, _unpinned(getattr(torch, _name)))
torch.Tensor.pin_memory = lambda tensor, *_, **__: tensor

import deltas
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed.parallel_state import init_distributed_environment, initialize_model_parallel
from sglang.srt.lora.lora_manager import LoRAManager
from sglang.srt.lora.lora_registry import LoRARef
from sglang.srt.lora.mem_pool import EMPTY_SLOT
from sglang.srt.lora.utils import LoRAType, get_target_module_name
from sglang.srt.model_loader.utils import get_model_architecture
from sglang.srt.runtime_context import SpawnRanks, publish
from sglang.srt.server_args import ServerArgs

MAX_RANK = 16
EXPERTS = ("gate_up_proj", "down_proj")
TABLES = ("embed_tokens", "lm_head")


class Server:
    """The model twice: one for weights, one with LoRA."""

    def __init__(self, base: str, options: ServerArgs) -> None:
        told = ModelConfig.from_server_args(options)
        config, (kind, _) = told.hf_config, get_model_architecture(told)
        plain, model = kind(config), kind(config)
        self.loader = deltas.Loader(plain, deltas.weights(base))
        self.manager = LoRAManager(
            base_model=model, base_hf_config=config, max_loras_per_batch=2, load_config=LoadConfig(), dtype=torch.float32,
            server_args=options, lora_backend="torch_native", max_lora_rank=MAX_RANK, target_modules={"all"}, lora_paths=None,
        )  # fmt: skip

    def apply(self, adapter: str) -> deltas.Weights:
        """Load an adapter and fetch it into the pool, as for a request; what its slot holds then."""
        ref = LoRARef(lora_id=adapter, lora_name=adapter, lora_path=str(Path(adapter).resolve()), pinned=False)
        for buffer in self._buffers():
            buffer.zero_()
        try:
            loaded = self.manager._load_lora_adapter(ref)
            if not loaded.success:
                raise ValueError(loaded.error_message)
            self.manager.fetch_new_loras({adapter})
            return self._held(adapter)
        finally:
            for table in (self.manager.configs, self.manager.loras, self.manager.lora_refs):
                table.pop(adapter, None)
            pool = self.manager.memory_pool
            if adapter in pool.uid_to_buffer_id:
                pool.buffer_id_to_uid[pool.uid_to_buffer_id.pop(adapter)] = EMPTY_SLOT

    def _buffers(self) -> list[torch.Tensor]:
        """All of the pool: a slot would keep what the adapter before has left in tables."""
        pool = self.manager.memory_pool
        lists = [*pool.A_buffer.values(), *pool.B_buffer.values()]
        tables = [getattr(pool, f"{kind}_{side}_buffer") for kind in ("embedding", "lm_head") for side in "AB"]
        return [buffer for some in lists for buffer in some] + [buffer for table in tables for buffer in table.values()]

    def _held(self, adapter: str) -> deltas.Weights:
        """What the wrapped layers read from the slot of an adapter, in the shape of their weights."""
        pool, lora = self.manager.memory_pool, self.manager.loras[adapter]
        slot, rank = pool.get_buffer_id(adapter), self.manager.configs[adapter].r

        def product(layer: int, key: str, offsets: list[int], experts: bool = False) -> torch.Tensor:
            """Of the parts of a layer that `offsets` parts; experts hold theirs scaled, and a full rank apart."""
            a, b = (pool.get_tensor(key, layer, kind)[slot] for kind in (LoRAType.LORA_A, LoRAType.LORA_B))
            size, scale = (MAX_RANK, 1.0) if experts else (rank, lora.scaling)
            parts = [
                b[..., start:end, :size] @ a[..., at * size : (at + 1) * size, :]
                for at, (start, end) in enumerate(pairwise(offsets))
            ]
            return scale * torch.cat(parts, -2)

        applied: deltas.Weights = {}
        for layer, modules in enumerate(self.manager.lora_modules):
            for name, module in modules.items():
                if hasattr(module, "slice_moe_lora_a_weights"):
                    up, down = (pool.get_tensor(f"{key}_moe", layer, LoRAType.LORA_B).shape[-2] for key in EXPERTS)
                    applied[f"{name}.w13_weight"] = product(layer, f"{EXPERTS[0]}_moe", [0, up // 2, up], experts=True)
                    applied[f"{name}.w2_weight"] = product(layer, f"{EXPERTS[1]}_moe", [0, down], experts=True)
                    continue
                offsets = next(
                    getattr(module, key) for key in ("output_offset", "_output_offset") if hasattr(module, key)
                )
                applied[f"{name}.weight"] = product(
                    layer, get_target_module_name(name, pool.target_modules), offsets.tolist()
                )
        names = {
            name.rpartition(".")[2]: name for name, _ in self.loader.model.named_modules() if name.endswith(TABLES)
        }
        for table in TABLES:
            buffers = [
                getattr(pool, f"{'embedding' if table == TABLES[0] else table}_{side}_buffer").get(table)
                for side in "AB"
            ]
            if all(buffer is not None for buffer in buffers):
                a, b = (buffer[slot] for buffer in buffers)
                delta = lora.scaling * (b[:, :rank] @ a[:rank])
                applied[f"{names.get(table, table)}.weight"] = delta.T if table == TABLES[0] else delta
        return applied


def main(base: str) -> None:
    """Start the server's parts, and tell."""
    try:
        options = ServerArgs(
            model_path=base, device="cpu", skip_tokenizer_init=True, enable_lora=True, max_lora_rank=MAX_RANK,
            lora_target_modules=["all"], lora_backend="torch_native", max_loras_per_batch=2, dtype="float32",
            disable_cuda_graph=True, disable_radix_cache=True, mem_fraction_static=0.5, attention_backend="torch_native",
        )  # fmt: skip
        publish(options, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
        init_distributed_environment(1, 0, f"tcp://127.0.0.1:{deltas.free_port()}", 0, "gloo")
        initialize_model_parallel(backend="gloo")
        torch.set_default_dtype(torch.float32)
        server = Server(base, options)
    except Exception as error:
        for adapter, _ in deltas.jobs():
            deltas.say(adapter, outcome="absent", why=f"does not start: {deltas.failure(error)}")
    else:
        deltas.tell(server.apply, server.loader.wanted)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
