"""`ckpt-doctor ranks`."""

from __future__ import annotations

import sys

import click

from ..adapter import AdapterError
from ..reports import Style, json, table
from . import options
from .terminal import busy, complain, print_to, width, write_to

EPILOG = """\b
Examples:
  ckpt-doctor ranks adapter/
  ckpt-doctor ranks adapter/ --values
  ckpt-doctor ranks runs/adalora/              the checkpoints of a run
  ckpt-doctor ranks runs/adalora/ranks.jsonl   what RankMonitor wrote
  ckpt-doctor ranks adalora/ lora/ --values    side by side
  ckpt-doctor ranks runs/adalora/ --html ranks.html
"""


@click.command("ranks", epilog=EPILOG, short_help="Show the ranks: a map, a run over its steps, side by side.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path())
@click.option(
    "--values", is_flag=True,
    help="Read the numbers, too: effective rank, energy, zero rows, and the rank that would do.",
)  # fmt: skip
@click.option(
    "--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
    help="csv has one row a layer and step.",
)  # fmt: skip
@options.HTML
@options.PNG
@options.QUIET
def command(paths: tuple[str, ...], values: bool, format_: str, html: str | None, png: str | None, quiet: bool) -> None:
    """Show the rank of every layer of the adapters at PATH: where the ranks are, and where none is left.

    Folders checkpoint-* that lie side by side are one run, which is shown over its steps against AdaLoRA's schedule.
    Up to four adapters or runs are also shown side by side.

    Exit code: 0, or 2 where something could not be examined.
    """
    from ..verbs.ranks import look

    try:
        with busy("reading", quiet=quiet):
            found = look(paths, values=values)
        if html:
            from ..reports import html as page

            print_to(html, page.ranks(found))
        if png:
            from ..reports import png as picture

            write_to(png, [picture.ranks(found)])
    except AdapterError as error:
        complain(str(error))
        sys.exit(2)
    if format_ == "csv":
        from ..reports import csv

        output = csv.ranks(found)
    else:
        output = json.ranks(found) if format_ == "json" else table.ranks(found, Style(width(), -1 if quiet else 0))
    for line in output:
        click.echo(line)
