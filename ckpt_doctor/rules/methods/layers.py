"""Rules about the layers of PEFT's methods that are not LoRA's: which the config names, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...adapter.codes import NO_TARGET, UNCLEAR_TARGET, UNEVEN_LAYERS
from ...adapter.findings import THE_BASE, Finding, several
from ...adapter.runtimes import PEFT, between, since
from ...facts.meaning import left_random
from ...facts.methods import COUNTED, NAMED
from ...facts.names import IN_BLOCK, Names, as_number, is_all_linear, named, targets
from ...facts.record import Method
from ...facts.subject import Subject
from .review import of_methods


def _unclear(key: str, message: str, ids: frozenset[str] = PEFT) -> Finding:
    return UNCLEAR_TARGET(message, keys=(key,), undecided=ids, needs=THE_BASE)


@of_methods
def target_modules(subject: Subject, method: Method) -> Iterator[Finding]:
    """target_modules, or what narrows it, leaves out layers that have tensors, or says too little to tell."""
    target, layers = subject.config.get("target_modules"), subject.layers
    if not method.tensors or (target is None and method.targets != NAMED):
        return
    if method.targets == COUNTED and isinstance(target, (str, list)):
        return
    if target is None:
        return  # rules/defaults.py
    if is_all_linear(target):
        message = f"target_modules is {target}: which layers are adapted is up to the base model"
        yield _unclear("target_modules", message)
    elif not isinstance(target, (str, list)):
        yield _unclear("target_modules", "target_modules is neither a list nor a pattern")
    elif not target:
        yield NO_TARGET("target_modules is empty", keys=("target_modules",), rejects=PEFT)
    else:
        left = [module for module in layers if not targets(target, module)]
        if isinstance(target, list) and left_random(subject) and not left:
            hit = {*named(target, layers)}
            fresh = [name for name in map(str, target) if name not in hit and _may_adapt(subject, name)]
            if fresh:
                message = f"no tensor is of {several(fresh)}, and a layer of it would be adapted at random"
                yield _unclear("target_modules", message)
    yield from _chosen_layers(subject)


def _may_adapt(subject: Subject, name: str) -> bool:
    """Whether a name in target_modules may be of a layer that the file has nothing of: not where the base model has no
    such module, or exclude_modules takes out all that it has.
    """
    if subject.base is None or subject.layers.keys().isdisjoint(subject.base.weights):
        return True
    meant = [m for m, shape in subject.base.weights.items() if len(shape) > 1 and targets([name], m)]
    return not all(m in subject.layers or targets(subject.config.get("exclude_modules"), m) for m in meant)


def _chosen_layers(subject: Subject) -> Iterator[Finding]:
    numbers = subject.config.get("layers_to_transform")
    if not subject.config.get("layers_pattern") or numbers:  # 0 is no layer to PEFT either
        return
    message = "layers_pattern is set without layers_to_transform"
    if subject.method not in UNCHECKED:
        # "When `layers_pattern` is specified, `layers_to_transform` must also be specified"
        rejecting = since("0.14") if numbers is None else between("0.14", "0.20")
        yield UNCLEAR_TARGET(message, keys=("layers_pattern",), rejects=rejecting)
    elif numbers is None:
        yield _unclear("layers_pattern", message)


UNCHECKED = frozenset({"ADAMSS", "BONE", "C3A", "GRALORA", "HIRA", "MISS", "RANDLORA", "UNILORA"})
"""Methods whose configs do not hold the two against each other (config.py: __post_init__)."""


@of_methods
def siblings(subject: Subject, method: Method) -> Iterator[Finding]:
    """A layer is missing, or a tensor of one, that others of its name have: it would stay as it was initialised, which
    for a whole layer is no identity.

    A base model may well be so (a hybrid of two kinds of blocks), so this is a doubt, not a fault.
    """
    if not method.tensors or len(subject.layers) < 2:
        return
    where = _with_a_gap(subject, method) if left_random(subject) else ""
    if not where and _partial(subject, method):
        where = "of one name"
    if where:
        message = f"layers {where} do not all have the same tensors: some may be missing"
        yield UNEVEN_LAYERS(message, undecided=PEFT, needs=THE_BASE)


def _with_a_gap(subject: Subject, method: Method) -> str:
    """Where a layer may be missing; "" where none is."""
    config, target = subject.config, subject.config.get("target_modules")
    weights = subject.base.weights if subject.base is not None else {}
    if subject.layers.keys() <= weights.keys() and not any(config.get(key) is not None for key in NARROWING):
        targeted = {module for module, shape in weights.items() if len(shape) > 1 and targets(target, module)}
        if targeted <= subject.layers.keys():
            return ""  # the model has no other layer that a name could mean
    chosen = isinstance(target, str) or any(config.get(key) is not None for key in NARROWING)
    full_names = isinstance(target, list) and any("." in str(name) for name in target)
    uneven = [] if chosen or full_names else uneven_stacks(subject.layers)
    patterned = any(config.get(pattern) for pattern in (*method.patterns.values(), "rank_pattern"))
    if uneven:
        return f"in {uneven[0].lstrip('.')}"
    return "of one name" if not patterned and _odd_one_out(subject) else ""


NARROWING = ("layers_to_transform", "exclude_modules")


def uneven_stacks(modules: Iterable[str]) -> Names:
    """The numbered blocks that do not all have the same layers, or of which the first ones or some between miss."""
    stacks: dict[str, dict[str, set[int]]] = {}
    for module in modules:
        numbered = IN_BLOCK.fullmatch(f".{module}")
        if numbered:
            stacks.setdefault(numbered[1], {}).setdefault(numbered[3], set()).add(as_number(numbered[2]))
    numbers = {stack: set().union(*rows.values()) for stack, rows in stacks.items()}
    return [
        stack for stack, rows in stacks.items()
        if any(row != numbers[stack] for row in rows.values()) or numbers[stack] != set(range(len(numbers[stack])))
    ]  # fmt: skip


def _partial(subject: Subject, method: Method) -> bool:
    """Whether layers of one name do not have the same factors."""
    kinds: dict[str, set[frozenset[str]]] = {}
    for module, layer in subject.layers.items():
        kinds.setdefault(module.rpartition(".")[2], set()).add(frozenset(layer.factors))
    return not method.ways_vary and any(len(kind) > 1 for kind in kinds.values())


def _odd_one_out(subject: Subject) -> bool:
    """Whether just one of three or more layers of a name has other shapes than the rest, which are all alike."""
    kinds: dict[str, list[tuple[tuple[str, tuple[int, ...]], ...]]] = {}
    for module, layer in subject.layers.items():
        kinds.setdefault(module.rpartition(".")[2], []).append(tuple(sorted(subject.shapes(layer).items())))
    return any(len(kind) > 2 and len(set(kind)) == 2 and min(kind.count(s) for s in set(kind)) == 1
               for kind in kinds.values())  # fmt: skip
