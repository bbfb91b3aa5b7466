"""Do two adapters compute the same function? Layer by layer, from the files alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .adapter import Adapter, AdapterError, TensorInfo
from .layers import Layer, layers, module_of
from .rules.config import CHANGES_BASE
from .rules.keys import neutral, savers
from .runtimes import peft
from .streams import Files, chunks, content
from .values import Array, read

FACTORED = ("LORA", "ADALORA")
OPTIONS = (
    "use_dora", "lora_bias", "layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config",
    "use_qalora", "use_bdlora", "trainable_token_indices", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
"""Options that change what LoRA's factors mean: with different ones, equal deltas are not the same function."""


class Row(NamedTuple):
    """A layer's delta, or another tensor: its Frobenius norm in the first adapter, and that of the difference."""

    name: str
    norm: float
    difference: float

    @property
    def relative(self) -> float:
        """The difference over the norm; 0 where both are 0."""
        return self.difference / self.norm if self.norm else float(self.difference != 0)


class Comparison(NamedTuple):
    """`verdict` is "same", "different" or "cannot tell", `reasons` say why it is not the first."""

    verdict: str
    reasons: tuple[str, ...]
    layers: tuple[Row, ...]
    others: tuple[Row, ...]
    tolerance: float

    @property
    def largest(self) -> Row | None:
        """The layer or tensor that differs most, relative to its norm."""
        return max((*self.layers, *self.others), key=lambda row: row.relative, default=None)


def compare(a: Adapter, b: Adapter, tolerance: float = 1e-6, unchanged: frozenset[str] = frozenset()) -> Comparison:
    """Compare two adapters: every delta, and every tensor that is not a factor, relative to its norm.

    A delta is scaling · B · A [out, in] (LoRA), scaling · B · (A · E) (AdaLoRA); B · A is never formed. With the scale
    in B, the difference is [B₁, B₁-B₂] · [A₁-A₂; A₂], whose norm the Gram matrices of both give to 2e-8 of
    ‖B₁‖‖A₁-A₂‖ + ‖B₁-B₂‖‖A₂‖. Where that does not decide at the tolerance, QR of both does, to about 1e-14.
    Identical bytes need no arithmetic, and are the same also where they hold NaN. `unchanged` names tensors that are
    known to be the same in both. One layer is in memory at a time.
    """
    doubts = list(_doubts(a, b))
    rows: list[Row] = []
    others: list[Row] = []
    wrong: list[str] = []
    try:
        with Files() as files:
            if a.peft_type in FACTORED and b.peft_type in FACTORED:
                rows, wrong = _compare_layers(a, b, tolerance, unchanged, files)
            others, missing = _compare_others(a, b, unchanged, files)
    except AdapterError as error:
        doubts.append(str(error))
        missing = []
    far = [row.name for row in (*rows, *others) if not row.relative <= tolerance]  # NaN is far, too
    if far:
        verdict, reasons = "different", [f"{len(far)} layers or tensors differ ({far[0]})"]
    elif missing:
        verdict, reasons = "different", [f"{len(missing)} tensors are in one of them only ({missing[0]})"]
    elif doubts or wrong:
        verdict, reasons = "cannot tell", [*doubts, *wrong]
    else:
        verdict, reasons = "same", []
    return Comparison(verdict, tuple(reasons), tuple(rows), tuple(others), tolerance)


def _doubts(a: Adapter, b: Adapter) -> Iterator[str]:
    for adapter in (a, b):
        for fault in adapter.faults:
            yield f"{adapter.path}: {fault.message}"
    if a.faults or b.faults:
        return
    if a.peft_type in FACTORED and b.peft_type in FACTORED:
        for key in OPTIONS:
            mine, yours = (c.peft_type == "LORA" and ((c.config or {}).get(key) or None) for c in (a, b))
            if (mine or None) != (yours or None):
                yield f"{key} differs"
        if _base_change(a) != _base_change(b):
            yield "init_lora_weights differs, and one of them changes the base weights at load"
    elif a.peft_type != b.peft_type:
        yield f"{a.peft_type} and {b.peft_type} have no common form"
    else:
        mine, yours = (_meaning(c) for c in (a, b))
        differing = sorted(key for key in mine.keys() | yours.keys() if mine.get(key) != yours.get(key))
        if differing:
            yield f"the config differs in {', '.join(differing)}"


def _meaning(adapter: Adapter) -> dict[str, Any]:
    method, config = adapter.peft_type or "", adapter.config or {}
    named = {"base_model_name_or_path", "task_type", "target_modules"}
    return {key: value for key, value in config.items() if key not in named and not neutral(method, key, value)}


def _base_change(adapter: Adapter) -> str | None:
    """The initialisation that changes the base weights, unless the release that saved it took the word for true."""
    init = str((adapter.config or {}).get("init_lora_weights")).lower()
    saved = savers(adapter)
    return init if init.startswith(CHANGES_BASE) and not (saved and saved <= peft("0.2", "0.6")) else None


def _compare_layers(
    a: Adapter, b: Adapter, tolerance: float, unchanged: frozenset[str], files: Files
) -> tuple[list[Row], list[str]]:
    mine, yours = layers(a), layers(b)
    rows, wrong = [], []
    biased = any((c.config or {}).get("lora_bias") for c in (a, b))
    for module in dict.fromkeys((*mine, *yours)):
        one, other = mine.get(module), yours.get(module)
        if one and other and _known_same(one, other, unchanged):
            continue
        told = [layer for layer in (one, other) if layer and layer.rank != 0]
        if any(layer.scaling is None for layer in told):
            wrong.append(f"the scale of {module} is not known")
        elif biased and one and other and one.scaling != other.scaling:
            wrong.append(f"lora_bias of {module} has another scale")
        elif one and other and one.scaling == other.scaling and _same_bytes(a, one, b, other, files):
            rows.append(Row(module, 0.0, 0.0))
        else:
            rows.append(_delta_row(module, [(a, one), (b, other)], tolerance, files))
    return rows, wrong


def _known_same(one: Layer, other: Layer, unchanged: frozenset[str]) -> bool:
    return one.factors == other.factors and one.scaling == other.scaling and unchanged.issuperset(one.factors.values())


def _same_bytes(a: Adapter, one: Layer, b: Adapter, other: Layer, files: Files) -> bool:
    if one.factors.keys() != other.factors.keys():
        return False
    pairs = [(a.tensors[key], b.tensors[other.factors[name]]) for name, key in one.factors.items()]
    return all(_identical(x, y, files) for x, y in pairs)


def _identical(x: TensorInfo, y: TensorInfo, files: Files) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    if x[:2] != y[:2]:
        return False
    left, right = bytearray(), bytearray()
    ours, theirs = chunks(x, files), chunks(y, files)
    while True:
        left += next(ours, b"")
        right += next(theirs, b"")
        if not left and not right:
            return True
        count = min(len(left), len(right))
        if left[:count] != right[:count] or not count:
            return False
        del left[:count], right[:count]


def _delta_row(module: str, sides: list[tuple[Adapter, Layer | None]], tolerance: float, files: Files) -> Row:
    found = [_factors(adapter, layer, files) for adapter, layer in sides if layer and layer.rank != 0]
    if not all(np.isfinite(array).all() for pair in found for array in pair):
        return Row(module, 1.0, float("inf"))
    if len(found) < 2:
        norm = _product_norm(*found[0]) if found else 0.0
        return Row(module, norm, norm)
    (b1, a1), (b2, a2) = found
    if b1.shape[0] != b2.shape[0] or a1.shape[1] != a2.shape[1]:
        return Row(module, 1.0, float("inf"))
    norm = _product_norm(b1, a1) or _product_norm(b2, a2)
    rank = max(b1.shape[1], b2.shape[1])
    b1, b2 = (np.pad(b, ((0, 0), (0, rank - b.shape[1]))) if b.shape[1] < rank else b for b in (b1, b2))
    a1, a2 = (np.pad(a, ((0, rank - a.shape[0]), (0, 0))) if a.shape[0] < rank else a for a in (a1, a2))
    db, da = b1 - b2, a1 - a2
    parts = [(b, a) for b, a in ((b1, da), (db, a2)) if b.any() and a.any()]
    if not parts:
        return Row(module, norm, 0.0)
    left, right = np.hstack([b for b, _ in parts]), np.vstack([a for _, a in parts])
    difference = _gram_norm(left, right)
    if abs(difference - tolerance * norm) <= _DOUBT * sum(_norm(b) * _norm(a) for b, a in parts):
        difference = _qr_norm(left, right)
    return Row(module, norm, difference)


def _factors(adapter: Adapter, layer: Layer, files: Files) -> tuple[Array, Array]:
    """Scaling · B `[out, r]` and A `[r, in]`, AdaLoRA's E multiplied into A; a convolution's A is flattened."""
    infos = {name: adapter.tensors[key] for name, key in layer.factors.items()}
    parts = {name: read(info, content(info, files)) for name, info in infos.items()}
    a = next((parts[name] for name in ("lora_A", "lora_embedding_A") if name in parts), None)
    b = next((parts[name] for name in ("lora_B", "lora_embedding_B") if name in parts), None)
    if a is None or b is None or layer.scaling is None or a.ndim < 2 or b.ndim < 2:
        raise AdapterError(f"the factors of {layer.module} are not all there")
    rank = a.shape[0]
    e = parts.get("lora_E")
    if b.shape[1] != rank or (e is not None and e.size != rank):
        raise AdapterError(f"the factors of {layer.module} do not agree on a rank")
    if b.size != b.shape[0] * rank:
        raise AdapterError(f"lora_B of {layer.module} has the shape {list(b.shape)}, which no PEFT computes with")
    if e is not None:
        a = a * e.reshape(-1, 1)
    return b.reshape(b.shape[0], rank) * layer.scaling, a.reshape(rank, -1)


_DOUBT = 2e-8
"""The relative error of a norm from Gram matrices: the root of the rounding error of float64."""


def _norm(matrix: Array) -> float:
    return float(np.linalg.norm(matrix))


def _product_norm(b: Array, a: Array) -> float:
    """‖B A‖, by the Gram matrices where they are good for three digits."""
    found = _gram_norm(b, a)
    return found if found > 1e3 * _DOUBT * _norm(b) * _norm(a) else _qr_norm(b, a)


def _gram_norm(b: Array, a: Array) -> float:
    """‖B A‖ as the root of the sum over (BᵀB) · (A Aᵀ), elementwise."""
    return math.sqrt(max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0))


def _qr_norm(b: Array, a: Array) -> float:
    """‖B A‖ as ‖R_B R_Aᵀ‖ of the QR decompositions of B and Aᵀ."""
    if 0 in b.shape or 0 in a.shape:
        return 0.0
    left, right = (np.asarray(np.linalg.qr(matrix, mode="r")) for matrix in (b, a.T))
    return float(np.linalg.norm(left @ right.T))


def _compare_others(a: Adapter, b: Adapter, unchanged: frozenset[str], files: Files) -> tuple[list[Row], list[str]]:
    """The rows of all tensors that are no factor, and the names of those that are in one adapter only."""
    mine, yours = _others(a), _others(b)
    rows = []
    for name, infos in mine.items():
        for key, info in infos.items():
            for other_key, other in yours.get(name, {}).items():
                if key == other_key and key in unchanged:
                    continue
                if _identical(info, other, files):
                    rows.append(Row(name, 0.0, 0.0))
                else:
                    rows.append(_value_row(name, info, other, files))
    return rows, sorted(mine.keys() ^ yours.keys())


def _others(adapter: Adapter) -> dict[str, dict[str, TensorInfo]]:
    """Tensors by the name of what they replace or add; a bias may be there under both of its names."""
    factors: set[str] = set()
    if adapter.peft_type in FACTORED:
        factors = {key for layer in layers(adapter).values() for key in layer.factors.values()}
    found: dict[str, dict[str, TensorInfo]] = {}
    for key, info in adapter.tensors.items():
        name = module_of(key).replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
        if key not in factors and not name.endswith((".ranknum", ".ranknum.default")):
            found.setdefault(name, {})[key] = info
    return found


def _value_row(name: str, one: TensorInfo, other: TensorInfo, files: Files) -> Row:
    if one.shape != other.shape:
        return Row(name, 1.0, float("inf"))
    x, y = read(one, content(one, files)), read(other, content(other, files))
    return Row(name, _norm(x) or _norm(y), _norm(x - y))


def proof(comparison: Comparison) -> dict[str, Any]:
    """A comparison for JSON: `modules` has the absolute and relative difference of each delta that was computed."""
    worst = comparison.largest
    return {
        "verdict": comparison.verdict,
        "tolerance": comparison.tolerance,
        "largest_relative_difference": worst.relative if worst else 0.0,
        "largest_difference": max((row.difference for row in comparison.layers), default=0.0),
        "where": worst.name if worst and worst.difference else None,
        "modules": {row.name: [row.difference, row.relative] for row in comparison.layers},
    }
