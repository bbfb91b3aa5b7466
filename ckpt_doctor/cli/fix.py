"""`ckpt-doctor fix`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from traceback import format_exc
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from ..adapter import NOTHING_ASKED, AdapterError, NotExactError, unforeseen
from ..adapter.runtimes import SERVERS
from ..conversions import WRITTEN
from ..files.loader import CONFIG, Unlisted, is_remote, is_within, reading, told
from ..files.writer import wanted
from ..repairs import DTYPES, Pairs
from ..reports import Style, json, table
from ..verbs.fix import fix, same_place
from ..verbs.plan import RANK_ZERO, WEIGHTS, How, Plan
from ..verbs.scan import examine_all, examined
from . import options
from .settings import Settings
from .terminal import busy, clean_end, complain, print_to, show_trace, width

if TYPE_CHECKING:
    from ..files.writer import Written
    from ..verbs.prove import Proof
    from ..verbs.report import Report

EPILOG = """\b
Examples:
  ckpt-doctor fix adapter/ fixed/
  ckpt-doctor fix adapter/ fixed/ --for 'peft>=0.6,<0.10'
  ckpt-doctor fix adapter/ fixed/ --for servers --base model/
  ckpt-doctor fix adapter/ smaller/ --for vllm --base model/ --drop
  ckpt-doctor fix checkpoint/model.safetensors adapter/ --adapter-config adapter_config.json
  ckpt-doctor fix adapter/ fixed/ --dry-run
  ckpt-doctor fix adapters/ alike/ --to lora --rank 16 --modules union
  ckpt-doctor fix mlx-adapters/ fixed/
  ckpt-doctor fix adapter/ mlx-adapters/ --to mlx
  ckpt-doctor fix --in-place adapters/
  ckpt-doctor fix hf://ORG/NAME fixed/
  ckpt-doctor fix s3://bucket/adapters s3://bucket/fixed --for vllm --base model/
"""


OUTCOMES = ("repaired", "had nothing to repair", "refused", "failed")
"""What may become of an adapter, in the order in which they are told."""


@click.command("fix", epilog=EPILOG, short_help="Repair, without changing what is computed.")
@click.argument("paths", nargs=-1, required=True, metavar="(IN OUT | --in-place PATH…)", type=click.Path())
@click.option(
    "--in-place", is_flag=True,
    help="Repair each adapter at the paths given where it is, if it has an error; an old file stays as .bak, unless "
    "git has it.",
)  # fmt: skip
@click.option(
    "--rank-zero", type=click.Choice(RANK_ZERO), default="pad", show_default=True,
    help="Give rank-0 layers zeros, or take them out of the adapter.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(WEIGHTS),
    help="The format to write; safetensors, unless --for names PEFT 0.2 or 0.3. bin needs ckpt-doctor[torch].",
)  # fmt: skip
@click.option(
    "--to", "form", type=click.Choice(["lora", "peft", *WRITTEN]),
    help="lora: make plain LoRA of one rank and scale; mlx, diffusers, kohya: write it in the form of that tool; "
    "peft: the form that is written anyway, also of what another tool wrote.",
)  # fmt: skip
@click.option(
    "--rank", type=click.IntRange(1), metavar="R",
    help="With --to lora: the rank of all layers, padded with zeros; what is cut to reach it is exactly zero.",
)  # fmt: skip
@click.option(
    "--modules", type=click.Choice(["union"]),
    help="Give each adapter below IN zero pairs for the modules that others of them have, so that they can be merged "
    "and swapped.",
)  # fmt: skip
@click.option("--trim", is_flag=True, help="Cut trailing zeros off the rank, to fit a limit.")
@click.option(
    "--drop", is_flag=True,
    help="Leave out the layers that a server of --for has no place for; what is computed changes, and that is said.",
)  # fmt: skip
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="Write the factors in this type.")
@options.TOLERANCE
@click.option("--for-training", is_flag=True, help="Write an AdaLoRA in the form that can be trained further.")
@click.option("--best-effort", is_flag=True, help="Write what could be repaired, also if --for is not reached.")
@click.option(
    "--copy-all", is_flag=True,
    help="Copy every other file of IN: also those above 10 MB, states of training runs, and other weights.",
)  # fmt: skip
@click.option(
    "--adapter-config", type=click.Path(), metavar="FILE",
    help="The adapter_config.json of an adapter inside a whole model or under another name, where none lies beside it; "
    "or of all in one file.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@options.PROVE
@click.option("--force", is_flag=True, help="Replace an OUT that exists.")
@options.SHORT_FORMAT
@options.HTML
@options.QUIET
@options.verbose("Print the tensors and config keys of each finding, and the trace of a fault of ours.")
@options.judged
@click.pass_context
@clean_end()
def command(
    ctx: click.Context, /, paths: tuple[str, ...], in_place: bool, format_: str, html: str | None, quiet: bool,
    verbose: bool, force: bool, **asked: Any,
) -> None:  # fmt: skip
    """Write the adapter IN to the folder OUT so that what you run accepts it; IN is never written to.

    IN can be a folder with many adapters below it; OUT then has the same folders. IN can be an address (hf://, s3://,
    gs://, https://), and OUT one in a bucket (s3://, gs://) where nothing is. With --for, every runtime that it
    names accepts OUT and computes the same, or nothing is written and the reason is said. With --in-place there is
    no OUT: any number of adapters, trees and files of adapters can be named.

    IN can also be what another tool wrote (MLX, torchtune, loralib, llama.cpp, kohya, diffusers), its folder or its
    file: it becomes an adapter of PEFT, as far as that is exact. Several adapters in one file become folders in OUT,
    and so does each file of a tree. With --to mlx, diffusers or kohya OUT is in the form of that tool.

    With --for llama.cpp the commands that convert OUT and serve it are printed, and not run. Where no repair helps,
    scan --for SERVER --base MODEL prints the one that merges the adapter into its model, or why it is not to be.

    Exit code: 0 OUT is there, 1 refused and nothing written, 2 IN could not be examined, or OUT not written. One
    adapter of many does not stop the others; the highest code wins.
    """
    code = 0
    if asked["rank"] and asked["form"] != "lora":
        raise click.UsageError("--rank goes with --to lora")
    tool = asked["form"] if asked["form"] in WRITTEN else ""
    for option in ("asked", "in_place", "for_training", "prove", "weights", "modules") if tool else ():
        if ctx.get_parameter_source(option) == ParameterSource.COMMANDLINE:
            spelled = "--for" if option == "asked" else f"--{option.replace('_', '-')}"
            raise click.UsageError(f"{spelled} is about an adapter of PEFT, and --to {tool} writes none")
    try:
        jobs = _in_place(paths) if in_place else _into(paths, force=force or asked["dry_run"])
    except AdapterError as error:
        complain(str(error))
        sys.exit(2)
    from ..files.replacing import left_behind

    for old in left_behind(target for target in jobs.values() if target and not is_remote(target)):
        complain(f"{old} was in the place of {os.path.basename(old)} when a fix was killed")
    results = []
    items = []
    configs = set[str]()  # folders that hold the config alone of an adapter in a file of several
    tally = Counter[str]()
    style = Style(width(), -1 if quiet else int(verbose))
    settings = options.settings(ctx)
    asked["modules"] = _union(jobs) if asked["modules"] else None
    ours = in_place or force or asked["dry_run"] or is_remote(paths[1])
    with _Out(None if ours else os.path.normpath(paths[1])) as out:
        for count, folder in enumerate(jobs, 1):
            if folder in configs:
                continue
            try:
                out.claim(jobs[folder])
            except AdapterError as error:
                code = 2
                complain(str(error))
                break
            by = settings(folder)
            for report in _reports(folder, by, jobs[folder] is None, asked["adapter_config"] or "", asked["copy_all"]):
                target = jobs[folder]
                taken = False
                if target is not None and report.part:
                    target = _within(target, report.part)
                    taken = _is_taken(target, os.path.join(folder, report.part), jobs, configs)
                with busy(f"{folder} ({count} of {len(jobs)})", quiet=quiet):
                    done = _taken(folder, target) if taken else _fix(report, target, by, force=force, **asked)
                out.ours |= done.written is not None
                try:
                    output = _output(folder, target, done, format_, asked["dry_run"], style)
                except Exception as error:
                    done = _unforeseen(folder, error, done.written)
                    output = _output(folder, target, done, format_, asked["dry_run"], style)
                code = max(code, done.code)
                tally[done.outcome] += 1
                if html:
                    items.append(_item(folder, target, done, asked["dry_run"]))
                if format_ == "json":
                    results += output
                else:
                    for line in output:
                        click.echo(line)
                if verbose:
                    show_trace(done.trace)
                if done.failure:
                    complain(done.failure)
    if format_ == "json":
        click.echo(json.dump({"results": results}))
    elif (number := max(len(jobs) - len(configs), tally.total())) > 1:
        counts = ", ".join(f"{tally[outcome]} {outcome}" for outcome in OUTCOMES if tally[outcome])
        click.echo(f"{number} adapters: {counts}" + (" (nothing was written)" if asked["dry_run"] else ""))
    if html:
        from ..reports import html as page

        try:
            print_to(html, page.fix(items))
        except AdapterError as error:
            complain(str(error))
            code = 2
    sys.exit(code)


def _is_taken(target: str, own: str, jobs: dict[str, str | None], configs: set[str]) -> bool:
    """Whether another adapter than a part of a file is to be written to `target`. What lies in the folder of its name,
    `own`, may be no more than its config: that folder joins `configs`.
    """
    if own in jobs and os.listdir(own) == [CONFIG]:
        configs.add(own)
    return any(place == target for folder, place in jobs.items() if folder not in configs)


def _taken(folder: str, target: str | None) -> _Done:
    return _Done(1, failure=f"{folder}: {target} is another adapter's place: fix the file alone")


def _reports(folder: str, by: Settings, in_place: bool, config: str, copy_all: bool) -> Iterator[Report]:
    """The adapter, or each of those that a file of another tool holds; a remote one is here until all are fixed. In
    place only what stops a runtime that was asked for is touched.
    """
    question = by.question if in_place else by.question._replace(runtimes=None)
    with reading(folder, whole=wanted(copy_all)):
        yield from examine_all(folder, question, repairs=False, config=config)


def _union(folders: Iterable[str]) -> Pairs:
    """The modules of all adapters; ends where they are of several models, or one cannot be examined."""
    from ..verbs.together import union

    try:
        return union(examined(folder, NOTHING_ASKED, repairs=False) for folder in folders)
    except AdapterError as error:
        complain(str(error))
        sys.exit(1 if isinstance(error, NotExactError) else 2)


class _Out:
    """OUT, where nothing that others made may be written to or replaced; `ours` says that this process made it.

    An adapter that becomes OUT itself is the writer's to place. What is written below it needs OUT to be made first,
    by one process; where nothing is written in the end, it goes again. None for a path means that all is ours.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.ours = path is None
        self.made = False

    def __enter__(self) -> _Out:
        return self

    def __exit__(self, *_: object) -> None:
        if self.made and self.path:
            with suppress(OSError):
                os.rmdir(self.path)

    def claim(self, target: str | None) -> None:
        """Make OUT, if an adapter is to be written below it. Raises AdapterError where others made it meanwhile."""
        if self.ours or not self.path or target == self.path:
            return
        from ..files.replacing import taken

        try:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            os.mkdir(self.path)
        except FileExistsError:
            raise taken(self.path) from None
        except OSError as error:
            raise AdapterError(f"{self.path} cannot be written: {error.strerror}") from None
        self.ours = self.made = True


def _into(paths: tuple[str, ...], *, force: bool) -> dict[str, str | None]:
    """From the adapters of IN to their folders in OUT. Raises AdapterError, and UsageError for other than two paths."""
    if len(paths) != 2:
        raise click.UsageError("name IN and OUT, or --in-place and what is to be repaired where it is")
    source, out = paths
    folders = _below(source)
    if same_place(source, out):
        raise AdapterError(f"{told(out)} is {told(source)}, or one lies within the other: name another folder")
    if is_remote(out):
        from ..files.upload import check_free

        check_free(out)
    elif os.path.lexists(out):
        from ..files.replacing import check_replaceable

        check_replaceable(out, force=force)
    targets: dict[str, str | None] = {}
    for folder in folders:
        target = _within(out, _from(source, folder))
        if folder != source and os.path.isfile(folder):  # one of several of another tool
            bare, _ = os.path.splitext(target)
            target = target if bare in targets.values() else bare
        targets[folder] = target
    return targets


def _from(source: str, folder: str) -> str:
    """The way from IN to an adapter below it; "" where IN is that adapter, or a file of it."""
    if is_remote(source):
        return folder.removeprefix(told(source)).strip("/") if folder.startswith(told(source)) else ""
    return os.path.relpath(folder, source) if is_within(folder, source) else ""


def _within(out: str, way: str) -> str:
    """Where in OUT an adapter is written to."""
    if is_remote(out):
        return "/".join(filter(None, (told(out), way.replace(os.sep, "/"))))
    return os.path.normpath(os.path.join(out, way))


def _below(source: str) -> list[str]:
    """The adapters at and below a path, and beside them what another tool wrote. Raises AdapterError where there is
    nothing of which one can be made.
    """
    from ..files import recognise
    from ..verbs.conversion import apart

    others: list[str] = []
    try:
        return sorted([*options.adapters_below(source, others=others), *apart(others)])
    except Unlisted:
        raise
    except AdapterError:
        found = apart(recognise.below(source))
        if not found:
            raise
        return found


def _in_place(paths: tuple[str, ...]) -> dict[str, str | None]:
    """The adapters at and below paths, each once. Raises AdapterError where one of them has none."""

    def failed(_: str, error: AdapterError) -> None:
        raise error

    if any(map(is_remote, paths)):
        raise AdapterError("--in-place is for adapters on a disk: name IN and OUT for a remote one")
    return dict.fromkeys(options.folders(paths, failed))


class _Done(NamedTuple):
    """What became of one adapter."""

    code: int
    plan: Plan | None = None
    written: Written | None = None
    failure: str | None = None
    trace: str | None = None

    @property
    def outcome(self) -> str:
        """What became of it, as it is counted."""
        if self.plan is None:
            return "refused" if self.code == 1 else "failed"
        return ("repaired" if self.plan.done else "had nothing to repair") if self.code == 0 else "refused"


def _unforeseen(folder: str, error: Exception, written: Written | None = None) -> _Done:
    return _Done(2, None, written, unforeseen(folder, error), format_exc())


def _output(folder: str, target: str | None, done: _Done, format_: str, dry_run: bool, style: Style) -> list[Any]:
    """What is printed of one adapter: lines, or an object for the JSON of all."""
    if format_ == "json":
        entry = json.fix(folder, target or folder, done.plan, done.written, done.failure)
        json.dump(entry)  # what JSON cannot say (nested too deeply) fails here, and not together with the others
        return [entry]
    if done.plan:
        return list(table.fix(done.plan, target, done.written, dry_run, style))
    return []


def _item(folder: str, target: str | None, done: _Done, dry_run: bool) -> dict[str, Any]:
    """What a page tells of one adapter."""
    from ..reports import html as page

    return page.fixed(folder, target, done.plan, done.written, done.failure, dry_run=dry_run)


def _load(report: Report) -> tuple[Proof, ...]:
    """What the releases of PEFT that were asked for make of it, or the one that is installed."""
    from ..verbs.environments import python_of
    from ..verbs.prove import proved, releases

    return proved(report, releases(report), lambda runtime: python_of(runtime, complain)).proofs


def _fix(
    report: Report, target: str | None, by: Settings, *, force: bool, dry_run: bool, best_effort: bool, copy_all: bool,
    tolerance: float, rank_zero: str, weights: str | None, for_training: bool, form: str | None, trim: bool,
    dtype: str | None, drop: bool, prove: bool, rank: int | None, modules: Pairs | None, **_: object,
) -> _Done:  # fmt: skip
    if drop and not (by.asked or frozenset()) & SERVERS:
        return _Done(2, failure="--drop leaves out what a server has no place for: name one with --for")
    folder = report.path
    if report.error:
        return _Done(2, failure=report.error, trace=report.trace)
    tool = form if form in WRITTEN else ""
    origin = report.adapter.origin if report.adapter else None
    if target is None and origin:
        return _Done(1, failure=f"{folder}: {origin.message}: it is converted to a place of its own, with IN and OUT")
    try:
        plan, written = fix(
            report, target, None if tool else by.asked,
            How(
                rank_zero, weights, for_training, form == "lora", trim, dtype, drop, rank, modules,
                tool or "",
            ),
            tolerance=tolerance, best_effort=best_effort, copy_all=copy_all, dry_run=dry_run, force=force,
            load=_load if prove else None,
        )  # fmt: skip
        return _Done(int(not plan.fixed), plan, written)
    except AdapterError as error:
        return _Done(1 if isinstance(error, NotExactError) else 2, failure=str(error))
    except OSError as error:
        return _Done(2, failure=f"{folder}: {error}")
    except Exception as error:
        return _unforeseen(folder, error)
