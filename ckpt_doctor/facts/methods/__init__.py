"""One file a method of PEFT, as it has `tuners/<method>/`; imported when an adapter is of it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..record import Method

LORAS = ("LORA", "ADALORA")
"""Those that have rules of their own."""

PROMPTS = frozenset({
    "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING",
})  # fmt: skip
"""Prompt learning, all in prompts.py: nothing is adapted, virtual tokens are put before the input."""


NAMED, OPTIONAL, TIED, COUNTED = "named", "optional", "tied", "counted"
"""How target_modules says which layers are adapted: it has to; it may; it may, and a head that is tied to one of them
is adapted with it; it does not, they are counted."""

LARGEST_SIDE = 1 << 24
"""Of a larger side of a weight, which no model has, the factors and blocks that PEFT makes are not looked for."""

REVIEWED = frozenset(
    f"peft=={release}" for release in (
        "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.6.1", "0.6.2", "0.7.0", "0.7.1", "0.8.0", "0.8.1", "0.8.2",
        "0.9.0", "0.10.0", "0.11.0", "0.11.1", "0.12.0", "0.13.0", "0.13.1", "0.13.2", "0.14.0", "0.15.0", "0.15.1",
        "0.15.2", "0.16.0", "0.17.0", "0.17.1", "0.18.0", "0.18.1", "0.19.0", "0.19.1", "0.20.0", "0.21.0", "0.21.1",
        "0.21.2",
    )
)  # fmt: skip
"""The releases in which a method was looked at whose record says so. A newer release is added where it was looked at
as well, by name: `since("0.14")` in a row says nothing of it before."""


@cache
def names() -> frozenset[str]:
    """The names of all methods that have a record."""
    from pkgutil import iter_modules

    return frozenset(module.name.upper() for module in iter_modules(__path__)) - {"PROMPTS"} | PROMPTS


def record(name: str | None) -> Method | None:
    """The record of a method, or None: LoRA and AdaLoRA have rules of their own, of others nothing is known."""
    return _record(name) if name is not None and name not in LORAS and name in names() else None


@cache
def _record(name: str) -> Method:
    module = import_module(f"{__name__}.{'prompts' if name in PROMPTS else name.lower()}")
    method: Method = getattr(module, name)
    return method
