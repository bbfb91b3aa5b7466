"""Projections that the model has in one, for a server whose class names their parts (GLM-4's gate_up_proj in vLLM)."""

from __future__ import annotations

from typing import Any

from ..adapter import Adapter, TensorInfo
from ..facts.forms import pattern_value
from ..facts.names import PREFIX
from ..facts.servers.loads import Load
from ..facts.subject import Subject
from . import Refused, meant
from .cuts import cut
from .servers import no_target, opened

HALVED = ("glm", "glm4")
"""Types of models whose gate_up_proj is gate, then up (modeling_glm.py, modeling_glm4.py: Glm4MLP.forward: chunk)."""
PARTS = ("gate_proj", "up_proj")
_WHOLE = ".gate_up_proj"


def halves(subject: Subject) -> Adapter:
    """gate_proj and up_proj for gate_up_proj: A is that of both, B is cut. transformers' model has no modules of those
    names, and PEFT would leave them out in silence: with a target that is nowhere every release rejects the whole.
    """
    adapter = halved(subject)
    if adapter is subject.adapter:
        return adapter
    if meant(subject).keys() != subject.layers.keys():
        raise Refused("some layers have tensors that the release which saved them ignores")
    return no_target(subject.changed(adapter))


def halved(subject: Subject) -> Adapter:
    """The same with every layer among the targets, as it is compared."""
    base = subject.question.base
    if subject.method != "LORA" or base is None:
        return subject.adapter
    load = Load(subject.config, subject.tensor_shapes, base)
    if load.model.get("model_type") not in HALVED:
        return subject.adapter
    if not any(module.endswith(_WHOLE) for module in load.pairs):
        return subject.adapter
    if any(subject.config.get(key) for key in ("use_dora", "lora_bias", "exclude_modules")) or subject.changes_base:
        raise Refused("DoRA, lora_bias, exclude_modules and an init that changes the base hang on the module")
    inner: Any = load.text.get("intermediate_size")
    tensors: dict[str, TensorInfo] = dict(subject.tensors)
    for module, pair in load.pairs.items():
        if not module.endswith(_WHOLE):
            continue
        if pair.sizes is None or type(inner) is not int or pair.sizes[0] != 2 * inner:
            raise Refused(f"{module} has not the size of the model's gate and up")
        stem = module.removesuffix(_WHOLE)
        key_a, key_b = sorted(pair.keys)
        a, b = tensors.pop(key_a), tensors.pop(key_b)
        for part, rows in zip(PARTS, (range(inner), range(inner, 2 * inner)), strict=True):
            for key in ("rank_pattern", "alpha_pattern"):
                of_both = [pattern_value(subject.config.get(key), name, None) for name in (module, f"{stem}.{part}")]
                if of_both[0] != of_both[1]:
                    raise Refused(f"{key} says of {module} what it does not of its parts")
            tensors[f"{PREFIX}{stem}.{part}.lora_A.weight"] = a
            tensors[f"{PREFIX}{stem}.{part}.lora_B.weight"] = cut(b, rows)
    return opened(subject.changed(subject.adapter._replace(tensors=tensors)))
