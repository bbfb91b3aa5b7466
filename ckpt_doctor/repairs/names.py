"""Configs that no release reads as their tensors say: made to say what the tensors do.

A release that takes the adapter makes the same of it before and after, or there is none; so what these give is what the
proof of a fix begins with.
"""

from __future__ import annotations

from ..adapter import Adapter
from ..facts.names import PREFIX, targets
from ..facts.subject import Subject
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
    if not {*bare} >= {*layers} or not all(any(targets([name], module) for module in layers) for name in bare):
        return None
    return with_config(subject.adapter, target_modules=bare)


def ia3_modules(subject: Subject) -> Adapter | None:
    """IA3's target_modules and feedforward_modules by the shapes of the tensors, where the config contradicts them: a
    vector of the input `[1, in]` is of a feed-forward module, one of the output `[out, 1]` of another
    (tuners/ia3/layer.py: IA3Layer.update_layer). None where there is nothing to say, or a shape does not tell.
    """
    if subject.method != "IA3" or not subject.layers or subject.config.get("exclude_modules"):
        return None
    inner, outer = list[str](), list[str]()
    for module, layer in subject.layers.items():
        first, second, *rest = (*subject.shapes(layer).get("ia3_l", ()), 0, 0)
        if any(size > 1 for size in rest) or (first == 1) == (second == 1) or 0 in (first, second):
            return None
        (inner if first == 1 else outer).append(module)
    target, forward = (subject.config.get(key) for key in ("target_modules", "feedforward_modules"))
    named = [module for module in subject.layers if targets(target, module)]
    if named and len(named) < len(subject.layers):
        return None  # the others are ignored, as long as nobody says more
    if forward is None:
        return None  # PEFT knows them by the type of the model
    told = [module for module in subject.layers if targets(forward, module)] == inner
    listed = {*map(str, target)} if isinstance(target, list) and isinstance(forward, list) else None
    if named and told and (listed is None or (isinstance(forward, list) and {*map(str, forward)} <= listed)):
        return None
    modules = {"target_modules": only(subject.layers), "feedforward_modules": only(inner) if inner else []}
    return with_config(subject.adapter, **modules)
