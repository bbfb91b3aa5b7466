"""kohya-ss's sd-scripts and LyCORIS: one file, `lora_unet_down_blocks_0_…` for names, an alpha for each layer.

`y = W x + alpha / rank · lora_up (lora_down x)`, with alpha = rank where none is there (sd-scripts networks/lora.py:
LoRAModule, create_network_from_weights; musubi-tuner's is the same). The dots of names are underscores there, so they
come back by a table (image_modules.json), and other codes name modules otherwise, or have several in one: rows of
lora_up then go to each, all with the same lora_down. LoHa's and LoKr's factors are PEFT's (lycoris modules/loha.py,
lokr.py), and dora_scale is its magnitude where it has one number a row (lycoris modules/locon.py: wd_on_out).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from ..adapter import Joined, TensorInfo, zeros
from ..facts.subject import Subject
from ..repairs.cuts import cut
from . import Converted, Foreign, Refused, Tool
from .image_modules import ANY, WHOLE, Names, Pieces, Shares, Ways, filled, layouts, models
from .images import KERNELS, Layer, adapter, component, constant, layers_of, number, told_apart
from .kronecker import kronecker, weight_of

PARTS = {
    "lora_unet_": "unet", "lora_transformer_": "transformer", "lora_te_": "text_encoder", "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}  # fmt: skip
"""How names begin → the component (sd-scripts networks/lora.py: LORA_PREFIX_UNET …; OneTrainer's lora_transformer). A
lora_unet_ may be of a transformer, as its names tell."""
VERSIONS = {"FluxTransformer2DModel": "flux1", "SD3Transformer2DModel": "sd3", "WanTransformer3DModel": "wan"}
"""Class → how the version begins that a trainer writes (ss_base_model_version; sd-scripts library/flux_utils.py:
MODEL_VERSION_FLUX_V1, sd3_utils.py, musubi-tuner): other models share its names."""
LORA = {"lora_down.weight", "lora_up.weight"}
LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
LOHA_CP = {"hada_t1", "hada_t2"}
LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}
BESIDE = {"alpha", "dora_scale"}

Factors = dict[str, TensorInfo]


class _Place(NamedTuple):
    """What a name stands for: modules of diffusers, by rows per column of the weight, and the numbers in its name."""

    ways: Ways
    numbers: tuple[str, ...]


def to_peft(foreign: Foreign) -> list[Converted]:
    """An adapter for each component. Raises Refused."""
    found: dict[str, dict[str, Factors]] = {}
    for name, info in foreign.tensors.items():
        module, _, leaf = name.partition(".")
        start = next((start for start in PARTS if module.startswith(start)), None)
        if start is None:
            raise Refused(f"{name} is of a component that no table has")
        if leaf not in LORA | LOHA | LOHA_CP | LOKR | BESIDE:
            cp = " (a convolution in three factors)" if leaf in ("lora_mid.weight", "lokr_t2") else ""
            raise Refused(f"{name} has no counterpart in PEFT{cp}")
        found.setdefault(start, {}).setdefault(module.removeprefix(start), {})[leaf] = info
    made: dict[str, Converted] = {}
    for start, modules in found.items():
        part, model, places = _places(start, modules)
        if part in made:
            raise Refused(f"two sets of names stand for the {part}")
        made[part] = _converted(part, {name: (places[name], modules[name]) for name in modules})
        version = foreign.metadata.get("ss_base_model_version", "")
        if model in VERSIONS and version.startswith(VERSIONS[model]):
            kind = {"base_model_class": model, "parent_library": models()[model].library}
            made[part] = made[part]._replace(config={**made[part].config, "auto_mapping": kind})
    return told_apart(list(made.values()))


def _places(start: str, names: Iterable[str]) -> tuple[str, str, dict[str, _Place]]:
    """The component, the class if there is but one, and what each name stands for, by the layout that has them all.

    Raises Refused.
    """
    best: tuple[int, str] = (-1, "")
    found: list[tuple[str, dict[str, _Place]]] = []
    for model, ways, index in _candidates(PARTS[start].partition("_2")[0]):
        places: dict[str, _Place] = {}
        missing = ""
        for name in names:
            at = index.of(name)
            if at is None:
                missing = missing or name
            else:
                places[name] = _Place(ways[at[0]], tuple(at[1]))
        if not missing:
            found.append((model, places))
        best = max(best, (len(places), missing))
    if not found:
        raise Refused(f"{start}{best[1]} is a module of no layout that a table has")
    model, places = found[0]
    part = models()[model].part
    if any(models()[other].part != part or theirs != places for other, theirs in found):
        raise Refused("its names are those of several models alike, and stand for other modules in each")
    named = "text_encoder_2" if start == "lora_te2_" else part
    return named, model if len({other for other, _ in found}) == 1 else "", places


@cache
def _candidates(part: str) -> list[tuple[str, dict[str, Ways], Names]]:
    """The layouts that a component's names may be of: a class, what each name stands for, and an index of them."""
    ways = {
        name: {module: {ANY: {module: WHOLE}} for module in model.modules}
        for name, model in models().items()
        if model.part == part
    }
    others = [(layout.model, layout.modules) for layout in layouts().values()] if part == "unet" else []
    return [(model, modules, Names(modules, "_")) for model, modules in (*ways.items(), *others)]


def _converted(part: str, modules: Mapping[str, tuple[_Place, Factors]]) -> Converted:
    methods = {_method(name, factors) for name, (_, factors) in modules.items()}
    if len(methods) != 1:
        several = " and ".join(sorted(methods))
        raise Refused(f"the {part} has layers of {several}, and an adapter of PEFT has one method")
    method = methods.pop()
    if method == "LOKR":
        return kronecker(
            part, {_one(name, place, factors): factors for name, (place, factors) in modules.items()}, _alpha
        )
    layers: dict[str, Layer] = {}
    for name, (place, factors) in modules.items():
        made = _lora(name, place, factors) if method == "LORA" else _loha(name, place, factors)
        if made.keys() & layers.keys():
            raise Refused(f"two names stand for {min(made.keys() & layers.keys())}")
        layers.update(made)
    if method == "LOHA":
        return adapter(method, part, layers, use_effective_conv2d=_is_cp(layers))
    scaled = ["lora_magnitude_vector" in layer.factors for layer in layers.values()]
    if any(scaled) and not all(scaled):
        raise Refused(f"some layers of the {part} have a dora_scale and some have none")
    return adapter(method, part, layers, **({"use_dora": True} if all(scaled) else {}))


def _method(name: str, factors: Factors) -> str:
    leaves = factors.keys() - BESIDE
    for method, wanted in (("LORA", LORA), ("LOHA", LOHA), ("LOHA", LOHA | LOHA_CP)):
        if leaves == wanted:
            return method
    if leaves and leaves <= LOKR:
        return "LOKR"
    raise Refused(f"{name} has not all tensors of a layer, or of two methods")


def _alpha(name: str, factors: Factors, rank: int) -> float:
    """What is divided by the rank. Raises Refused."""
    if "alpha" not in factors:
        return rank
    alpha = number(f"{name}.alpha", factors["alpha"])
    if not math.isfinite(alpha):
        raise Refused(f"the alpha of {name} is {alpha}")
    if alpha == 0:
        raise Refused(f"the alpha of {name} is 0, of which sd-scripts makes the rank, and others nothing")
    return alpha


def _pieces(name: str, place: _Place, rows: int, columns: int) -> Pieces:
    """The modules that a layer stands for. Raises Refused."""
    way = place.ways.get(ANY) or (place.ways.get(Fraction(rows, columns)) if columns else None)
    if way is None:
        raise Refused(f"{name} has {rows} rows and {columns} columns, and not the shape of that layer")
    return {filled(module, list(place.numbers)): shares for module, shares in way.items()}


def _one(name: str, place: _Place, factors: Factors) -> str:
    """The module that a layer of LoKr stands for. Raises Refused."""
    rows, columns = (0, 0) if ANY in place.ways else weight_of(name, factors)
    pieces = _pieces(name, place, rows, columns)
    if list(pieces.values()) != [WHOLE]:
        raise Refused(f"{name} stands for several modules, and a Kronecker product cannot be cut")
    return next(iter(pieces))


def _rows(name: str, info: TensorInfo, shares: Shares, total: int) -> TensorInfo:
    """Some rows of a matrix, in the order that shares of its rows say, of `total` parts."""
    if total == 1:
        return info
    if len(info.shape) != 2 or info.shape[0] % total:
        raise Refused(f"{name} has {list(info.shape)}, which cannot be cut in {total}")
    unit = info.shape[0] // total
    cuts = tuple(cut(info, range(first * unit, last * unit)) for first, last in shares)
    if len(cuts) == 1:
        return cuts[0]
    return TensorInfo(info.dtype, (sum(part.shape[0] for part in cuts), info.shape[1]), Joined(cuts, 0))


def _total(pieces: Pieces) -> int:
    return max(last for shares in pieces.values() for _, last in shares)


def _lora(name: str, place: _Place, factors: Factors) -> dict[str, Layer]:
    a, b = factors["lora_down.weight"], factors["lora_up.weight"]
    rank = a.shape[0] if a.shape else 0
    kernel = set(b.shape[2:])
    if len(a.shape) != len(b.shape) or len(a.shape) not in (2, 4) or not b.shape[1] == rank > 0 or not kernel <= {1}:
        raise Refused(f"{name} has factors {list(a.shape)} and {list(b.shape)}")
    pieces, alpha = _pieces(name, place, b.shape[0], a.shape[1]), _alpha(name, factors, rank)
    total, layers = _total(pieces), {}
    for module, shares in pieces.items():
        kept = {"lora_A": a, "lora_B": _rows(name, b, shares, total)}
        if "dora_scale" in factors:
            scale = factors["dora_scale"]
            if scale.shape != (b.shape[0], *(1,) * (len(a.shape) - 1)):
                raise Refused(f"the dora_scale of {name} has {list(scale.shape)}, and PEFT's has one number a row")
            kept["lora_magnitude_vector"] = _magnitude(_rows(name, scale, shares, total))
        layers[module] = Layer(kept, rank, alpha)
    return layers


def _magnitude(scale: TensorInfo) -> TensorInfo:
    """PEFT's magnitude: `[out]`, of a convolution `[1, out, 1, 1]` (tuners/lora/dora.py: DoraConv2dLayer)."""
    rows = scale.shape[0]
    if len(scale.shape) == 4:
        return scale._replace(shape=(1, rows, 1, 1))
    return _flat(scale)


def _flat(info: TensorInfo) -> TensorInfo:
    """A column as a vector."""
    from ..adapter import Gathered

    source = info.source
    if isinstance(source, Gathered):
        source = source._replace(strides=source.strides[:1])
    return TensorInfo(info.dtype, info.shape[:1], source)


def _loha(name: str, place: _Place, factors: Factors) -> dict[str, Layer]:
    if "dora_scale" in factors:
        raise Refused(f"{name} has a dora_scale, and PEFT's LoHa has none")
    w1_a, w1_b = factors["hada_w1_a"].shape, factors["hada_w1_b"].shape
    same = (w1_a, w1_b) == (factors["hada_w2_a"].shape, factors["hada_w2_b"].shape)
    if not same or len(w1_a) != 2 or len(w1_b) != 2:
        raise Refused(f"{name} has not the factors of a LoHa")
    rank, cp = w1_b[0], "hada_t1" in factors
    if rank < 1 or rank != w1_a[0 if cp else 1]:
        raise Refused(f"the factors of {name} do not agree on a rank")
    alpha = _alpha(name, factors, rank)
    kept = {leaf: info for leaf, info in factors.items() if leaf not in BESIDE}
    pieces = _pieces(name, place, w1_a[1 if cp else 0], w1_b[1])
    if list(pieces.values()) == [WHOLE]:
        return {next(iter(pieces)): Layer(kept, rank, alpha)}
    if cp:
        raise Refused(f"{name} stands for several modules, and is not of two dimensions")
    total = _total(pieces)
    return {
        module: Layer(
            {leaf: _rows(name, info, shares, total) if leaf.endswith("_a") else info for leaf, info in kept.items()},
            rank, alpha,
        )
        for module, shares in pieces.items()
    }  # fmt: skip


def _is_cp(layers: Mapping[str, Layer]) -> bool:
    """Whether kernels are decomposed, as PEFT's use_effective_conv2d says of all. Raises Refused where not of all."""
    if not any("hada_t1" in layer.factors for layer in layers.values()):
        return False
    for module, layer in layers.items():
        if module.rpartition(".")[2] in KERNELS and "hada_t1" not in layer.factors:
            raise Refused(f"{module} is not decomposed as other convolutions are, and PEFT decomposes all or none")
    return True


def from_peft(subject: Subject) -> Foreign:
    """One file for a LoRA or DoRA of a UNet or a transformer with a layout, or the second text encoder. A UNet has
    diffusers' names, which sd-scripts reads of XL as well (networks/lora.py: convert_diffusers_to_sai_if_needed).
    """
    layers = layers_of(subject)
    part, classes = component(subject, layers)
    idle = next((module for module, layer in layers.items() if layer.alpha == 0), None)
    if idle is not None:
        raise Refused(f"the scale of {idle} is 0, and sd-scripts makes the rank of an alpha of 0")
    tensors: Factors = {}
    if part == "transformer":
        groups, start = _groups(layers, classes), "lora_unet_"
    else:
        groups = {module: ({module: WHOLE}, {module: layer}) for module, layer in layers.items()}
        starts = {"unet": "lora_unet_", "text_encoder_2": "lora_te2_"}
        if part not in starts:
            raise Refused("sd-scripts calls it lora_te_ beside no other text encoder, and else lora_te1_")
        start = starts[part]
    for name, (pieces, members) in groups.items():
        named = name if part != "text_encoder_2" or name.startswith("text_") else f"text_model.{name}"
        flat = start + named.replace(".", "_")
        for leaf, info in _composed(name, pieces, members).items():
            tensors[f"{flat}.{leaf}"] = info
    return Foreign({}, {"format": "pt"}, tensors)


def _groups(layers: Mapping[str, Layer], classes: list[str]) -> dict[str, tuple[Pieces, dict[str, Layer]]]:
    """Name in the layout → the modules that it stands for, and those of them that are there. Raises Refused."""
    usable = [layout for layout in layouts().values() if layout.model in classes]
    if not usable or len(classes) > 1:
        if len(classes) > 1:
            raise Refused(
                f"its modules are those of {' and '.join(classes)} alike: name one in adapter_config.json, as "
                "auto_mapping's base_model_class"
            )
        raise Refused(f"no table has what sd-scripts calls the modules of {classes[0]}")
    groups: dict[str, tuple[Pieces, dict[str, Layer]]] = {}
    for module, layer in layers.items():
        name, pieces = _placed(usable[0].modules, module, layer)
        groups.setdefault(name, (pieces, {}))[1][module] = layer
    return groups


def _placed(modules: Mapping[str, Ways], module: str, layer: Layer) -> tuple[str, Pieces]:
    a, b = layer.factors["lora_A"].shape, layer.factors["lora_B"].shape
    for name, ways in modules.items():
        for ratio, pieces in ways.items():
            at = Names(pieces, ".").of(module)
            if at is None:
                continue
            rows = Fraction(b[0] * _total(pieces), sum(last - first for first, last in pieces[at[0]]))
            if ratio in (ANY, rows / a[1]):
                numbers = at[1]
                return filled(name, numbers), {filled(piece, numbers): shares for piece, shares in pieces.items()}
    raise Refused(f"{module} has {b[0]} rows and {a[1]} columns, and not the shape of a layer of that name")


def _composed(name: str, pieces: Pieces, members: Mapping[str, Layer]) -> Factors:
    """The factors of a layer that stands for several: the As below one another and each B in its rows and columns, the
    rest zeros, or one A where it is the same for all. Raises Refused.
    """
    scales = {layer.alpha / layer.rank for layer in members.values()}
    if len(scales) != 1:
        raise Refused(f"the parts of {name} have several scales: fix --to lora gives all layers one")
    first = next(iter(members.values()))
    down, rows, rank = _blocks(name, pieces, members)
    made = {"lora_down.weight": down, "lora_up.weight": rows, "alpha": constant(scales.pop() * rank)}
    if "lora_magnitude_vector" in first.factors:
        made["dora_scale"] = _dora_scale(name, pieces, members)
    return made


def _blocks(name: str, pieces: Pieces, members: Mapping[str, Layer]) -> tuple[TensorInfo, TensorInfo, int]:
    first = next(iter(members.values()))
    a = first.factors["lora_A"]
    if list(pieces.values()) == [WHOLE]:
        return a, first.factors["lora_B"], first.rank
    infos = [info for layer in members.values() for info in (layer.factors["lora_A"], layer.factors["lora_B"])]
    inputs = {layer.factors["lora_A"].shape[1:] for layer in members.values()}
    if any(info.dtype != a.dtype or len(info.shape) != 2 for info in infos) or len(inputs) != 1:
        raise Refused(f"the parts of {name} have not one input and dtype")
    unit, shared = _unit(name, pieces, members), all(layer.factors["lora_A"] == a for layer in members.values())
    columns, at = {}, 0
    for module in pieces:
        if module in members:
            columns[module] = range(at, at + members[module].rank)
            at += 0 if shared else members[module].rank
    width = first.rank if shared else at
    blocks = []
    for begin, end, module, offset in _segments(pieces):
        height = (end - begin) * unit
        if module not in members:
            blocks.append(zeros(a.dtype, (height, width)))
            continue
        b = members[module].factors["lora_B"]
        part = cut(b, range(offset * unit, offset * unit + height))
        span = columns[module]
        beside = (zeros(a.dtype, (height, span.start)), part, zeros(a.dtype, (height, width - span.stop)))
        joined = tuple(info for info in beside if info.shape[1])
        blocks.append(part if len(joined) == 1 else TensorInfo(a.dtype, (height, width), Joined(joined, 1)))
    up = TensorInfo(a.dtype, (sum(block.shape[0] for block in blocks), width), Joined(tuple(blocks), 0))
    below = tuple(members[module].factors["lora_A"] for module in pieces if module in members)
    down = a if shared else TensorInfo(a.dtype, (width, a.shape[1]), Joined(below, 0))
    return down, up, width


def _segments(pieces: Pieces) -> list[tuple[int, int, str, int]]:
    """The rows of the whole in their order: from, to, whose they are, and where they are there; in parts."""
    segments = []
    for module, shares in pieces.items():
        at = 0
        for first, last in shares:
            segments.append((first, last, module, at))
            at += last - first
    return sorted(segments)


def _unit(name: str, pieces: Pieces, members: Mapping[str, Layer]) -> int:
    """How many rows a part has. Raises Refused where the layers do not agree on it."""
    sizes = {
        divmod(layer.factors["lora_B"].shape[0], sum(last - first for first, last in pieces[module]))
        for module, layer in members.items()
    }
    if len(sizes) != 1 or (found := sizes.pop())[1]:
        raise Refused(f"the parts of {name} have not the sizes that its layout says")
    return found[0]


def _dora_scale(name: str, pieces: Pieces, members: Mapping[str, Layer]) -> TensorInfo:
    scales = {module: layer.factors["lora_magnitude_vector"] for module, layer in members.items()}
    if list(pieces.values()) == [WHOLE]:
        (scale,) = scales.values()
        kernel = members[next(iter(members))].factors["lora_A"].shape[2:]
        return _column(scale, len(kernel))
    if pieces.keys() != members.keys():
        raise Refused(f"{name} lacks a part, whose magnitude is that of its weight")
    unit, dtypes = _unit(name, pieces, members), {scale.dtype for scale in scales.values()}
    if len(dtypes) != 1:
        raise Refused(f"the parts of {name} have magnitudes of several dtypes")
    cuts = tuple(
        cut(_column(scales[module], 0), range(at * unit, (at + end - begin) * unit))
        for begin, end, module, at in _segments(pieces)
    )
    return TensorInfo(dtypes.pop(), (sum(part.shape[0] for part in cuts), 1), Joined(cuts, 0))


def _column(scale: TensorInfo, kernel: int) -> TensorInfo:
    """A magnitude as a dora_scale: `[out, 1]`, of a convolution `[out, 1, 1, 1]`. Raises Refused."""
    from ..adapter import Gathered

    rows = max(scale.shape, default=0)
    if scale.shape not in ((rows,), (1, rows, 1, 1)):
        raise Refused(f"a magnitude has {list(scale.shape)}, and not one number a row")
    if isinstance(scale.source, Gathered):
        raise Refused("magnitudes that are views are not turned: write it as safetensors first")
    return scale._replace(shape=(rows, 1, *(1,) * kernel))


TOOL = Tool("kohya", "", "kohya_lora.safetensors", to_peft, from_peft)
