"""`ckpt-doctor rules`."""

from __future__ import annotations

import click

from ..reports import Style, pages
from .terminal import width

EPILOG = """\b
Examples:
  ckpt-doctor rules
  ckpt-doctor rules | grep rank
"""


@click.command("rules", epilog=EPILOG, short_help="List the findings that there are.")
def command() -> None:
    """List every finding that there is: its code, its name, and what is wrong.

    A terminal shows as much of a line as it is wide, a pipe all of it. `ckpt-doctor explain CODE` has the page.

    Exit code: 0.
    """
    for line in pages.index(Style(width())):
        click.echo(line)
