"""The command line; the only module that prints and exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from . import __version__
from .adapter import AdapterError, Base, NotExactError
from .findings import SEVERITIES, Report
from .loader import find

CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, package_name="ckpt-doctor", message="ckpt-doctor %(version)s")
def main() -> None:
    """Find what is wrong with fine-tuning adapters, and repair it without changing what they compute."""
    # numpy's threads wait for each other longer than these small products take
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _folders(paths: tuple[str, ...], errors: list[Report]) -> Iterator[str]:
    seen: set[str] = set()
    for path in paths:
        try:
            found = find(path)
            if not found:
                raise AdapterError(f"no adapter was found in {path}")
        except AdapterError as error:
            errors.append(Report(path, error=str(error)))
            continue
        for folder in found:
            if os.path.realpath(folder) not in seen:
                seen.add(os.path.realpath(folder))
                yield folder


def _runtimes(_: click.Context, __: click.Parameter, specs: tuple[str, ...]) -> frozenset[str] | None:
    """What --for names, each time it is given."""
    if not specs:
        return None
    from .runtimes import UnknownRuntimeError, parse

    try:
        return frozenset().union(*(parse(spec) for spec in specs))
    except UnknownRuntimeError as error:
        raise click.BadParameter(str(error)) from None


FOR = click.option(
    "--for", "asked", multiple=True, metavar="SPEC", callback=_runtimes,
    help="A runtime that has to accept it: peft (the newest), peft==0.9.0, 'peft>=0.6,<0.10', 'peft==*', installed, "
    "vllm, sglang, llama.cpp, transformers, servers (those four), tgi, lorax, tensorrt-llm, ollama.",
)  # fmt: skip
ADAPTER_NAME = click.option(
    "--adapter-name", default="default", show_default=True, metavar="NAME",
    help="The name that it will be loaded under; PEFT looks for it within the names of modules.",
)  # fmt: skip


def _base(_: click.Context, __: click.Parameter, path: str | None) -> Base | None:
    if path is None:
        return None
    from .base import load_base

    try:
        return load_base(path)
    except AdapterError as error:
        raise click.BadParameter(str(error)) from None


BASE = click.option(
    "--base", metavar="PATH", callback=_base,
    help="The base model: a folder, a safetensors file or an index. Headers and config only are read.",
)  # fmt: skip

MAX_RANK = click.option(
    "--max-rank", type=click.IntRange(1), metavar="N", help="The rank limit of the server; without it none is assumed."
)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--layers", "with_layers", is_flag=True, help="Print the rank of every layer.")
@click.option(
    "--fail-on", type=click.Choice([*reversed(SEVERITIES), "never"]), default="error", show_default=True,
    help="The least severity that makes the exit code 1.",
)  # fmt: skip
@FOR
@ADAPTER_NAME
@BASE
@MAX_RANK
def scan(
    paths: tuple[str, ...], format_: str, with_layers: bool, fail_on: str, asked: frozenset[str] | None,
    adapter_name: str, base: Base | None, max_rank: int | None,
) -> None:  # fmt: skip
    """Say what is wrong with the adapters at PATH, and which PEFT releases it stops.

    PATH is an adapter's folder, one of its files, or a folder with any number of adapters below it. With --for, what
    stops one of those runtimes is an error, what leaves one undecided a warning, and the rest a note.

    Exit code: 0 nothing at or above --fail-on, 1 findings, 2 something could not be examined or no adapter was found.
    """
    from .doctor import scan as examine

    errors: list[Report] = []
    reports: list[Report] = []
    for folder in _folders(paths, errors):
        reports.append(examine(folder, asked=asked, loaded_as=adapter_name, base=base, max_rank=max_rank))
        if format_ == "table":
            from .reporters import table

            click.echo("\n".join(table.block(reports[-1], with_layers)))
    reports += errors
    if format_ == "json":
        from .reporters import json

        click.echo(json.scan(reports))
    for report in errors if format_ == "table" else ():
        click.echo(f"ckpt-doctor: {report.error}", err=True)
    hits = set(SEVERITIES[SEVERITIES.index(fail_on) :]) if fail_on != "never" else set()
    if any(report.error for report in reports):
        sys.exit(2)
    sys.exit(int(any(finding.severity in hits for report in reports for finding in report.findings)))


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="The largest relative difference.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def compare(first: str, second: str, tolerance: float, format_: str) -> None:
    """Say whether the adapters A and B compute the same function: every delta, and every other tensor.

    Across methods (AdaLoRA against LoRA), file formats, prefixes and dtypes; without the base model.

    Exit code: 0 the same within --tolerance, 1 different, 2 cannot tell.
    """
    from .compare import compare as examine
    from .loader import load
    from .reporters import comparison

    try:
        adapters = []
        for path in (first, second):
            found = find(path)
            if len(found) != 1:
                raise AdapterError(f"{path} holds {len(found)} adapters: name one")
            adapters.append(load(found[0]))
        result = examine(adapters[0], adapters[1], tolerance)
    except AdapterError as error:
        click.echo(f"ckpt-doctor: {error}", err=True)
        sys.exit(2)
    click.echo("\n".join(comparison.table(result) if format_ == "table" else comparison.json(result)))
    sys.exit({"same": 0, "different": 1, "cannot tell": 2}[result.verdict])


@main.command()
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option(
    "--rank-zero", type=click.Choice(["pad", "prune"]), default="pad", show_default=True,
    help="Give rank-0 layers zeros, or take them out of the adapter.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["safetensors", "bin", "same"]),
    help="The format to write; safetensors, unless --for names PEFT 0.2 or 0.3. bin needs ckpt-doctor[torch].",
)  # fmt: skip
@click.option(
    "--copy-all", is_flag=True,
    help="Copy every other file of IN: also those above 10 MB, states of training runs, and other weights.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option("--force", is_flag=True, help="Replace an OUT that exists.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@FOR
@click.option("--to", "form", type=click.Choice(["lora"]), help="Make plain LoRA of one rank and scale.")
@click.option("--trim", is_flag=True, help="Cut trailing zeros off the rank, to fit a limit.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="Write the factors in this type.")
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="The relative error allowed in a delta.")
@click.option("--for-training", is_flag=True, help="Write an AdaLoRA in the form that can be trained further.")
@click.option("--best-effort", is_flag=True, help="Write what could be repaired, also if --for is not reached.")
@ADAPTER_NAME
@BASE
@MAX_RANK
def fix(
    source: str, out: str, rank_zero: str, weights: str | None, copy_all: bool, dry_run: bool, force: bool,
    format_: str, asked: frozenset[str] | None, for_training: bool, best_effort: bool, adapter_name: str,
    base: Base | None, max_rank: int | None, form: str | None, trim: bool, dtype: str | None, tolerance: float,
) -> None:  # fmt: skip
    """Write the adapter IN to the folder OUT so that older PEFT releases accept it; IN is never written to.

    IN can be a folder with many adapters below it; OUT then has the same folders. With --for, every runtime that it
    names accepts OUT and computes the same, or nothing is written and the reason is said.

    Exit code: 0 OUT is there, 1 refused and nothing written, 2 IN could not be examined.
    """
    from . import doctor

    try:
        folders = find(source)
        if not folders:
            raise AdapterError(f"no adapter was found in {source}")
        root = source if os.path.isdir(source) else folders[0]
        if doctor.same_place(root, out):
            raise AdapterError(f"{out} is {source}, or one lies within the other: name another folder")
        if os.path.lexists(out) and not force and not dry_run:
            raise AdapterError(f"{out} exists; name another folder, or use --force to replace it")
    except AdapterError as error:
        click.echo(f"ckpt-doctor: {error}", err=True)
        sys.exit(2)
    from .reporters import json, table

    results = []
    code = 0
    for folder in folders:
        target = os.path.normpath(os.path.join(out, os.path.relpath(folder, root)))
        report = doctor.scan(folder, loaded_as=adapter_name, base=base, max_rank=max_rank)
        plan, written, failure = None, None, report.error
        if not failure:
            try:
                plan = doctor.plan(
                    report, asked=asked, rank_zero=rank_zero, weights=weights, training=for_training,
                    to_lora=form == "lora", trim=trim, dtype=dtype,
                )  # fmt: skip
                code = max(code, int(not plan.fixed))
                if (plan.fixed or (best_effort and plan.done)) and not dry_run:
                    written = doctor.fix(plan, target, force=force, copy_all=copy_all, tolerance=tolerance)
            except AdapterError as error:
                failure = str(error)
                code = max(code, 1 if isinstance(error, NotExactError) else 2)
        else:
            code = 2
        if format_ == "json":
            results.append(json.fix(folder, target, plan, written, failure))
        elif plan and not failure:
            click.echo("\n".join(table.fix(plan, target, written, dry_run)))
        if failure:
            click.echo(f"ckpt-doctor: {failure}", err=True)
    if format_ == "json":
        click.echo(json.dump({"results": results}))
    sys.exit(code)


if __name__ == "__main__":
    main()
