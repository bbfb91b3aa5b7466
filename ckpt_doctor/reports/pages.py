"""The pages of the codes as Markdown. `python -m ckpt_doctor.reports.pages > docs/rules.md` writes them all."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter.codes import CODES
from ..adapter.findings import Code


def paragraphs(code: Code) -> list[str]:
    """What is wrong; then who stops, what to do, and what shows it, each with its heading."""
    parts = re.split(r"\n(?=Who stops: |What to do: |Shown by: )", code.page.strip())
    return [" ".join(part.split()) for part in parts]


def markdown(code: Code) -> str:
    """The page of a code."""
    first, *rest = paragraphs(code)
    return "\n".join((first, "", *(f"- {paragraph}" for paragraph in rest)))


def document() -> Iterator[str]:
    """The lines of docs/rules.md: an index, and the page of each code."""
    yield "# Rules\n\nWhat each finding means. Made from `ckpt_doctor/adapter/codes.py`.\n"
    for code in CODES.values():
        yield f"- [{code.number} {code.name}](#{code.number.lower()}-{code.name})"
    for code in CODES.values():
        yield f"\n## {code.number} {code.name}\n\n{markdown(code)}"


if __name__ == "__main__":
    print("\n".join(document()))
