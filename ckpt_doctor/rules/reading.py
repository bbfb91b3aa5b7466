"""Rules about what each release makes of the config: which modules it adapts, with which rank and scale."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

from ..adapter import are_few
from ..adapter.codes import (
    ADALORA_PATTERN_MISMATCH,
    AMBIGUOUS_PATTERN,
    IGNORED_EXCLUSION,
    IGNORED_LAYER,
    MISSING_LAYER,
    NO_TARGET,
    OTHER_SCALE,
    RANK_MISMATCH,
    RENAMED_MODEL,
    UNSUPPORTED_TARGET,
    UNTARGETED_LAYERS,
)
from ..adapter.findings import THE_BASE, THE_TRANSFORMERS, Code, Finding, counted, several
from ..adapter.runtimes import NEWEST_SERIES, NONE, PEFT, between, since, upto
from ..facts.meaning import Era, left_random, meant_era, taking
from ..facts.methods import LORAS
from ..facts.names import is_all_linear
from ..facts.subject import Subject
from ..facts.targets import Reading, ambiguous, hits, holes, of_parameter, targeted
from .declared import rule
from .rank import is_mask
from .rank import misfit as ranks_apart
from .remedies import CONFIG_OF_THESE, targets_of
from .whole import has_module


@rule
def ignored_exclusion(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.5 and older ignore exclude_modules: what it excludes is adapted there, and left as initialised, which is
    not zero for AdaLoRA (lora_E ~ N(0, 0.02) in 0.5) and with init_lora_weights false.
    """
    config = subject.config
    if subject.method not in LORAS or not config.get("exclude_modules"):
        return
    weights = _weights(subject)
    bare = {key: value for key, value in config.items() if key != "exclude_modules"}
    if weights and all(module in subject.layers for module in weights if _is_excluded(config, bare, module)):
        return  # it excludes nothing of this model
    uninitialised = config.get("init_lora_weights") is False
    adalora = between("0.5", "0.5") if subject.method == "ADALORA" else frozenset[str]()
    random = upto("0.5") if uninitialised else adalora
    if random:
        message = "exclude_modules is ignored, and what it excludes is left at random numbers"
        yield IGNORED_EXCLUSION(message, keys=("exclude_modules",), misloads=random)


def _is_excluded(config: dict[str, object], bare: dict[str, Any], module: str) -> bool:
    return targeted(bare, module, NEWEST_SERIES) and not targeted(config, module, NEWEST_SERIES)


@rule
def reading(subject: Subject) -> Iterator[Finding]:
    """Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

    A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
    one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
    makes of it is what was meant; where that is not known, the newest that takes every tensor.
    """
    config, layers = subject.config, subject.layers
    if not subject.is_named or not layers or config.get("target_modules") is None:
        return
    every = subject.eras
    # a module that holds layers cannot be adapted itself: "Target module … is not supported"
    unsupported = set[str]()
    if subject.base is not None or any(hits(config, _holders(subject.sample), [era.release for era in every])):
        unsupported.update(_holders(layers))
    if subject.base is not None:
        unsupported |= subject.base.containers
        unsupported |= {m for m, shape in subject.base.weights.items() if len(shape) < 2}
    unsupported -= layers.keys()
    if unsupported and not is_all_linear(config["target_modules"]):
        saved = tuple(subject.saved_whole)
        for era in every:
            # up to 0.15 the end of a name tells what is saved whole, and is then no target (inject_adapter)
            left = saved if (0, 6) <= era.release < (0, 16) else ()
            hit = [m for m in unsupported if not m.endswith(left or ("*",)) and targeted(config, m, era.release)]
            if hit:
                holding = several(sorted(hit))
                message = f"target_modules names {holding}, which holds layers and cannot be adapted itself"
                yield UNSUPPORTED_TARGET(message, keys=("target_modules",), rejects=era.ids)
    # the model itself has an empty name, which is passed over from 0.14 on (tuners/tuners_utils.py: inject_adapter)
    target = config["target_modules"]
    if (isinstance(target, str) or (isinstance(target, (list, dict)) and "" in target)) and not is_all_linear(target):
        ids = NONE.union(*(era.ids for era in every if targeted(config, "", era.release))) & upto("0.13")
        if ids:
            message = "target_modules names what has no name, which is the model itself"
            yield UNSUPPORTED_TARGET(message, keys=("target_modules",), rejects=ids, remedy=targets_of(layers))
    parameters = config.get("target_parameters")
    empty = config["target_modules"] == [] and not parameters  # CD316 says so
    adapting = NONE  # the parameters that the layers are of
    if all(of_parameter(module, parameters) for module in layers):
        adapting = since("0.17") if config["target_modules"] else PEFT  # of none at all CD202 speaks
    untargeted = [era for era in every if not era.hit and era.ids - adapting]
    if untargeted and not empty:
        ids = NONE.union(*(era.ids for era in untargeted)) - adapting
        others = NONE.union(*(era.ids for era in untargeted if _hits_others(subject, era))) & ids
        what, remedy = f"target_modules ({str(config['target_modules'])[:60]})", targets_of(layers)
        keys: tuple[str, ...] = ("target_modules",)
        numbers = config.get("layers_to_transform")
        of_all = {**config, "layers_to_transform": None}
        if numbers is not None and any(targeted(of_all, module, NEWEST_SERIES) for module in subject.sample):
            what += f" in layers_to_transform ({str(numbers)[:60]})"
            keys, remedy = ("target_modules", "layers_to_transform"), CONFIG_OF_THESE
        message = f"{what} matches none of the layers in the file: {several(list(layers))}"
        yield NO_TARGET(message, keys=keys, rejects=ids - others, misloads=others, remedy=remedy)
    misfit = [era for era in every if era.misfits]
    if misfit and type(config.get("r", 8)) is int:  # else CD306 says so
        ids = frozenset[str]().union(*(era.ids for era in misfit))
        where = misfit[-1].misfits
        era = misfit[-1]
        built = next(era.readings[modules[0]].rank for modules in subject.kinds if where[0] in modules)
        message, remedy = ranks_apart(subject, where, built)
        if since("0.6") - ids:  # one that reads patterns takes it
            remedy = ""
        yield RANK_MISMATCH(
            message, tensors=subject.keys_of(where), keys=("r", "rank_pattern"), rejects=ids, remedy=remedy
        )
    whole, meant = taking(every), meant_era(subject)
    if meant is None:
        return
    yield from _otherwise(subject, whole, meant)
    named = meant.hit if subject.method == "LORA" and meant.release >= (0, 14) else ()
    unclear = [module for module in named if ambiguous(config, module)] if config.get("alpha_pattern") else []
    if unclear:
        message = (
            f"several keys of alpha_pattern name {several(sorted(unclear))}, and which came first was lost in saving"
        )
        needs = "the order of alpha_pattern in training"
        yield AMBIGUOUS_PATTERN(message, keys=("alpha_pattern",), undecided=PEFT, needs=needs)
    yield from _untargeted(subject, whole, meant)


def _hits_others(subject: Subject, era: Era) -> bool:
    """Whether the config targets layers of the model that are not in the file, so that a load goes on without any."""
    weights = _weights(subject)
    if weights:
        return any(
            len(shape) > 1 and targeted(subject.config, module, era.release) for module, shape in weights.items()
        )
    return bool(holes(subject.gaps, subject.config, era.release))


def _holders(modules: Iterable[str]) -> frozenset[str]:
    """The modules that hold some."""
    names = tuple(modules)
    return _holding(names) if are_few(names) else _holding.__wrapped__(names)


@lru_cache(8)
def _holding(modules: tuple[str, ...]) -> frozenset[str]:
    holders = set[str]()
    for module in modules:
        holder = module.rpartition(".")[0]
        while holder and holder not in holders:
            holders.add(holder)
            holder = holder.rpartition(".")[0]
    return frozenset(holders)


def _otherwise(subject: Subject, whole: list[Era], meant: Era) -> Iterator[Finding]:
    misread: dict[Code, tuple[set[str], frozenset[str]]] = {}
    for era in whole:
        ignored = set(era.hit ^ meant.hit) if era.hit is not meant.hit else set[str]()
        scaled = set[str]()
        if era.readings != meant.readings:
            both = [modules for modules in subject.kinds if modules[0] in era.readings and modules[0] in meant.readings]
            other = [modules for modules in both if not _same(era.readings[modules[0]], meant.readings[modules[0]])]
            scaled.update(chain.from_iterable(other))
        for code, modules in ((IGNORED_LAYER, ignored), (OTHER_SCALE, scaled)):
            if modules:
                before = misread.get(code, (set[str](), frozenset[str]()))
                misread[code] = (before[0] | modules, before[1] | era.ids)
    for code, (modules, ids) in misread.items():
        where = [module for module in subject.layers if module in modules]
        if code is IGNORED_LAYER:
            apart = "not every release adapts, and one that does not ignores their tensors in silence"
            message = f"{counted(len(where), 'layer')} that {apart}: {several(where)}"
            factors, loud = subject.keys_of(where), frozenset[str]()
            if subject.method == "ADALORA":
                message = message.replace("ignores their tensors in silence", "ignores them, or stops at rank_pattern")
                loud = _stopping_at_pattern(subject, whole, modules)
            yield IGNORED_LAYER(
                message, tensors=factors, keys=("target_modules",), rejects=loud & ids, misloads=ids - loud
            )
        else:
            message = f"releases read another scale for {several(where)}"
            scaling = ("alpha_pattern", "rank_pattern", "use_rslora")
            keys = tuple(key for key in scaling if subject.config.get(key))
            yield OTHER_SCALE(message, tensors=subject.keys_of(where), keys=keys, misloads=ids)


def _stopping_at_pattern(subject: Subject, whole: list[Era], modules: set[str]) -> frozenset[str]:
    """The releases that do not adapt a layer which AdaLoRA's rank_pattern names: "'Linear' object has no attribute
    'lora_E'" (tuners/adalora/model.py: resize_modules_by_rank_pattern).
    """
    named = modules & subject.masks.keys()
    return frozenset[str]().union(*(era.ids for era in whole if named - era.hit))


@rule
def pattern_of_no_tensors(subject: Subject) -> Iterator[Finding]:
    """rank_pattern names layers that the file has no tensors of. A release that does not adapt one, or does not find it
    in the model, raises AttributeError. One that does gives it no triplet, where the pattern has none (0.8 and 0.9:
    CD101), and else leaves it as it was initialised (tuners/adalora/model.py: resize_modules_by_rank_pattern).
    """
    masks, keys = subject.masks, ("rank_pattern",)
    gone = [module for module, mask in masks.items() if module not in subject.layers and is_mask(mask, subject)]
    if subject.method != "ADALORA" or not gone:
        return
    every = subject.eras
    adapted = {era.release: [m for m in gone if targeted(subject.config, m, era.release)] for era in every}
    known = subject.config.get("target_modules") is not None
    weights = _weights(subject)
    holding = _holders(weights or (*subject.layers, *masks))
    strange = {module for module in gone if not _is_in_model(subject, module, every[-1], holding)}
    ranked = {module for module in gone if isinstance(mask := masks[module], list) and any(mask)}
    rejected = frozenset[str]().union(*(era.ids for era in every if known and adapted[era.release] != gone))
    rejected = PEFT if strange & ranked or any(_has_no_place(m, weights, holding) for m in strange) else rejected
    if rejected:
        who = "no" if rejected == PEFT else "not every"
        message = f"rank_pattern names {several(gone)}, without tensors; {who} release adapts all it names"
        yield ADALORA_PATTERN_MISMATCH(message, keys=keys, rejects=rejected)
    misloaded = frozenset[str]().union(*(era.ids for era in every if ranked.intersection(adapted[era.release])))
    misloaded -= rejected
    if misloaded:
        message = (
            f"rank_pattern gives {several(sorted(ranked))} a rank, without tensors: it stays as it was initialised"
        )
        yield ADALORA_PATTERN_MISMATCH(message, keys=keys, misloads=misloaded)
    doubt = PEFT - rejected - misloaded
    if (strange or not known) and doubt:
        message = (
            f"rank_pattern names {several(sorted(strange) or gone)}, without tensors, which the model may not have"
        )
        needs = THE_BASE if subject.base is None else "whether the model has these layers"
        yield ADALORA_PATTERN_MISMATCH(message, keys=keys, undecided=doubt, needs=needs)


def _is_in_model(subject: Subject, module: str, era: Era, holding: frozenset[str]) -> bool:
    """Whether the model has a module that rank_pattern names and that has no tensors, as far as can be told: the base
    model's weights tell; without it, a layer is there if the one before it is, of which the pattern would speak too.
    """
    weights = _weights(subject)
    if weights:
        return module in weights
    for place in re.finditer(r"(?<=\.)[1-9]\d{0,9}(?=\.)", module):
        before = f"{module[: place.start()]}{int(place[0]) - 1}"
        would_be = targeted(subject.config, before + module[place.end() :], era.release)
        if would_be and before not in holding:
            return False
    return True


def _has_no_place(module: str, weights: dict[str, tuple[int, ...]], holding: frozenset[str]) -> bool:
    """Whether the base model has nothing where a module would be; a head that is tied has no weights, and a place."""
    parent = module.rpartition(".")[0]
    return bool(parent and weights) and parent not in holding


def _weights(subject: Subject) -> dict[str, tuple[int, ...]]:
    """The base model's weights, if it names its modules as the file does."""
    weights = subject.base.weights if subject.base is not None else {}
    return {} if subject.layers.keys().isdisjoint(weights) else weights


def _untargeted(subject: Subject, whole: list[Era], meant: Era) -> Iterator[Finding]:
    """Trained tensors that are not applied. PEFT never saves many of a kind that it does not adapt; a single one means
    nothing where the base model has no such module. Where a release does target them, as it does not know what narrows
    the targets, nothing tells what was meant.
    """
    config = subject.config
    if len(meant.hit) == len(subject.layers):
        return
    ignored = [
        module for module in subject.layers
        if module not in meant.hit and not of_parameter(module, config.get("target_parameters"))
    ]  # fmt: skip
    if not ignored:
        return
    ends = [module.rpartition(".")[2] for module in ignored]
    target = config.get("target_modules")
    filtered = isinstance(target, list) and not {*map(str, target)}.isdisjoint(ends)
    alike = {module.rpartition(".")[2] for module in meant.hit}
    sized = subject.method == "ADALORA" and not subject.masks.keys().isdisjoint(ignored)
    known = not _weights(subject).keys().isdisjoint(ignored)  # the model has such a module, so it was adapted
    if known or filtered or sized or len({*ends}) < len(ends) or not alike.isdisjoint(ends):
        narrowing = [key for key in ("layers_to_transform", "layers_pattern", "exclude_modules") if config.get(key)]
        who = " with ".join(("target_modules", *narrowing)) if filtered else "target_modules"
        count = f"{counted(len(ignored), 'layer')} of {len(subject.layers)}"
        message = f"{who} leaves out {count}, whose tensors are ignored: {several(ignored)}"
        hit = {_short(module) for module in meant.hit}
        left = [name for name in dict.fromkeys(map(_short, ignored)) if name not in hit]
        plain = isinstance(target, list) and not filtered and not {"experts", "base_layer"} & {*ends}
        remedy = CONFIG_OF_THESE
        if plain and 0 < len(left) <= 8:
            remedy = f"add {json.dumps(left)[1:-1]} to target_modules in adapter_config.json"
        elif all(end == "base_layer" for end in ends):  # an adapter on an adapter (IBM/activated-lora#16)
            remedy = (
                "merge the adapter that the model had, or take it off, before another is put on; then train it again"
            )
        applying = frozenset[str]().union(*(era.ids for era in whole if not era.hit.isdisjoint(ignored)))
        # AdaLoRA's pattern wants to size them (tuners/adalora/model.py: resize_modules_by_rank_pattern)
        stopping = PEFT - applying if sized else frozenset[str]()
        yield UNTARGETED_LAYERS(
            message, tensors=subject.keys_of(ignored), keys=("target_modules",), rejects=stopping,
            misloads=PEFT - applying - stopping, undecided=applying, needs="whether these layers were meant",
            remedy=remedy,
        )  # fmt: skip
        return
    in_full = isinstance(target, list) and any("." in str(name) for name in target)
    names = [] if in_full else sorted(f".{module}" for module in subject.layers)
    single = [module for module in ignored if _may_be_meant(subject, module, names)]
    if single:
        message = f"target_modules leaves out {several(single)}, which nothing is alike: its tensors are ignored"
        yield UNTARGETED_LAYERS(
            message, tensors=subject.keys_of(single), keys=("target_modules",), undecided=PEFT, needs=THE_BASE
        )


def _short(module: str) -> str:
    """The end of a layer's name that names it in a list: one part, or two where that is a number, which a block may be
    called as well.
    """
    parent, _, end = module.rpartition(".")
    return f"{parent.rpartition('.')[2]}.{end}" if parent and end.isdecimal() else end


def _may_be_meant(subject: Subject, module: str, names: list[str]) -> bool:
    """Whether training may have adapted a module that is not targeted, and no other of its name: not where the base
    model has none, nor in one of several blocks, in all of which its name alone would have been adapted. Of heads that
    are wrapped `heads.py` speaks. `names` are those of all layers, sorted, with a dot before each, and none where
    modules are targeted by full names.
    """
    if ".modules_to_save" in module or ".original_module" in module:
        return False
    block = re.match(r"(.*?)\.\d+\.", f".{module}")
    alone = block is None or _count(names, f"{block[1]}.") == _count(names, block[0])
    return alone and has_module(subject, module) is not False


def _count(names: list[str], outer: str) -> int:
    """How many of sorted names begin with one that ends with a dot: "/" is what follows it."""
    return bisect_left(names, f"{outer[:-1]}/") - bisect_left(names, outer)


@rule
def renamed_model(subject: Subject) -> Iterator[Finding]:
    """Layers of a vision-language model, which transformers 4.52 renamed: PEFT up to 0.14 is mostly used with an older
    one, 0.15 with either; from 0.16 on PEFT maps the old names (utils/save_and_load.py: set_peft_model_state_dict).
    """
    if subject.method not in LORAS or subject.config.get("target_modules") is None:
        return
    new = any(module.startswith("model.language_model.") for module in subject.sample)
    old = any(module.startswith("language_model.model.") for module in subject.sample)
    if new or old:
        message = "the layers are those of a language model in a larger one, which transformers 4.52 renamed"
        unclear = upto("0.14") if new else between("0.15", "0.15")
        yield RENAMED_MODEL(message, undecided=unclear, needs=THE_TRANSFORMERS)


def _same(a: Reading, b: Reading) -> bool:
    if a.scaling is None or b.scaling is None:
        return a.scaling == b.scaling
    return abs(a.scaling - b.scaling) <= 1e-9 * abs(b.scaling)


@rule
def missing_layers(subject: Subject) -> Iterator[Finding]:
    """Layers that the config targets, as far as those of the file tell; what the base model tells is in `base.py`."""
    config, layers, keys = subject.config, subject.layers, ("target_modules",)
    meant = meant_era(subject) if subject.base is None and subject.method in LORAS else None
    if meant is None:
        return
    none_left = subject.pruned if subject.method == "ADALORA" else set[str]()  # sized to nothing by the pattern
    missing = [module for module in holes(subject.gaps, config, meant.release) if module not in none_left]
    doubt = left_random(subject)
    if missing:
        count = counted(len(missing), "layer")
        count = f"at least {count}" if subject.gaps.more else count
        message = f"without tensors, though the config targets them: {count}, {several(missing)}"
        yield MISSING_LAYER(message, keys=keys, undecided=doubt, needs=THE_BASE)
    elif subject.gaps.more and doubt:
        message = "more layers may be without tensors than are looked at: the config may target one"
        yield MISSING_LAYER(message, keys=keys, undecided=doubt, needs=THE_BASE)
    listed = config.get("target_modules")
    full = {name for name in map(str, listed) if "." in name} if isinstance(listed, list) else set[str]()
    longer = not full.isdisjoint(layers)
    random = subject.method == "ADALORA" or config.get("init_lora_weights") is False
    if longer and random and not missing and not _is_whole(subject):
        message = "target_modules lists full names, which also match longer names that end with one"
        yield MISSING_LAYER(message, keys=keys, undecided=doubt, needs=THE_BASE)
    unread = isinstance(listed, str) and not is_all_linear(listed) and config.get("layers_to_transform") is not None
    if unread and random and not missing:
        message = "target_modules is a pattern, beside which layers_to_transform is not read: it may name other blocks"
        yield MISSING_LAYER(message, keys=(*keys, "layers_to_transform"), undecided=doubt, needs=THE_BASE)


def _is_whole(subject: Subject) -> bool:
    """Whether no layer was taken out of an AdaLoRA after its allocation: that leaves target_r triplets a layer on the
    average (tuners/adalora/layer.py: RankAllocator._set_budget_scheduler), and more were others gone.
    """
    budget, triplets = subject.config.get("target_r"), subject.triplets
    if subject.method != "ADALORA" or type(budget) is not int or triplets is None:
        return False
    if not subject.masks:  # never allocated
        init_r = subject.config.get("init_r", 12)
        return isinstance(init_r, (int, float)) and triplets == init_r * len(subject.layers)
    return subject.masks.keys() == subject.layers.keys() and triplets <= budget * len(subject.layers)
