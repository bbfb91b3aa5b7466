"""What a person can do by hand, in sentences that several rules say."""

from __future__ import annotations

from collections.abc import Iterable

CONFIG_OF_THESE = "fetch the adapter_config.json that was saved with these tensors"


def targets_of(layers: Iterable[str]) -> str:
    """The target_modules that name the layers of the file, as what to set."""
    from json import dumps

    ends = sorted({module.rpartition(".")[2] for module in layers})
    names = dumps(ends) if len(ends) <= 8 else "the last part of the names of the layers"
    return f"set target_modules to {names} in adapter_config.json"
