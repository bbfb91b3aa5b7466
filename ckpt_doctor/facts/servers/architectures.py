"""The tables by architecture, one JSON file a runtime, of which only the line that is asked for is parsed.

`scripts/server_tables.py` makes them from the runtime's own source. What is in no table is unknown.
"""

from __future__ import annotations

import json
import os
from functools import cache, lru_cache
from typing import Any


@cache
def _text(table: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), f"{table}.json"), encoding="utf-8") as file:
        return file.read()


@lru_cache(256)
def line(table: str, key: str) -> dict[str, Any] | None:
    """What a table says of an architecture, None where it is not in it."""
    start = _text(table).find(f"\n{json.dumps(key)}: ")
    if start < 0:
        return None
    text = _text(table)[start + len(json.dumps(key)) + 3 :]
    value: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
    return value


def architecture(config: dict[str, object]) -> str | None:
    """The class that a model was saved with, as its config says."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    return first if isinstance(first, str) else None


def text_config(config: dict[str, object]) -> dict[str, Any]:
    """The part of a config that is about the language model."""
    for key in ("text_config", "llm_config", "language_config"):
        part = config.get(key)
        if isinstance(part, dict):
            return part
    return config


def causal(config: dict[str, object]) -> str | None:
    """The class of a language model: the one that its config names, or the one that its type comes to."""
    named = architecture(config)
    if named:
        return named
    of_type = line("transformers", f":{config.get('model_type')}")
    name = of_type.get("causal") if of_type else None
    return name if isinstance(name, str) else None
