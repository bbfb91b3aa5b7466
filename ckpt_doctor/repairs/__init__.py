"""One function a repair: Adapter → Adapter, or a reason why not. A repair says which codes it heals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..adapter import Adapter
from ..layers import Layer


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The repair cannot be made without changing the function; the message says why."""


class Repair(NamedTuple):
    """`heals` are the codes of findings; `function` gives the repaired adapter or raises Refused."""

    title: str
    heals: frozenset[str]
    function: Callable[[Adapter, dict[str, Layer]], Adapter]


def with_config(adapter: Adapter, **values: Any) -> Adapter:
    """The adapter with some config values set."""
    return adapter._replace(config={**(adapter.config or {}), **values})
