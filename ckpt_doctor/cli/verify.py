"""`ckpt-doctor verify`."""

from __future__ import annotations

import sys
from traceback import format_exc

import click

from ..adapter import AdapterError, unforeseen
from ..files.loader import MARKS, RECORD
from ..reports import Style, json, table
from ..verbs.verify import verify
from . import options
from .terminal import busy, complain, show_trace, width

EPILOG = """\b
Examples:
  ckpt-doctor verify fixed/
  ckpt-doctor verify adapters/ --quiet
"""


@click.command("verify", epilog=EPILOG, short_help="Say whether what was fixed is still what was proved.")
@click.argument("paths", metavar="OUT…", nargs=-1, required=True, type=click.Path())
@options.SHORT_FORMAT
@options.QUIET
@options.verbose("Print the trace of a fault of ours.")
def command(paths: tuple[str, ...], format_: str, quiet: bool, verbose: bool) -> None:
    """Say whether each OUT of a fix, or all below it, is still what was written and proved.

    The ckpt-doctor.json that `fix` left there names the files, their sha256 and the proof. Nothing is written, and
    nothing but these files is read: IN and the base model need not be there.

    Exit code: 0 it is, 1 a file is missing, changed, or beside it and read instead, 2 it could not be examined: it has
    no record of a fix, or none that can be read. The highest code wins.
    """
    code = 0
    style = Style(width(), -1 if quiet else 0)
    results = []

    def failed(path: str, error: AdapterError) -> None:
        nonlocal code
        code = 2
        complain(str(error))
        results.append(json.verify(path, None, str(error)))

    for folder in options.folders(paths, failed, (*MARKS, RECORD)):
        try:
            with busy(f"hashing {folder}", quiet=quiet):
                verified = verify(folder)
            if format_ == "table":
                for line in table.verify(folder, verified, style):
                    click.echo(line)
            results.append(json.verify(folder, verified, None))
            code = max(code, int(bool(verified.faults)))
        except AdapterError as error:
            failed(folder, error)
        except Exception as error:
            if verbose:
                show_trace(format_exc())
            failed(folder, AdapterError(unforeseen(folder, error)))
    if format_ == "json":
        click.echo(json.dump({"results": results}))
    sys.exit(code)
