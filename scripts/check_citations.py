"""Check that what the package cites of PEFT is there: each `file: symbol`, in installed releases.

usage: python scripts/check_citations.py VENV...
VENV is an environment with one PEFT release. Cited are the sources of rows in ckpt_doctor/facts/methods/
and of messages, and what stands in parentheses in texts of the package, as `(tuners/oft/layer.py: update_layer)`. PEFT is read as text, never
imported. A symbol may be Class, function, Class.method, CONSTANT or a name that a function binds; several are divided
by commas. A row's source has to be in a release of which the row speaks, if an environment has one; any other in some
release.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ckpt_doctor.facts import methods  # noqa: E402
from ckpt_doctor.facts.config_keys import knows  # noqa: E402
from ckpt_doctor.facts.messages import messages  # noqa: E402
from ckpt_doctor.facts.record import Differs, Row  # noqa: E402

TEXT = re.compile(
    r"[(\s]((?:[a-z_0-9]+/)*[a-z_0-9]+\.py): ([A-Za-z_]\w*(?:\.\w+)*(?:(?:,| and) [A-Za-z_]\w*(?:\.\w+)*)*)[),.;]"
)
ELSEWHERE = ("torch/", "transformers/", "modeling_utils.py")
"""Files of torch and transformers, which are cited as well."""

OF_A_METHOD = ("config.py", "layer.py", "model.py")
"""Files that every method has: in its record they are its own."""

HOMES = ("", "tuners/")
"""Where a file may be that is cited."""


class Citation(NamedTuple):
    """What is cited, where, and the releases in which it has to be; none for any."""

    where: str
    file: str
    symbol: str
    ids: frozenset[str] = frozenset()


def of_rows() -> Iterator[Citation]:
    """The sources of all rows."""
    for name in sorted(methods.names()):
        record = methods.record(name)
        for number, row in enumerate(record.rows if record else ()):
            file, _, symbols = row.source.partition(": ")
            for symbol in symbols.split(", "):
                yield Citation(f"{name} rows[{number}]", file, symbol, spoken_of(row) & knows(name, "peft_type"))


def spoken_of(row: Row | Differs) -> frozenset[str]:
    """The releases that a row says anything of."""
    if isinstance(row, Differs):
        return frozenset().union(*row.computes)
    return row.rejects | row.misloads | row.undecided


def of_texts() -> Iterator[Citation]:
    """What stands in strings and comments of the package."""
    facts = ROOT / "ckpt_doctor/facts"
    for path in sorted((ROOT / "ckpt_doctor").rglob("*.py")):
        if path.parent == facts / "servers":  # what they cite is their own
            continue
        where = path.relative_to(ROOT / "ckpt_doctor")
        home = f"tuners/{path.stem}/" if path.parent == facts / "methods" else ""
        text = re.sub(r"\s*\n\s*(?:#\s*)?", " ", path.read_text(encoding="utf-8"))
        for file, symbols in TEXT.findall(text):
            inner = f"{home}{file}" if home and file in OF_A_METHOD else file
            for symbol in re.split(r", | and ", symbols):
                if not file.startswith(ELSEWHERE):
                    yield Citation(str(where), inner, symbol)


def of_messages() -> Iterator[Citation]:
    """Where PEFT's messages stand."""
    for message in messages():
        file, _, symbol = message.source.partition(": ")
        if message.runtime == "PEFT" and file.endswith(".py") and not file.startswith(ELSEWHERE):
            yield Citation("messages.txt", file, symbol)


def package(venv: Path) -> tuple[str, Path]:
    """The release of PEFT in an environment, and its folder."""
    (info,) = venv.glob("lib/python*/site-packages/peft-*.dist-info")
    return info.name.removeprefix("peft-").removesuffix(".dist-info"), info.parent / "peft"


@cache
def symbols(path: Path) -> frozenset[str]:
    """All names that a file defines: classes, functions and constants, with and without their class, and in a class
    also what it inherits from one of the same file.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    for name, node in classes.items():
        for child in ast.walk(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(f"{name}.{child.name}")
            elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
                names.add(f"{name}.{child.target.id}")
    return frozenset(names)


def places(file: str, folder: Path) -> list[Path]:
    """Where a cited file is in a release. `layer.py` alone is of a method, and not told of which."""
    if "/" not in file and not (folder / file).is_file():
        return sorted(folder.glob(f"**/{file}"))
    # up to 0.5 a method was one file, later with a folder of its own
    older = re.sub(r"/(?:layer|model|config|utils)\.py$", ".py", file)
    named = [folder / home / name for home in HOMES for name in (file, older)]
    return [path for path in named if path.is_file()]


def has(citation: Citation, folder: Path) -> bool:
    """Whether a release has what is cited."""
    return any(citation.symbol in symbols(path) for path in places(citation.file, folder))


def main() -> None:
    """Print what is cited and is not there."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    releases = dict(package(Path(venv)) for venv in sys.argv[1:])
    cited = [*of_rows(), *dict.fromkeys((*of_messages(), *of_texts()))]
    missing = 0
    for citation in cited:
        asked = {release: folder for release, folder in releases.items() if f"peft=={release}" in citation.ids}
        if not any(has(citation, folder) for folder in (asked or releases).values()):
            missing += 1
            where = f"in none of {', '.join(asked)}" if asked else "in no release"
            print(f"{citation.where}: {citation.file}: {citation.symbol} is {where}")
    print(f"{len(cited)} citations, {missing} wrong, {len(releases)} releases")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
