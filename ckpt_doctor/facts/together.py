"""What PEFT's releases make of several adapters of one model: merged into one, swapped for each other, side by side.

All of it is read from configs and shapes. Where no fact speaks the answer is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

from ..adapter.findings import several, spelled
from .config_keys import CHANGES_BASE
from .kinds import reads_numbers
from .layers import groups_of, module_of
from .lora_keys import HARMLESS
from .meaning import meant_era
from .names import is_all_linear, pattern_value
from .patterns import is_pattern
from .subject import Subject
from .targets import OUT_PROJ, Release, lora_reading, targeted


class Combination(NamedTuple):
    """A combination_type of add_weighted_adapter (tuners/lora/model.py: LoraModel.add_weighted_adapter).

    `even` says that it adds up the factors themselves, which then have one rank; `cut` that it forms each delta and
    cuts it to one rank by its singular values, so that the result is near the sum, not equal to it; `sparse` that it
    takes a density; `drawn` that it drops numbers at random.
    """

    name: str
    even: bool = False
    cut: bool = False
    sparse: bool = False
    drawn: bool = False


COMBINATIONS = (
    Combination("cat"),
    Combination("svd", cut=True),
    Combination("linear", even=True),
    Combination("ties", even=True, sparse=True),
    Combination("dare_linear", even=True, sparse=True, drawn=True),
    Combination("dare_ties", even=True, sparse=True, drawn=True),
    Combination("magnitude_prune", even=True, sparse=True),
    Combination("ties_svd", cut=True, sparse=True),
    Combination("dare_linear_svd", cut=True, sparse=True, drawn=True),
    Combination("dare_ties_svd", cut=True, sparse=True, drawn=True),
    Combination("magnitude_prune_svd", cut=True, sparse=True),
)
"""All of them, of every release that has been looked at."""

FIRST = (0, 11)
"""The first series whose add_weighted_adapter was looked at (tuners/lora/model.py: _check_add_weighted_adapter)."""
CLEARED = (0, 16)
"""From here on the merged adapter has no patterns, and patterns count for its rank; before, it kept those of the first
adapter, and took its rank from r alone (tuners/lora/model.py: LoraModel.add_weighted_adapter)."""
NO_PARAMETERS = (0, 17)
"""From here on target_parameters are refused (tuners/lora/model.py: _check_add_weighted_adapter)."""
SWAPPED = (0, 14)
"""The first series with utils/hotswap.py: hotswap_adapter."""
RESCALED = (0, 15)
"""From here on a swap takes the scale of the new adapter and may leave layers out; before, both had to have the same
layers and lora_alpha, and the scale stayed (utils/hotswap.py: hotswap_adapter_from_state_dict)."""
UNSCALED = (0, 21)
"""From here on svd and its kin count each scale once; before, twice (tuners/lora/model.py:
_svd_generalized_task_arithmetic_weighted_adapter, whose deltas have it and whose weights had it, too)."""
ONE_BIASED = (0, 18)
"""From here on any one adapter of a model may have biases; before, the first alone."""
SWITCHED = (0, 15)
"""From here on what was saved whole comes back with its adapter; before, it stayed off once an adapter without it was
active (utils/other.py: _set_adapter)."""
MAGNITUDE = "lora_magnitude_vector"
"""How the names of DoRA's magnitudes end in a file."""
SWAP_KEYS = ("use_rslora", "lora_dropout", "alpha_pattern", "use_dora")
"""Config keys that a swap wants to be the same (utils/hotswap.py: CONFIG_KEYS_TO_CHECK), and `SWAP_ALPHA` before
`RESCALED`."""
SWAP_ALPHA = "lora_alpha"

FOLLOWED = frozenset({
    "peft_type", "task_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias", "use_dora",
    "target_parameters", "init_lora_weights",
})  # fmt: skip
"""Config keys of LoRA that are followed here to what several adapters make of each other."""
CHOOSING = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""What chooses among the targets, which a merged adapter has from its first one alone."""


class Answer(NamedTuple):
    """What a release does: `verdict` is accepts, rejects, misloads (it goes on, and computes something else) or
    unknown; `reason` says why, or what to heed; `way` what would help.
    """

    use: str
    verdict: str
    reason: str = ""
    way: str = ""


Trouble = tuple[str, str, str]
"""A verdict, its reason, and what would help."""

GRAVE = ("rejects", "unknown", "misloads")
"""Verdicts, the one first that others hang on: what is unknown may reject what else would be misloaded."""
ONE_RANK = "fix --to lora --rank R, with one R for all"
ONE_FORM = "fix --to lora"
SAME_MODULES = "fix --modules union, of a folder that has them all"


def _worst(use: str, troubles: Iterable[Trouble], heed: str = "") -> Answer:
    found = list(troubles)
    for verdict in GRAVE:
        for trouble in found:
            if trouble[0] == verdict:
                return Answer(use, *trouble)
    return Answer(use, "accepts", heed)


def _path(subject: Subject) -> str:
    return subject.adapter.path


def _methods(subjects: Sequence[Subject]) -> Iterator[Trouble]:
    methods = {subject.method: _path(subject) for subject in reversed(subjects)}
    if len(methods) > 1:
        (one, where), (other, there), *_ = sorted(methods.items(), key=lambda item: str(item[0]))
        # peft_model.py: PeftModel.add_adapter
        way = ONE_FORM if set(methods) == {"LORA", "ADALORA"} else ""
        yield "rejects", f"{where} is {one} and {there} is {other}, and PEFT puts no two methods on one model", way


def _models(subjects: Sequence[Subject]) -> Iterator[Trouble]:
    """Whether the layers of one name are of one size, as they have to be in one model."""
    sizes: dict[str, tuple[tuple[int, ...], str]] = {}
    for subject in subjects:
        for modules in subject.kinds:
            size = outer(subject, modules[0])
            if size is None:
                continue
            own = size, _path(subject)
            for module in modules:
                known, path = sizes.setdefault(module, own)
                if known != size:
                    reason = f"{module} is {list(known)} in {path} and {list(size)} in {_path(subject)}: another model"
                    yield "rejects", reason, ""
                    return


def outer(subject: Subject, module: str) -> tuple[int, ...] | None:
    """The size of a layer's delta, [out, in] and what a kernel has; None where the factors do not tell."""
    shapes = subject.shapes(subject.layers[module])
    for a_name, b_name in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
        a, b = shapes.get(a_name), shapes.get(b_name)
        if a and b and len(a) >= 2 and len(b) >= 2:
            return b[0], *a[1:]
    return None


def _options(subjects: Sequence[Subject]) -> Iterator[Trouble]:
    """What nobody followed to what it does to others."""
    for subject in subjects:
        if subject.method not in ("LORA", "ADALORA"):
            yield "unknown", f"nobody looked at what several of {subject.method} make of each other", ""
            continue
        if subject.method != "LORA":
            continue
        for key in subject.chosen:
            if key not in FOLLOWED and key not in HARMLESS:
                yield "unknown", f"nobody looked at what {key} of {_path(subject)} makes of others", ""
        strange = [key for key in subject.others if not _is_explained(subject, key)]
        if strange:  # an embedding that was saved with the adapter, say, which then is the model's own
            yield "unknown", f"nobody looked at what {several(strange)} of {_path(subject)} makes of others", ""
        init = subject.config.get("init_lora_weights")
        if subject.changes_base or (isinstance(init, str) and init.lower().startswith(CHANGES_BASE)):
            yield "unknown", f"{init} of {_path(subject)} changes the base weights, on which the others compute", ""
        elif isinstance(init, str) and init.lower() != "gaussian":
            yield "unknown", f"nobody looked at what the initialisation {init} of {_path(subject)} makes of others", ""


def _is_explained(subject: Subject, key: str) -> bool:
    """Whether a tensor that is no factor is one that is followed: a bias, a magnitude, of a module saved whole."""
    name = f".{module_of(key)}"
    biased = subject.value("bias") not in (None, "none") and name.endswith(".bias")
    return biased or name.endswith(MAGNITUDE) or any(f".{whole}." in name for whole in subject.saved_whole)


def _biases(subjects: Sequence[Subject], release: Release) -> Iterator[Trouble]:
    """PEFT takes one adapter with biases on a model, before `ONE_BIASED` as the first alone, and it trains those of the
    model itself (tuners/tuners_utils.py: BaseTuner._check_new_adapter_config; tuners/lora/model.py before).
    """
    biased = [subject for subject in subjects if subject.value("bias") not in (None, "none")]
    if len(biased) > 1:
        yield "rejects", f"{several([_path(it) for it in biased])} have biases, and a model takes one such adapter", ""
    elif biased and release < ONE_BIASED and biased[0] is not subjects[0]:
        yield "rejects", f"{_path(biased[0])} has biases, and this PEFT takes such an adapter as the first alone", ""
    elif biased:
        yield "misloads", f"the biases of {_path(biased[0])} stand in the model itself, for the others too", ""


def _switched_off(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, list[str], Subject]]:
    """Adapters, what they save whole, and another that has no copy of it: each has one of what it saves itself, and
    where that is anything also of what those before it save (peft_model.py:
    PeftModel.set_additional_trainable_modules). Loaded in 0.13.2 and 0.14.0 (huggingface/peft#2422).
    """
    saved, copied = set[str](), list[set[str]]()
    for subject in subjects:
        saved |= {*subject.saved_whole}
        copied.append(set() if subject.config.get("modules_to_save") is None else {*saved})
    for subject in subjects:
        for other, copies in zip(subjects, copied, strict=True):
            names = [name for name in subject.saved_whole if name not in copies]
            if names:
                yield subject, names, other
                break


def beside(subjects: Sequence[Subject], release: Release) -> Answer:
    """Whether one model in PEFT can have them all, one active at a time (peft_model.py: PeftModel.load_adapter)."""
    troubles = [*_methods(subjects), *_models(subjects), *_options(subjects), *_biases(subjects, release)]
    if release < SWITCHED:
        for subject, names, other in _switched_off(subjects):
            reason = f"{several(names)} of {_path(subject)} stays off once {_path(other)}, which has none, was active"
            troubles.append(("misloads", reason, "peft 0.15 or newer"))
    if any(subject.config.get("target_parameters") for subject in subjects):
        troubles.append(("unknown", "target_parameters of several are not followed", ""))
    return _worst("side by side", troubles)


def _swaps(first: Subject, second: Subject, release: Release) -> Iterator[Trouble]:
    """What stands in the way of the second adapter in the place of the first."""
    for subject in (first, second):
        if subject.method != "LORA":
            way = ONE_FORM if subject.method == "ADALORA" else ""
            yield "rejects", f"{_path(subject)} is {subject.method}, and hotswap takes LoRA alone", way
            return
    keys = SWAP_KEYS if release >= RESCALED else (*SWAP_KEYS, SWAP_ALPHA)
    for key in keys:
        mine, yours = first.value(key), second.value(key)
        if mine != yours:
            said = f"{key} is {spelled(mine)} in {_path(first)} and {spelled(yours)} in {_path(second)}"
            way = "" if key in ("lora_dropout", "use_dora") else ONE_RANK
            if key == "lora_dropout":
                way = f"set {key} to 0 in both, which matters to training alone"
            yield "rejects", f"{said}, and hotswap wants the same", way
    mine, yours = set(first.layers), set(second.layers)
    more, fewer = sorted(yours - mine), sorted(mine - yours)
    if more:
        yield "rejects", f"{_path(second)} has layers that {_path(first)} has not ({several(more)})", SAME_MODULES
    if fewer and release < RESCALED:
        yield "rejects", f"{_path(first)} has layers that {_path(second)} has not ({several(fewer)})", SAME_MODULES
    for subject in (first, second):
        strange = [key for key in subject.others if "lora_" in key]
        if strange and strange[0].endswith(MAGNITUDE):
            # its key in the model has `.weight` behind it (tuners/lora/model.py: _remap_adapter_state_dict_for_load)
            yield "rejects", f"hotswap does not find the magnitudes of DoRA of {_path(subject)}", ""
        elif strange:
            yield "unknown", f"nobody looked at how {several(strange)} of {_path(subject)} is swapped", ""
    whole = [key for key in second.others if "lora_" not in key]
    kept = [key for key in first.others if "lora_" not in key]
    if whole:
        yield "rejects", f"hotswap swaps LoRA alone, and {_path(second)} has {several(whole)}", ""
    elif kept:
        yield "misloads", f"{several(kept)} of {_path(first)} stays when it is swapped", ""
    if first.config.get("target_parameters") or second.config.get("target_parameters"):
        yield "unknown", "target_parameters are not followed through hotswap", ""
    embeddings = [name for name, layer in second.layers.items() if "lora_embedding_A" in layer.factors]
    if embeddings and release >= RESCALED:
        # the key of an embedding's factor has a part less, so that its module is taken to be the one around it
        yield "rejects", f"hotswap does not find the scale of an embedding ({several(embeddings)})", ""
        return
    yield from _scales(first, second, release)


def _scales(first: Subject, second: Subject, release: Release) -> Iterator[Trouble]:
    """Layers whose scale after the swap is not the one that the second adapter means: hotswap looks for a pattern by
    the name of the tensor, which ends behind the module's (utils/hotswap.py: hotswap_adapter_from_state_dict).
    """
    wrong = list[str]()
    for modules in second.kinds if not reads_numbers(first.config) else [[module] for module in second.layers]:
        module = modules[0]
        wanted = lora_reading(second.config, module, release).scaling
        if release < RESCALED:
            got = {lora_reading(first.config, module, release).scaling}
        else:
            names = [f"base_model.model.{module}.{factor}.default.weight" for factor in ("lora_A", "lora_B")]
            got = {_swapped_scale(second.config, name) for name in names}
        if got != {wanted}:
            wrong += modules
    if wrong:
        how = "keeps the scale of the first" if release < RESCALED else "does not find the patterns by which it scales"
        yield "misloads", f"hotswap {how} for {several(wrong)} of {_path(second)}", ONE_RANK


def _swapped_scale(config: dict[str, object], name: str) -> float | None:
    values = []
    for pattern, default in (("rank_pattern", config.get("r", 8)), ("alpha_pattern", config.get("lora_alpha", 8))):
        values.append(pattern_value(config.get(pattern), name, default))
    return lora_reading({**config, "r": values[0], "lora_alpha": values[1], "rank_pattern": {}, "alpha_pattern": {}},
                        "", (0, 15)).scaling  # fmt: skip


def swapped(subjects: Sequence[Subject], release: Release) -> Answer:
    """Whether each may take the place of the first (utils/hotswap.py: hotswap_adapter)."""
    use = "hot-swapped"
    if release < SWAPPED:
        return Answer(use, "rejects", "this PEFT has no hotswap", "peft 0.14 or newer")
    first, *rest = subjects
    troubles = [*_models(subjects), *_options(subjects)]
    for at, second in enumerate(rest):
        before = first if release >= RESCALED else subjects[at]
        troubles += _swaps(before, second, release)
    ranks = [_rank(subject, CLEARED) for subject in subjects]
    largest = max((rank for rank in ranks if rank is not None), default=0)
    heed = ""
    if len(set(ranks)) > 1 and release >= RESCALED:
        heed = (
            f"load {_path(first)} first; for a compiled model prepare_model_for_compiled_hotswap(target_rank={largest})"
        )
    return _worst(use, troubles, heed or f"load {_path(first)} first")


def _rank(subject: Subject, release: Release) -> int | None:
    """The rank that add_weighted_adapter counts with; None where the config has no number for it."""
    rank, pattern = subject.value("r"), subject.config.get("rank_pattern")
    ranks = [rank, *pattern.values()] if release >= CLEARED and isinstance(pattern, dict) else [rank]
    whole = [one for one in ranks if type(one) is int]
    return max(whole) if len(whole) == len(ranks) else None


def _kind(subject: Subject) -> type | None:
    """What target_modules are once the adapter is loaded: names that are listed become a set, and so does "all-linear"
    (tuners/lora/config.py: LoraConfig.__post_init__; tuners/tuners_utils.py: _maybe_include_all_linear_layers).
    """
    target = subject.value("target_modules")
    listed = isinstance(target, list) or is_all_linear(target)
    return set if listed else str if isinstance(target, str) else None


class _Merge(NamedTuple):
    """The adapter that is made: its config, its rank, and what is put into it."""

    config: dict[str, object]
    rank: int
    adapting: _Adapting


class _MergedLayer(NamedTuple):
    """What a merged adapter says of a layer, None where a rank or a scale is no number; and what each adapter that has
    it does, with the size of its delta, whether that is one of a grouped convolution, and whether PEFT adapts it with
    the attention that it is a part of.
    """

    targeted: bool
    rank: int | None
    scaling: float | None
    ranks: tuple[int | None, ...]
    scales: tuple[float | None, ...]
    size: tuple[int, ...]
    grouped: bool
    attention: bool


class _Adapting:
    """What several adapters adapt: `by_module` are the adapters that have a layer, `kinds` the modules that the same
    of them have, of one kind in each.
    """

    def __init__(self, subjects: Sequence[Subject], release: Release) -> None:
        self._release = release
        self._merged: list[tuple[dict[str, object], dict[_MergedLayer, list[str]]]] = []
        self.by_module: dict[str, list[Subject]] = {}
        having: dict[str, tuple[int, ...]] = {}
        numbers = count()
        for subject in subjects:
            era = meant_era(subject)
            for modules in subject.kinds:
                number = next(numbers)
                for module in modules:
                    if era is None or module in era.hit:
                        self.by_module.setdefault(module, []).append(subject)
                        having[module] = (*having.get(module, ()), number)
        self.kinds: dict[tuple[int, ...], list[str]] = {}
        for module, kinds in having.items():
            self.kinds.setdefault(kinds, []).append(module)

    def read_by(self, config: dict[str, object]) -> Iterable[list[str]]:
        """Modules of which a config says the same."""
        return [[module] for module in self.by_module] if reads_numbers(config) else self.kinds.values()

    def merged_layers(self, config: dict[str, object]) -> dict[_MergedLayer, list[str]]:
        """The modules by what becomes of them in a merged adapter, which is the same in most ways to merge."""
        for known, layers in self._merged:
            if known == config:
                return layers
        layers = {}
        for modules in self.read_by(config):
            layers.setdefault(self._layer(modules[0], config), []).extend(modules)
        self._merged.append((config, layers))
        return layers

    def _layer(self, module: str, config: dict[str, object]) -> _MergedLayer:
        release, having = self._release, self.by_module[module]
        reading = lora_reading(config, module, release)
        layers = [subject.layers[module] for subject in having]
        scales = tuple(lora_reading(subject.config, module, release).scaling for subject in having)
        return _MergedLayer(
            targeted(config, module, release), reading.rank if type(reading.rank) is int else None, reading.scaling,
            tuple(layer.rank for layer in layers), scales, outer(having[0], module) or (),
            groups_of(having[0].forms, layers[0].factors) > 1, module.endswith(OUT_PROJ),
        )  # fmt: skip


def _merge(subjects: Sequence[Subject], release: Release, even: bool, adapting: _Adapting) -> _Merge | Trouble:
    kinds = [_kind(subject) for subject in subjects]
    if None in kinds:
        return "unknown", "a config names no target_modules, which then hang on the model", "fix --modules union"
    if len(set(kinds)) > 1:
        listed = next(_path(subject) for subject, kind in zip(subjects, kinds, strict=True) if kind is set)
        one = next(_path(subject) for subject, kind in zip(subjects, kinds, strict=True) if kind is str)
        return "rejects", f"target_modules is a list in {listed} and a pattern in {one}", SAME_MODULES
    ranks = [_rank(subject, release) for subject in subjects]
    numbers = [rank for rank in ranks if rank is not None]
    if len(numbers) < len(ranks):
        return "unknown", "a rank is no number", ""
    targets: Any
    if kinds[0] is str:
        targets = "|".join(f"({subject.value('target_modules')})" for subject in subjects)
        if not is_pattern(targets):
            return "rejects", "the patterns of target_modules make none together", SAME_MODULES
    else:
        named = [subject.value("target_modules") for subject in subjects]
        targets = sorted({
            name
            for subject, names in zip(subjects, named, strict=True)
            for name in (names if isinstance(names, list) else subject.layers)
            if isinstance(name, str)
        })  # fmt: skip
    rank = numbers[0] if even else max(numbers)
    first = subjects[0]
    kept = {} if release >= CLEARED else {key: first.config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")}
    config = {
        **first.config, "rank_pattern": {}, "alpha_pattern": {}, **kept, "target_modules": targets,
        "modules_to_save": None,
    }  # fmt: skip
    return _Merge(config, rank, adapting)


def _merging(subjects: Sequence[Subject], release: Release, way: Combination, adapting: _Adapting) -> Iterator[Trouble]:
    if way.even:
        ranks = {_rank(subject, release) for subject in subjects}
        if len(ranks) > 1 and None not in ranks:
            said = several([f"r {_rank(subject, release)} in {_path(subject)}" for subject in subjects])
            yield "rejects", f"what adds up the factors wants one rank, and there is {said}", ONE_RANK
    merge = _merge(subjects, release, way.even, adapting)
    if not isinstance(merge, _Merge):
        yield merge
        return
    yield from _layers(subjects, release, way, merge)


def _layers(subjects: Sequence[Subject], release: Release, way: Combination, merge: _Merge) -> Iterator[Trouble]:
    new_rank = merge.rank
    if way.name == "cat":
        new_rank = sum(_rank(subject, release) or 0 for subject in subjects)
    config = {**merge.config, "r": new_rank, "lora_alpha": new_rank}
    yield from _targets(subjects, release, merge, config)
    lost, small, uneven, unscaled, unsound, unseen, twice = (list[str]() for _ in range(7))
    for layer, modules in merge.adapting.merged_layers(config).items():
        if not layer.targeted:
            lost += modules
            continue
        ranks = [rank for rank in layer.ranks if rank is not None]
        if len(ranks) < len(layer.ranks) or None in layer.scales or layer.rank is None:
            unseen += modules
            continue
        if any(scale is None or scale < 0 for scale in layer.scales) or layer.attention:
            unseen += modules
        if way.even and len(set(ranks)) > 1:
            uneven += modules
        if way.name == "cat" and sum(ranks) > layer.rank:
            small += modules
        if way.cut and release < UNSCALED and any(scale != 1 for scale in layer.scales):
            twice += modules
        if way.cut:
            if len(layer.size) not in (2, 4) or layer.grouped:
                unseen += modules
            elif len(layer.size) == 4 and layer.rank != new_rank:
                small += modules
            elif not _sound(layer.size, new_rank):
                unsound += modules
        if layer.scaling != 1:
            unscaled += modules
    if lost:
        kept = [key for key in CHOOSING if subjects[0].config.get(key) != subjects[-1].config.get(key)]
        why = f"which has the {' and '.join(kept or CHOOSING[:1])} of {_path(subjects[0])}"
        yield "misloads", f"{several(lost)} is not in the merged adapter, {why}", SAME_MODULES
    if uneven:
        yield "rejects", f"{several(uneven)} has another rank in each, and the factors are added up", ONE_RANK
    if small:
        yield "rejects", f"{several(small)} gets less rank than is put into it, by the patterns of the first", ONE_FORM
    if unsound:
        reason = f"{several(unsound)} is smaller than the rank {new_rank} that is cut to"
        yield "rejects", reason, "give svd_rank a number that is no larger than any layer"
    if unscaled:
        why = "use_rslora" if subjects[0].config.get("use_rslora") else "the patterns"
        yield (
            "misloads",
            f"the merged adapter keeps {why} of {_path(subjects[0])}, and scales its layers by that",
            ONE_FORM,
        )
    if twice:
        yield "misloads", f"this PEFT counts the scale of {several(twice)} twice", "peft 0.21 or newer"
    if unseen:
        yield "unknown", f"what becomes of {several(unseen)} was not looked at", ""


def _sound(size: tuple[int, ...], rank: int) -> bool:
    """Whether the factors that svd cuts fit each other: U has min(out, r) columns, S min(out, in, r) numbers, and V
    min(in, r) rows (tuners/lora/model.py: _svd_generalized_task_arithmetic_weighted_adapter).
    """
    out, across = size[0], 1
    for one in size[1:]:
        across *= one
    return min(out, rank) == min(across, rank) == min(out, across, rank)


def _targets(
    subjects: Sequence[Subject], release: Release, merge: _Merge, config: dict[str, object]
) -> Iterator[Trouble]:
    """Modules that the merged adapter would have, and no adapter has."""
    first, *rest = subjects
    base = first.base
    if base is not None:
        more = [
            name for name in base.weights if name not in merge.adapting.by_module and targeted(config, name, release)
        ]
        if more:
            yield (
                "rejects",
                f"the merged adapter would have {several(more)}, of which no adapter has anything",
                SAME_MODULES,
            )
        return
    differing = [key for key in CHOOSING if any(other.config.get(key) != first.config.get(key) for other in rest)]
    if differing:
        yield (
            "unknown",
            f"{' and '.join(differing)} differs, so what is adapted hangs on the model: give --base",
            SAME_MODULES,
        )


def merged(subjects: Sequence[Subject], release: Release) -> list[Answer]:
    """What each combination_type does with them, with a density where it takes one, and weights above 0."""
    models, adapting = [*_models(subjects)], _Adapting(subjects, release)
    return [
        _worst(
            f"merged by {way.name}",
            _all(subjects, release, way, models, adapting),
            _heed(subjects, release, way),
        )
        for way in COMBINATIONS
    ]


def _heed(subjects: Sequence[Subject], release: Release, way: Combination) -> str:
    if way.name == "cat":
        return f"exact; its rank is {sum(_rank(subject, release) or 0 for subject in subjects)}"
    said = ["adds up A and B, each on its own" if way.even else "cuts the sum to a rank (svd_rank=)"]
    said += ["wants density="] if way.sparse else []
    said += ["drops numbers at random"] if way.drawn else []
    return "not the sum of the deltas: " + ", ".join(said)


def _all(
    subjects: Sequence[Subject], release: Release, way: Combination, models: Iterable[Trouble], adapting: _Adapting
) -> Iterator[Trouble]:
    if release < FIRST:
        yield "unknown", "what this PEFT merges was not looked at", "peft 0.11 or newer"
        return
    yield from _methods(subjects)
    yield from models
    if any(subject.method == "ADALORA" for subject in subjects):
        # tuners/adalora/model.py: AdaLoraModel.add_weighted_adapter
        yield "rejects", "PEFT does not merge AdaLoRA", ONE_FORM
        return
    yield from _options(subjects)
    if any(subject.method != "LORA" for subject in subjects):
        return
    # the merged adapter has the bias of the first, and is then one more with biases
    ours = subjects[0].value("bias") not in (None, "none")
    for verdict, reason, way_ in _biases(subjects, release):
        yield "rejects" if ours or verdict == "rejects" else "unknown", reason, way_
    if any(subject.config.get("target_parameters") for subject in subjects):
        refused = release >= NO_PARAMETERS
        yield "rejects" if refused else "unknown", "target_parameters are not merged", ""
    dora = [_path(subject) for subject in subjects if subject.config.get("use_dora")]
    if dora:
        yield "misloads", f"the magnitudes of DoRA in {several(dora)} are lost", ""
    yield from _saved_whole(subjects)
    yield from _merging(subjects, release, way, adapting)


def _saved_whole(subjects: Sequence[Subject]) -> Iterator[Trouble]:
    whole = {_path(subject): set(subject.saved_whole) for subject in subjects if subject.saved_whole}
    paths = list(whole)
    for at, path in enumerate(paths):
        for other in paths[at + 1 :]:
            both = sorted(whole[path] & whole[other])
            if both:
                # tuners/lora/model.py: _check_add_weighted_adapter
                yield "rejects", f"{path} and {other} both save {several(both)} whole, which PEFT does not merge", ""
                return
    if len(paths) > 1:
        yield "unknown", f"{several(paths)} save modules whole, and whether it is one module hangs on the model", ""
    elif paths:
        names = several(sorted(whole[paths[0]]))
        yield (
            "misloads",
            f"{names}, which {paths[0]} has saved whole, is not in the merged adapter as it was trained",
            "",
        )
