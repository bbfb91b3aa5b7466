"""Rules about ranks: zero, lost, or not what the config says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

from ..adapter import Layer
from ..adapter.codes import ADALORA_PATTERN_MISMATCH, ADALORA_RANK_ZERO, DOES_NOTHING, LORA_RANK_ZERO, UNGATHERED
from ..adapter.findings import Finding, counted, several
from ..adapter.runtimes import NONE, PEFT, between, upto
from ..facts.embeddings import EMBEDDINGS, HEADS
from ..facts.layers import RANK_AXIS, pattern_module
from ..facts.methods import LORAS
from ..facts.names import PREFIX
from ..facts.subject import Subject
from ..facts.tasks import HEADS as TASK_HEADS
from .declared import rule
from .remedies import CONFIG_OF_THESE


def is_mask(mask: object, subject: Subject) -> TypeGuard[list[bool]]:
    """Whether a value of rank_pattern has a true or false for each triplet."""
    init_r = subject.config.get("init_r", 12)
    return isinstance(mask, list) and len(mask) == init_r and all(type(kept) is bool for kept in mask)


def ranks_of(subject: Subject, layer: Layer) -> set[int]:
    """The ranks that the factors of a layer have; a flat one has none."""
    shapes = [(subject.forms[key][1], RANK_AXIS[factor]) for factor, key in layer.factors.items()]
    return {shape[axis] for shape, axis in shapes if len(shape) >= 2}


@rule
def adalora_rank_zero(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.8.0 – 0.9.0 raise "`r` should be a positive integer value but the value passed is 0" in
    resize_modules_by_rank_pattern (huggingface/peft#1539); 0.5 – 0.7 and 0.10 and newer load it exactly.
    """
    if subject.method != "ADALORA":
        return
    zero = subject.layers_where(subject.has_zero_factor)
    zero += sorted(subject.pruned - set(zero))
    if zero:
        every = len(subject.layers.keys() | set(zero))
        message = f"{len(zero)} of {counted(every, 'layer')} pruned to rank 0: {several(zero)}"
        tensors, rejects = subject.keys_of(zero), between("0.8", "0.9")
        yield ADALORA_RANK_ZERO(message, tensors=tensors, keys=("rank_pattern",), rejects=rejects)


@rule
def lora_rank_zero(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.6.0 and newer raise on r <= 0, in rank_pattern as well; 0.3 – 0.5 skip the layer in silence; zero-sized
    factors under a positive r are a size mismatch in every release.
    """
    if subject.method != "LORA":
        return
    config = subject.config
    r, pattern = config.get("r", 8), config.get("rank_pattern")
    zero = subject.layers_where(lambda layer: subject.has_zero_factor(layer) and bool(subject.found([layer.module])))
    listed = pattern.items() if isinstance(pattern, dict) else ()
    entries = [key for key, value in listed if isinstance(value, (int, float)) and value <= 0]
    if type(r) is int and r <= 0:
        rank = common_rank(subject)
        message = f"r is {r} in the config" + (f", and the tensors have rank {rank}" if rank else "")
        remedy = f"set r to {rank} in adapter_config.json, if lora_alpha is that of the training" if rank else ""
        if zero and len(zero) == len(subject.layers):
            message += ", and the tensors have no row: it computes nothing"
            remedy = "set r to a number above 0 in adapter_config.json, then fix it: nothing is in the tensors"
        misloaded = between("0.3", "0.5")
        yield LORA_RANK_ZERO(
            message, tensors=subject.keys_of(zero), keys=("r",), rejects=PEFT - misloaded, misloads=misloaded,
            remedy=remedy,
        )  # fmt: skip
    elif zero or entries:
        where = zero or entries
        message = f"{len(where)} of {counted(len(subject.layers), 'layer')} of rank 0: {several(where)}"
        remedy = ""
        if not zero:
            message = f"rank_pattern gives {several(entries)} a rank of 0, which PEFT refuses"
            remedy = f"take what is 0 out of rank_pattern in adapter_config.json: {several(entries)}"
        old = upto("0.5")
        config_keys = ("rank_pattern",) if entries else ()
        rejected, misloaded = (PEFT, frozenset[str]()) if zero else (PEFT - old, old)
        keys = subject.keys_of(zero)
        yield LORA_RANK_ZERO(
            message, tensors=keys, keys=config_keys, rejects=rejected, misloads=misloaded, remedy=remedy
        )


def scaled_to_zero(subject: Subject) -> bool:
    """Whether the scale of every layer is 0, and nothing is in the file beside layers."""
    layers = len(subject.layers_where(lambda layer: layer.scaling == 0 and layer.rank != 0))
    return subject.method == "LORA" and 0 < layers == len(subject.layers) and not subject.others


@rule
def zero_alpha(subject: Subject) -> Iterator[Finding]:
    """A LoRA's scale is lora_alpha over its rank or the root of it (tuners/lora/layer.py: LoraLayer.update_layer), and
    a merging script is known to write 0 for an alpha that it does not know.
    """
    if scaled_to_zero(subject):
        message = "lora_alpha is 0, and so is the scale of every layer: this adapter does nothing"
        remedy = "set lora_alpha to the one of the training in adapter_config.json"
        yield DOES_NOTHING(message, keys=("lora_alpha",), remedy=remedy)


@rule
def ungathered(subject: Subject) -> Iterator[Finding]:
    """huggingface/peft#1443, huggingface/peft#3251. Rank 0 is different: it is two-dimensional."""
    if subject.method not in LORAS:  # others have vectors too: CD505 says where they should not
        return
    flat = subject.factors_where(lambda key: len(subject.forms[key][1]) < 2)
    if flat:
        message = (
            f"{counted(len(flat), 'factor')} of one dimension: saved under ZeRO-3 or FSDP without gathering, "
            f"the weights are lost ({flat[0]})"
        )
        yield UNGATHERED(message, tensors=tuple(flat), rejects=PEFT)


MATRICES = (*EMBEDDINGS, *HEADS, *{head: None for heads in TASK_HEADS.values() for head in heads})
"""Modules whose weight has two dimensions or more in every class of transformers: tables of words, and heads."""


@rule
def ungathered_wholes(subject: Subject) -> Iterator[Finding]:
    """The same of modules that are saved whole, or with the vocabulary: no parameter of a model is empty
    (huggingface/accelerate#3732; loaded with a classifier's head in 0.14.0 and 0.21.2).
    """
    flat = [
        key for key in (subject.others if subject.method else ())
        if key.endswith((".weight", ".bias")) and not subject.unread.get(key, NONE) >= PEFT
        and (0 in (shape := subject.tensors[key].shape) or (len(shape) == 1 and key.endswith(_ENDS)))
    ]  # fmt: skip
    if flat:
        what = "has no number" if 0 in subject.tensors[flat[0]].shape else "has one dimension"
        message = f"{flat[0]} {what}: saved under ZeRO-3 or FSDP without gathering, the weights are lost"
        found = frozenset[str]().union(*(PEFT - subject.unread.get(key, NONE) for key in flat))
        yield UNGATHERED(message, tensors=flat, rejects=found)


_ENDS = tuple(f".{name}.weight" for name in MATRICES)


@rule
def pattern_mismatch(subject: Subject) -> Iterator[Finding]:
    """Every release sizes the modules by the pattern (tuners/adalora/model.py: resize_modules_by_rank_pattern). What it
    makes of those that have no tensors is in `reading.py`.
    """
    if subject.method != "ADALORA":
        return
    init_r, masks = subject.config.get("init_r", 12), subject.masks
    misfits = [module for module, mask in masks.items() if module not in subject.layers and not is_mask(mask, subject)]
    rejects = PEFT if misfits else frozenset[str]()
    # the file calls all layers otherwise, by names that may be a model's
    strange = bool(masks) and subject.layers.keys().isdisjoint(masks)
    for module, layer in subject.layers.items():
        mask, ranks = masks.get(module), ranks_of(subject, layer)
        fits = (
            all(rank == init_r for rank in ranks) if mask is None else is_mask(mask, subject) and ranks <= {sum(mask)}
        )
        if not fits and subject.found([module]) and not (mask is None and strange):
            misfits.append(module)
            rejects |= subject.found([module])
    if misfits:
        message = f"{_misfit(subject, misfits[0], init_r)}{_and_more(misfits)}"
        yield ADALORA_PATTERN_MISMATCH(
            message, tensors=subject.keys_of(misfits), keys=("rank_pattern",), rejects=rejects, remedy=CONFIG_OF_THESE
        )
    pattern = subject.config.get("rank_pattern")
    prefixed = [
        key for key in (pattern if isinstance(pattern, dict) else ())
        if key.startswith(PREFIX) and pattern_module(key) not in subject.layers
    ]  # fmt: skip
    if prefixed:
        message = (
            f"{counted(len(prefixed), 'key')} of rank_pattern with {PREFIX} in front, by which PEFT finds no layer"
        )
        remedy = f"take {PREFIX} off the keys of rank_pattern in adapter_config.json"
        yield ADALORA_PATTERN_MISMATCH(message, keys=("rank_pattern",), rejects=PEFT, remedy=remedy)


def _misfit(subject: Subject, module: str, init_r: object) -> str:
    """In which way rank_pattern does not fit a module of an AdaLoRA."""
    mask, layer = subject.masks.get(module), subject.layers.get(module)
    has = _several_ranks(subject, layer) if layer else "are not in the file"
    if mask is None:
        return f"rank_pattern has no entry for {module}: its tensors {has}, and init_r is {init_r}"
    if not is_mask(mask, subject):
        return f"rank_pattern's entry for {module} is no list of init_r = {init_r} true and false"
    return f"rank_pattern leaves {module} {counted(sum(mask), 'triplet')}: its tensors {has}"


def _several_ranks(subject: Subject, layer: Layer) -> str:
    """`have rank 4`, or which factor has which."""
    shapes = {factor: subject.tensors[key].shape for factor, key in layer.factors.items()}
    ranks = {f: shape[RANK_AXIS[f]] for f, shape in shapes.items() if len(shape) >= 2}
    if len(set(ranks.values())) == 1:
        return f"have rank {next(iter(ranks.values()))}"
    return "differ in rank: " + ", ".join(f"{factor} has rank {rank}" for factor, rank in ranks.items())


def _and_more(modules: Sequence[str]) -> str:
    return f" (and {counted(len(modules) - 1, 'layer')} more)" if len(modules) > 1 else ""


def common_rank(subject: Subject) -> int | None:
    """The rank that all layers have, if they have one."""
    ranks = {layer.rank for layer in subject.layers.values()}
    return ranks.pop() if len(ranks) == 1 else None


def misfit(subject: Subject, modules: Sequence[str], built: int) -> tuple[str, str]:
    """In which way tensors of a LoRA have not the rank that is built of the config, and what can be done by hand."""
    first, config, more = modules[0], subject.config, _and_more(modules)
    if all(_is_turned(subject.shapes(subject.layers[module]), built) for module in modules):
        message = (
            f"lora_A of {first} has {built} columns, and lora_B {built} rows{more}: both are turned, as MLX has them"
        )
        return message, "turn each factor (tensor.T.contiguous()) under the name that it has"
    has = _several_ranks(subject, subject.layers[first])
    if has.startswith("differ"):
        message = f"{first}: {has.partition(': ')[2]}{more}"
        return message, "fetch the file again, or save the adapter again: the factors of a layer are of one rank"
    rank = common_rank(subject)
    remedy = f"set r to {rank} in adapter_config.json, if lora_alpha is that of the training"
    if "r" not in config:
        message = f"the config has no r: PEFT takes 8, the tensors of {first} {has}{more}"
        return message, remedy if rank else CONFIG_OF_THESE
    if built is not config["r"] and (built != config["r"] or type(built) is not type(config["r"])):
        message = f"rank_pattern gives {first} rank {built}, its tensors {has}{more}"
        return message, _in_pattern(subject, modules)
    if not rank:
        alone = len(modules) == 1 and not any(name.endswith(f".{first}") for name in subject.layers)
        own = f'add "{first}": {subject.layers[first].rank} to rank_pattern in adapter_config.json'
        remedy = f"{own}, if it was trained with that rank" if alone else CONFIG_OF_THESE
    return f"r is {built} in the config, the tensors of {first} {has}{more}", remedy


def _is_turned(shapes: dict[str, tuple[int, ...]], rank: int) -> bool:
    """Whether the factors of a Linear are `[in, r]` and `[r, out]` (huggingface/peft#2071; mlx-lm tuner/lora.py)."""
    a, b = shapes.get("lora_A", ()), shapes.get("lora_B", ())
    return len(a) == len(b) == 2 and a[1] == rank == b[0] and min(a[0], b[1]) > rank


def _in_pattern(subject: Subject, modules: Sequence[str]) -> str:
    """What to do with the entry of rank_pattern that gives modules another rank than their tensors have: where all that
    it names have one, that is the number.
    """
    pattern = subject.config.get("rank_pattern")
    keys = [key for key in pattern if f".{modules[0]}".endswith(f".{key}")] if isinstance(pattern, dict) else []
    for key in keys:
        named = [name for name in subject.layers if f".{name}".endswith(f".{key}")]
        ranks = {subject.layers[name].rank for name in named}
        if {*modules} <= {*named} and len(ranks) == 1:
            return f'set "{key}" in rank_pattern to {ranks.pop()}, if lora_alpha is that of the training'
    return CONFIG_OF_THESE
