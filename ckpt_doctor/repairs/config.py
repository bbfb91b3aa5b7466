"""Repairs of the config, and of the bias keys that it speaks of."""

from __future__ import annotations

from collections.abc import Iterable

from ..adapter import Adapter
from ..adapter.findings import several
from ..adapter.runtimes import NEWEST_SERIES, upto
from ..facts.config_keys import CHANGES_BASE, RAISING, has_no_gradients, knows, neutral, table
from ..facts.layers import is_number, module_of, number
from ..facts.meaning import meanings, without_layer
from ..facts.methods import LORAS
from ..facts.names import named as naming
from ..facts.subject import Subject
from ..facts.targets import OUT_PROJ, targeted
from . import Refused, meant, only, with_config


def plain_init(subject: Subject) -> Adapter:
    """init_lora_weights becomes true, where it means nothing to an adapter whose tensors are all there.

    An initialisation that changes the base weights means nothing only if the release that saved the adapter took the
    word for true (PEFT 0.6 and older).
    """
    init = subject.config.get("init_lora_weights")
    if not isinstance(init, str):
        return subject.adapter
    if str(init).lower().startswith(CHANGES_BASE) and not has_no_gradients(subject.config):
        saved = subject.saved_by
        if not saved or saved - upto("0.6"):
            raise Refused(f"{init} changes the base weights, so without it the adapter computes something else")
    return with_config(subject.adapter, init_lora_weights=True)


def without_nulls(subject: Subject) -> Adapter:
    """Null patterns and options become empty ones; a null dropout, which matters to training only, becomes 0."""
    if subject.method not in LORAS:
        raise Refused("only of LoRA and AdaLoRA it is known what a null means")
    empty = {"rank_pattern": {}, "alpha_pattern": {}, "loftq_config": {}, "lora_dropout": 0.0}
    config = subject.config
    nulls = {key: value for key, value in empty.items() if key in config and config[key] is None}
    if subject.method == "ADALORA":
        nulls.pop("rank_pattern", None)
    absent = {key: value for key, value in {"lora_alpha": 8, "lora_dropout": 0.0}.items() if key not in config}
    if not nulls and not absent:
        raise Refused("nothing tells the value that was meant")
    return with_config(subject.adapter, **nulls, **absent)


def rslora_as_alpha(subject: Subject) -> Adapter:
    """Alpha / sqrt(r) becomes alpha' / r with alpha' = alpha · sqrt(r); no tensor is touched."""
    config = subject.config
    if config.get("use_rslora") is not True or subject.method != "LORA":
        return subject.adapter
    meant(subject)  # or the scale is not known
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        ranks, alphas = _patterns(subject)
        rooted = {module: alpha * ranks[module] ** 0.5 for module, alpha in alphas.items()}
        return with_config(subject.adapter, use_rslora=False, rank_pattern=ranks, alpha_pattern=rooted)
    r, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if not is_number(r) or not is_number(alpha):
        raise Refused("r or lora_alpha is no number")
    return with_config(subject.adapter, use_rslora=False, lora_alpha=alpha * r**0.5)


def full_patterns(subject: Subject) -> Adapter:
    """Patterns by full module path, the same keys in both: what every release from 0.6 reads alike.

    A layer of the file that the release which saved the adapter does not adapt gets no entry.
    """
    config = subject.config
    if subject.method != "LORA" or not (config.get("rank_pattern") or config.get("alpha_pattern")):
        return subject.adapter
    ranks, alphas = _patterns(subject)
    return with_config(subject.adapter, rank_pattern=ranks, alpha_pattern=alphas)


def _patterns(subject: Subject) -> tuple[dict[str, int], dict[str, float]]:
    """The rank and the alpha of each layer, by its full name; a longer name before one that it ends with, so that it
    matches first. Raises Refused.
    """
    if not meanings(subject):
        raise Refused("no release takes the tensors under this config, so nothing tells the scale that was meant")
    layers = meant(subject)
    ends = {name[at + 1 :] for name in layers for at, char in enumerate(name) if char == "."}
    ordered = [name for name in layers if name not in ends]
    ordered += sorted((name for name in layers if name in ends), key=lambda name: -name.count("."))
    ranks, alphas = dict[str, int](), dict[str, float]()
    for layer in map(layers.__getitem__, ordered):
        if layer.rank is None or layer.alpha is None:
            raise Refused("the tensors do not tell the rank of every layer")
        alpha = number(layer.alpha)
        if alpha is None:
            raise Refused(f"the alpha of {layer.module} is no number")
        ranks[layer.module] = layer.rank
        alphas[layer.module] = int(layer.alpha) if alpha.is_integer() else layer.alpha
    return ranks, alphas


def full_targets(subject: Subject) -> Adapter:
    """target_modules names each layer that the release which saved the adapter adapts, in full; what else chose among
    the modules goes.
    """
    if not subject.layers:
        raise Refused("the file has no layer that target_modules could name")
    if subject.method not in LORAS:
        raise Refused(f"with other words for the targets of {subject.method} nothing would prove the same function")
    config = subject.config
    if not meanings(subject):
        raise Refused("target_modules matches none of the layers in the file, so nothing tells which were meant")
    chosen = ("exclude_modules", "layers_to_transform", "layers_pattern")
    kept = {key: value for key, value in config.items() if key not in chosen}
    return with_config(subject.adapter._replace(config=kept), target_modules=only(meant(subject)))


def without_pruned_targets(subject: Subject) -> Adapter:
    """As `full_targets`, of an AdaLoRA that was pruned: what it targets and has no tensors is left as it is, which
    releases initialise differently. In any other such a layer may have been lost.
    """
    if subject.method != "ADALORA" or not isinstance(subject.config.get("rank_pattern"), dict):
        raise Refused("a layer that the config targets has no tensors, and may have been lost")
    return full_targets(subject)


def with_layers_of_adalora(subject: Subject) -> Adapter:
    """target_modules without the names that match only modules for which AdaLoRA has no layer, or where a name matches
    others as well, each layer of the file in full. What is left out computes nothing: no release could save it.
    """
    base, named = subject.base, subject.config.get("target_modules")
    if subject.method != "ADALORA" or base is None:
        raise Refused("the base model tells which modules can be adapted: name it with --base")
    hit = [module for module in base.weights if targeted(subject.config, module, NEWEST_SERIES)]
    rest = [module for module in hit if module not in subject.layers]
    without = {module: None for module in rest if without_layer(subject, module)}
    if not without:
        raise Refused("AdaLoRA has no layer for a module that has tensors")
    if isinstance(named, list):
        lacking = {*_naming(named, without)} - {*_naming(named, (module for module in hit if module not in without))}
        kept = [name for name in named if str(name) not in lacking]
        if kept and not _naming(kept, without):
            return with_config(subject.adapter, target_modules=kept)
    pruned = subject.pruned
    lost = [module for module in rest if module not in without and module not in pruned]
    if lost:
        raise Refused(f"a name matches {several([*without])} together with {several(lost)}, which has no tensors")
    return full_targets(subject)


def _naming(names: Iterable[object], modules: Iterable[str]) -> list[str]:
    """Those names of target_modules that match one of some modules."""
    return naming(names, (module.removesuffix(OUT_PROJ) for module in modules))


def drop_strange_keys(subject: Subject) -> Adapter:
    """Config keys that no release has go, where the release that saved the adapter is known not to have them."""
    if not subject.written_by:
        raise Refused("a config key has no meaning that is known, and may come from a newer release")
    kept = {key: value for key, value in subject.config.items() if key in table(subject.method or "")}
    return subject.adapter._replace(config=kept)


def known_task(subject: Subject) -> Adapter:
    """A task_type that PEFT does not know becomes null: the model is then wrapped without a task, as before 0.14."""
    return with_config(subject.adapter, task_type=None)


def drop_neutral_keys(subject: Subject) -> Adapter:
    """Config keys that some release refuses, and that mean nothing here, go."""
    method, config = subject.method or "", subject.config
    raising = knows(method, "peft_type") & RAISING
    kept = {k: v for k, v in config.items() if knows(method, k) >= raising or not neutral(method, k, v)}
    return subject.adapter._replace(config=kept)


def drop_keys_in_the_way(asked: frozenset[str], subject: Subject) -> Adapter:
    """Config keys that mean nothing here go where a release that was asked for does not know them, and stay elsewhere:
    what rejects the adapter for one of them goes on rejecting it.
    """
    method, config = subject.method or "", subject.config
    kept = {k: v for k, v in config.items() if not (asked & RAISING) - knows(method, k) or not neutral(method, k, v)}
    return subject.adapter._replace(config=kept)


def without_megatron(subject: Subject) -> Adapter:
    """megatron_config and the module that it makes PEFT import go: they say how layers are run, not what they are."""
    keys = ("megatron_config", "megatron_core")
    return subject.adapter._replace(config={key: value for key, value in subject.config.items() if key not in keys})


def schedule(subject: Subject) -> Adapter:
    """total_step becomes the smallest that every release accepts; a loaded adapter never uses it."""
    config = subject.config
    first, last = config.get("tinit", 0), config.get("tfinal", 0)
    if type(first) is not int or type(last) is not int or first < 0 or last < 0:
        raise Refused("tinit and tfinal are not step counts")
    return with_config(subject.adapter, total_step=first + last + 1)


def both_bias_spellings(subject: Subject) -> Adapter:
    """The bias of each adapted module under both of its names."""
    tensors = dict(subject.tensors)
    for key, info in subject.tensors.items():
        if key.endswith(".base_layer.bias"):
            tensors.setdefault(key.replace(".base_layer.bias", ".bias"), info)
        elif key.endswith(".bias") and module_of(key)[: -len(".bias")] in subject.layers:
            tensors.setdefault(key[: -len("bias")] + "base_layer.bias", info)
    if tensors.keys() == subject.tensors.keys():
        raise Refused("the file has no bias to spell both ways")
    return subject.adapter._replace(tensors=tensors)
