"""MLX (mlx_lm): adapters.safetensors and an adapter_config.json of its own.

`y = W x + scale · (x lora_a) lora_b`, with lora_a `[in, r]` and lora_b `[r, out]`, which are PEFT's A and B turned, and
one rank and scale for all layers (mlx-lm tuner/lora.py: LoRALinear; tuner/utils.py: linear_to_lora_layers). DoRA's m is
PEFT's magnitude (tuner/dora.py: DoRALinear).

A module has the name that mlx_lm's model has for it. Of the 38 architectures that mlx-lm 0.32.2 and transformers 5.24
both make of transformers' default config, names in model.layers are the same but for what `OTHERWISE` has, and those
outside of it are not: language_model.model.layers (Gemma 3), model.h (GPT-J), backbone (Nemotron-H).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from ..adapter import Base, TensorInfo, clean
from ..facts.subject import Subject
from ..repairs.cuts import transposed
from . import Converted, Foreign, Mend, Refused, Tool, Wants, lora, may_be_embedding, plain

PARTS = {"lora_a": "lora_A", "lora_b": "lora_B", "m": "lora_magnitude_vector"}
"""The last part of a name → PEFT's factor (tuner/utils.py: load_adapters takes no other)."""


BLOCK = re.compile(r"model\.layers\.([0-9]{1,5})\.")
SAME = re.compile(r"model\.layers\.[0-9]+\.|(?:lm_head|model\.embed_tokens)$")
"""Modules that have one name in both."""
OTHERWISE = re.compile(r".*(?:\.experts\.|switch_|\.shared_expert\.|(?:\.gate|router)(?:\.proj)?$|\.kv_b_proj$)")
"""Experts, of which mlx_lm makes one module, and their routers, which are no linear layers in transformers 5; and what
DeepSeek-V3 has in mlx_lm as two."""
RENAMED = frozenset(("gemma3", "gemma4", "nanochat", "nemotron_h", "qwen3_5", "qwen3_5_moe"))
"""Types of models of which that is not so."""


def to_peft(foreign: Foreign) -> list[Converted]:
    """One adapter; the scale is said by lora_alpha. Raises Refused."""
    config = foreign.config
    if not config:
        raise Refused("its adapter_config.json, which has the scale, is missing")
    kind = config.get("fine_tune_type", "dora" if config.get("use_dora") is True else "lora")
    values = config.get("lora_parameters")
    if kind not in ("lora", "dora") or not isinstance(values, dict):
        raise Refused(f"fine_tune_type {str(kind)[:40]} with such lora_parameters is no LoRA")
    rank, scale, dropout = (values.get(key) for key in ("rank", "scale", "dropout"))
    if not isinstance(rank, int) or rank < 1 or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise Refused("lora_parameters has no rank and scale")
    # mlx-lm before 0.15 multiplied the scale by alpha / rank; use_dora came with 0.16, fine_tune_type with 0.20
    if values.get("alpha", rank) != rank and not {"use_dora", "fine_tune_type"} & config.keys():
        raise Refused("lora_parameters has alpha, by which mlx-lm before 0.15 multiplied the scale, and newer does not")
    modules = _modules(foreign, rank, dora=kind == "dora")
    _check_adapted(modules, values.get("keys"), config.get("num_layers", config.get("lora_layers")))
    others: dict[str, Any] = {"use_dora": True} if kind == "dora" else {}
    if isinstance(dropout, float) and 0 < dropout < 1:
        others["lora_dropout"] = dropout
    if isinstance(config.get("model"), str):
        others["base_model_name_or_path"] = config["model"]
    return [lora(modules, r=rank, lora_alpha=_alpha(scale, rank), **others)]


def _modules(foreign: Foreign, rank: int, *, dora: bool) -> dict[str, dict[str, TensorInfo]]:
    modules: dict[str, dict[str, TensorInfo]] = {}
    for name, info in foreign.tensors.items():
        module, _, part = name.rpartition(".")
        if not module or part not in PARTS or (part == "m" and not dora):
            raise Refused(f"{name} is no tensor of a {'DoRA' if dora else 'LoRA'} of mlx_lm")
        modules.setdefault(module, {})[part] = info
    wanted = {"lora_a", "lora_b", "m"} if dora else {"lora_a", "lora_b"}
    converted = {}
    for module, parts in modules.items():
        if parts.keys() != wanted:
            raise Refused(f"{module} has not all of {', '.join(sorted(wanted))}")
        a, b = parts["lora_a"].shape, parts["lora_b"].shape
        if len(a) == len(b) == 3:
            raise Refused(f"{module} is a layer of experts, which PEFT has under other names, as the model decides")
        if len(a) != 2 or len(b) != 2 or a[1] != rank or b[0] != rank:
            raise Refused(f"{module} has factors {list(a)} and {list(b)}, and not of rank {rank}")
        _check_name(module, foreign.base)
        if dora and parts["m"].shape != (b[1],):
            raise Refused(f"the m of {module} has the shape {list(parts['m'].shape)}, and not [{b[1]}]")
        is_embedding = _is_embedding(foreign, module, a[0], b[1])
        if is_embedding and dora:
            raise Refused(f"{module} is an embedding, of which DoRA has one magnitude a token, and PEFT's one a column")
        names = {**PARTS, "lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"} if is_embedding else PARTS
        converted[module] = {names[part]: x if part == "m" else transposed(x) for part, x in sorted(parts.items())}
    if not converted:
        raise Refused("it holds no layer")
    return converted


def _check_adapted(modules: Collection[str], keys: object, blocks: object) -> None:
    """Raises Refused for a module that mlx_lm does not adapt by the config: of whose tensors releases said nothing, and
    which newer ones reject (tuner/utils.py: linear_to_lora_layers, load_adapters). Those are the `keys` of the last
    num_layers (lora_layers before 0.19; of all layers from 0.19 on, until 0.21.5), and what keys name in full. A
    trainer is known to write a word for keys (MakazhanAlpamys/Soup#392).
    """
    numbers = {module: int(match[1]) for module in modules if (match := BLOCK.match(module))}
    last = max(numbers.values(), default=0)
    for module in modules:
        names = (module, BLOCK.sub("", module))
        if keys is not None and not (isinstance(keys, list) and any(name in keys for name in names)):
            trained = sorted({BLOCK.sub("", module) for module in modules})
            named = clean(", ".join(f'"{name}"' for name in trained[:20]))
            raise Mend(
                f"write keys of lora_parameters in its adapter_config.json as they were trained: {named}",
                f"{module} is not in the keys of lora_parameters, so mlx_lm has no place for its tensors",
            )
        if isinstance(keys, list) and module in keys:
            continue
        if isinstance(blocks, int) and 0 < blocks <= last - numbers.get(module, last):
            raise Mend(
                "set num_layers to -1 in its adapter_config.json, if mlx_lm 0.19 to 0.21 trained it",
                f"{module} is not in the last {blocks} layers (num_layers), which alone releases adapt but mlx_lm 0.19 "
                "to 0.21, which adapted all: if that trained it, num_layers is to be -1",
            )


def _check_name(module: str, base: Base | None) -> None:
    """Raises Refused where a module may be called otherwise in transformers; weights of the model that is named decide
    later.
    """
    known = base is not None and bool(base.weights)
    if OTHERWISE.match(module) or not (known or SAME.match(module)):
        tells = "" if known else " (--base tells, where the weights of the model lie)"
        raise Refused(f"{module} may be called otherwise in transformers than in mlx_lm{tells}")


def _is_embedding(foreign: Foreign, module: str, rows: int, columns: int) -> bool:
    """Whether a module is an embedding, whose LoRA mlx_lm applies to a head that is tied to it as well (tuner/lora.py:
    LoRAEmbedding.as_linear), and PEFT does not. Raises Refused where that is so or not known.
    """
    if not may_be_embedding(module):
        return False
    base = foreign.base
    shape = base.weights.get(module) if base is not None else None
    if shape == (columns, rows) and rows != columns:
        return False
    if shape != (rows, columns):
        raise Wants("--base MODEL", f"{module} may be an embedding: name the model with --base, which tells")
    untied(foreign.base.config if foreign.base else {}, module)
    return True


def untied(config: dict[str, object], module: str) -> None:
    """Raises Refused where a head may share the weight of an embedding."""
    if config.get("tie_word_embeddings") is not False:
        raise Refused(
            f"{module} is an embedding, and where the model's head is tied to it, mlx_lm adapts both and PEFT one: "
            "--base has to name a model whose config says tie_word_embeddings false"
        )


def _alpha(scale: float, rank: int) -> float:
    """The lora_alpha that PEFT divides by the rank to get the scale. Where no float is it, one is within a bit of the
    53 of the scale, and both libraries take 24.
    """
    alpha = float(scale) * rank
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    alpha = min(near, key=lambda x: abs(x / rank - scale))
    return int(alpha) if alpha == int(alpha) else alpha


def from_peft(subject: Subject) -> Foreign:
    """What mlx_lm loads to the same function. `keys` name each module in full, so that no other is adapted."""
    rank, scale, layers = plain(subject)
    dora = subject.config.get("use_dora") is True
    model = subject.question.base.config if subject.question.base else {}
    tensors = {}
    for module, factors in layers.items():
        if OTHERWISE.match(module) or not SAME.match(module) or subject.model_type in RENAMED:
            raise Refused(f"{module} may be called otherwise in mlx_lm than in transformers")
        if module == "lm_head" and model.get("tie_word_embeddings") is not False:
            raise Refused(
                "mlx_lm has no lm_head where it is tied to the embedding: --base has to name a model whose config says "
                "tie_word_embeddings false"
            )
        for factor, info in factors.items():
            if "embedding" in factor:
                if dora:
                    raise Refused(f"{module} is an embedding, of which DoRA has another magnitude in mlx_lm")
                untied(model, module)
            part = {"A": "lora_a", "B": "lora_b"}.get(factor[-1], "m")
            tensors[f"{module}.{part}"] = info if part == "m" else transposed(info)
    dropout = subject.config.get("lora_dropout", 0.0)
    config = {
        "fine_tune_type": "dora" if dora else "lora",
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": dropout, "keys": sorted(layers)},
        "model": subject.config.get("base_model_name_or_path"),
        "num_layers": -1,
    }
    return Foreign(config, {"format": "mlx"}, tensors)


TOOL = Tool("MLX", "adapter_config.json", "adapters.safetensors", to_peft, from_peft, uniform=True)
