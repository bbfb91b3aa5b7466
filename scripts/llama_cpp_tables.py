"""llama.cpp: what its converter calls modules, and which of them its graphs multiply without LoRA."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
import types
from typing import Any

from module_trees import Class, Source, needed


def llama_cpp(root: str) -> dict[str, Any]:
    """The architectures that convert, each with its graph; a line `:name` for each graph; the names of tensors."""
    constants, mapping = _gguf(root)
    source = Source(root, lambda _: None, lambda *_: None)
    conversion = needed(source.module("conversion"), "conversion/")
    table: dict[str, Any] = {}
    for name, file in conversion.literal("TEXT_MODEL_MAP").items():
        cls = _registered(source, f"conversion.{file}", name)
        if cls is not None:
            table[name] = _class(source, cls)
    unheard = multiplied(root)
    for arch, name in constants.MODEL_ARCH_NAMES.items():
        tensors = [tensor.name for tensor in constants.MODEL_TENSORS.get(arch, ())]
        if any(entry.get("graph") == arch.name for entry in table.values()):
            entry = {"tensors": tensors, "no_lora": unheard.get(name, [])}
            own = mapping.TensorNameMap.arch_block_mappings_cfg.get(arch, {})
            entry["names"] = {tensor.name: _numbered(keys) for tensor, keys in own.items()}
            table[f":{arch.name}"] = {key: value for key, value in entry.items() if value}
    every = {**mapping.TensorNameMap.mappings_cfg, **mapping.TensorNameMap.block_mappings_cfg}
    used = {tensor for key, entry in table.items() if key.startswith(":") for tensor in entry["tensors"]}
    table["names"] = {tensor.name: _numbered(keys) for tensor, keys in every.items() if tensor.name in used}
    return table


def _numbered(keys: tuple[str, ...]) -> list[str]:
    return [key.replace("{bid}", "#").replace("{xid}", "#") for key in keys]


def _gguf(root: str) -> tuple[Any, Any]:
    """Gguf's tables of names, which are nothing but data."""
    package = types.ModuleType("gguf")
    package.__path__ = [os.path.join(root, "gguf-py", "gguf")]
    sys.modules["gguf"] = package
    loaded = []
    for name in ("constants", "tensor_mapping"):
        path = os.path.join(root, "gguf-py", "gguf", f"{name}.py")
        spec = importlib.util.spec_from_file_location(f"gguf.{name}", path)
        module = importlib.util.module_from_spec(needed(spec, path))
        sys.modules[f"gguf.{name}"] = module
        needed(spec and spec.loader, path).exec_module(module)
        loaded.append(module)
    return loaded[0], loaded[1]


def _registered(source: Source, module: str, architecture: str) -> Class | None:
    """The class that `@ModelBase.register` names an architecture for."""
    at = source.module(module)
    for node in at.tree.body if at else []:
        if at is None or not isinstance(node, ast.ClassDef):
            continue
        calls = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
        names = [arg.value for call in calls for arg in call.args if isinstance(arg, ast.Constant)]
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        if architecture in names and "MmprojModel" not in bases:
            return Class(at, node)
    return None


COMMON = ("ModelBase", "TextModel")
STEPS = ("modify_tensors", "filter_tensors", "write", "prepare_tensors", "permute")
OPERATIONS = (
    "permute", "transpose", "split", "chunk", "reshape", "view", "cat", "stack", "repeat", "numel", "T", "quant",
    "contiguous", "unsqueeze", "squeeze", "weight_quant", "flatten", "unbind", "tile", "repeat_interleave",
)  # fmt: skip


def _class(source: Source, cls: Class) -> dict[str, Any]:
    """The graph of a class, whose own steps change tensors, and what those do."""
    entry: dict[str, Any] = {"class": f"{cls.module.name.rpartition('.')[2]}: {cls.name}"}
    found = source.attribute(cls, "model_arch")
    if found:
        entry["graph"] = ast.unparse(found[1]).rpartition(".")[2]
    owners, does = set(), set()
    for owner in source.mro(cls):
        for node in owner.node.body:
            if isinstance(node, ast.FunctionDef) and node.name in STEPS and owner.name not in COMMON:
                owners.add(owner.name)
                for part in ast.walk(node):
                    name = part.attr if isinstance(part, ast.Attribute) else ""
                    if name in OPERATIONS or name.endswith("_quant"):
                        does.add(name)
    return {key: value for key, value in {**entry, "steps": sorted(owners), "does": sorted(does)}.items() if value}


_MADE = re.compile(r"(?:layer\.)?(\w+)\s*=\s*create_tensor\(tn\(LLM_TENSOR_(\w+),\s*\"weight\"")
_MULTIPLIED = re.compile(r"ggml_mul_mat(?:_id)?\(ctx0,\s*(?:\w+(?:\.|->))?(?:layers\[\w+\]\.|layer\.)?(\w+),")


def multiplied(root: str) -> dict[str, list[str]]:
    """Graph → tensors that it multiplies by ggml_mul_mat, which knows no LoRA (build_lora_mm does)."""
    folder = os.path.join(root, "src", "models")
    found = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".cpp"):
            with open(os.path.join(folder, file), encoding="utf-8") as handle:
                text = handle.read()
            members: dict[str, set[str]] = {}
            for member, tensor in _MADE.findall(text):
                members.setdefault(member, set()).add(tensor)
            plain = {tensor for name in _MULTIPLIED.findall(text) for tensor in members.get(name, ())}
            if plain - {"TOKEN_EMBD"}:
                found[file.removesuffix(".cpp")] = sorted(plain - {"TOKEN_EMBD"})
    return found
