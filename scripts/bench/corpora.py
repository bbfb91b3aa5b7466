"""Adapters to be measured with, as PEFT 0.21.2 saves them: their headers are whole, the numbers behind them are holes.

usage: python scripts/bench/corpora.py FOLDER ADAPTERS, or FOLDER 0 GIGABYTES TYPE RANK for one of whose first layer that
is the rank, which has no holes and is called as its type
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LIKE = Path(__file__).parents[2] / "fixtures/lora-plain-0.21.2/adapter_config.json"


class Model(NamedTuple):
    """A base model: how many layers it has, what each is called, and the modules in it with their sizes, out and in."""

    name: str
    layers: int
    prefix: str
    modules: dict[str, tuple[int, int]]


def llama(name: str, layers: int, hidden: int, inner: int, heads: int) -> Model:
    """A model with gated layers; `heads` is the width of its keys and values."""
    sides = {
        "q_proj": (hidden, hidden),
        "k_proj": (heads, hidden),
        "v_proj": (heads, hidden),
        "o_proj": (hidden, hidden),
    }
    modules = {f"self_attn.{part}": size for part, size in sides.items()}
    modules |= {f"mlp.{part}_proj": (inner, hidden) for part in ("gate", "up")}
    return Model(name, layers, "model.layers", {**modules, "mlp.down_proj": (hidden, inner)})


def neox(name: str, layers: int, hidden: int, inner: int) -> Model:
    """A model whose attention has one module for queries, keys and values."""
    modules = {"attention.query_key_value": (3 * hidden, hidden), "attention.dense": (hidden, hidden)}
    modules |= {"mlp.dense_h_to_4h": (inner, hidden), "mlp.dense_4h_to_h": (hidden, inner)}
    return Model(name, layers, "gpt_neox.layers", modules)


def opt(name: str, layers: int, hidden: int, inner: int) -> Model:
    """A model that has a decoder."""
    modules = {f"self_attn.{part}": (hidden, hidden) for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
    return Model(name, layers, "model.decoder.layers", {**modules, "fc1": (inner, hidden), "fc2": (hidden, inner)})


BASES = (
    llama("meta-llama/Llama-2-7b-hf", 32, 4096, 11008, 4096),
    llama("mistralai/Mistral-7B-v0.1", 32, 4096, 14336, 1024),
    llama("Qwen/Qwen2.5-7B", 28, 3584, 18944, 512),
)
RANKS = (8, 16, 64)


def save(folder: Path, model: Model, rank: int) -> None:
    """A LoRA of all modules of a model."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    shapes = {
        f"base_model.model.{model.prefix}.{layer}.{module}.lora_{factor}.weight": shape
        for layer in range(model.layers) for module, (out, into) in model.modules.items()
        for factor, shape in (("A", [rank, into]), ("B", [out, rank]))
    }  # fmt: skip
    for name, (rows, columns) in sorted(shapes.items()):
        end = at + 4 * rows * columns
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    targets = sorted({module.rpartition(".")[2] for module in model.modules})
    config = {
        **json.loads(LIKE.read_text()), "auto_mapping": None, "base_model_name_or_path": model.name, "r": rank,
        "lora_alpha": 2 * rank, "target_modules": targets, "task_type": "CAUSAL_LM",
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def one(folder: Path) -> None:
    """A LoRA of a 7B model: 448 tensors."""
    save(folder, BASES[0], 16)


def experts(folder: Path) -> None:
    """A LoRA of each of 64 experts in each of 48 layers: 18,432 tensors."""
    names = [f"mlp.experts.{number}.{part}_proj" for number in range(64) for part in ("gate", "up", "down")]
    sizes = {name: (2048, 768) if "down" in name else (768, 2048) for name in names}
    save(folder, Model("Qwen/Qwen3-30B-A3B", 48, "model.layers", sizes), 16)


def families(folder: Path, count: int) -> None:
    """What a fleet holds: adapters of three bases, in a few ranks."""
    kinds = [(model, rank) for model in BASES for rank in RANKS]
    _save_all(folder, (kinds[number % len(kinds)] for number in range(count)))


def distinct(folder: Path, count: int) -> None:
    """Adapters of which no two have one header: sizes and ranks of their own, and names of three families of models."""
    chance = random.Random(0)
    made = set[tuple[int, ...]]()

    def kinds() -> Iterator[tuple[Model, int]]:
        while len(made) < count:
            hidden, inner = chance.randrange(1024, 8192, 64), chance.randrange(4096, 32768, 64)
            kind = (chance.randrange(3), hidden, inner, chance.randrange(4, 128))
            if kind in made:
                continue
            made.add(kind)
            model = (
                llama("a", 32, hidden, inner, hidden // 4),
                neox("b", 32, hidden, inner),
                opt("c", 32, hidden, inner),
            )
            yield model[kind[0]], kind[3]

    _save_all(folder, kinds())


def _save_all(folder: Path, kinds: Iterator[tuple[Model, int]]) -> None:
    for number, (model, rank) in enumerate(kinds):
        save(folder / f"{number // 100:03}" / f"{number % 100:02}", model, rank)


WIDTHS = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of a number, by the types that factors are saved in."""


def filled(folder: Path, gigabytes: float, dtype: str, first_rank: int) -> None:
    """A LoRA of 224 layers, in so many gigabytes of numbers below 2; the first layer has a rank of its own."""
    config = {"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["q"], "use_dora": False}
    width = WIDTHS[dtype]
    side = int(gigabytes * 1e9 / 224 / 2 / width / 64)
    header: dict[str, object] = {}
    at = 0
    for layer in range(224):
        rank = 64 if layer else first_rank
        for factor, shape in (("A", [rank, side]), ("B", [side, rank])):
            size = width * shape[0] * shape[1]
            name = f"base_model.model.layers.{layer}.q.lora_{factor}.weight"
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    block = bytearray(os.urandom(1 << 24))
    # without the upper bit of the exponent no number is large, nor NaN
    block[width - 1 :: width] = block[width - 1 :: width].translate(bytes(byte & 0xBF for byte in range(256)))
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at:
            at -= file.write(block[:at])
        os.fsync(file.fileno())


if __name__ == "__main__":
    place, wanted = Path(sys.argv[1]), int(sys.argv[2])
    if wanted:
        one(place / "7B LoRA")
        experts(place / "MoE LoRA")
        families(place / "families", wanted)
        distinct(place / "distinct", wanted)
    else:
        filled(place / sys.argv[4], float(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
