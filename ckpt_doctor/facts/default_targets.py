"""What releases adapt where a config names no target: tables by model_type, made by scripts/make_default_targets.py.

PEFT raises "Please specify `target_modules` in `peft_config`" where the model has no entry
(tuners/tuners_utils.py: BaseTuner._prepare_adapter_config; in tuners/lora.py: LoraModel before).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache

from ..adapter.runtimes import NONE, PEFT, Ids, since


@cache
def _tables() -> dict[str, dict[str, list[tuple[str, list[str] | str | None]]]]:
    with open(os.path.join(os.path.dirname(__file__), "default_targets.json"), "rb") as file:
        tables: dict[str, dict[str, list[tuple[str, list[str] | str | None]]]] = json.load(file)
    return tables


def default_targets(table: str, model_type: str) -> Iterator[tuple[Ids, list[str] | str | None]]:
    """Releases, and what they target in a model of this type, None where they know none. `table` is a method, or
    "IA3 feedforward".
    """
    rows = _tables().get(table, {}).get(model_type, [])
    before = PEFT - since(rows[0][0]) if rows else PEFT
    if before:
        yield before, None
    for at, (first, names) in enumerate(rows):
        yield since(first) - (since(rows[at + 1][0]) if at + 1 < len(rows) else NONE), names


def untabled(table: str) -> Ids:
    """The releases that have no table at all."""
    return PEFT - NONE.union(*(since(row[0][0]) for row in _tables().get(table, {}).values()))
