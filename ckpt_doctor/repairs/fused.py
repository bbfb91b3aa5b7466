"""Projections in one and in parts (qkv_proj, gate_up_proj), where the model's class wants the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..adapter import DTYPE_BITS, Adapter, Joined, TensorInfo, zeros
from ..facts.layers import RANK_AXIS, is_number
from ..facts.names import PREFIX, pattern_value
from ..facts.servers.loads import Load
from ..facts.servers.loads.load import Pair
from ..facts.servers.loads.names import Known, bare
from ..facts.subject import Subject
from . import Refused, meant, resized, with_config
from .cuts import cut, targeting
from .servers import no_target, opened

WHOLES = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Projection → its parts, whose rows follow one another in it: transformers' modeling_phi3.py (Phi3Attention.forward,
Phi3MLP.forward) and modeling_glm4.py (Glm4MLP.forward: chunk), vLLM's modules of these names (packed_modules_mapping:
QKVParallelLinear, MergedColumnParallelLinear). Others lie otherwise, and have other names (query_key_value, wqkv).
"""
NAMED_BY_PARTS = ("glm", "glm4")
"""Types of models that have gate_up_proj, and whose class in vLLM names its parts."""


def halves(subject: Subject) -> Adapter:
    """gate_proj and up_proj for GLM-4's gate_up_proj: A is that of both, B is cut. transformers' model has no modules
    of those names, and PEFT would leave them out in silence: with a target that is nowhere every release rejects all.
    """
    base = subject.question.base
    if base is None or base.config.get("model_type") not in NAMED_BY_PARTS:
        return subject.adapter
    adapter = apart(subject, lambda module: module.endswith(".gate_up_proj"))
    if adapter is subject.adapter:
        return adapter
    if meant(subject).keys() != subject.layers.keys():
        raise Refused("some layers have tensors that the release which saved them ignores")
    return no_target(subject.changed(adapter))


def parted(subject: Subject) -> Adapter:
    """The parts of a projection in one, where the model has the parts."""
    if subject.question.base is None:
        return subject.adapter
    known = Known(Load(subject.config, subject.tensor_shapes, subject.question.base))

    def split(module: str) -> bool:
        stem, _, leaf = module.rpartition(".")
        return known.has(module) is False and all(known.has(f"{stem}.{part}") for part in WHOLES[leaf])

    return apart(subject, split)


def apart(subject: Subject, wanted: Callable[[str], bool] = bool) -> Adapter:
    """The parts of projections, each with the whole's A and its own rows of B; every layer is a target, as compared."""
    if subject.method != "LORA" or subject.question.base is None:
        return subject.adapter
    load = Load(subject.config, subject.tensor_shapes, subject.question.base)
    wholes = [module for module in load.pairs if module.rpartition(".")[2] in WHOLES and wanted(module)]
    if not wholes:
        return subject.adapter
    _plain(subject)
    tensors: dict[str, TensorInfo] = dict(subject.tensors)
    weights = _weights(load)
    for module in wholes:
        stem, _, leaf = module.rpartition(".")
        pair, sizes = load.pairs[module], _rows(load, weights, stem, leaf)
        if pair.sizes is None or len(pair.keys) != 2 or pair.sizes[0] != sum(sizes):
            raise Refused(f"{module} has not the size of the model's {', '.join(WHOLES[leaf])} together")
        key_a, key_b = sorted(pair.keys)
        a, b, at = tensors.pop(key_a), tensors.pop(key_b), 0
        for part, size in zip(WHOLES[leaf], sizes, strict=True):
            for key in ("rank_pattern", "alpha_pattern"):
                of_both = [pattern_value(subject.config.get(key), name, None) for name in (module, f"{stem}.{part}")]
                if of_both[0] != of_both[1]:
                    raise Refused(f"{key} says of {module} what it does not of its parts")
            _add(tensors, f"{stem}.{part}", a, cut(b, range(at, at + size)))
            at += size
    return opened(subject.changed(subject.adapter._replace(tensors=tensors)))


def whole(subject: Subject) -> Adapter:
    """A projection in one for its parts, where the model has the one: the As below one another, and in B each part's
    own rows and columns, the rest zeros. The rank is then that of all parts together, and every layer gets it.
    """
    config, base = subject.config, subject.question.base
    if subject.method != "LORA" or base is None:
        return subject.adapter
    load = Load(config, subject.tensor_shapes, base)
    known = Known(load)
    groups: dict[tuple[str, str], dict[str, Pair]] = {}
    for module, pair in load.pairs.items():
        stem, _, leaf = module.rpartition(".")
        name = next((name for name, parts in WHOLES.items() if leaf in parts), None)
        if name and known.has(f"{stem}.{name}") and known.has(module) is False:
            groups.setdefault((stem, name), {})[leaf] = pair
    if not groups:
        return subject.adapter
    _plain(subject)
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    uneven = config.get("rank_pattern") or config.get("alpha_pattern")
    if (
        uneven
        or type(rank) is not int
        or rank < 1
        or not is_number(alpha)
        or any(pair.a and pair.a[0] != rank for pair in load.pairs.values())
    ):
        raise Refused("the layers have not all the rank and alpha of the config")
    tensors: dict[str, TensorInfo] = dict(subject.tensors)
    made: list[str] = []
    weights = _weights(load)
    for (stem, name), parts in groups.items():
        module = f"{stem}.{name}"
        sizes = dict(zip(WHOLES[name], _rows(load, weights, stem, name), strict=True))
        if module in load.pairs or any(pair.sizes is None or len(pair.keys) != 2 for pair in parts.values()):
            raise Refused(f"{module} is there as well, or a part of it has not both factors")
        if any(pair.sizes and pair.sizes[0] != sizes[part] for part, pair in parts.items()):
            raise Refused(f"the parts of {module} have not the sizes of the model's")
        factors = {part: tuple(tensors.pop(key) for key in sorted(pair.keys)) for part, pair in parts.items()}
        _add(tensors, module, *_composed(sizes, factors))
        made.append(module)
    return _named(_widened(subject, tensors, rank, alpha), made)


def _composed(sizes: dict[str, int], factors: dict[str, tuple[TensorInfo, ...]]) -> tuple[TensorInfo, TensorInfo]:
    """A and B of the whole from those of its parts."""
    (dtype, (rank, width), _), *_ = (a for a, _ in factors.values())
    if any(info.dtype != dtype or DTYPE_BITS[dtype] < 8 for pair in factors.values() for info in pair):
        raise Refused("the parts of a projection have factors of several dtypes")
    if any(a.shape[1] != width for a, _ in factors.values()):
        raise Refused("the parts of a projection have not one input")
    total = rank * len(factors)
    rows, at = [], 0
    for part, size in sizes.items():
        if part not in factors:
            rows.append(zeros(dtype, (size, total)))
            continue
        left, right = zeros(dtype, (size, at)), zeros(dtype, (size, total - at - rank))
        beside = tuple(info for info in (left, factors[part][1], right) if info.shape[1])
        rows.append(TensorInfo(dtype, (size, total), Joined(beside, 1)))
        at += rank
    below = tuple(factors[part][0] for part in sizes if part in factors)
    a = TensorInfo(dtype, (total, width), Joined(below, 0))
    return a, TensorInfo(dtype, (sum(sizes.values()), total), Joined(tuple(rows), 0))


def _widened(subject: Subject, tensors: dict[str, TensorInfo], rank: int, alpha: float) -> Adapter:
    """The adapter with all layers at the largest rank, by zeros, and the scale that it had."""
    widest = max(info.shape[0] for key, info in tensors.items() if key.endswith(".lora_A.weight"))
    axes = {f".{factor}": axis for factor, axis in RANK_AXIS.items()}
    for key, info in tensors.items():
        axis = next((axis for end, axis in axes.items() if key.removesuffix(".weight").endswith(end)), None)
        if axis is not None:
            tensors[key] = resized(info, axis, widest)
    grown = alpha * (widest / rank) ** (0.5 if subject.config.get("use_rslora") is True else 1)
    grown = int(grown) if grown == int(grown) else grown
    return with_config(subject.adapter._replace(tensors=tensors), r=widest, lora_alpha=grown)


def _named(adapter: Adapter, made: list[str]) -> Adapter:
    """The adapter with wholes among its targets, and parts no more."""
    config = adapter.config or {}
    gone = {part for module in made for part in WHOLES[module.rpartition(".")[2]]}
    target = config.get("target_modules")
    if isinstance(target, list):
        left = [name for name in target if str(name).rpartition(".")[2] not in gone]
        adapter = with_config(adapter, target_modules=left)
    return targeting(adapter, made)


def _plain(subject: Subject) -> None:
    if any(subject.config.get(key) for key in ("use_dora", "lora_bias", "exclude_modules")) or subject.changes_base:
        raise Refused("DoRA, lora_bias, exclude_modules and an init that changes the base hang on the module")


def _add(tensors: dict[str, TensorInfo], module: str, a: TensorInfo, b: TensorInfo) -> None:
    for factor, info in (("lora_A", a), ("lora_B", b)):
        key = f"{PREFIX}{module}.{factor}.weight"
        if key in tensors:
            raise Refused("two tensors would get one name")
        tensors[key] = info


def _weights(load: Load) -> dict[str, tuple[int, ...]]:
    """The shapes of the model's weights by the names without their beginnings, in which files and classes differ."""
    return {bare(name): shape for name, shape in load.base.weights.items()}


def _rows(load: Load, weights: dict[str, tuple[int, ...]], stem: str, name: str) -> tuple[int, ...]:
    """How many rows each part of a projection has, by the model's weights, or else its config."""
    parts = [weights.get(bare(f"{stem}.{part}")) for part in WHOLES[name]]
    found = tuple(shape[0] for shape in parts if shape)
    if len(found) == len(parts):
        return found
    both = weights.get(bare(f"{stem}.{name}"))
    if both and name == "gate_up_proj":
        return both[0] // 2, both[0] // 2
    text = load.text
    inner, heads, hidden = (text.get(key) for key in ("intermediate_size", "num_attention_heads", "hidden_size"))
    if name == "gate_up_proj" and type(inner) is int:
        return inner, inner
    kv: Any = text.get("num_key_value_heads", heads)
    if name == "qkv_proj" and type(heads) is int and type(kv) is int and type(hidden) is int and heads > 0:
        head = text.get("head_dim") or hidden // heads
        if type(head) is int:
            rows = heads * head, kv * head, kv * head
            if both is None or both[0] == sum(rows):
                return rows
    raise Refused(f"the model's config does not tell the sizes of the parts of {name}")
