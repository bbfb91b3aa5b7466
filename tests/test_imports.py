"""Data flows one way: no room imports one above it, and a scan imports nothing that it does not use."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ckpt_doctor"
ROOMS = [
    "skeleton",
    "adapter",
    "files",
    "facts",
    "rules",
    "repairs",
    "conversions",
    "verbs",
    "api",
    "reports",
    "cli",
    "__main__",
    "integrations",
]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms that a module imports, also within functions."""
    depth = len(path.relative_to(PACKAGE).parts)
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return rooms & set(ROOMS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    assert room(path) in ROOMS
    above = ROOMS[ROOMS.index(room(path)) + 1 :]
    assert imported(path) & set(above) == set()


def test_a_value_of_a_config_has_no_type_until_it_is_asked_for_one() -> None:
    """With `object` mypy demands of every read which type it takes, so that a value of another is no crash: of configs,
    records, indexes, baselines, journals, logs, the project's file and the files of pins.
    """
    trusting = re.compile(r"\b(?:config|record|metadata|section|document|head)\b: (?:dict|Mapping)\[str, Any\]")
    texts = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert [path for path, text in texts.items() if trusting.search(text)] == []
    assert "config: dict[str, object] | None" in texts["adapter/__init__.py"]
    # what a parser gives is of no type, but for the tables of the package, the answers of our own processes, and the
    # header that is judged value by value
    ours = {"facts", "skeleton", "reports"}
    ours |= {"conversions/image_modules.py", "verbs/jobs.py", "files/formats/safetensors.py"}
    parsed = re.compile(r"^.*\b(?:json|tomllib)\.loads?\(.*$", re.MULTILINE)
    given = {path: parsed.findall(text) for path, text in texts.items() if not {path, path.split("/")[0]} & ours}
    untyped = re.compile(r"(?!.*: (?:dict\[str, )?object\]? = )")
    assert [line for lines in given.values() for line in lines if untyped.match(line)] == []
    readers = {path for path, lines in given.items() if lines}
    assert {"cli/baseline.py", "cli/journal.py", "cli/settings.py", "files/loader.py", "verbs/ranks.py"} <= readers
