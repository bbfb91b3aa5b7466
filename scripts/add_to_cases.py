"""Name another release of a server in the cases that ask for it, with what the facts say of it now: a diff to review.

    python scripts/add_to_cases.py vllm==0.32.0

A case of a code that would then be found, or not be, as the case says is left as it is, and named.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import casefile
import judging


def main() -> None:
    """Write the cases."""
    id_ = sys.argv[1]
    name = id_.partition("==")[0]
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(casefile.PATHS):
            text = path.read_text(encoding="utf-8")
            asked = re.search(r'^for = "([^"]*)"', text, re.MULTILINE)
            if not asked or id_ in asked[1].split() or not {"servers", name} & set(asked[1].split()):
                continue
            path.write_text(text.replace(asked[0], asked[0][:-1] + f' {id_}"', 1), encoding="utf-8")
            place = Path(folder, str(number))
            place.mkdir()
            case = casefile.read(path, place)
            path.write_text(_with(path.read_text(encoding="utf-8"), case, id_), encoding="utf-8")
            (place / "again").mkdir()
            case = casefile.read(path, place / "again")
            if case.faults(judging.judge(case.adapter, case.asked)):
                print(f"left as it is: {path.name}")
                path.write_text(text, encoding="utf-8")


def _with(text: str, case: casefile.Case, id_: str) -> str:
    """The text of a case with the release in what accepts, and in whom each code stops."""
    findings = judging.judge(case.adapter, case.asked)
    stopped = judging.stopped(findings)
    blocks = re.split(r"(?=^\[\[fires\]\])", text, flags=re.MULTILINE)
    if judging.verdicts([id_], findings)[id_] == "accepts":
        blocks[0] = _joined(blocks[0], "accepts", id_, new=False)
    for at, block in enumerate(blocks):
        code = re.search(r'^code = "(CD\d+)"', block, re.MULTILINE)
        for kind, ids in zip(casefile.KINDS, stopped.get(code[1], ()) if code else (), strict=False):
            blocks[at] = _joined(blocks[at], kind, id_) if id_ in ids else blocks[at]
    return "".join(blocks)


def _joined(block: str, key: str, id_: str, *, new: bool = True) -> str:
    """A block with the release among the runtimes of a key, which is made where there is none, if `new`."""
    line = re.search(rf'^{key} = "([^"]*)"', block, re.MULTILINE)
    if line:
        return block.replace(line[0], line[0][:-1] + f' {id_}"', 1)
    body = block.rstrip("\n")
    return f'{body}\n{key} = "{id_}"' + block[len(body) :] if new else block


if __name__ == "__main__":
    main()
