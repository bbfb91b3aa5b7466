"""Do two adapters compute the same function? Layer by layer, from the files alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..adapter import AdapterError, Layer, TensorInfo
from ..adapter.runtimes import NONE, ranges
from ..adapter.summary import first, html, text
from ..facts.config_keys import neutral
from ..facts.layers import module_of
from ..facts.meaning import Meaning, meanings, saved_meanings
from ..facts.methods import LORAS
from ..facts.subject import Subject
from ..files.loader import reading
from ..files.streams import Files, chunks, content, identical
from ..files.values import Array, read
from .conversion import located, opened
from .forms import in_one_form
from .norms import largest, norm, ordinary, product_norm, scaled, times_power

OPTIONS = (
    "use_dora", "lora_bias", "layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config",
    "use_qalora", "use_bdlora", "ensure_weight_tying", "trainable_token_indices", "kasa_config", "monteclora_config",
    "velora_config",
)  # fmt: skip
"""Options that change what LoRA's factors mean: with different ones, equal deltas are not the same function."""
LISTS = ("layer_replication", "target_parameters")
"""Those of which an empty list names nothing."""


class Row(NamedTuple):
    """A layer's delta, or another tensor: its Frobenius norm in the first adapter, and that of the difference.

    `relative` is the difference over the norm, 0 where both are 0; it holds also where float64 has no number as large
    or as small as the norm (inf and 0 stand for it then).
    """

    name: str
    norm: float
    difference: float
    relative: float


def _row(name: str, norm: float, difference: float, exponent: int = 0) -> Row:
    """A row from norms in units of 2 ** exponent."""
    relative = difference / norm if norm else float(difference != 0)
    return Row(name, times_power(norm, exponent), times_power(difference, exponent), relative)


def _dwarfed(row: Row) -> bool:
    """Whether a difference is real, as rounding makes none so small, and only numbers that no model holds hide it."""
    return 0 < row.relative < 1e-30 and row.norm > 1e150


def _unlike(name: str) -> Row:
    """The row of what has no difference that is a number: other shapes, or NaN or infinity in other bytes."""
    return Row(name, 1.0, math.inf, math.inf)


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

    def __bool__(self) -> bool:
        """Whether the two compute the same. Raises ValueError where that cannot be told."""
        if self.verdict not in ("same", "different"):
            raise ValueError(
                f"whether the two compute the same cannot be told ({'; '.join(self.reasons[:1])}): "
                'ask .verdict, which is "same", "different" or "cannot tell", and .reasons'
            )
        return self.verdict == "same"

    def _summary(self) -> list[tuple[str, str]]:
        worst = self.largest
        return [
            ("verdict", self.verdict),
            *first([("reason", reason) for reason in self.reasons]),
            ("compared", f"{len(self.layers)} layers and {len(self.others)} other tensors"),
            *([("largest", f"{worst.relative:.2g} of its norm: {worst.name}")] if worst and worst.relative else []),
            ("tolerance", f"{self.tolerance:g}"),
        ]

    def __repr__(self) -> str:
        return text("Comparison", self._summary())

    def _repr_html_(self) -> str:
        return html("Comparison", self._summary())


def compared(first: str, second: str, tolerance: float) -> Comparison:
    """As `compare`, of the adapters at or below two paths; remote ones are downloaded for it. Raises AdapterError."""
    places = located(first), located(second)
    with reading(*places):
        a, b = (Subject(opened(place)) for place in places)
        return compare(a, b, tolerance)


def compare(
    a: Subject, b: Subject, tolerance: float = 1e-6, unchanged: frozenset[str] = frozenset(),
    by: frozenset[str] = frozenset(),
) -> Comparison:  # fmt: skip
    """Compare two adapters: every delta, and every tensor that is not a factor, relative to its norm.

    Each is read as the release that saved it reads it: what that does not adapt has no delta, and the scale is the one
    that it takes. Where more than one may have saved them, and these make different things of them, all have to agree
    on the answer. What each of the PEFT releases `by` makes of `b` has to be the same, too, unless it reads `b` just as
    it reads `a`.

    A delta is scaling · B · A [out, in] (LoRA), scaling · B · (A · E) (AdaLoRA); B · A is never formed. With the scale
    in B, the difference is [B₁, B₁-B₂] · [A₁-A₂; A₂], whose norm the Gram matrices of both give to 2e-8 of
    ‖B₁‖‖A₁-A₂‖ + ‖B₁-B₂‖‖A₂‖. Where that does not decide at the tolerance, QR of both does, to about 1e-14.
    Identical bytes need no arithmetic, and are the same also where they hold NaN. `unchanged` names tensors that are
    known to be the same in both. One layer is in memory at a time.
    """
    a, b = in_one_form(a, b)
    doubts = list(_doubts(a, b))
    rows: list[Row] = []
    others: list[Row] = []
    missing: list[str] = []
    answers: dict[str, str] = {}
    try:
        with Files() as files:
            if a.method in LORAS and b.method in LORAS:
                refusing, pairs = _pairs(a, b, by)
                doubts += [f"{ranges(refusing)} cannot take the tensors of {b.adapter.path}"] if refusing else []
                for mine, yours in pairs:
                    deltas, unknown = _compare_layers(a, mine, b, yours, tolerance, unchanged, files)
                    far = any(not row.relative <= tolerance for row in deltas)
                    who = f"as {ranges(mine.ids)} and {ranges(yours.ids)} read them"
                    answers["different" if far else "cannot tell" if unknown else "same"] = who
                    doubts += unknown
                    rows = deltas if far or not rows else rows
            others, missing = _compare_others(a, b, unchanged, files)
    except AdapterError as error:
        doubts.append(str(error))
    if "different" in answers and len(answers) > 1 and not by:
        rows = []
        doubts.append(f"{answers['different']} they differ, and they do not as others do that may have saved them")
    doubts += [f"{row.name} differs beside numbers of {row.norm:.0e}" for row in (*rows, *others) if _dwarfed(row)]
    far_off = [row.name for row in (*rows, *others) if not row.relative <= tolerance]  # NaN is far, too
    if far_off:
        verdict, reasons = "different", [f"{len(far_off)} layers or tensors differ ({far_off[0]})"]
    elif missing:
        verdict, reasons = "different", [f"{len(missing)} tensors are in one of them only ({missing[0]})"]
    elif doubts:
        verdict, reasons = "cannot tell", doubts
    else:
        verdict, reasons = "same", []
    return Comparison(verdict, tuple(reasons), tuple(rows), tuple(others), tolerance)


def _pairs(a: Subject, b: Subject, by: frozenset[str]) -> tuple[frozenset[str], list[tuple[Meaning, Meaning]]]:
    """What is to be compared: each meaning of `a` with those of `b`, once; and the releases of `by` that take no `b`.

    Adapters that the same releases may have saved are read by one release at a time.
    """
    mine, yours = saved_meanings(a), saved_meanings(b)
    pairs = [(one, other) for one in mine for other in yours]
    if a.saved_by == b.saved_by:
        pairs = [(one, other) for one, other in pairs if one.ids & other.ids] or pairs
    asked = meanings(b, by)
    refusing = by.difference(*(meaning.ids for meaning in asked)) if b.layers else NONE
    before = meanings(a, by)
    for meaning in asked:
        kept = NONE.union(*(old.ids for old in before if old.layers == meaning.layers))
        if meaning.ids - kept:
            pairs += [(one, meaning) for one in mine]
    distinct: list[tuple[Meaning, Meaning]] = []
    for one, other in pairs:
        if not any(one.layers == x.layers and other.layers == y.layers for x, y in distinct):
            distinct.append((one, other))
    return refusing, distinct


def _doubts(a: Subject, b: Subject) -> Iterator[str]:
    for adapter in (a, b):
        for fault in adapter.adapter.faults:
            yield f"{adapter.adapter.path}: {fault.message}"
    if a.adapter.faults or b.adapter.faults:
        return
    if a.method in LORAS and b.method in LORAS:
        for key in OPTIONS:
            mine, yours = (_option(c, key) if c.method == "LORA" else None for c in (a, b))
            if mine != yours:
                yield f"{key} differs"
        if _base_change(a) != _base_change(b):
            yield "init_lora_weights differs, and one of them changes the base weights at load"
        if any(c.config.get("target_parameters") for c in (a, b)):
            for key in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"):
                if (a.config.get(key) or None) != (b.config.get(key) or None):
                    yield f"{key} differs, which parameters take by their own names"
    elif a.method != b.method:
        yield f"{a.method} and {b.method} have no common form"
    else:
        mine, yours = (_meaning(c) for c in (a, b))
        differing = sorted(key for key in mine.keys() | yours.keys() if mine.get(key) != yours.get(key))
        if differing:
            yield f"the config differs in {', '.join(differing)}"
        yield from _differing_releases(a, b)


def _option(adapter: Subject, key: str) -> object:
    """What an option is set to; None where it is not. An empty object is a config of defaults."""
    value = adapter.config.get(key)
    return None if value in (None, False) or (value == [] and key in LISTS) else value


def _differing_releases(a: Subject, b: Subject) -> Iterator[str]:
    """What the releases that saved two adapters of one method compute in different ways from the same file."""
    from ..facts.record import Differs

    if a.saved_by == b.saved_by:
        return
    for row in a.record.rows if a.record else ():
        if isinstance(row, Differs) and any(f.misloaded_by | f.undecided_for for f in row.findings(a)):
            yield f"{row.says}, and other releases saved them"


def _meaning(adapter: Subject) -> dict[str, Any]:
    method, config = adapter.method or "", adapter.config
    about = {"base_model_name_or_path", "task_type"}
    values = {key: value for key, value in config.items() if key not in about and not neutral(method, key, value)}
    if isinstance(named := values.get("target_modules"), list):
        values["target_modules"] = sorted(named, key=str)
    return values


def _base_change(adapter: Subject) -> str | None:
    """The initialisation that changes the base weights, unless the release that saved it took the word for true."""
    return str(adapter.config["init_lora_weights"]).lower() if adapter.changes_base else None


def _compare_layers(
    a: Subject, as_a: Meaning, b: Subject, as_b: Meaning, tolerance: float, unchanged: frozenset[str], files: Files
) -> tuple[list[Row], list[str]]:
    mine, yours = as_a.layers, as_b.layers
    rows, doubts = [], []
    biased = any(c.config.get("lora_bias") for c in (a, b))
    changing = a.changes_base or b.changes_base
    for module in dict.fromkeys((*mine, *yours)):
        one, other = mine.get(module), yours.get(module)
        if one and other and _known_same(one, other, unchanged):
            continue
        ranked = [layer for layer in (one, other) if layer and layer.rank != 0]
        if any(layer.scaling is None for layer in ranked):
            doubts.append(f"the scale of {module} is not known")
        elif changing and one and other and (one.rank, one.scaling) != (other.rank, other.scaling):
            doubts.append(f"another rank or scale of {module} changes what its initialisation takes off the base")
        elif biased and one and other and one.scaling != other.scaling:
            doubts.append(f"lora_bias of {module} has another scale")
        elif one and other and one.scaling == other.scaling and _same_bytes(a, one, b, other, files):
            rows.append(Row(module, 0.0, 0.0, 0.0))
        elif not all(math.isfinite(layer.scaling or 0) for layer in ranked):
            doubts.append(f"the scale of {module} is not a number")
        else:
            rows.append(_delta_row(module, [(a, one), (b, other)], tolerance, files))
    return rows, doubts


def _known_same(one: Layer, other: Layer, unchanged: frozenset[str]) -> bool:
    return one.factors == other.factors and one.scaling == other.scaling and unchanged.issuperset(one.factors.values())


def _same_bytes(a: Subject, one: Layer, b: Subject, other: Layer, files: Files) -> bool:
    if one.factors.keys() != other.factors.keys():
        return False
    pairs = [(a.tensors[key], b.tensors[other.factors[name]]) for name, key in one.factors.items()]
    return all(identical(x, y, files) for x, y in pairs)


class Delta(NamedTuple):
    """2 ** exponent · B · A, with B `[out, r]` and A `[r, in]`; the exponent is 0 where all numbers are ordinary."""

    b: Array
    a: Array
    exponent: int = 0


def _delta_row(module: str, sides: list[tuple[Subject, Layer | None]], tolerance: float, files: Files) -> Row:
    ranked = [(adapter, layer) for adapter, layer in sides if layer and layer.rank != 0]
    if len(ranked) == 1 and _is_zero(*ranked[0], files):
        return _row(module, 0.0, 0.0, 0)
    computed = [delta(adapter, layer, files) for adapter, layer in ranked]
    deltas = [delta for delta in computed if delta is not None]
    if len(deltas) < len(computed):
        return _unlike(module)
    deltas, exponent = _comparable(deltas)
    if len(deltas) < 2:
        norm = product_norm([(deltas[0].b, deltas[0].a)], 0.0) if deltas else 0.0
        return _row(module, norm, norm, exponent)
    (b1, a1, _), (b2, a2, _) = deltas
    if b1.shape[0] != b2.shape[0] or a1.shape[1] != a2.shape[1]:
        return _unlike(module)
    norm = product_norm([(b1, a1)], 0.0) or product_norm([(b2, a2)], 0.0)
    rank = max(b1.shape[1], b2.shape[1])
    b1, b2 = (np.pad(b, ((0, 0), (0, rank - b.shape[1]))) if b.shape[1] < rank else b for b in (b1, b2))
    a1, a2 = (np.pad(a, ((0, rank - a.shape[0]), (0, 0))) if a.shape[0] < rank else a for a in (a1, a2))
    difference = product_norm([(b1, a1 - a2), (b1 - b2, a2)], tolerance * norm)
    return _row(module, norm, difference, exponent)


def _is_zero(adapter: Subject, layer: Layer, files: Files) -> bool:
    """Whether a layer has nothing but zeros, as one of rank 0 has that was padded: in pieces, as it may be large."""
    infos = _tensors_of(adapter, layer)
    for info in infos:
        read(info._replace(shape=(0,)), b"")  # which raises for a type whose zero bits are another number
    return all(bytes(piece).count(0) == len(piece) for info in infos for piece in chunks(info, files))


def delta(adapter: Subject, layer: Layer, files: Files) -> Delta | None:
    """A layer's delta, scaling · B · A.

    None where a factor holds NaN or infinity. Raises AdapterError.
    """
    return delta_of(factors(adapter, layer, files), layer.scaling or 0.0)


def factors(adapter: Subject, layer: Layer, files: Files) -> tuple[Array, Array, Array | None]:
    """B `[out, r]`, A `[r, in]`, flattened of a convolution, and AdaLoRA's E `[r, 1]`, which multiplies the rows
    of A. Raises AdapterError where they are not all there, or do not agree.
    """
    b, a, *rest = (read(info, content(info, files)) for info in _tensors_of(adapter, layer))
    rank = a.shape[0]
    return b.reshape(b.shape[0], rank), a.reshape(rank, -1), rest[0].reshape(-1, 1) if rest else None


def _tensors_of(adapter: Subject, layer: Layer) -> list[TensorInfo]:
    """B, A and, of an AdaLoRA, E, as far as the layer has one. Raises AdapterError."""
    infos = {name: adapter.tensors[key] for name, key in layer.factors.items()}
    a = next((infos[name] for name in ("lora_A", "lora_embedding_A") if name in infos), None)
    b = next((infos[name] for name in ("lora_B", "lora_embedding_B") if name in infos), None)
    if a is None or b is None or layer.scaling is None or len(a.shape) < 2 or len(b.shape) < 2:
        raise AdapterError(f"the factors of {layer.module} are not all there")
    rank = a.shape[0]
    e = infos.get("lora_E") if adapter.method == "ADALORA" else None  # which no LoRA reads
    if b.shape[1] != rank or (e is not None and math.prod(e.shape) != rank):
        raise AdapterError(f"the factors of {layer.module} do not agree on a rank")
    if math.prod(b.shape) != b.shape[0] * rank:
        raise AdapterError(f"lora_B of {layer.module} has the shape {list(b.shape)}, which no PEFT computes with")
    return [b, a] if e is None else [b, a, e]


def delta_of(product: tuple[Array, Array, Array | None], scaling: float) -> Delta | None:
    """The delta that factors make; None where one holds NaN or infinity."""
    b, a, e = product
    arrays, exponent = [b, a, *([] if e is None else [e])], 0
    sizes = [*map(largest, arrays), abs(scaling)]
    if not all(map(math.isfinite, sizes)):
        return None
    if not all(map(ordinary, sizes)):
        scaling, exponent = math.frexp(scaling)
        reduced = [scaled(array) for array in arrays]
        arrays, exponent = [array for array, _ in reduced], exponent + sum(by for _, by in reduced)
    b, a, *rest = arrays
    if rest:
        a = a * rest[0]
    return Delta(b * scaling, a, exponent)


def _comparable(deltas: list[Delta]) -> tuple[list[Delta], int]:
    """The deltas in one unit, and its exponent. Factors that are not all ordinary are scaled first, each for itself."""
    if not any(delta.exponent for delta in deltas):
        return deltas, 0
    single: list[Delta] = []
    for b, a, exponent in deltas:
        (b, by), (a, too) = scaled(b), scaled(a)
        single.append(Delta(b, a, exponent + by + too))
    unit = max((delta.exponent for delta in single if delta.b.any() and delta.a.any()), default=0)
    return [Delta(np.ldexp(b, min(exponent - unit, 0)), a) for b, a, exponent in single], unit


def _compare_others(a: Subject, b: Subject, unchanged: frozenset[str], files: Files) -> tuple[list[Row], list[str]]:
    """The rows of all tensors that are no factor, and the names of those that are in one adapter only."""
    mine, yours = _others(a), _others(b)
    rows = []
    for name, infos in mine.items():
        for key, info in infos.items():
            for other_key, other in yours.get(name, {}).items():
                if key == other_key and key in unchanged:
                    continue
                if identical(info, other, files):
                    rows.append(Row(name, 0.0, 0.0, 0.0))
                else:
                    rows.append(_value_row(name, info, other, files))
    return rows, sorted(mine.keys() ^ yours.keys())


def _others(adapter: Subject) -> dict[str, dict[str, TensorInfo]]:
    """Tensors by the name of what they replace or add; a bias may be there under both of its names."""
    factors: set[str] = set()
    if adapter.method in LORAS:
        factors = {key for layer in adapter.layers.values() for key in layer.factors.values()}
    by_name: dict[str, dict[str, TensorInfo]] = {}
    for key, info in adapter.tensors.items():
        name = module_of(key).replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
        if key not in factors and not name.endswith((".ranknum", ".ranknum.default")):
            by_name.setdefault(name, {})[key] = info
    return by_name


def _value_row(name: str, one: TensorInfo, other: TensorInfo, files: Files) -> Row:
    if one.shape != other.shape:
        return _unlike(name)
    x, y = read(one, content(one, files)), read(other, content(other, files))
    sizes = [largest(x), largest(y)]
    if not all(map(math.isfinite, sizes)):
        return _unlike(name)
    exponent = 0 if all(map(ordinary, sizes)) else math.frexp(max(sizes))[1]
    if exponent:
        x, y = np.ldexp(x, -exponent), np.ldexp(y, -exponent)
    return _row(name, norm(x) or norm(y), norm(x - y), exponent)


def proof(comparison: Comparison) -> dict[str, Any]:
    """A comparison for JSON: `modules` has the absolute and relative difference of each delta that was computed."""
    worst = comparison.largest
    return {
        "verdict": comparison.verdict,
        "tolerance": comparison.tolerance,
        "largest_relative_difference": worst.relative if worst else 0.0,
        "largest_difference": max((row.difference for row in comparison.layers), default=0.0),
        "where": worst.name if worst and worst.relative else None,
        "modules": {row.name: [row.difference, row.relative] for row in comparison.layers},
    }
