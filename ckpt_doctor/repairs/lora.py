"""Repairs that compute new factors: AdaLoRA → LoRA, one rank for all, scales folded in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapter import DTYPE_BITS, Adapter, Computed, TensorInfo, zeros
from ..facts.layers import RANK_AXIS, groups_of, is_number
from ..facts.meaning import meanings
from ..facts.names import PREFIX
from ..facts.subject import Subject
from . import Refused, meant, only, resized, with_config
from .keys import check_gone

ADALORA_ONLY = (
    "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step",
)  # fmt: skip


def _folded(info: TensorInfo, axis: int, rank: int, scale: float, by: TensorInfo | None = None) -> TensorInfo:
    """A factor at another rank, times a scale. A small dtype becomes float32 then, because rounding to it would cost
    more than 1e-6 (bf16 2.2e-3, fp16 2.7e-4 of a delta).
    """
    padded = resized(info, axis, rank)
    if by is None and scale == 1:
        return padded
    dtype = info.dtype if DTYPE_BITS[info.dtype] >= 32 else "F32"
    return TensorInfo(dtype, padded.shape, Computed(info, scale, by))


def to_lora(subject: Subject) -> Adapter:
    """AdaLoRA → LoRA of one rank and scale 1, padded with zeros: delta = B (A · E) · lora_alpha / (init_r + 1e-5), and
    E and the scale go into A (tuners/adalora/layer.py: forward). Exact up to rounding, in every runtime, without the
    base model.
    """
    config = subject.config
    if subject.method != "ADALORA":
        return subject.adapter
    alpha, init_r = config.get("lora_alpha", 8), config.get("init_r", 12)
    if (
        not isinstance(alpha, (int, float))
        or type(init_r) is not int
        or not 0 < alpha < 1e300
        or not 0 < init_r < 1 << 31
    ):
        raise Refused("lora_alpha or init_r is none of which the scale follows (not above 0, or no such number)")
    if not subject.layers:
        raise Refused("the file has no layer")
    check_gone(subject)
    if any("conv" in module.rpartition(".")[2].lower() for module in subject.layers):
        raise Refused("a layer may be a convolution, whose LoRA has other shapes; that needs the base model")
    rank = max(1, *(layer.rank or 0 for layer in subject.layers.values()))
    tensors = dict(subject.tensors)
    for module, layer in subject.layers.items():
        if layer.rank is None or set(layer.factors) != {"lora_A", "lora_B", "lora_E"}:
            raise Refused(f"the factors of {module} are not all there, or do not agree on a rank")
        a, b, e = (tensors.pop(layer.factors[name]) for name in ("lora_A", "lora_B", "lora_E"))
        stem = layer.factors["lora_A"].rpartition(".lora_A")[0]
        tensors[f"{stem}.lora_A.weight"] = _folded(a, 0, rank, alpha / (init_r + 1e-5), e)
        tensors[f"{stem}.lora_B.weight"] = _folded(b, 1, rank, 1.0)
    tensors = {key: info for key, info in tensors.items() if not key.endswith((".ranknum", ".ranknum.default"))}
    kept = {key: value for key, value in config.items() if key not in (*ADALORA_ONLY, "use_rslora", "use_dora")}
    kept.update(peft_type="LORA", r=rank, lora_alpha=rank)
    for key in ("rank_pattern", "alpha_pattern"):
        if key in kept:
            kept[key] = {}
    return subject.adapter._replace(config=kept, tensors=tensors)


def flatten(subject: Subject) -> Adapter:
    """Every layer at the largest rank, padded with zeros; scales that differ are folded into B: no pattern is left.

    One scale for all is carried by lora_alpha and touches no number.
    """
    config = subject.config
    uneven = any(config.get(key) for key in ("rank_pattern", "alpha_pattern", "use_rslora"))
    if subject.method != "LORA" or not uneven:
        return subject.adapter
    if not meanings(subject):
        raise Refused("no release takes the tensors under this config, so nothing tells the scale that was meant")
    if config.get("use_dora"):
        raise Refused("DoRA's norm would see other factors")
    if subject.changes_base:
        raise Refused("what its init_lora_weights takes off the base weights at load hangs on rank and scale")
    layers = meant(subject)
    ignored = subject.layers.keys() - layers.keys()
    if ignored:
        raise Refused(f"{min(ignored)} has tensors that the release which saved them ignores")
    if not layers or any(layer.rank is None or layer.scaling is None for layer in layers.values()):
        raise Refused("the tensors and the config do not tell the rank and scale of every layer")
    rank = max(layer.rank or 0 for layer in layers.values())
    scales = {layer.scaling for layer in layers.values()}
    common = scales.pop() if len(scales) == 1 else None
    if config.get("lora_bias") and common is None:
        raise Refused("lora_bias has a scale of its own, which cannot be folded")
    tensors = dict(subject.tensors)
    for layer in layers.values():
        for factor, key in layer.factors.items():
            scale = layer.scaling if common is None and factor in ("lora_B", "lora_embedding_B") else 1.0
            tensors[key] = _folded(tensors[key], RANK_AXIS[factor], rank, scale or 0.0)
    values = {"r": rank, "lora_alpha": rank if common is None else _whole(common * rank)}
    emptied: dict[str, Any] = {key: {} for key in ("rank_pattern", "alpha_pattern") if key in config}
    rooted = {"use_rslora": False} if "use_rslora" in config else {}
    return with_config(subject.adapter._replace(tensors=tensors), **values, **emptied, **rooted)


def at_rank(subject: Subject, rank: int) -> Adapter:
    """Every layer at one rank that was asked for, padded with zeros; what is trimmed is exactly zero. lora_alpha keeps
    the scale. For an adapter of one rank and scale, as `flatten` leaves it.
    """
    subject = subject.changed(flatten(subject))
    config = subject.config
    if subject.method != "LORA":
        raise Refused(f"{subject.method} has no one rank")
    if subject.changes_base:
        raise Refused("what its init_lora_weights takes off the base weights at load hangs on rank and scale")
    meant(subject)  # or the scale is not known
    if any(groups_of(subject.forms, layer.factors) > 1 for layer in subject.layers.values()):
        raise Refused("a convolution in groups has a part of the rank for each")
    if max(layer.rank or 0 for layer in subject.layers.values()) > rank:
        subject = subject.changed(trimmed(subject))
        config = subject.config
    r, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    apart = any(layer.rank != r for layer in subject.layers.values())
    if apart or type(r) is not int or not is_number(alpha) or abs(alpha) > 1e300:
        raise Refused("the tensors and the config do not tell the rank and scale of every layer")
    if r > rank:
        raise Refused(f"rank {r} is used, and at {rank} something else would be computed")
    return subject.adapter if r == rank else _of_rank(subject, r, alpha, rank)


def _of_rank(subject: Subject, r: int, alpha: float, rank: int) -> Adapter:
    """An adapter of one rank r at another, padded with zeros or cut; lora_alpha keeps the scale."""
    tensors, config = dict(subject.tensors), subject.config
    for layer in subject.layers.values():
        for factor, key in layer.factors.items():
            tensors[key] = resized(tensors[key], RANK_AXIS[factor], rank)
    scale = (rank / r) ** (0.5 if config.get("use_rslora") is True else 1)
    return with_config(subject.adapter._replace(tensors=tensors), r=rank, lora_alpha=_whole(alpha * scale))


def with_modules(subject: Subject, pairs: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Adapter:
    """Zero pairs for the modules that it lacks of `pairs` (module → the shape of each factor, of whatever rank), and
    target_modules that names them all, and nothing else.
    """
    config = subject.config
    if subject.method != "LORA":
        raise Refused(f"{subject.method} takes no zero pairs of LoRA: --to lora makes it one")
    for key in ("use_dora", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices"):
        if config.get(key):
            raise Refused(f"what zero pairs would be beside {key} is not known")
    if config.get("bias", "none") != "none":
        raise Refused("the new modules would have biases, too, as bias says")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise Refused("patterns may name the new modules: --to lora gives all layers one rank and scale")
    if subject.changes_base:
        raise Refused("its init_lora_weights would change the weights of the new modules, too")
    layers = meant(subject)
    if layers.keys() != subject.layers.keys():
        raise Refused("some layers have tensors that the release which saved them ignores")
    first = next(iter(layers.values()), None)
    rank = config.get("r", 8)
    if first is None or type(rank) is not int or rank < 1 or any(layer.rank != rank for layer in layers.values()):
        raise Refused("r is not the rank of every layer: --to lora gives them one")
    key = next(iter(first.factors.values()))
    if not key.startswith(f"{PREFIX}{first.module}."):
        raise Refused("its tensors are not named as PEFT names them")
    dtype = subject.tensors[key].dtype
    tensors = dict(subject.tensors)
    for module, shapes in pairs.items():
        if module in layers:
            continue
        for factor, shape in shapes.items():
            end = "" if "embedding" in factor else ".weight"
            at = RANK_AXIS[factor]
            tensors[f"{PREFIX}{module}.{factor}{end}"] = zeros(dtype, (*shape[:at], rank, *shape[at + 1 :]))
    chosen = ("exclude_modules", "layers_to_transform", "layers_pattern")
    kept = {key: value for key, value in config.items() if key not in chosen}
    return with_config(subject.adapter._replace(config=kept, tensors=tensors), target_modules=only(pairs))


def with_dtype(subject: Subject, dtype: str) -> Adapter:
    """Every factor in a dtype; the proof says what that costs."""
    tensors = dict(subject.tensors)
    for layer in subject.layers.values():
        for key in layer.factors.values():
            info = tensors[key]
            if info.dtype != dtype:
                computed = isinstance(info.source, Computed)
                tensors[key] = info._replace(dtype=dtype, source=info.source if computed else Computed(info))
    return subject.adapter._replace(tensors=tensors)


def trimmed(subject: Subject) -> Adapter:
    """Without the last triplets that are exactly zero in every layer, to fit a rank limit; the scale stays."""
    from ..files.streams import Files, content
    from ..files.values import read

    config = subject.config
    r, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if not is_number(alpha) or abs(alpha) > 1e300:
        return subject.adapter
    patterns = config.get("rank_pattern") or config.get("alpha_pattern")  # which hold single ranks and alphas
    if subject.changes_base:
        return subject.adapter
    if subject.method != "LORA" or patterns or type(r) is not int or any(x.rank != r for x in subject.layers.values()):
        return subject.adapter
    needed = 1
    with Files() as files:
        for layer in subject.layers.values():
            for factor, key in layer.factors.items():
                values = read(subject.tensors[key], content(subject.tensors[key], files))
                other = tuple(at for at in range(values.ndim) if at != RANK_AXIS[factor])
                used = (values != 0).any(axis=other).nonzero()[0]
                needed = max(needed, int(used[-1]) + 1 if len(used) else 1)
    return subject.adapter if needed >= r else _of_rank(subject, r, alpha, needed)


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
