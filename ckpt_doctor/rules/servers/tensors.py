"""Stages of a load that take the tensors: which there are, how they are named, and whether they fit the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...adapter import codes
from ...adapter.findings import THE_BASE, THE_WEIGHTS, counted, several
from ...facts.methods import LORAS
from ...facts.names import PREFIX
from ...facts.servers import SERVERS
from ...facts.servers.record import REJECTS, TAKES, UNKNOWN, Outcome, Server, outcome
from ...facts.subject import Subject
from .cause import Cause, Field, alike, worst
from .config import method
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


def grouping(subject: Subject) -> Iterator[Cause]:
    """Modules that a server fuses, of which one is missing; and kinds of modules that not every layer has."""
    whole = {name: tuple(other for other in group if other != name) for group in GROUPS for name in group}
    lacking = siblings(subject.layers, whole)
    if lacking:
        count = counted(len(lacking), "module")
        which = several(list(lacking))
        message = f"{count} without tensors, beside others of a fused group (q, k, v; gate, up): {which}"

        def of_groups(server: Server) -> Outcome:
            if server.fused is None:
                return UNKNOWN
            return REJECTS if siblings(subject.layers, server.fused) else TAKES

        yield Cause(codes.SERVER_FUSED_GROUP, message, of_groups, about="fused")
    adapted, there = by_kind(subject.layers), by_kind(subject.question.base.weights if subject.question.base else ())
    blocks = set[str]().union(*adapted.values())
    partial = [kind for kind, where in adapted.items() if not (blocks <= where and there.get(kind, blocks) <= where)]
    if partial:
        message = f"{several(partial)} of some layers are adapted, and not of others"
        yield Cause(codes.SERVER_PARTIAL_TYPE, message, Field("partial_types"))


def keys(subject: Subject) -> Iterator[Cause]:
    """How the factors are named: PEFT's prefix, what stands between, and how a name ends."""
    if subject.method != "LORA":
        return
    kinds: dict[str, list[str]] = {}
    for key in subject.keys_of(list(subject.layers)):
        if not FACTOR.search(key):
            kind = "other end"
        elif wrapped(raw(key)):
            kind = "wrapped"
        elif not key.startswith(PREFIX) or key.startswith(PREFIX + "base_model."):
            kind = "no prefix"
        else:
            kind = "plain"
        kinds.setdefault(kind, []).append(key)
    for kind, keys_of_kind in kinds.items():
        phrases = {
            "plain": "are named as PEFT does", "no prefix": f"do not start with {PREFIX}",
            "wrapped": "have a wrapper's name in them", "other end": "do not end as a factor's (.lora_A.weight)",
        }  # fmt: skip
        tensors = tuple(keys_of_kind) if kind != "plain" else ()
        message = f"{counted(len(keys_of_kind), 'key')} {phrases[kind]}: {keys_of_kind[0]}"
        yield Cause(codes.SERVER_KEY, message, Field("keys", kind), tensors)


def factors(subject: Subject) -> Iterator[Cause]:
    """Factors that are missing, empty, flat, or do not agree; and their dtypes."""
    if subject.method != "LORA":
        return
    for kind, modules in faults(subject).items():
        phrase, remedy = FAULTS[kind]
        count = f"{counted(len(modules), 'layer')} of {len(subject.layers)}"
        message = f"{phrase} in {count}: {several(modules)}"
        yield Cause(codes.SERVER_FACTOR, message, Field("factors", kind), subject.keys_of(modules), remedy=remedy)
    for group in alike("dtypes", (subject.tensors[key].dtype for key in subject.keys_of(list(subject.layers)))):
        yield Cause(codes.SERVER_FACTOR, f"factors are {several(group)}", Field("dtypes", *group))


_AGAIN = "fetch the whole file, or save the adapter again"
FAULTS = {
    "flat": (
        "factors have one dimension, as saved under ZeRO-3 or FSDP,",
        "save the adapter again with its parameters gathered: the weights are lost",
    ),
    "B alone": ("lora_A is missing", f"{_AGAIN}: the factor is lost"),
    "B alone in a fused group": ("lora_A is missing", f"{_AGAIN}: the factor is lost"),
    "A alone": ("lora_B is missing", f"{_AGAIN}: the factor is lost"),
    "no rows": ("factors have no row (rank 0)", ""),
    "two ranks": ("lora_A and lora_B differ in rank", f"{_AGAIN}: the factors of a layer are of one rank"),
}
"""What is wrong with factors, as `Server.factors` names it → as it is said, and what can be done by hand."""


def tensors(subject: Subject) -> Iterator[Cause]:
    """Tensors that are no factor: copies of the base are skipped; anything else is refused, ignored or dropped. Where a
    server rejects the method, which fix makes no LoRA of, that is the cause, and its tensors are none of their own.
    """
    of_method = [] if subject.method in (*LORAS, None) else [cause.answer for cause in method(subject)]
    for kinds, names in kinds_of_tensors(subject).items():
        head = _head(names)
        is_saved = any(leaf(raw(key).rpartition(".")[0]) in subject.saved_whole for key in names)

        def of_tensors(
            server: Server, kinds: tuple[str, ...] = kinds, is_saved: bool = is_saved, head: str = head
        ) -> Outcome:  # fmt: skip
            if any(answer(server) == REJECTS for answer in of_method):  # it is told
                return TAKES
            each = {outcome(server.tensors, kind) for kind in kinds}
            answer = each.pop() if len(each) == 1 else UNKNOWN
            if head and is_saved and subject.question.base is None and outcome(server.saved_modules, head) == TAKES:
                return UNKNOWN
            return worst((answer, server.saved_tensors)) if is_saved else answer

        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        message = f"{KINDS[kinds[0]]} is in the file, and no factor of LoRA: {names[0]}{more}"
        needs = "the base model" if len(kinds) > 1 else "a load in that runtime"
        yield Cause(codes.SERVER_TENSOR, message, of_tensors, tuple(names), needs=needs, about="tensors")


KINDS = {
    "bias": "a bias", "bias of none": "a bias", "norm": "a norm", "norm in a layer": "a norm",
    "embedding or head": "an embedding or a head", "magnitude": "a magnitude of DoRA",
    "trainable tokens": "trained tokens", "factor of another tool": "a factor by another tool's name",
    "tensor of a layer": "a tensor of a layer", "other": "a tensor",
}  # fmt: skip
"""Kinds of tensors that are no factor, as `Server.tensors` names them → as they are said."""


def _head(names: list[str]) -> str:
    """The classification head that all of some tensors are of, or nothing; what a server makes of it is its class's."""
    modules = {leaf(raw(key).rpartition(".")[0]) for key in names}
    return modules.pop() if len(modules) == 1 and modules <= {"score", "classifier"} else ""


def base(subject: Subject) -> Iterator[Cause]:
    """Names and sizes against the base model; without it nothing shows whether they fit."""
    model = subject.question.base
    if model is None or not (model.weights or model.config):
        message = "whether the names and sizes of the layers fit the model shows only with it"
        yield Cause(codes.BASE_UNSEEN, message, lambda _: UNKNOWN, needs=THE_BASE)
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
    if not model.weights:
        message = "whether the names and sizes of the layers fit the model shows only with its weights"
        yield Cause(codes.BASE_UNSEEN, message, lambda _: UNKNOWN, needs=THE_WEIGHTS)
        return
    for kinds, modules in places(model, subject.layers).items():
        message = f"the model has no {modules[0]}: {kinds[0]}"
        yield Cause(codes.SERVER_NOT_IN_BASE, message, Field("places", *kinds), subject.keys_of(modules))
    for message, modules in sizes(subject, model).items():
        more = f", and so are {len(modules) - 1} more" if len(modules) > 1 else ""
        yield Cause(codes.SERVER_SIZE, f"{message}{more}", lambda _: UNKNOWN, subject.keys_of(modules))
