"""What each code is called and means, for whoever explains or chooses: data/rules.json."""

from __future__ import annotations

import json
import os
from functools import cache


@cache
def pages() -> dict[str, dict[str, str]]:
    """Code → its `name` and the `text` of its rule; made from the rules' docstrings by scripts/make_rules_page.py."""
    with open(os.path.join(os.path.dirname(__file__), "..", "data", "rules.json"), encoding="utf-8") as file:
        found: dict[str, dict[str, str]] = json.load(file)
    return found
