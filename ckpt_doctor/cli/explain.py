"""`ckpt-doctor explain`."""

from __future__ import annotations

import click

from ..adapter.codes import CODES, OLD_NAMES
from ..adapter.findings import Code
from ..reports import Style, pages
from .terminal import width

EPILOG = """\b
Examples:
  ckpt-doctor explain CD101
  ckpt-doctor explain adalora-rank-zero CD302
"""


def _codes(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[Code]:
    """The codes that are named, each once: by number, by name, or by a name that they had before."""
    names = {**OLD_NAMES, **{code.name: code for code in CODES.values()}}
    found: dict[Code, None] = {}
    for text in texts:
        code = CODES.get(text.upper()) or names.get(text.lower())
        if code is None:
            from difflib import get_close_matches

            family = [number for number in CODES if number.startswith(text[:3].upper())]
            near = get_close_matches(text.upper(), family) or get_close_matches(text.lower(), names, n=1)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise click.BadParameter(f"{text!r} is no code or name of a finding; {hint}`ckpt-doctor rules` lists them")
        found[code] = None
    return list(found)


@click.command("explain", epilog=EPILOG, short_help="Say what a finding means.")
@click.argument("codes", metavar="CODE…", nargs=-1, required=True, callback=_codes)
def command(codes: list[Code]) -> None:
    """Say what a finding means: what is wrong, why, who stops, what to do, and what shows it.

    CODE is its code or its name, in capitals or not; several can be named.

    Exit code: 0, or 2 where no finding is called so.
    """
    style = Style(width())
    for at, code in enumerate(codes):
        for line in ([""] if at else []) + list(pages.page(code, style)):
            click.echo(line)
