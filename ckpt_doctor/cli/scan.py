"""`ckpt-doctor scan`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..adapter import AdapterError
from ..files.loader import arriving, is_remote, told
from ..reports import BINARY, FORMATS, Style
from ..reports import scan as render
from ..verbs.memory import Memory
from ..verbs.report import Report
from . import options
from .settings import Settings
from .terminal import clean_end, complain, print_to, show_trace, watched, watches, width, write_to

if TYPE_CHECKING:
    from .baseline import Baseline

EPILOG = """\b
Examples:
  ckpt-doctor scan adapters/
  ckpt-doctor scan adapter/ --for peft==0.9.0 --for vllm --base model/
  ckpt-doctor scan adapters/ --format table --format sarif=out.sarif
  ckpt-doctor scan adapters/ --values
  ckpt-doctor scan --files-from list --shard 3/8 --format parquet=part-3.parquet
  ckpt-doctor scan adapters/ --format jsonl --resume journal --jobs auto
  ckpt-doctor scan /adapters --format jsonl --resume journal --dask tcp://head:8786
  ckpt-doctor scan adapters/ --fail-on warning --ignore CD201
  ckpt-doctor scan adapters/ --write-baseline known.json
  ckpt-doctor scan adapters/ --baseline known.json
  ckpt-doctor scan hf://ORG/NAME s3://bucket/adapters/
"""

SHOWN = 10
"""Lines of one kind on standard error."""
SHOWN_BESIDE = 1_000
"""Folders beside adapters that are looked into."""

OF_FLEETS = ("jsonl", "parquet")
"""Formats of which each adapter is a line of text, before they are written."""

Sink = tuple[str, str | None]
"""A format, and the file that it goes to (None: standard output)."""


def _sinks(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[Sink]:
    sinks: list[Sink] = []
    for text in texts:
        format_, has_file, file = text.partition("=")
        if format_ not in FORMATS or (has_file and not file):
            known = ", ".join(FORMATS)
            raise click.BadParameter(f"{text!r} is none of {known}, nor one of them with a file, as json=FILE")
        sinks.append((format_, file or None))
    return sinks


@click.command("scan", epilog=EPILOG, short_help="Say what is wrong, and who rejects it.")
@click.argument("paths", nargs=-1, metavar="PATH…", type=click.Path())
@click.option(
    "--format", "formats", multiple=True, metavar="FORMAT[=FILE]", default=["table"], show_default=True,
    callback=_sinks, **options.variable("FORMAT"), help=f"{', '.join(FORMATS)}; repeatable, each to its own file.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Where the format without a file goes.")
@options.HTML
@click.option(
    "--layers",
    is_flag=True,
    help="Print the rank of every layer: what all share once, the rest as blocks by modules where that fits.",
)
@options.QUIET
@options.verbose("Print the ranks, the tensors and config keys of each finding, and the trace of a fault of ours.")
@options.FAIL
@click.option("--exit-zero", is_flag=True, **options.variable("EXIT_ZERO"), help="Exit with 0 whatever is found.")
@click.option(
    "--values", is_flag=True, **options.variable("VALUES"),
    help="Read every number, too: NaN and infinity, layers that are all zero, what fp16 cannot hold, a lost shard.",
)  # fmt: skip
@options.PROVE
@options.FILES_FROM
@options.SHARD
@options.JOBS
@options.DASK
@options.RESUME
@options.SELECT
@options.IGNORE
@click.option(
    "--baseline", type=click.Path(), metavar="FILE", **options.variable("BASELINE"),
    help="Let the findings pass that this file knows, and name those that are gone.",
)  # fmt: skip
@click.option(
    "--write-baseline", type=click.Path(), metavar="[FILE]", is_flag=False, flag_value="",
    help="Write what is found now as the baseline, to FILE or that of --baseline.",
)  # fmt: skip
@options.judged
@click.pass_context
def command(
    ctx: click.Context, /, paths: tuple[str, ...], formats: list[Sink], output: str | None, html: str | None,
    layers: bool, quiet: bool, verbose: bool, exit_zero: bool, baseline: str | None, write_baseline: str | None,
    prove: bool, files_from: tuple[str, ...] | None, shard: options.Shard | None, resume: str | None, **_: object,
) -> None:  # fmt: skip
    """Say what is wrong with the adapters at PATH, and which PEFT releases it stops.

    PATH is an adapter's folder, one of its files, or a folder with any number of adapters below it; or an address of
    one (hf://ORG/NAME[@REVISION], s3://, gs://, https://; see docs/remote.md). With --for, what stops one of those
    runtimes is an error, what leaves one undecided a warning, and the rest a note. Where there is no adapter at PATH,
    what lies there instead is named, if it is known: other tools' adapters, training states, models.

    Exit code: 0 nothing at or above --fail-on, 1 findings, 2 something could not be examined or no adapter was found.
    """
    sinks = _placed(formats, output, (html, resume))
    target = _target(baseline, write_baseline)
    if not paths and files_from is None:
        raise click.UsageError("name a PATH, or a file of paths with --files-from")
    paths += files_from or ()
    unread: list[Report] = []
    others: list[str] = []
    folders = options.folders(paths, lambda path, error: unread.append(Report(path, error=str(error))), others=others)
    if not paths:
        complain("--files-from names no path")
        sys.exit(2)
    if shard:
        folders, others = list(filter(shard.has, folders)), list(filter(shard.has, others))
        unread = [report for report in unread if shard.has(report.path)]
    style = Style(width(), -1 if quiet else int(verbose), layers or verbose, _root(paths))
    codes = {0}
    remote = any(map(is_remote, folders))
    if remote:
        ctx.with_resource(clean_end())  # so that no download stays
    try:
        known = _baseline(baseline if target is None else None)
        if _is_fleet(
            ctx, sinks, remote, {"--html": html, "--prove": prove, "--baseline": known, "--write-baseline": target}
        ):
            _tell_lines(ctx, folders, unread, sinks[0], codes)
        else:
            blocks = ("table", None) in sinks and watches(sys.stdout)
            coming = arriving(folders, whole=prove or ctx.params["values"])
            one_by_one = watched(coming, len(folders), quiet=quiet or blocks)
            reports = _examined(options.settings(ctx), one_by_one, known, codes, verbose, prove)
            kept = list(reports) if len(sinks) > 1 or target or html or ("github", None) in sinks else None
            for format_, file in sinks:
                batch = chain(kept if kept is not None else reports, () if format_ == "table" else unread)
                _write(format_, file, render(format_, batch, style))
                if format_ == "github" and kept is not None:
                    _summarise(chain(kept, unread))
            if html:
                from ..reports import html as page

                print_to(html, page.scan(chain(kept or (), unread)))
            if target:
                _write_baseline(target, kept or [])
    except AdapterError as error:
        complain(str(error))
        sys.exit(2)
    for report in unread:
        complain(str(report.error))
    if others and not quiet:
        _say_what_lies_beside(sorted(others))
    if known and not quiet:
        _say_what_is_gone(known)
    code = 2 if unread else max(codes)
    sys.exit(0 if code == 1 and (exit_zero or target) else code)


def _is_fleet(ctx: click.Context, sinks: list[Sink], remote: bool, beside: dict[str, object]) -> bool:
    """Whether each adapter is no more than a line of text, as other processes and the journal have it: where these are
    wanted, and of remote ones, which other processes may read. Raises UsageError where the command line wants that and
    something else; what a project's file wants gives way.
    """
    wanted = [name for name, usual in (("resume", None), ("jobs", 1), ("dask", None)) if ctx.params[name] != usual]
    against = [f"--format {format_}" for format_, _ in sinks if len(sinks) > 1 or format_ not in OF_FLEETS]
    against += [option for option, value in beside.items() if value]
    for name in wanted if against else ():
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{name} is for --format {' or '.join(OF_FLEETS)} alone, and does not go with {against[0]}"
            )
    if ctx.params["dask"] and ctx.params["jobs"] != 1 and not against:
        raise click.UsageError("--dask has the workers of a cluster examine, and --jobs processes here: name one")
    return bool(wanted or remote) and not against


def _tell_lines(ctx: click.Context, folders: list[str], unread: list[Report], sink: Sink, codes: set[int]) -> None:
    """Write a line of each adapter as it comes; `codes` gets the exit code of each. Raises AdapterError."""
    from .fleet import AUTO, Fleet, lines

    jobs, resume, dask, verbose, quiet = (ctx.params[name] for name in ("jobs", "resume", "dask", "verbose", "quiet"))
    remote = any(map(is_remote, folders))
    of_disks = "--dask is for adapters on a disk that its workers share"
    if dask and remote and ctx.get_parameter_source("dask") == ParameterSource.COMMANDLINE:
        raise AdapterError(f"{of_disks}: scan remote ones without it, on several machines with --shard")
    format_, file = sink
    choice = options.choice(ctx)
    one_by_one = remote and choice.settings.values  # downloaded
    if remote and not one_by_one and ctx.get_parameter_source("jobs") == ParameterSource.DEFAULT:
        jobs = AUTO
    fleet = Fleet(options.settings(ctx), choice, format_, jobs, resume, dask, verbose=verbose)
    every = watched(fleet.told(folders), len(folders), quiet=quiet)
    _write(format_, file, lines(format_, every, unread, codes))
    if dask and remote and not quiet:
        complain(f"{of_disks}: as there are remote ones, all were examined here")
    if jobs != 1 and one_by_one and not quiet:
        complain("--jobs does nothing where numbers of remote adapters are read: one after the other is downloaded")
    if fleet.again and not quiet:
        complain(f"{fleet.again} of {len(folders)} adapters are unchanged, and told as {resume} has them")


def _write(format_: str, file: str | None, pieces: Iterator[Any]) -> None:
    if format_ in BINARY:
        assert file is not None  # noqa: S101 - `_placed` has seen to it
        write_to(file, pieces)
    else:
        print_to(file, pieces)


def _root(paths: tuple[str, ...]) -> str:
    """The beginning of the paths of all adapters, where one folder was named."""
    from ..adapter import clean

    return clean(os.path.join(told(paths[0]), "")) if len(paths) == 1 else ""


def _placed(sinks: list[Sink], output: str | None, beside: tuple[str | None, ...]) -> list[Sink]:
    """Where each format goes; one at the most to standard output, as the others would be read as part of it, and none
    to a file that is written to `beside` them.
    """
    without = [format_ for format_, file in sinks if file is None]
    if output and not without:
        raise click.UsageError("--output is for a format without a file, and there is none")
    if not output and any(format_ in BINARY for format_ in without):
        raise click.UsageError(f"{without[-1]} is no text: give it a file, as {without[-1]}=FILE")
    if len(without) > 1:
        raise click.UsageError(f"{' and '.join(without)} would be mixed: give one a file, as {without[-1]}=FILE")
    for file in (output, *(file for _, file in sinks)):
        if file and not os.path.isdir(os.path.dirname(file) or "."):
            raise click.UsageError(f"{file} cannot be written: there is no folder {os.path.dirname(file)}")
    placed = [(format_, file or output) for format_, file in sinks]
    files = [os.path.realpath(file) for file in (*(file for _, file in placed), *beside) if file]
    if len(set(files)) < len(files):
        raise click.UsageError("two formats would be written to one file, or one to that of --html or --resume")
    return placed


def _target(baseline: str | None, write_baseline: str | None) -> str | None:
    """The file of --write-baseline."""
    if write_baseline == "" and not baseline:
        raise click.UsageError("--write-baseline needs a FILE, or a --baseline that it can replace")
    target = (write_baseline or baseline) if write_baseline is not None else None
    if target and os.path.isdir(target):
        raise click.UsageError(f"--write-baseline {target}: that is a folder; name a file, or put it after the paths")
    return target


def _examined(
    settings: Callable[[str], Settings], folders: Iterable[str], known: Baseline | None, codes: set[int],
    verbose: bool, prove: bool,
) -> Iterator[Report]:  # fmt: skip
    """The reports as they come; `codes` gets the exit code of each. Raises AdapterError where nothing can be proved."""
    from ..reports.wording import mark

    memory = Memory()
    for folder in folders:
        by = settings(folder)
        report = memory.examine(folder, by.question)
        if verbose:
            show_trace(report.trace)
        if prove and not report.error:
            report = _proved(report)
        report = by.settle(report, known.known(report) if known else frozenset())
        codes.add(mark(report).exit_code)
        yield report


def _proved(report: Report) -> Report:
    from ..verbs.environments import python_of
    from ..verbs.prove import proved, releases

    with clean_end():
        report = proved(report, releases(report), lambda runtime: python_of(runtime, complain))
    for proof in report.proofs:
        if not proof.agrees:
            said = f"{proof.runtime}: {proof.verdict}, and ckpt-doctor says {proof.predicted}"
            complain(f"{report.path}: {said}, which is wrong; please report what `ckpt-doctor prove --format json` has")
    return report


def _baseline(path: str | None) -> Baseline | None:
    if path is None:
        return None
    from .baseline import Baseline

    return Baseline(path)


def _write_baseline(path: str, reports: list[Report]) -> None:
    from .baseline import Baseline, document

    earlier = Baseline(path).entries if os.path.exists(path) else []
    print_to(path, [document(path, reports, earlier)])


def _summarise(reports: Iterable[Report]) -> None:
    """Append to the summary of a GitHub step what was not annotated."""
    from ..reports import github

    file = os.environ.get("GITHUB_STEP_SUMMARY")
    rest = "\n".join(github.rest(reports))
    if file and rest:
        with open(file, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(rest + "\n")


def _say_what_lies_beside(folders: list[str]) -> None:
    """Name the adapters of other tools in a tree with adapters; a model or a training beside them is as usual."""
    from ..adapter.codes import OTHER_FORMAT, OTHER_NAME
    from ..files.recognise import fault_at

    found = [(folder, fault_at(folder)) for folder in folders[:SHOWN_BESIDE]]
    told = [(folder, fault) for folder, fault in found if fault and fault.name in (OTHER_FORMAT.name, OTHER_NAME.name)]
    for folder, fault in told[:SHOWN]:
        complain(f"beside the adapters: {folder}: {fault.message}")
    if len(told) > SHOWN:
        complain(f"beside the adapters: {len(told) - SHOWN} more are of other tools")


def _say_what_is_gone(known: Baseline) -> None:
    gone = known.gone()
    for entry in gone[:SHOWN]:
        complain(f"gone from the baseline: {entry.code} {entry.name} of {entry.path}")
    if gone:
        more = f"{len(gone) - SHOWN} more are gone; " if len(gone) > SHOWN else ""
        complain(f"{more}--write-baseline forgets what is gone")
