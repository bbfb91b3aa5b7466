"""The modules that the layers of a method are of, and their sizes, as far as the adapter's own tensors tell them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from ..adapter import Adapter, AdapterError, DamagedFile
from ..adapter.runtimes import peft
from ..facts.embeddings import EMBEDDINGS
from ..facts.names import PREFIX
from ..facts.subject import Subject
from ..facts.tasks import HEADS
from ..files.loader import BIN, CONFIG, read_weights
from ..skeleton.runner import IDS, ROWS

Shape = tuple[int, ...]
Sized = Callable[[Mapping[str, Shape], Subject], tuple[int, int]]
"""Shapes by factor → what goes in and out of the layer; a size that nothing checks at load is any."""

MOST_MODULES = 20_000
MOST_SIZE = 1 << 24
"""Of one side of a module; no model has such layers, and nothing of it is allocated."""
MOST_IN_KERNEL = 1 << 12
MOST_GIVEN = 1 << 26
"""Numbers that all layers of an adapter give for what they are fed."""
ANY = 1024
"""A size that no tensor of the method has."""


PARTS = (".lora_magnitude_vector", ".lora_B.bias", ".trainable_tokens_")
"""Of names of tensors that an option adds."""


class Unknown(Exception):  # noqa: N818 - an answer, not an error
    """The skeleton cannot stand for the model; the message says what is missing."""


def _blocks(shapes: Mapping[str, Shape], subject: Subject) -> tuple[int, int]:  # noqa: ARG001
    shape = shapes["boft_R"]
    return shape[1] * shape[2], shapes["boft_s"][0]


def _rotated(shapes: Mapping[str, Shape], subject: Subject) -> tuple[int, int]:
    if "oft_R.weight" in shapes:
        blocks, elements = shapes["oft_R.weight"]
        side = round((1 + (1 + 8 * elements) ** 0.5) / 2)
        if subject.config.get("block_share"):
            count = subject.config.get("r")
            blocks = count if type(count) is int else 0
        return blocks * side, ANY
    blocks, side = shapes["oft_r"][0], shapes["oft_r"][1]
    return blocks * side, shapes["oft_s"][0] if "oft_s" in shapes else ANY


def _kronecker(shapes: Mapping[str, Shape], subject: Subject) -> tuple[int, int]:  # noqa: ARG001
    """tuners/lokr/layer.py: factorization; w1 is [a, b], w2 is [c, d], the layer is [a · c, b · d]."""
    a, b = shapes["lokr_w1"] if "lokr_w1" in shapes else (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
    if "lokr_t2" in shapes:
        c, d = shapes["lokr_w2_a"][1], shapes["lokr_w2_b"][1]
    else:
        c, d = shapes["lokr_w2"][:2] if "lokr_w2" in shapes else (shapes["lokr_w2_a"][0], shapes["lokr_w2_b"][1])
    return b * d, a * c


def _hadamard(shapes: Mapping[str, Shape], subject: Subject) -> tuple[int, int]:  # noqa: ARG001
    if "hada_t1" in shapes:
        return shapes["hada_w1_b"][1], shapes["hada_w1_a"][1]
    return shapes["hada_w1_b"][1], shapes["hada_w1_a"][0]


def _vector(shapes: Mapping[str, Shape], subject: Subject) -> tuple[int, int]:  # noqa: ARG001
    shape = shapes["ia3_l"]
    if len(shape) > 2:  # [1, channels, 1, 1], of what goes in or out (tuners/ia3/layer.py: _ConvNd.update_layer)
        return shape[1], shape[1]
    return (shape[1], ANY) if shape[0] == 1 else (ANY, shape[0])


def _shared(shapes: Mapping[str, Shape], subject: Subject) -> tuple[int, int]:
    """The projections are as large as the largest layer, and each takes its part of them."""
    a = subject.tensor_shapes.get("base_model.vera_A")
    return (a[1] if a else ANY), shapes["vera_lambda_b"][0]


def _vectors(shapes: Mapping[str, Shape], subject: Subject, side: str) -> tuple[int, int]:
    """The sides of a layer made of vectors: A's logits are [r, in / length, …], B's are [out / length, r, …]."""
    shape = next(shape for name, shape in shapes.items() if name.startswith(f"vblora_logits_{side}"))
    length = subject.config["vector_length"]
    if type(length) is not int:
        raise AdapterError("vector_length is no whole number")
    return shape[0] * length, shape[1] * length


SIZES: dict[str, Sized] = {
    "LOHA": _hadamard,
    "LOKR": _kronecker,
    "IA3": _vector,
    "BOFT": _blocks,
    "OFT": _rotated,
    "VERA": _shared,
    "HRA": lambda shapes, _: (shapes["hra_u"][0], ANY),
    "DELORA": lambda shapes, _: (shapes["delora_A"][1], shapes["delora_B"][0]),
    "C3A": lambda shapes, _: (
        shapes["c3a_kernel"][1] * shapes["c3a_kernel"][2], shapes["c3a_kernel"][0] * shapes["c3a_kernel"][2],
    ),
    "FOURIERFT": lambda *_: (ANY, ANY),
    "BONE": lambda shapes, _: (ANY, shapes["bone_block"][-1]) if len(shapes["bone_block"]) == 2 else (0, 0),
    "MISS": lambda shapes, _: (ANY, shapes["miss_block"][-1]) if len(shapes["miss_block"]) == 2 else (0, 0),
    "LILY": lambda shapes, _: (shapes["lily_A.weight"][1], shapes["lily_B.weight"][1]),
    "VBLORA": lambda shapes, subject: (_vectors(shapes, subject, "A")[1], _vectors(shapes, subject, "B")[0]),
    "PEANUT": lambda shapes, _: (shapes["peanut_A.weight"][1], shapes["peanut_B.weight"][0]),
}  # fmt: skip
"""The methods that a skeleton stands for beside LoRA: what they read of a layer at load are its sizes."""


CONVOLVED: dict[str, Callable[[Mapping[str, Shape]], Shape]] = {
    "IA3": lambda shapes: (1,) * (len(shapes["ia3_l"]) - 2),
    "LOHA": lambda shapes: shapes.get("hada_t1", (0, 0))[2:],
    "LOKR": lambda shapes: shapes.get("lokr_t2", shapes.get("lokr_w2", (0, 0)))[2:],
}
"""Those that tell a convolution by its kernel; where they do not, it is a linear layer to them, or not told."""


def _most(indices: object) -> int:
    """The largest of some numbers of tokens. Raises AdapterError."""
    numbers = [one for one in indices if type(one) is int] if isinstance(indices, list) else []
    if not numbers:
        raise AdapterError("token_indices is no list of whole numbers")
    return max(numbers)


OTHERS: dict[str, Callable[[Mapping[str, Shape], Subject], dict[str, Any]]] = {
    "LN_TUNING": lambda shapes, _: {"kind": "norm", "out": shapes["ln_tuning_layers.weight"][0]},
    "TRAINABLE_TOKENS": lambda shapes, subject: {
        "kind": "embedding",
        "in": _most(subject.config["token_indices"]) + 1,
        "out": shapes["trainable_tokens_delta"][1],
    },
}  # fmt: skip
"""Those that adapt other layers than linear ones."""


TABLES = (*EMBEDDINGS, "wpe", "embeddings", "tok_embeddings")
"""Names of embeddings that are saved whole, as transformers has them: also modeling_gpt2.py: GPT2Model,
modeling_mamba.py: MambaModel, modeling_modernbert.py: ModernBertEmbeddings. A table under another name is a linear
layer of the same sizes here: what is saved whole is only compared."""


def add_whole(subject: Subject, modules: dict[str, dict[str, Any]]) -> None:
    """Modules that are saved whole, with their sizes by their tensors; and the biases of layers. Raises Unknown."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key in subject.others:
        if not key.startswith(PREFIX) or any(part in key for part in PARTS):
            continue
        path, _, end = key.removeprefix(PREFIX).rpartition(".")
        path = path.partition(".modules_to_save")[0]
        path = path.removesuffix(".base_layer")
        if path:
            shapes.setdefault(path, {})[end] = subject.tensors[key].shape
    for path, parts in shapes.items():
        shape = parts.get("weight", ())
        if path in modules:
            modules[path]["bias"] = modules[path].get("bias") or "bias" in parts
            sides = (modules[path].get("out"), modules[path].get("in"))
            if shape and shape != (sides[::-1] if modules[path]["kind"] == "embedding" else sides):
                raise Unknown(f"the weight of {path} has not the size of its layer")
            modules[path]["held"] = bool(shape)
        elif parts.keys() == {"bias"} and len(parts["bias"]) == 1:
            modules[path] = {"kind": "linear", "out": parts["bias"][0], "in": 8, "bias": True}
        elif len(shape) == 2 and parts.keys() <= {"weight", "bias"}:
            kind = "embedding" if path.rpartition(".")[2] in TABLES else "linear"
            inner, out = (shape[0], shape[1]) if kind == "embedding" else (shape[1], shape[0])
            modules[path] = {"kind": kind, "in": inner, "out": out, "bias": "bias" in parts, "held": True}
        elif len(shape) == 1 and parts.keys() == {"weight", "bias"}:
            modules[path] = {"kind": "norm", "out": shape[0]}
        else:
            modules[path] = {"kind": "other", "parameters": {name: list(size) for name, size in parts.items()}}


def of_method(subject: Subject) -> dict[str, dict[str, Any]]:
    """Path → a linear layer for each that a method other than LoRA adapts. Raises Unknown."""
    method = subject.method or "an unknown method"
    sized, other = SIZES.get(method), OTHERS.get(method)
    if sized is None and other is None:
        raise Unknown(f"a skeleton does not stand for {method}")
    if subject.config.get("target_modules") is None and subject.base is None:
        raise Unknown("target_modules is not set, and the default hangs on the base model")
    if subject.adapter.faults or subject.adapter.origin or not subject.layers:
        raise Unknown("the files tell no layer")
    if subject.config.get("bias", "none") not in ("none", None):
        raise Unknown("bias is set")
    names = {key for layer in subject.layers.values() for key in layer.factors.values()}
    heads = [f".{name}." for name in (*subject.saved_whole, *HEADS.get(subject.task, ()))]
    strange = [
        key for key in subject.tensor_shapes
        if key not in names and not key.startswith(("base_model.vera_", "base_model.vblora_"))
        and not any(name in f".{key}" for name in heads)
    ]  # fmt: skip
    if strange:
        raise Unknown(f"{strange[0][:120]} is none of its layers'")
    named = f".{subject.question.adapter_name}."
    unsaved = [key for key in subject.tensor_shapes if named in f"{key}." or key.endswith("_topk_indices")]
    if unsaved:
        raise Unknown(f"a release that has read {unsaved[0][:120]} does not save it under that name")
    modules: dict[str, dict[str, Any]] = {}
    for module, layer in subject.layers.items():
        shapes = {factor: subject.tensor_shapes[key] for factor, key in layer.factors.items()}
        try:
            spec: dict[str, Any] = other(shapes, subject) if other is not None else {"kind": "linear"}
            if sized is not None:
                spec["in"], spec["out"] = sized(shapes, subject)
        except (KeyError, IndexError, ValueError, TypeError, StopIteration):
            raise Unknown(f"the tensors of {module} do not tell its size") from None
        if method in CONVOLVED and len(kernel := CONVOLVED[method](shapes)):
            spec = {"kind": f"conv{len(kernel)}d", "kernel": list(kernel), **{key: spec[key] for key in ("in", "out")}}
        modules[module.removeprefix(PREFIX)] = spec
    if heads:
        add_whole(subject, modules)
    return modules


def check(modules: Mapping[str, dict[str, Any]]) -> None:
    """Whether no number of a file becomes a size that no model has, and torch takes every name. Raises Unknown."""
    if len(modules) > MOST_MODULES:
        raise Unknown(f"the adapter has more than {MOST_MODULES} modules")
    given = 0
    for module, spec in modules.items():
        kernel = spec.get("kernel", [])
        sizes = [spec.get("in", 1), spec.get("out", 1), *kernel]
        if not all(type(size) is int and 0 <= size <= MOST_SIZE for size in sizes) or prod(kernel) > MOST_IN_KERNEL:
            raise Unknown(f"{module} would be larger than any layer is")
        given += sizes[1] * (IDS if spec["kind"] == "embedding" else ROWS)
        if given > MOST_GIVEN:
            raise Unknown("its layers give more numbers than can be compared")
        if any(not part or (not part.isidentifier() and not part.isdecimal()) for part in module.split(".")):
            raise Unknown("the name of a module is none that torch takes")


def stage(adapter: Adapter, place: str, runtime: str) -> None:
    """Put what a release reads of an adapter in a new folder, so that it is what was looked at: a config of the same
    values, safetensors, which hold no code, as a link, and a `.bin` as a copy, in which none was found. Raises Unknown,
    AdapterError.
    """
    os.mkdir(place)
    if adapter.config is not None:
        with open(os.path.join(place, CONFIG), "w", encoding="utf-8") as file:
            json.dump(adapter.config, file)
    beside = BIN in adapter.files and BIN not in adapter.weights and runtime in peft("0.2", "0.3")
    if beside and adapter.beside is not None:
        raise Unknown(f"the {BIN} beside the weights, which that release reads, may hold code")
    for name in (*adapter.weights, *((BIN,) if beside else ())):
        source, target = os.path.join(adapter.folder, name), os.path.join(place, name)
        if name != BIN:
            os.symlink(os.path.abspath(source), target)
            continue
        shutil.copyfile(source, target)
        try:
            read_weights(target)
        except DamagedFile as damage:
            raise Unknown(damage.message) from None
