"""`ckpt-doctor together`."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..adapter import AdapterError
from ..files.loader import is_remote, locate, told
from ..reports import Style, json, table
from . import options
from .terminal import busy, clean_end, complain, width

EPILOG = """\b
Examples:
  ckpt-doctor together first/ second/
  ckpt-doctor together first/ second/ --for peft==0.14.0
  ckpt-doctor together first/ second/ third/ --for vllm --base model/
"""


@click.command("together", epilog=EPILOG, short_help="Can adapters be merged, swapped, served side by side?")
@click.argument("paths", nargs=-1, required=True, metavar="A B…", type=click.Path())
@options.SHORT_FORMAT
@options.judged
@click.pass_context
@clean_end()
def command(ctx: click.Context, /, paths: tuple[str, ...], format_: str, **_: Any) -> None:
    """Say whether the adapters A, B and more of one model can be merged into one (PEFT's add_weighted_adapter, each of
    its ways), swapped for each other while the model runs (peft.utils.hotswap), and served side by side.

    Headers and configs only are read. The order counts: a merged adapter has the options of the first, and the first is
    the one that is loaded before a swap.

    Exit code: 0 each of these is open in some way, 1 one is not, or it is not known, 2 an adapter could not be
    examined.
    """
    from ..verbs.together import together

    if len(paths) < 2:
        raise click.UsageError("name two adapters or more")
    try:
        with busy("reading"):
            paths = tuple(locate(path) if is_remote(path) else path for path in paths)
            found = together(paths, options.settings(ctx)(paths[0]).question)
    except AdapterError as error:
        complain(str(error))
        if format_ == "json":
            places = [json.place(told(path)) for path in paths]
            click.echo(json.dump({"adapters": places, "error": str(error), "runtimes": []}))
        sys.exit(2)
    output = json.together(paths, found) if format_ == "json" else table.together(paths, found, Style(width()))
    for line in output:
        click.echo(line)
    sys.exit(int(not all(one.is_whole for one in found)))
