"""Stages of a load that take the tensors: which there are, how they are named, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ... import codes
from ...adapter import Adapter
from ...facts.servers import REJECTS, SERVERS, TAKES, UNKNOWN, Outcome, Server, outcome
from ..rank import keys_of, names
from .cause import Cause, Field, Layers, alike, worst
from .kinds import FACTOR, GROUPS, by_kind, faults, kinds_of_tensors, leaf, places, raw, sizes, wrapped


def siblings(layers: Iterable[str], fused: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, str]:
    """Modules that are missing beside others of a fused group in their layer, each with the sibling that is there.

    `fused` are the modules that each needs, by their last parts; without it, all that any server needs.
    """
    if fused is None:
        fused = {name: needed for server in SERVERS for name, needed in (server.fused or {}).items()}
    present, missing = dict.fromkeys(layers), {}
    for module in present:
        stem, _, name = module.rpartition(".")
        for needed in fused.get(name, ()):
            if f"{stem}.{needed}" not in present:
                missing[f"{stem}.{needed}"] = module
    return missing


def grouping(adapter: Adapter, layers: Layers) -> Iterator[Cause]:
    """Modules that a server fuses, of which one is missing; and kinds of modules that not every layer has."""
    whole = {name: tuple(other for other in group if other != name) for group in GROUPS for name in group}
    lacking = siblings(layers, whole)
    if lacking:
        message = f"{names(list(lacking))} have no tensors, although others of their fused group have"

        def of_groups(server: Server) -> Outcome:
            if server.fused is None:
                return UNKNOWN
            return REJECTS if siblings(layers, server.fused) else TAKES

        yield Cause(codes.SERVER_FUSED_GROUP, message, of_groups, about="fused")
    adapted, there = by_kind(layers), by_kind(adapter.base.weights if adapter.base else ())
    blocks = set[str]().union(*adapted.values())
    partial = [kind for kind, where in adapted.items() if not blocks | there.get(kind, set()) <= where]
    if partial:
        message = f"{names(partial)} of some layers are adapted, and not of others"
        yield Cause(codes.SERVER_PARTIAL_TYPE, message, Field("partial_types"))


def keys(adapter: Adapter, layers: Layers) -> Iterator[Cause]:
    """How the factors are named: PEFT's prefix, what stands between, and how a name ends."""
    if adapter.peft_type != "LORA":
        return
    kinds: dict[str, list[str]] = {}
    for key in keys_of(layers, list(layers)):
        prefix = "base_model.model."
        if not FACTOR.search(key):
            kind = "other end"
        elif wrapped(raw(key)):
            kind = "wrapped"
        elif not key.startswith(prefix) or key.startswith(prefix + "base_model."):
            kind = "no prefix"
        else:
            kind = "plain"
        kinds.setdefault(kind, []).append(key)
    for kind, found in kinds.items():
        said = {
            "plain": "is how the factors are named", "no prefix": "does not start as PEFT names it",
            "wrapped": "has a wrapper's prefix", "other end": "does not end as a factor does",
        }  # fmt: skip
        tensors = tuple(found) if kind != "plain" else ()
        yield Cause(codes.SERVER_KEY, f"{found[0]} {said[kind]}", Field("keys", kind), tensors)


def factors(adapter: Adapter, layers: Layers) -> Iterator[Cause]:
    """Factors that are missing, empty, flat, or do not agree; and their dtypes."""
    if adapter.peft_type != "LORA":
        return
    for kind, modules in faults(adapter, layers).items():
        message = f"{names(modules)}: {kind}"
        yield Cause(codes.SERVER_FACTOR, message, Field("factors", kind), keys_of(layers, modules))
    for group in alike("dtypes", (adapter.tensors[key].dtype for key in keys_of(layers, list(layers)))):
        yield Cause(codes.SERVER_FACTOR, f"factors are {names(group)}", Field("dtypes", *group))


def tensors(adapter: Adapter, layers: Layers) -> Iterator[Cause]:
    """Tensors that are no factor: copies of the base are skipped; anything else is refused, ignored or dropped."""
    saved = (adapter.config or {}).get("modules_to_save")
    saved = saved if isinstance(saved, list) else []
    for kinds, found in kinds_of_tensors(adapter, layers).items():
        is_saved = any(leaf(raw(key).rpartition(".")[0]) in saved for key in found)

        def of_tensors(server: Server, kinds: tuple[str, ...] = kinds, is_saved: bool = is_saved) -> Outcome:
            each = {outcome(server.tensors, kind) for kind in kinds}
            told = each.pop() if len(each) == 1 else UNKNOWN
            return worst((told, server.saved_tensors)) if is_saved else told

        message = f"{found[0]} is no factor of LoRA ({kinds[0]})"
        needs = "the base model" if len(kinds) > 1 else "a load in that runtime"
        yield Cause(codes.SERVER_TENSOR, message, of_tensors, tuple(found), needs=needs, about="tensors")


def base(adapter: Adapter, layers: Layers) -> Iterator[Cause]:
    """Names and sizes against the base model; without it nothing shows whether they fit."""
    model = adapter.base
    if model is None:
        message = "whether the names and sizes of the layers fit the model shows only with it"
        yield Cause(codes.BASE_UNSEEN, message, lambda _: UNKNOWN, needs="the base model (--base)")
        return
    kind = model.config.get("model_type")
    if kind:
        yield Cause(
            codes.SERVER_MODEL,
            f"the model is a {kind}",
            Field("models", str(kind)),
            needs="a load on a model of that family",
        )
    else:
        message, needs = "the model's config does not say what it is", "a model_type in the model's config"
        yield Cause(codes.SERVER_MODEL, message, lambda _: UNKNOWN, needs=needs)
    for kinds, modules in places(model, layers).items():
        message = f"the model has no {modules[0]}: {kinds[0]}"
        yield Cause(codes.SERVER_NOT_IN_BASE, message, Field("places", *kinds), keys_of(layers, modules))
    for (kinds, message), modules in sizes(adapter, model, layers).items():
        more = f", and so are {len(modules) - 1} more" if len(modules) > 1 else ""
        yield Cause(codes.SERVER_SIZE, f"{message}{more}", Field("sizes", *kinds), keys_of(layers, modules))
