"""Configs that no release reads as their tensors say: made to say what the tensors do.

A release that takes the adapter makes the same of it before and after, or there is none; so what these give is what the
proof of a fix begins with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..adapter import NUMBER, Adapter
from ..facts.names import PREFIX, named, targets
from ..facts.subject import Subject
from ..facts.targets import ends
from ..rules.defaults import null_feedforward
from . import only, with_config


def without_prefix(subject: Subject) -> Adapter | None:
    """target_modules without PEFT's prefix, where each name has it and what is left names the layers of the file, all
    of them and no other; None where that is not so. With the prefix it matches no module of any model.
    """
    config = subject.config
    names = config.get("target_modules")
    if not isinstance(names, list) or not names or not subject.layers:
        return None
    if not all(isinstance(name, str) and name.startswith(PREFIX) for name in names):
        return None
    if any(config.get(key) for key in ("rank_pattern", "alpha_pattern", "exclude_modules", "layers_to_transform")):
        return None
    bare = [name[len(PREFIX) :] for name in names]
    layers = subject.layers.keys()
    if not {*bare} >= {*layers} or named(bare, layers) != bare:
        return None
    return with_config(subject.adapter, target_modules=bare)


def ia3_modules(subject: Subject) -> Adapter | None:
    """IA3's target_modules and feedforward_modules by the shapes of the tensors, where the config contradicts them or
    leaves them to the type of a model: a vector of the input `[1, in]` is of a feed-forward module, one of the output
    `[out, 1]` of another (tuners/ia3/layer.py: IA3Layer.update_layer). None where there is nothing to say, or a shape
    does not tell: where the same module of two blocks has one of each, or one module alone is otherwise than the config
    says, a vector may have been turned.
    """
    if subject.method != "IA3" or not subject.layers or subject.config.get("exclude_modules"):
        return None
    inner, outer = list[str](), list[str]()
    for module, layer in subject.layers.items():
        shape = subject.shapes(layer).get("ia3_l", ())
        if len(shape) != 2:
            return None  # a convolution's is `[1, n, 1, 1]` of either (tuners/ia3/layer.py: Conv2d.update_layer)
        first, second = shape
        if (first == 1) == (second == 1) or 0 in shape:
            return None
        (inner if first == 1 else outer).append(module)
    target, forward = (subject.config.get(key) for key in ("target_modules", "feedforward_modules"))
    adapted = [module for module in subject.layers if targets(target, module)]
    if adapted and len(adapted) < len(subject.layers):
        return None  # the others are ignored, as long as nobody says more
    if forward is None:
        return _null_forward(subject, target, inner) if adapted else None
    otherwise = {module for module in subject.layers if targets(forward, module)} ^ {*inner}
    if otherwise and (_kinds(inner).keys() & _kinds(outer).keys() or 1 in _kinds(otherwise).values()):
        return None
    listed = {*map(str, target)} if isinstance(target, list) and isinstance(forward, list) else None
    if adapted and not otherwise and (listed is None or (isinstance(forward, list) and {*map(str, forward)} <= listed)):
        return None
    modules = {"target_modules": only(subject.layers), "feedforward_modules": only(inner) if inner else []}
    return with_config(subject.adapter, **modules)


def _kinds(modules: Iterable[str]) -> Counter[str]:
    """How many there are of each name, the same in each block."""
    return Counter(NUMBER.sub("0", module) for module in modules)


def _null_forward(subject: Subject, target: object, inner: list[str]) -> Adapter | None:
    """IA3 with the modules of feed-forward named that PEFT looks up by the type of the model; None where that is known
    to give the same. A vector has another shape there, so that no release reads one otherwise without rejecting it.
    """
    if subject.model_type and not any(null_feedforward(subject)):
        return None
    listed = target if isinstance(target, list) else []
    forward = named(listed, inner)
    # PEFT takes whatever ends so, also within a word (tuners/ia3/model.py: _check_target_module_feedforward)
    if listed and [*filter(ends(forward), subject.layers)] == inner:
        return with_config(subject.adapter, feedforward_modules=forward)
    modules = {"target_modules": only(subject.layers), "feedforward_modules": only(inner) if inner else []}
    return with_config(subject.adapter, **modules)
