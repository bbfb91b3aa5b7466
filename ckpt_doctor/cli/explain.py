"""`ckpt-doctor explain`."""

from __future__ import annotations

import sys

import click

from ..adapter.codes import CODES, OLD_NAMES
from ..adapter.findings import Code
from ..reports import Style, pages
from .terminal import width

EPILOG = """\b
Examples:
  ckpt-doctor explain CD101
  ckpt-doctor explain adalora-rank-zero CD302
  ckpt-doctor explain "KeyError: 'VERA'"
  python serve.py 2>&1 | ckpt-doctor explain
"""

MOST_READ = 1 << 24
"""How many bytes of the standard input are read, of which the end is looked at."""


def _names() -> dict[str, Code]:
    return {**OLD_NAMES, **{code.name: code for code in CODES.values()}}


def _code(text: str) -> Code | None:
    """The code that is called so: by number, by name, or by a name that it had before."""
    return CODES.get(text.upper()) or _names().get(text.lower())


def _unknown(text: str) -> click.BadParameter:
    from difflib import get_close_matches

    family = [number for number in CODES if number.startswith(text[:3].upper())]
    near = get_close_matches(text.upper(), family) or get_close_matches(text.lower(), _names(), n=1)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return click.BadParameter(f"{text!r} is no code or name of a finding; {hint}`ckpt-doctor rules` lists them")


def _input(awaited: bool) -> str:
    """What was piped into it; what a person types there is `awaited` where they asked for that."""
    if sys.stdin is None or (sys.stdin.isatty() and not awaited):
        raise click.UsageError("name a finding or a message, or pipe what was printed into it")
    text = sys.stdin.buffer.read(MOST_READ).decode("utf-8", "replace")
    if not text.strip():
        raise click.UsageError("name a finding or a message: nothing was piped into it")
    return text


@click.command("explain", epilog=EPILOG, short_help="Say what a finding means, or an error message.")
@click.argument("texts", metavar="[CODE|MESSAGE|-]…", nargs=-1)
def command(texts: tuple[str, ...]) -> None:
    """Say what a finding means: what is wrong, why, who stops, what to do, and what shows it.

    CODE is its code or its name, in capitals or not; several can be named. MESSAGE is what a runtime printed, in quotes
    (single ones, where it has backticks), or a part of it: the findings that it can come from are named, three at most,
    and what to run. `-`, or no argument, reads it from the standard input, a whole traceback or log, too.

    Exit code: 0; 1 where the message is not known; 2 where no finding is called so.
    """
    text = " ".join(texts) if texts not in ((), ("-",)) else _input(awaited=bool(texts))
    words = tuple(text.split()) if len(text) < 100 else (text,)
    codes = [_code(each) for each in words]
    style = Style(width())
    if None not in codes:
        for at, code in enumerate(dict.fromkeys(code for code in codes if code)):
            for line in ([""] if at else []) + list(pages.page(code, style)):
                click.echo(line)
        return
    from ..reports import recognised as report
    from ..verbs.recognise import recognised

    matches = [] if any(codes) else recognised(text)
    wordless = texts and all(len(each.split()) == 1 for each in texts)
    if not matches and wordless and texts != ("-",):
        raise _unknown(next(each for each in texts if _code(each) is None))
    for line in report.explain(matches, style):
        click.echo(line)
    if not matches:
        sys.exit(1)
