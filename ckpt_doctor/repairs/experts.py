"""Repairs of experts for servers: parameters into modules one by one, and zero pairs for those that are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..adapter import Adapter, TensorInfo, zeros
from ..adapter.runtimes import PEFT, between
from ..facts.layers import is_number
from ..facts.names import PREFIX, as_number, pattern_value, tails
from ..facts.servers.architectures import line
from ..facts.servers.loads import Load
from ..facts.servers.loads.load import Pair
from ..facts.servers.loads.names import older
from ..facts.subject import Subject
from . import Refused, with_config
from .cuts import cut, targeting, transposed
from .lora import flatten

PARTS = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
"""Gate, up and down of an expert, as classes call them."""
IN_BY_OUT = {"llama4_text": PARTS[0]}
"""Types of models whose experts are parameters in the model's file, too, input by output: gate first, then up
(transformers' modeling_llama4.py: Llama4TextExperts.forward, chunk).
"""
_ONE = re.compile(r"(?P<layer>.*\.experts)\.(?P<number>\d+)\.(?P<name>\w+)")


_OLD = between("0.17", "0.18")


class _Sizes(NamedTuple):
    """How many experts there are, the model's size, and an expert's."""

    experts: int
    hidden: int
    inner: int


def one_by_one(subject: Subject) -> Adapter:
    """Experts as modules where they are parameters (target_parameters), and all parts of them; of one rank, as not
    every server that takes them reads a pattern.
    """
    made = subject.changed(split(subject))
    if made.adapter is subject.adapter:
        return made.adapter
    made = made.changed(completed(made))
    return flatten(made)


def load_of(subject: Subject) -> Load:
    """The adapter and its model as a server's loader meets them. Raises Refused where there is no model."""
    if subject.method != "LORA" or subject.question.base is None:
        raise Refused("which experts a layer has shows only with the model: name it with --base")
    return Load(subject.config, subject.tensor_shapes, subject.question.base)


def parameters(load: Load, saved_by: frozenset[str]) -> tuple[dict[str, dict[str, Pair]], bool]:
    """The experts that are parameters: layer → the pairs of `up` (gate and up in one) and `down`, told by sizes; and
    whether their factors are turned: B has the expert's input, and A its output.

    That hangs on the release that saved them (tuners/lora/layer.py: ParamWrapper, swap_in_out_features since 0.19) and
    on the class, whose parameter may be input by output; it is the same in all layers.
    """
    found: dict[str, dict[str, Pair]] = {}
    turned: set[bool] = set()
    for module, pair in load.pairs.items():
        layer = module.removesuffix(".base_layer")
        if layer.endswith(".experts"):
            kinds = found.setdefault(layer, {})
            size = _sizes(load)
            straight = {"up": (2 * size.inner, size.hidden), "down": (size.hidden, size.inner)}
            kind = next((kind for kind, sizes in straight.items() if pair.sizes in (sizes, sizes[::-1])), None)
            if kind is None or kind in kinds:
                raise Refused(f"{module} has not the size of the experts' gate_up_proj or down_proj")
            kinds[kind] = pair
            if straight[kind] != straight[kind][::-1]:
                turned.add(pair.sizes != straight[kind])
    if not turned and saved_by:  # squares, which tell nothing
        turned = {old is not _in_by_out(load) for old in (True, False) if saved_by & (_OLD if old else PEFT - _OLD)}
    if found and len(turned) != 1:
        raise Refused("which factor of the experts has their input shows neither by the sizes nor by the release")
    return found, turned == {True}


def split(subject: Subject) -> Adapter:
    """Each expert's own rows of A and columns of B, and gate and up by the rows of B, as PEFT puts them together
    (tuners/lora/layer.py: ParamWrapper.get_delta_weight: A is experts x rank x in, B out x rank x experts), and
    transformers gate and up (conversion_mapping.py: gate first, then up). Where in and out are turned, an expert's A is
    the transpose of its B, and the other way round.
    """
    load = load_of(subject)
    if not any(module.removesuffix(".base_layer").endswith(".experts") for module in load.pairs):
        return subject.adapter
    names = _names(load)
    layers, turned = parameters(load, subject.saved_by)
    config = subject.config
    if any(config.get(key) for key in ("use_dora", "lora_bias")) or subject.changes_base:
        raise Refused("DoRA, lora_bias and an init that changes the base mean something else for parameters")
    count, hidden, inner = _sizes(load)
    _bounded(count, len(layers))
    ranks = _patterned(config, "rank_pattern", layers, config.get("r", 8))
    tensors = dict(subject.tensors)
    made: list[str] = []
    for layer, kinds in layers.items():
        for kind, pair in kinds.items():
            key_a, key_b = sorted(pair.keys)
            a, b, rank = tensors.pop(key_a), tensors.pop(key_b), ranks[kind]
            if type(rank) is not int or a.shape[0] != rank * count:
                raise Refused(f"{key_a} has not the rank of the config for each of {count} experts")
            rows = {names[0]: range(inner), names[1]: range(inner, 2 * inner)}
            if kind == "down":
                rows = {names[2]: range(hidden)}
            for number in range(count):
                ours = cut(a, range(number * rank, (number + 1) * rank))
                theirs = cut(b, range(b.shape[0]), range(number, b.shape[1], count))
                if turned:
                    ours, theirs = transposed(theirs), transposed(ours)
                for name, of_part in rows.items():
                    module = older(load, f"{layer}.{number}.{name}")
                    made.append(module)
                    tensors[f"{PREFIX}{module}.lora_A.weight"] = ours
                    tensors[f"{PREFIX}{module}.lora_B.weight"] = cut(theirs, of_part)
    tensors = {_renamed(load, key): info for key, info in tensors.items()}
    adapter = subject.adapter._replace(tensors=tensors)
    made += _routers(load, config, layers)
    adapter = adapter._replace(config={key: value for key, value in config.items() if key != "target_parameters"})
    adapter = with_config(adapter, **_patterns(config, layers, names))
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    uneven = config.get("rank_pattern") or config.get("alpha_pattern")
    if config.get("use_rslora") and not uneven and is_number(rank) and is_number(alpha) and abs(alpha) < 1e300:
        # PEFT changes the rank of gate and up where it puts experts together, which a root would not follow
        adapter = with_config(adapter, use_rslora=False, lora_alpha=alpha * rank**0.5)
    return targeting(adapter, made)


def _routers(load: Load, config: dict[str, object], layers: Iterable[str]) -> list[str]:
    """The modules whose weight target_parameters names beside the experts: their LoRA is that of a module."""
    paths = [f"{layer}.{name}" for layer in layers for name in _NAMES.values()]
    found: list[str] = []
    of_experts = {tail for path in paths for tail in tails(path)}
    owners: dict[str, list[str]] = {}
    for path in load.pairs:
        for tail in tails(path):
            owners.setdefault(tail, []).append(path)
    named = config.get("target_parameters")
    for name in map(str, named if isinstance(named, list) else []):
        if name in of_experts:
            continue
        module = name.removesuffix(".weight")
        ours = owners.get(module, [])
        ranks = {pair.a[0] for pair in map(load.pairs.__getitem__, ours) if pair.a}
        if module == name or ranks - {config.get("r", 8)}:
            raise Refused(f"{name} of target_parameters is no module's weight that has the rank of the config")
        found += [older(load, path) for path in ours]
    return found


_NAMES = {"up": "gate_up_proj", "down": "down_proj"}


def _patterned(config: dict[str, object], key: str, layers: Iterable[str], default: Any) -> dict[str, Any]:
    """What a pattern says of each kind of parameter, the same in every layer, as it does for `all-linear`."""
    found: dict[str, Any] = {}
    for kind, name in _NAMES.items():
        values = [pattern_value(config.get(key), f"{layer}.{name}", default) for layer in layers]
        if any(value != values[0] for value in values):
            raise Refused(f"{key} says more than one of {name}")
        found[kind] = values[0]
    return found


def _patterns(config: dict[str, object], layers: Iterable[str], names: tuple[str, ...]) -> dict[str, Any]:
    """The patterns with the experts by their new names; what they say of all others stays."""
    changed: dict[str, Any] = {}
    for key, default in (("rank_pattern", config.get("r", 8)), ("alpha_pattern", config.get("lora_alpha", 8))):
        old = config.get(key)
        if not isinstance(old, dict) or not old:
            continue
        parameters_ = [f"{layer}.{name}" for layer in layers for name in _NAMES.values()]
        new = {name: value for name, value in old.items() if not any(_matches(name, path) for path in parameters_)}
        said = _patterned(config, key, layers, default)
        for kind, parts in (("up", names[:2]), ("down", names[2:])):
            if said[kind] != default:
                new[rf"experts\.\d+\.(?:{'|'.join(parts)})"] = said[kind]
        changed[key] = new
    return changed


def _matches(pattern: str, path: str) -> bool:
    return pattern_value({pattern: True}, path, False) is True


def _renamed(load: Load, key: str) -> str:
    return PREFIX + older(load, key.removeprefix(PREFIX)) if key.startswith(PREFIX) else key


def completed(subject: Subject) -> Adapter:
    """Every expert of a layer that has some, with all its parts; those that come are zero, and compute nothing."""
    load = load_of(subject)
    layers: dict[str, dict[tuple[int, str], Pair]] = {}
    for module, pair in load.pairs.items():
        match = _ONE.fullmatch(module)
        if match:
            layers.setdefault(match["layer"], {})[as_number(match["number"]), match["name"]] = pair
    tensors = dict(subject.tensors)
    made: list[str] = []
    _bounded(load.experts or 0, len(layers))
    for layer, experts in layers.items():
        names = next((names for names in PARTS if {name for _, name in experts} <= {*names}), None)
        count = load.experts
        if names is None or count is None or any(number >= count for number, _ in experts):
            raise Refused(f"which parts the experts of {layer} have is not known")
        for number in range(count):
            for name in names:
                if (number, name) not in experts:
                    module = f"{layer}.{number}.{name}"
                    made.append(module)
                    for factor, info in _zero_pair(subject.tensors, experts, names, name).items():
                        tensors[f"{PREFIX}{module}.{factor}.weight"] = info
    adapter = targeting(subject.adapter._replace(tensors=tensors), made)
    return adapter if made else subject.adapter


def _bounded(experts: int, layers: int) -> None:
    """Refuse what no safetensors file can hold: its header has 100 MB, a pair more than 300 bytes of them."""
    if experts * layers > 100_000:
        raise Refused(f"{experts} experts in each of {layers} layers are more than a safetensors file has room for")


def _zero_pair(
    tensors: Mapping[str, TensorInfo], experts: dict[tuple[int, str], Pair], names: tuple[str, ...], name: str
) -> dict[str, TensorInfo]:
    """A pair of zeros, sized like the same part of another expert, or as the other parts tell."""
    like = next((pair for (_, part), pair in experts.items() if part == name), None)
    turned = None
    if like is None:
        (_, other), like = next(iter(experts.items()))
        turned = (other == names[2]) != (name == names[2])
    if like.sizes is None or like.a is None or len(like.keys) != 2:
        raise Refused(f"an expert has not both factors, so nothing tells the size of another's {name}")
    out, inner = reversed(like.sizes) if turned else like.sizes
    dtype = tensors[like.keys[0]].dtype
    return {"lora_A": zeros(dtype, (like.a[0], inner)), "lora_B": zeros(dtype, (out, like.a[0]))}


def _sizes(load: Load) -> _Sizes:
    text = load.text
    sizes: list[Any] = [
        load.experts, text.get("hidden_size"), text.get("moe_intermediate_size") or text.get("intermediate_size"),
    ]  # fmt: skip
    if not all(type(size) is int for size in sizes):
        raise Refused("the model's config does not tell how many experts a layer has, and of which size")
    return _Sizes(*sizes)


def _type(load: Load) -> str:
    return str(load.text.get("model_type") or load.model.get("model_type"))


def _in_by_out(load: Load) -> bool:
    return _type(load) in IN_BY_OUT


def _names(load: Load) -> tuple[str, ...]:
    """Gate, up and down as the file of a model has them, by what transformers joins when it reads it."""
    kind = _type(load)
    if kind in IN_BY_OUT:
        return IN_BY_OUT[kind]
    joined = [step for step in (line("transformers", f":{kind}") or {}).get("renames") or [] if step[0] == "join"]
    parts = [path.split(".")[-2] for step in joined for path in step[2:]]
    names = next((names for names in PARTS if parts == [*names]), None)
    if names is None:
        raise Refused(f"how gate and up lie in the experts of a {kind} is not known")
    return names
