"""`ckpt-doctor preload`."""

from __future__ import annotations

import os
import sys

import click

from ..adapter import AdapterError
from ..adapter.runtimes import UnknownRuntimeError
from ..files.hub import fetched
from . import options
from .terminal import busy, clean_end, complain

EPILOG = """\b
Examples:
  ckpt-doctor preload adapter/
  ckpt-doctor preload ORG/NAME --for peft==0.9.0
  ckpt-doctor preload s3://bucket/adapter --for vllm
  vllm serve model/ --enable-lora --lora-modules "mine=$(ckpt-doctor preload adapter/ --for vllm --base model/)"

Copies are kept in $CKPT_DOCTOR_CACHE, or ~/.cache/ckpt-doctor; any of them can be removed at any time.
"""


@click.command("preload", epilog=EPILOG, short_help="Print a path that can be loaded.")
@click.argument("path", metavar="PATH")
@click.option("--subfolder", metavar="NAME", help="Which of several adapters below PATH.")
@click.option("--revision", metavar="NAME", help="The branch, tag or commit on the Hub.")
@click.option("--strict", is_flag=True, help="Refuse what is not known to be accepted.")
@options.judged
@click.pass_context
@clean_end()
def command(
    ctx: click.Context, /, path: str, subfolder: str | None, revision: str | None, strict: bool, **_: object
) -> None:
    """Print the path that can be loaded: PATH itself, or a repaired copy of it.

    PATH is an adapter, a folder with one below it, an id on the Hub, or an address (hf://, s3://, gs://, https://),
    whose files are kept in the cache. Without --for, it has to load in the PEFT that
    is installed here.

    Exit code: 0 the path is printed, 1 no repair makes it load, 2 it could not be examined.
    """
    from ..verbs.preload import AdapterRejected, ready

    try:
        folder = fetched(path, subfolder, revision)
        with busy("preparing a copy"):
            loadable, doubt = ready(folder, options.settings(ctx, warn=False)(folder).question, strict=strict)
    except AdapterRejected as error:
        complain(str(error))
        sys.exit(1)
    except (AdapterError, UnknownRuntimeError) as error:
        complain(str(error))
        sys.exit(2)
    if doubt:
        complain(doubt)
    click.echo(os.fsencode(loadable))  # to the byte, whatever the locale
