"""`ckpt-doctor rules` and `ckpt-doctor explain`: the pages of the findings, at a terminal and in a pipe."""

from __future__ import annotations

import re
from typing import Any

import pytest
from click import unstyle
from test_terminal import ESCAPE, at_a_terminal, piped

from ckpt_doctor.adapter.codes import CODES, OLD_NAMES
from ckpt_doctor.facts.messages import messages, quoted
from ckpt_doctor.reports import Style, pages
from ckpt_doctor.reports.text import columns

MESSAGES = " ".join(message.quote for message in messages())
"""A name in one may be wider than a terminal, and is copied whole."""
PARTS = ["What", "Why", "Who stops", "What to do", "References"]


def parts(text: str) -> dict[str, str]:
    """From the headings of a page to what stands there."""
    found: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line[2] != " ":
            heading, _, line = line.partition(":")
            found[heading.strip()] = ""
        found[heading.strip()] += f" {line.strip()}"
    return {heading: content.strip() for heading, content in found.items()}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_each_page_has_its_five_parts_and_all_of_its_words(code: Any) -> None:
    shown = parts(unstyle("\n".join(pages.page(code, Style(80)))))
    assert list(shown) == PARTS + ["Messages"] * bool(quoted(code))
    shown.pop("Messages", None)
    assert all(len(content) > 4 for content in shown.values())
    words = " ".join(f"{heading}: {content}" for heading, content in shown.items()).removeprefix("What: ")
    assert words == " ".join(code.page.split())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_of_a_page_or_of_the_index_is_wider_than_the_terminal(width: int) -> None:
    style = Style(width)
    shown = [line for code in CODES.values() for line in pages.page(code, style)] + list(pages.index(style))
    long = [line for line in map(unstyle, shown) if columns(line) > width]
    assert [line for line in long if " " in line.strip() or line.strip() not in MESSAGES] == [], "a word stays whole"


def test_a_terminal_has_colour_and_its_width_and_a_pipe_neither() -> None:
    for command in (["explain", "CD101"], ["rules"]):
        at_terminal = at_a_terminal(*command, width=60)
        assert ESCAPE in at_terminal
        lines = unstyle(at_terminal).splitlines()
        assert 50 < max(len(line) for line in lines if " " in line.strip()) <= 60
        assert ESCAPE not in piped(*command)
    assert len(piped("explain", "CD101").splitlines()) == 1 + len(PARTS) + 1 + len(quoted(CODES["CD101"]))


def test_the_index_has_a_line_for_each_code_in_order() -> None:
    lines = piped("rules").splitlines()
    assert [line.split()[:2] for line in lines] == [[code.number, code.name] for code in CODES.values()]
    assert [line.split()[0] for line in lines] == sorted(CODES)
    assert all(line.endswith(pages.paragraphs(code)[0]) for line, code in zip(lines, CODES.values(), strict=True))


@pytest.mark.parametrize("called", ["CD101", "cd101", "adalora-rank-zero", "AdaLoRA-Rank-Zero"])
def test_a_page_is_found_by_code_and_by_name(run: Any, called: str) -> None:
    result = run("explain", called)
    assert result.exit_code == 0
    assert result.stdout.startswith("CD101 adalora-rank-zero\n  What: AdaLoRA's allocator pruned")


def test_names_that_codes_had_are_still_found_where_no_other_has_them_now(run: Any) -> None:
    for name, code in OLD_NAMES.items():
        now = {each.name: each for each in CODES.values()}.get(name, code)
        assert run("explain", name).stdout.startswith(f"{now.number} {now.name}\n")


def test_several_are_explained_in_the_order_asked_and_each_once(run: Any) -> None:
    output = run("explain", "CD302", "CD101", "adalora-schedule").stdout
    assert re.findall(r"^CD\d{3}", output, re.MULTILINE) == ["CD302", "CD101"]


@pytest.mark.parametrize(
    ("called", "meant"),
    [("adalora-rank-zer", "adalora-rank-zero"), ("CD119", "CD11"), ("cd1", "CD11"), ("qqqq", None)],
)
def test_an_unknown_one_is_wrong_usage_and_says_what_was_meant(run: Any, called: str, meant: str | None) -> None:
    result = run("explain", "CD101", called)
    message = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"'{called}' is no code or name of a finding" in message
    assert "`ckpt-doctor rules` lists them" in message
    assert ("did you mean" in message) == (meant is not None)
    if meant:
        assert meant in message


def test_without_a_code_it_is_wrong_usage(run: Any) -> None:
    assert run("explain").exit_code == 2
