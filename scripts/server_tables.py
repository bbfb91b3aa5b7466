"""Make the tables by architecture in ckpt_doctor/facts/servers/ from a runtime's own source.

    python scripts/server_tables.py vllm 0.33.0 CHECKOUT    # vllm.json; of a release in OLDER vllm-0.11.0.json
    python scripts/server_tables.py sglang 0.5.23 CHECKOUT
    python scripts/server_tables.py transformers 5.16.1 CHECKOUT
    python scripts/server_tables.py llama.cpp 0.3.36 CHECKOUT

CHECKOUT holds the package: an unpacked wheel (`pip download --no-deps vllm==0.33.0`), a site-packages folder, or a
clone's python folder; for llama.cpp the tree (vendor/llama.cpp of llama-cpp-python). Nothing of it is run. A new version
is one command, and a diff to review: what a diff says of a class that was run holds until it is run again.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from module_trees import (
    Class,
    Const,
    Instance,
    Items,
    Leaf,
    Maker,
    Registered,
    Several,
    Source,
    TooLarge,
    Value,
    Values,
    needed,
    union,
)
from module_values import Attributes

from ckpt_doctor.adapter.runtimes import OLDER

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "ckpt_doctor", "facts", "servers")
LINEAR = {
    "ReplicatedLinear": "replicated", "ColumnParallelLinear": "column", "MergedColumnParallelLinear": "merged",
    "QKVParallelLinear": "qkv", "RowParallelLinear": "row",
}  # fmt: skip
"""What vLLM and SGLang make the projections of."""
PLAIN = {
    "Linear": "linear", "Embedding": "table", "Conv1D": "conv1d", "Conv1d": "conv", "Conv2d": "conv", "Conv3d": "conv",
    "ConvTranspose1d": "conv",
}  # fmt: skip
_NORM = re.compile(r"Norm(?:\dd|Gated|Fp32)?$")
"""How a norm is called; a class with the word elsewhere in its name has parts (DbrxFusedNormAttention)."""
NO_MODULE = ("PPMissingLayer", "LogitsProcessor", "RadixAttention", "Attention", "StageMissingLayer")


def kind_of(names: list[str]) -> str | None:
    """The kind of a class by its name and its bases'; "" for what holds no weights, None for what has parts."""
    for at, name in enumerate(names):
        if name in LINEAR:
            return LINEAR[name] if at == 0 else f"own {LINEAR[name]}"
        if name in ("LinearBase", "LinearTransformersBase"):
            return "own"
        if name == "ParallelLMHead":
            return "head"
        if name == "VocabParallelEmbedding":
            return "embedding"
        if name in ("FusedMoE", "MoERunner"):
            return "experts"
        if name in PLAIN:
            return PLAIN[name]
    return "" if names[0] in NO_MODULE or _NORM.search(names[0]) or "RotaryEmbedding" in names[0] else None


def made_by(name: str, maker: Maker, node: ast.Call) -> Values | None:
    """What the helpers come to that models are made with."""

    def given(at: int, keyword: str) -> Values:
        named = [part.value for part in node.keywords if part.arg == keyword]
        return maker.value(named[0]) if named else maker.value(node.args[at]) if len(node.args) > at else ()

    if "FusedMoE" in name or name in ("fused_moe_factory", "get_moe_impl_class"):
        return (Leaf("experts"),)
    if name.startswith("make_") and "layers" in name:
        layers = union(*(maker.made(value, [], {}) for value in given(1, "layer_fn")))
        return (Several((Items(layers),)),)
    if name in ("ModuleList", "Sequential"):
        inner = union(*map(maker.value, node.args))
        return (Items(union(*((v.values if isinstance(v, Items) else (v,)) for v in inner))),)
    if name == "ModuleDict":
        return tuple(named_parts(maker, node.args[0])) if node.args else ()
    if name in ("init_vllm_registered_model", "init_on_device_registered_model"):
        values = given(9, "architectures")
        named = tuple(str(c.value) for v in values if isinstance(v, Items) for c in v.values if isinstance(c, Const))
        return (Registered(named),)
    if name in ("from_config", "_from_config") and ast.unparse(node.func).startswith("Auto"):
        config = [*node.args, *(part.value for part in node.keywords if part.arg == "config")]
        return (Registered((ast.unparse(config[0]).rpartition(".")[2],)),) if config else ()
    if name == "_from_config" and isinstance(node.func, ast.Attribute):
        return union(*(maker.made(value, [], {}) for value in maker.value(node.func.value)))
    if name == "append" and isinstance(node.func, ast.Attribute) and len(node.args) == 1:
        appended(maker, node.func.value, maker.value(node.args[0]))
        return ()
    if name == "setattr" and len(node.args) == 3:
        names = [value.value for value in maker.value(node.args[1]) if isinstance(value, Const)]
        for owner in maker.value(node.args[0]):
            for attribute in names if isinstance(owner, Instance) else ():
                owner.add(str(attribute), maker.value(node.args[2]))
        return ()
    if name == "Parameter":
        return (Leaf("parameter"),)
    if name in PLAIN and (name == "Conv1D" or ast.unparse(node.func).startswith(("nn.", "torch.nn."))):
        return (Leaf(PLAIN[name]),)
    return None


def appended(maker: Maker, target: ast.expr, values: Values) -> None:
    """Put values into a list that a name or an attribute has."""
    lists = [value for value in maker.value(target) if isinstance(value, Items)]
    whole = (Items(union(*(value.values for value in lists), values)),) if lists and values else ()
    if whole and isinstance(target, ast.Name):
        maker.env[target.id] = whole
    elif whole and isinstance(target, ast.Attribute):
        for owner in maker.value(target.value):
            if isinstance(owner, Instance):
                owner.attributes[target.attr] = whole


def named_parts(maker: Maker, node: ast.expr) -> Iterator[Value]:
    """The modules of a ModuleDict, as the attributes of an object."""
    if isinstance(node, ast.Dict):
        holder = Instance(Class(maker.module, ast.ClassDef("ModuleDict", [], [], [], [])))
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                holder.add(str(key.value), maker.value(value))
        yield holder


def modules(source: Source, instance: Instance, renamed: Callable[[str, str, Instance | None], str]) -> dict[str, Any]:
    """Parent → leaf → kind, for all modules below an object; `#` stands for a number."""
    tree: dict[str, dict[str, set[str]]] = {}
    holders = {"": instance}
    for path, kind, holder in source.paths(instance):
        if any(part in ("start_layer", "end_layer") for part in path.split(".")):
            continue
        if holder is not None:
            holders[path] = holder
        elif kind:
            parent, _, leaf = path.rpartition(".")
            kind = renamed(leaf, kind, holders.get(parent))
            tree.setdefault(parent, {}).setdefault(leaf, set()).add(kind)
    return {parent: {leaf: "|".join(sorted(kinds)) for leaf, kinds in found.items()} for parent, found in tree.items()}


def marked(leaf: str, kind: str, holder: Instance | None) -> str:
    """kv_b_proj is never multiplied as a layer where the attention absorbs it (mla_attention.py)."""
    if leaf == "kv_b_proj" and holder is not None:
        text = ast.unparse(holder.cls.node)
        if "MLAModules(" in text or "MLAAttention(" in text:
            return "absorbed"
    return kind


SUSPICIOUS = ("permute", "transpose", "chunk", "reshape", "view", "split", "flip", "repeat_interleave", "cat", "stack")
"""What reorders rows where a loader does it, so that a factor in the Hub's order may be wrong."""


def loader(source: Source, instance: Instance) -> list[str]:
    """What the loaders of a class and of its parts do to weights, by the names of methods."""
    found: set[str] = set()
    for _, _, holder in [("", "", instance), *source.paths(instance)]:
        for cls in source.mro(holder.cls) if holder is not None else []:
            for node in cls.node.body:
                if isinstance(node, ast.FunctionDef) and "load" in node.name and "weight" in node.name:
                    for call in ast.walk(node):
                        name = ast.unparse(call.func).rpartition(".")[2] if isinstance(call, ast.Call) else ""
                        if any(name == word or word in name.split("_") for word in SUSPICIOUS):
                            found.add(name)
    return sorted(found)


def inner_embeddings(source: Source, facts: Attributes, instance: Instance) -> set[str]:
    """The embedding_modules of the classes below one (lora/utils.py: get_supported_lora_modules)."""
    holders = {id(holder.cls): holder.cls for _, _, holder in source.paths(instance) if holder is not None}
    return {str(name) for cls in holders.values() for name in facts.value("embedding_modules", cls) or ()}


def vllm(root: str) -> dict[str, Any]:
    """VLLM's registry, and each class with LoRA."""
    source = Source(root, kind_of, made_by)
    package = "vllm.model_executor.models"
    registry = needed(source.module(f"{package}.registry"), "registry.py")
    table: dict[str, Any] = {}
    for group, node in registry.names.items():
        if not group.endswith("_MODELS") or not isinstance(node, ast.Dict) or group == "_VLLM_MODELS":
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None or not isinstance(key, ast.Constant):
                continue
            if not isinstance(value, ast.Tuple):
                table.setdefault(key.value, {"lora": False, "gone": True})
                continue
            file, name = (str(part.value) for part in value.elts if isinstance(part, ast.Constant))
            try:
                table[key.value] = _vllm_class(source, file if "." in file else f"{package}.{file}", name, key.value)
            except TooLarge:
                table[key.value] = {"unread": f"{file}: {name}"}
    return table


def _vllm_class(source: Source, module: str, name: str, architecture: str) -> dict[str, Any]:
    if module.endswith(".transformers"):
        return {"transformers": name}
    cls = source.find(module, name)
    if cls is None:
        return {"unread": f"{module}: {name}"}
    entry: dict[str, Any] = {} if name == architecture else {"class": name}
    if "SupportsLoRA" not in source.names(cls):
        return {**entry, "lora": False}
    instance = source.instance(cls)
    facts = Attributes(source, cls)
    tree = modules(source, instance, marked)
    entry["modules"] = {parent: leaves for parent, leaves in tree.items() if set(leaves.values()) != {"parameter"}}
    entry["packed"] = facts.merged("packed_modules_mapping", instance)
    own = facts.value("embedding_modules") or {}
    entry["embeddings"] = sorted(own)
    entry["inner_embeddings"] = sorted(inner_embeddings(source, facts, instance) - own.keys())
    entry["renames"] = facts.renames("hf_to_vllm_mapper")
    if facts.value("is_3d_moe_weight"):
        entry["experts"] = "3d"
    elif any("experts" in leaves for leaves in tree.values()):
        entry["experts"] = facts.expert_names(instance)
    entry["skip"] = facts.value("lora_skip_prefixes")
    entry["towers"] = facts.towers()
    entry["tower_lora"] = bool(facts.value("supports_tower_connector_lora"))
    entry["loader"] = loader(source, instance)
    return {key: value for key, value in entry.items() if value}


def sglang(root: str) -> dict[str, Any]:
    """The entry classes of SGLang's models."""
    source = Source(root, kind_of, made_by)
    folder = os.path.join(root, "sglang", "srt", "models")
    table: dict[str, Any] = {}
    for file in sorted(os.listdir(folder)):
        module = source.module(f"sglang.srt.models.{file.removesuffix('.py')}") if file.endswith(".py") else None
        node = module.names.get("EntryClass") if module else None
        if module is None or not isinstance(node, ast.expr):
            continue
        for item in node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]:
            cls = source.find(module.name, ast.unparse(item))
            if cls is None:
                continue
            try:
                table[cls.name] = _sglang_class(source, cls)
            except TooLarge:
                table[cls.name] = {"unread": module.name}
    return table


def _sglang_class(source: Source, cls: Class) -> dict[str, Any]:
    instance, facts = source.instance(cls), Attributes(source, cls)
    entry: dict[str, Any] = {"modules": modules(source, instance, marked)}
    entry["modules"] = {p: ls for p, ls in entry["modules"].items() if set(ls.values()) != {"parameter"}}
    entry["only"] = facts.pattern("should_apply_lora")
    entry["supported"] = sorted(facts.value("supported_lora_modules") or ())
    entry["own_sizes"] = source.attribute(cls, "get_hidden_dim") is not None
    entry["loader"] = loader(source, instance)
    return {key: value for key, value in entry.items() if value}


def write(name: str, version: str, table: dict[str, Any]) -> None:
    """One line an architecture, so that one can be found without parsing the others.

    The newest release that was reviewed has the table with the server's name alone, those in OLDER
    (ckpt_doctor/adapter/runtimes.py) each its own.
    """
    id_ = f"{name}=={version}"
    older = id_ in OLDER.get(name, ())
    lines = [f"{json.dumps(key)}: {json.dumps(table[key], separators=(',', ':'))}" for key in sorted(table)]
    file_name = name.replace(".", "_") + (f"-{version}" if older else "")
    path = os.path.join(FOLDER, f"{file_name}.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"version": {json.dumps(version)},\n' + ",\n".join(lines) + "}\n")


def main() -> None:
    """Write one table."""
    sys.setrecursionlimit(20000)
    name, version, checkout = sys.argv[1:]
    if name == "llama.cpp":
        from llama_cpp_tables import llama_cpp as make
    elif name == "transformers":
        from transformers_tables import transformers as make
    else:
        make = {"vllm": vllm, "sglang": sglang}[name]
    write(name, version, make(checkout))


if __name__ == "__main__":
    main()
