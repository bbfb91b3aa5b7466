"""loralib (microsoft/LoRA) to PEFT: what its lora_state_dict gives, under the names of the model that was adapted.

A Linear's lora_A `[r, in]` and lora_B `[out, r]` are PEFT's, and so is the scale, lora_alpha / r (loralib/layers.py:
Linear.forward). That lora_alpha is in no tensor, so that a config of PEFT has to say it; and the names are those of a
class of somebody's own, so that the base model has to have them, each with a weight of just this size. That rules out
MergedLinear, whose factors are of several layers in one, ConvLoRA and Embedding. SVDLinear, loralib's AdaLoRA, divides
by a rank that it counts (loralib/adalora.py), and is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..adapter import Adapter
from ..adapter.findings import several
from ..facts.names import PREFIX
from ..facts.subject import Subject
from ..files.base import as_loaded
from . import Converted, Foreign, Refused, Tool, Wants, check_plain, may_be_embedding
from .peft import CONFIG, hold
from .peft import adapters as adapters

if TYPE_CHECKING:
    from ..adapter import TensorInfo

FACTORS = ("lora_A", "lora_B")


def to_peft(foreign: Foreign) -> list[Converted]:
    """One adapter, under the config of PEFT that `foreign.config` has as "". Raises Refused."""
    modules: dict[str, dict[str, TensorInfo]] = {}
    for key, info in foreign.tensors.items():
        module, _, factor = key.removeprefix("module.").rpartition(".")
        if factor in ("lora_E", "ranknum"):
            raise Refused(f"{key} is of loralib's AdaLoRA, which divides by a rank that it counts itself")
        if factor not in FACTORS or not module or factor in modules.setdefault(module, {}):
            raise Refused(f"{key} has no counterpart")
        modules[module][factor] = info
    if not foreign.config:
        told = "lora_alpha is in no tensor of loralib's: a config of PEFT has to say it, with r and target_modules"
        raise Wants(f"{CONFIG} --base MODEL", told)
    if foreign.base is None or not foreign.base.weights:
        told = "only the base model tells whether its layers have the names and sizes that they have here"
        raise Wants(f"{CONFIG} --base MODEL", told)
    weights = as_loaded(foreign.base, list(modules), headless=True).weights
    strange = [module for module in modules if module not in weights]
    if strange:
        raise Refused(f"the base model has no module called {several(strange)}: the class that was adapted names it so")
    tensors = {}
    for module, parts in modules.items():
        shapes = [parts[factor].shape if factor in parts else () for factor in FACTORS]
        a, b = shapes
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != weights[module]:
            raise Refused(
                f"{module} has factors {list(a)} and {list(b)} for a weight {list(weights[module])}: it is no Linear"
            )
        if a[1] == b[0] and may_be_embedding(module):
            raise Refused(f"{module} may be an embedding, whose sizes are those of a Linear where they are equal")
        tensors.update({f"{PREFIX}{module}.{factor}.weight": parts[factor] for factor in FACTORS})
    config = foreign.config_of("")
    if config.get("use_rslora"):
        raise Refused("use_rslora is set in the config that is named, and loralib has no such scale")
    try:
        hold(config, tensors, "LORA")
    except Wants as error:
        raise Wants(f"{error.option} --base MODEL", str(error)) from None
    check_plain(Subject(Adapter("", "", config, tensors)))
    return [Converted("", config, tensors)]


TOOL = Tool("loralib", "", "", to_peft)
