"""Print docs/rules.md: every rule, its codes and its docstring; with --json, the same by code.

usage: python scripts/make_rules_page.py > docs/rules.md
       python scripts/make_rules_page.py --json > ckpt_doctor/data/rules.json
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ckpt_doctor.findings import Code
from ckpt_doctor.rules import codes

RULES = Path(__file__).parent.parent / "ckpt_doctor/rules"
CODE = re.compile(r'"(CD\d{3})"')
NAME = re.compile(r'"(CD\d{3})",\s*"([a-z0-9-]+)"')
CONSTANT = re.compile(r"\b([A-Z][A-Z_]{3,})\(")
NAMED_BY_VARIABLE = {"CD310": "ignored-layer", "CD311": "other-scale"}
"""Names that do not stand beside their code in the source (rules/reading.py: _otherwise)."""


class Entry(NamedTuple):
    """A rule: its codes with their names, and its docstring. `fallback` is the title of one without a code."""

    names: dict[str, str]
    text: str
    fallback: str

    @property
    def title(self) -> str:
        """The codes and names, as in a heading."""
        return ", ".join(f"{code} {name}" for code, name in self.names.items()) or self.fallback


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions of a module by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def families() -> Iterator[tuple[str, list[Entry]]]:
    """Each file of rules: its docstring and its rules."""
    for path in sorted(RULES.glob("[a-z]*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        entries = list(rules(source, tree, every=path.name == "servers.py"))
        if entries:
            yield ast.get_docstring(tree) or "", entries


def rules(source: str, tree: ast.Module, *, every: bool) -> Iterator[Entry]:
    """The rules of a file: what is decorated as one, or `every` function that has a code."""
    for node in functions(tree).values():
        text = ast.get_source_segment(source, node) or ""
        decorated = any(isinstance(m, ast.Name) and m.id == "rule" for m in node.decorator_list)
        if not decorated and not (every and CODE.search(text)):
            continue
        for name, helper in functions(tree).items():  # what a rule leaves to functions of its own
            if name.startswith("_") and f"{name}(" in text:
                text += ast.get_source_segment(source, helper) or ""
        names = dict(NAME.findall(text))
        objects = (getattr(codes, constant, None) for constant in CONSTANT.findall(text))
        names |= {code.number: code.name for code in objects if isinstance(code, Code)}
        names |= {code: NAMED_BY_VARIABLE[code] for code in CODE.findall(text) if code not in names}
        if node.name == "damaged_file":
            names = {code: name for name, code in table(tree).items()}
        yield Entry(names, inspect.cleandoc(ast.get_docstring(node) or ""), node.name.replace("_", " "))


def table(tree: ast.Module) -> dict[str, str]:
    """The literal table DAMAGE of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "DAMAGE":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    sys.exit("no DAMAGE")


def page() -> Iterator[str]:
    """One section a file, one entry a rule."""
    yield "# Rules\n\nWhat each finding means, and what shows it. Made from the docstrings of `ckpt_doctor/rules/`.\n"
    for heading, entries in families():
        yield f"## {heading}\n"
        for entry in entries:
            yield f"### {entry.title}\n\n{entry.text}\n"


def by_code() -> dict[str, dict[str, str]]:
    """Code → its name, and the texts of the rules that yield it, one after the other."""
    found: dict[str, dict[str, str]] = {}
    for _, entries in families():
        for entry in entries:
            for code, name in entry.names.items():
                one = found.setdefault(code, {"name": name, "text": entry.text})
                if one["text"] != entry.text:
                    one["text"] += f"\n\n{entry.text}"
    return dict(sorted(found.items()))


def main() -> None:
    """Print the page, or the JSON."""
    if sys.argv[1:] == ["--json"]:
        print(json.dumps(by_code(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(page()))


if __name__ == "__main__":
    main()
