"""Print docs/rules.md: every rule, its codes and its docstring.

usage: python scripts/make_rules_page.py > docs/rules.md
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

RULES = Path(__file__).parent.parent / "ckpt_doctor/rules"
CODE = re.compile(r'"(CD\d{3})"')
NAME = re.compile(r'"(CD\d{3})",\s*"([a-z0-9-]+)"')


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions of a module by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def main() -> None:
    """One section a file, one entry a rule."""
    print("# Rules\n\nWhat each finding means, and what shows it. Made from the docstrings of `ckpt_doctor/rules/`.\n")
    for path in sorted(RULES.glob("[a-z]*.py")):
        source = path.read_text()
        tree = ast.parse(source)
        print(f"## {ast.get_docstring(tree)}\n")
        for node in functions(tree).values():
            text = ast.get_source_segment(source, node) or ""
            of_servers = path.name == "servers.py" and CODE.search(text)
            if not of_servers and not any(isinstance(m, ast.Name) and m.id == "rule" for m in node.decorator_list):
                continue
            for name, helper in functions(tree).items():  # what a rule leaves to functions of its own
                if name.startswith("_") and f"{name}(" in text:
                    text += ast.get_source_segment(source, helper) or ""
            named = dict.fromkeys(f"{code} {name}" for code, name in NAME.findall(text))
            told = {entry.split()[0] for entry in named}
            others = [code for code in dict.fromkeys(CODE.findall(text)) if code not in told]
            title = ", ".join([*named, *others]) or node.name.replace("_", " ")
            if node.name == "damaged_file":
                title = ", ".join(f"{code} {name}" for name, code in table(tree).items())
            print(f"### {title}\n\n{inspect.cleandoc(ast.get_docstring(node) or '')}\n")


def table(tree: ast.Module) -> dict[str, str]:
    """The literal table DAMAGE of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "DAMAGE":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    sys.exit("no DAMAGE")


if __name__ == "__main__":
    main()
