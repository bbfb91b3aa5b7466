"""`ckpt-doctor prove`."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..adapter import AdapterError
from ..adapter.runtimes import SERVERS, UnknownRuntimeError, installed, parse
from ..files.loader import arriving
from ..reports import Style, json, table
from ..verbs.memory import Memory
from . import options
from .terminal import busy, clean_end, complain, show_trace, width

EPILOG = """\b
Examples:
  ckpt-doctor prove adapter/
  ckpt-doctor prove adapters/ --with peft==0.9.0
  ckpt-doctor prove adapter/ --with installed --base model/ --format json
  ckpt-doctor prove adapter/ --with transformers --base model/
"""


def _release(_: click.Context, __: click.Parameter, spec: str) -> str:
    """The id of the one release of PEFT or transformers that is named."""
    try:
        if spec == "installed":
            return f"peft=={installed()}"
        ids = parse(spec)
    except UnknownRuntimeError as error:
        raise click.BadParameter(str(error)) from None
    (id_, *others) = sorted(ids)
    if others or not id_.startswith(("peft==", "transformers==")):
        raise click.BadParameter(f"{spec} is not one release of PEFT: name it as peft==0.9.0, or transformers")
    return id_


@click.command("prove", epilog=EPILOG, short_help="Load it in the real PEFT, on a skeleton of its model.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path())
@click.option(
    "--with", "runtime", default="installed", show_default=True, metavar="RELEASE", callback=_release,
    help="The PEFT that is installed here, or another, as peft==0.9.0, or transformers (with --base), for which the "
    "cache gets an environment, once.",
)  # fmt: skip
@options.SHORT_FORMAT
@options.QUIET
@options.verbose("Print every layer that computes something else, and the trace of a fault of ours.")
@options.CONFIG
@options.BASE
@options.ADAPTER_NAME
@click.pass_context
@clean_end()
def command(
    ctx: click.Context, /, paths: tuple[str, ...], runtime: str, format_: str, quiet: bool, verbose: bool, **_: Any
) -> None:
    """Load each adapter at and below PATH in a real PEFT, and compare what its layers compute with what its files say.

    No base model is needed: the adapter is put on a skeleton, a model with a module of the right kind and size for each
    that the adapter has, whose weights take no memory. It runs in a process of its own, with bounds on time and memory
    and without network. Needs the extra `prove`, which is torch, and PEFT.

    Exit code: 0 nothing is rejected or misloaded, 1 something is, 2 something could not be examined, or that PEFT not
    be had.
    """
    from ..verbs.environments import python_of
    from ..verbs.prove import prove

    code, results = 0, []
    style = Style(width(), -1 if quiet else int(verbose))
    settings = options.settings(ctx)

    def failed(path: str, error: AdapterError) -> None:
        nonlocal code
        code = 2
        complain(str(error))
        results.append(json.prove(path, None, None, str(error)))

    try:
        python = python_of(runtime, complain)
    except AdapterError as error:
        complain(str(error))
        sys.exit(2)
    memory = Memory()
    for folder in arriving(options.folders(paths, failed), whole=True):
        question = settings(folder).question
        if runtime in SERVERS:  # whose verdicts are those that are asked for
            question = question._replace(runtimes=frozenset((runtime,)))
        report = memory.examine(folder, question)
        if report.error:
            if verbose:
                show_trace(report.trace)
            failed(folder, AdapterError(report.error))
            continue
        try:
            with busy(f"loading {folder}", quiet=quiet):
                proof = prove(report, runtime, python)
        except AdapterError as error:
            failed(folder, error)
            continue
        if format_ == "table":
            for line in table.prove(folder, proof, style):
                click.echo(line)
        results.append(json.prove(folder, report, proof, None))
        code = max(code, int(proof.verdict in ("rejects", "misloads")))
    if format_ == "json":
        click.echo(json.dump({"results": results}))
    sys.exit(code)
