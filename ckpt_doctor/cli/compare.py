"""`ckpt-doctor compare`."""

from __future__ import annotations

import sys
from traceback import format_exc

import click

from ..adapter import AdapterError, unforeseen
from ..files.loader import told
from ..reports import Style
from . import options
from .terminal import busy, complain, print_to, show_trace, width

EPILOG = """\b
Examples:
  ckpt-doctor compare adapter/ fixed/
  ckpt-doctor compare adapter/ small/ --tolerance 1e-2 --format json
"""


@click.command("compare", epilog=EPILOG, short_help="Say whether two adapters compute the same.")
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
@options.TOLERANCE
@options.SHORT_FORMAT
@options.HTML
@options.verbose("Print the trace of a fault of ours.")
def command(first: str, second: str, tolerance: float, format_: str, html: str | None, verbose: bool) -> None:
    """Say whether the adapters A and B compute the same function: every delta, and every other tensor.

    Across methods (AdaLoRA against LoRA), file formats, prefixes and dtypes; without the base model.

    Exit code: 0 the same within --tolerance, 1 different, 2 cannot tell.
    """
    from ..reports import json, table
    from ..verbs.compare import Comparison, compared

    try:
        with busy("comparing"):
            result = compared(first, second, tolerance)
        lines = list(table.compare(result, Style(width())) if format_ == "table" else json.compare(result))
    except Exception as error:
        known = isinstance(error, AdapterError)
        reason = str(error) if known else unforeseen(f"{told(first)} and {told(second)}", error)
        if verbose and not known:
            show_trace(format_exc())
        complain(reason)
        result = Comparison("cannot tell", (reason,), (), (), tolerance)
        lines = list(json.compare(result)) if format_ == "json" else []
    for line in lines:
        click.echo(line)
    if html:
        from ..reports import html as page

        try:
            print_to(html, page.compare(told(first), told(second), result))
        except AdapterError as error:
            complain(str(error))
            sys.exit(2)
    sys.exit({"same": 0, "different": 1, "cannot tell": 2}[result.verdict])
