"""`ckpt-doctor compare`."""

from __future__ import annotations

import sys

import click

from ..adapter import AdapterError
from . import options
from .terminal import busy, complain, width

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
def command(first: str, second: str, tolerance: float, format_: str) -> None:
    """Say whether the adapters A and B compute the same function: every delta, and every other tensor.

    Across methods (AdaLoRA against LoRA), file formats, prefixes and dtypes; without the base model.

    Exit code: 0 the same within --tolerance, 1 different, 2 cannot tell.
    """
    from ..comparison import compare
    from ..loader import load, locate
    from ..reporters import comparison

    try:
        with busy("comparing"):
            result = compare(load(locate(first)), load(locate(second)), tolerance)
    except AdapterError as error:
        complain(str(error))
        sys.exit(2)
    for line in comparison.table(result, width()) if format_ == "table" else comparison.json(result):
        click.echo(line)
    sys.exit({"same": 0, "different": 1, "cannot tell": 2}[result.verdict])
