"""The ranks of a model with an AdaLoRA that is being trained, for any training loop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..adapter import Adapter
from ..facts.budget import Schedule, schedule
from ..facts.subject import Subject

if TYPE_CHECKING:
    from torch import nn

_SCHEDULE = ("init_r", "target_r", "tinit", "tfinal", "deltaT", "total_step")


def log_ranks(model: nn.Module, step: int, file: str | os.PathLike[str] = "ranks.jsonl") -> dict[str, int]:
    """Add the rank of each layer after so many optimiser steps to a log that `ckpt-doctor ranks` reads; return them.

    Call it after `model.base_model.update_and_allocate(step)`, which it does not call; with several processes in one of
    them. `model` may be wrapped (DDP, torch.compile, Accelerate). A file that is there is added to: another run gets
    another file. Raises ValueError where no AdaLoRA is trained in the model, and OSError.
    """
    tuner = tuner_of(model)
    if tuner is None:
        raise ValueError(why_none(model))
    return write(tuner, step, file)


def tuner_of(model: nn.Module) -> Any:
    """PEFT's AdaLoraModel with an adapter that is trained (tuners/adalora/model.py), or None."""
    tuner = getattr(_unwrapped(model), "base_model", None)
    return tuner if hasattr(tuner, "rankallocator") else None


def why_none(model: nn.Module) -> str:
    """Why `tuner_of` finds nothing."""
    configs: Any = getattr(_unwrapped(model), "peft_config", {})
    if any(getattr(config, "peft_type", None) == "ADALORA" for config in configs.values()):
        return (
            "the AdaLoRA of this model is not trained, or it was injected (add_adapter, inject_adapter_in_model), "
            "where no allocator is kept and every layer stays at init_r: train one that peft.get_peft_model made"
        )
    return "no AdaLoRA is in this model: give the one that peft.get_peft_model made"


def _unwrapped(model: Any) -> Any:
    """Without DistributedDataParallel (`module`) and torch.compile (`_orig_mod`)."""
    while not hasattr(model, "peft_config"):
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            break
        model = inner
    return model


def ranks_of(tuner: Any) -> dict[str, int]:
    """The rank that each layer would be saved with: by the allocator's last mask, for between two masks the optimiser
    makes numbers again of what was zeroed; before the first by its shape
    (tuners/adalora/model.py: AdaLoraModel.resize_state_dict_by_rank_pattern).
    """
    name = tuner.trainable_adapter_name
    masks = tuner.peft_config[name].rank_pattern or {}
    ranks = {}
    for module, triplets in triplets_of(tuner):
        # a model that was saved has keys without the adapter's name (utils/save_and_load.py: get_peft_model_state_dict)
        mask = masks.get(f"{module}.lora_E.{name}", masks.get(f"{module}.lora_E"))
        ranks[module] = len(triplets) if mask is None else sum(mask)
    return ranks


def triplets_of(tuner: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The name of each adapted module and its lora_E of shape [init_r, 1]."""
    for module, layer in tuner.model.named_modules():
        factors = getattr(layer, "lora_E", None)
        if factors is not None and tuner.trainable_adapter_name in factors:
            yield module, factors[tuner.trainable_adapter_name]


def write(tuner: Any, step: int, file: str | os.PathLike[str]) -> dict[str, int]:
    """A line of a log, after one on the config in a new file."""
    ranks = ranks_of(tuner)
    with open(file, "a", encoding="utf-8") as log:
        if not log.tell():
            log.write(json.dumps(head(tuner)) + "\n")
        log.write(json.dumps({"step": step, "ranks": ranks}) + "\n")
    return ranks


def head(tuner: Any) -> dict[str, Any]:
    """The first line of a log."""
    config = tuner.peft_config[tuner.trainable_adapter_name]
    return {"method": "ADALORA", **{key: getattr(config, key) for key in _SCHEDULE}}


def schedule_of(tuner: Any) -> Schedule | None:
    """The schedule that an AdaLoRA is trained by; None for one that cannot be."""
    return schedule(Subject(Adapter("", "", {"peft_type": "ADALORA", **head(tuner)}, {})))
