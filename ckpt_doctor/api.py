"""What programs call: scan, fix, compare, load, preload for one adapter; scan_tree and ranks for all of a folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .adapter import Adapter, AdapterError, Question, question_of
from .adapter.findings import ERROR, Finding
from .adapter.runtimes import UnknownRuntimeError, unreviewed
from .adapter.summary import first, html, text
from .conversions import WRITTEN
from .files import pins
from .files.base import named_base
from .files.hub import fetched
from .files.loader import arriving, find, is_remote, locate, nothing_in, reading
from .files.loader import load as load_folder
from .repairs import DTYPES
from .verbs.conversion import located
from .verbs.fix import fix as fixed
from .verbs.fix import same_place
from .verbs.plan import RANK_ZERO, WEIGHTS, How
from .verbs.planner import Step
from .verbs.preload import AdapterRejected, ready
from .verbs.report import Report
from .verbs.scan import examine, examine_all, examined

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .verbs.compare import Comparison
    from .verbs.prove import Proof
    from .verbs.ranks import Ranks, Run

AnyPath = str | os.PathLike[str]


class FixResult(NamedTuple):
    """What became of a fix.

    `out` is the folder that was written, an address where it is remote, None where none was. `fixed` says whether all
    that was asked for is reached (under `dry_run`: would be), and so does the result itself, as in `if fix(…):`. What
    only a base model that was not given would decide, or a release that nobody reviewed, is a doubt, and makes neither
    false, as the command exits with 0. `repairs` were made, `refused` have a reason why not; `remaining` are the
    findings of the result. `proof` is the comparison with the original, `left_out` the names of files that were not
    copied.
    """

    out: Path | str | None
    fixed: bool
    before: Report
    repairs: tuple[Step, ...]
    refused: tuple[Step, ...]
    remaining: tuple[Finding, ...]
    proof: dict[str, Any] | None
    left_out: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether all that was asked for is reached, which a result that `best_effort` wrote may not."""
        return self.fixed

    def _summary(self) -> list[tuple[str, str]]:
        left = [finding for finding in self.remaining if finding.severity == ERROR]
        proof = self.proof
        return [
            ("path", self.before.path),
            ("written", "nothing" if self.out is None else str(self.out)),
            ("fixed", "yes" if self.fixed else "no"),
            *first([("repair", step.title) for step in self.repairs]),
            *first([("refused", f"{step.title}: {step.reason}") for step in self.refused]),
            *first([(finding.severity, f"{finding.code} {finding.name}: {finding.message}") for finding in left]),
            *(
                [("proof", f"{proof['verdict']}: differs by {proof['largest_relative_difference']:.2g} at most")]
                if proof
                else []
            ),
        ]

    def __repr__(self) -> str:
        return text("FixResult", self._summary())

    def _repr_html_(self) -> str:
        return html("FixResult", self._summary())


@contextmanager
def _arguments_named() -> Iterator[None]:
    """What is raised in it speaks of the arguments of these functions, not of the options of the command."""
    try:
        yield
    except AdapterError as error:
        error.args = (_in_arguments(str(error)), *error.args[1:])
        if isinstance(error, AdapterRejected):
            error.report = _of_arguments(error.report)
            error.findings = _findings_of_arguments(error.findings)
        raise


def _in_arguments(sentence: str) -> str:
    """`name it with --base` → `name it with base=`; what is no argument here stays, as an option of a server."""
    if "--" not in sentence:
        return sentence
    import re
    from inspect import signature

    parameters = {**signature(scan).parameters, **signature(fix).parameters, **signature(preload).parameters}

    def argument(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        for known in (name, f"{name}_"):
            if known in parameters:
                return known + ("=True" if parameters[known].default is False else "=")
        return option[0]

    return re.sub(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)(?![\w-])", argument, sentence)


def _findings_of_arguments(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(
        finding._replace(message=_in_arguments(finding.message), needs=finding.needs and _in_arguments(finding.needs))
        for finding in findings
    )


def _of_arguments(report: Report) -> Report:
    return report._replace(
        findings=_findings_of_arguments(report.findings), error=report.error and _in_arguments(report.error)
    )


def _steps_of_arguments(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(step._replace(reason=step.reason and _in_arguments(step.reason)) for step in steps)


def _check(name: str, value: object, choices: Collection[object]) -> None:
    """Raises ValueError for a value that an argument does not take."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, choices))}")


@_arguments_named()
def load(path: AnyPath) -> Adapter:
    """Read the one adapter at or below `path`: its config, and dtype, shape and place of each tensor.

    Raises AdapterError for what cannot be examined; what is damaged is in `faults` of the result.
    """
    return load_folder(locate(os.fspath(path)))


@_arguments_named()
def scan(
    path: AnyPath, for_: str | Iterable[str] | None = None, *, base: AnyPath | None = None,
    adapter_name: str = "default", max_rank: int | None = None, values: bool = False,
) -> Report:  # fmt: skip
    """Examine the one adapter at or below `path`, which may be an address (docs/remote.md).

    `for_` names the runtimes that matter, as "peft==0.9.0", ["peft>=0.6,<0.10", "vllm"], "installed", or a
    lock file or requirements that pin them ("uv.lock"); what stops one
    of them is an error. `base` is the model (without it the local cache of the Hub is looked up where one of them is
    undecided; "none": not there either), `adapter_name` what it will be loaded under, `max_rank` the limit of the
    server. With `values` every number of the weights is read, too, and NaN and infinity stop every runtime. Of a
    release that nobody reviewed every verdict is "unknown", and a finding (CD902) says so. Raises AdapterError where it
    cannot be examined, UnknownRuntimeError (a ValueError) where `for_` is misspelt or names what never was, ValueError
    for another value that is not taken.
    """
    question = _question(for_, base, adapter_name, max_rank, values=values)
    folder = locate(os.fspath(path))
    with reading(folder, whole=values):
        return _of_arguments(examined(folder, question))


@_arguments_named()
def scan_tree(
    path: AnyPath, for_: str | Iterable[str] | None = None, *, base: AnyPath | None = None,
    adapter_name: str = "default", max_rank: int | None = None, values: bool = False,
    executor: Executor | None = None, workers: int | None = None,
) -> Iterator[Report]:  # fmt: skip
    """Examine every adapter at and below `path`, in the order of their paths: each report as soon as it is there.

    Arguments as of `scan`. An adapter that cannot be examined stops none of the others: its report has an `error`, and
    nothing else. Raises at once, AdapterError where there is no adapter, and ValueError as `scan` does.

    With an `executor` (concurrent.futures: a ProcessPoolExecutor, that of loky, `Client(…).get_executor()` of Dask)
    its workers examine, which see the same paths; `workers` is how many it has (None: as it says, or as there are
    cores here). What they do when one is lost is done again, and one that ends them each time has an `error`. Raises
    AdapterError, while it is iterated over, where the executor takes no more work, or a worker has another
    ckpt-doctor; at once for remote adapters, many of which are on the way at once without it. It is left as it is.
    """
    question = _question(for_, base, adapter_name, max_rank, values=values)
    if workers is not None and not workers >= 1:
        raise ValueError(f"workers={workers!r} is no number of workers: give 1 or more, or None")
    folders = find(os.fspath(path))
    if not folders:
        raise nothing_in(os.fspath(path))
    if executor is None:
        return _reports(folders, question)
    if any(map(is_remote, folders)):
        raise AdapterError("executor= is for adapters on a disk that its workers share: scan remote ones without it")
    from .verbs.batches import Batches, Job

    width = workers or getattr(executor, "_max_workers", None) or os.cpu_count() or 1  # as the standard library has it
    batches = Batches(executor, partial(partial, examine, question=question), lambda: width, len(folders))
    jobs = batches.told(map(Job[Report], folders))
    return (_of_arguments(job.answer or Report(job.task, error=job.lost)) for job in jobs)


def _reports(folders: list[str], question: Question) -> Iterator[Report]:
    for folder in arriving(folders, whole=question.values):
        yield _of_arguments(examine(folder, question))


@_arguments_named()
def fix(
    src: AnyPath, out: AnyPath, for_: str | Iterable[str] | None = None, *, base: AnyPath | None = None,
    adapter_name: str = "default", max_rank: int | None = None, rank_zero: str = "pad", weights: str | None = None,
    to_lora: bool = False, trim: bool = False, dtype: str | None = None, for_training: bool = False,
    drop: bool = False, tolerance: float = 1e-6, best_effort: bool = False, copy_all: bool = False,
    dry_run: bool = False, force: bool = False, to: str | None = None, adapter_config: AnyPath | None = None,
    part: str | None = None,
) -> FixResult:  # fmt: skip
    """Write the one adapter at or below `src` to the folder `out` so that the runtimes of `for_` take it.

    `src` can also be what another tool wrote, or a model with an adapter inside, as of the command (docs/fix.md):
    `adapter_config` is then the config of the adapter, where none lies there, and `part` names one of several in a
    file. `to` writes the form of another tool, "mlx", "diffusers" or "kohya"; `for_`, `weights` and `for_training` are
    about adapters of PEFT and do not go with it.

    Without `for_`, what needs no runtime to be named is repaired. It is proved that the result computes the same;
    otherwise, and where not all is reached, nothing is written, unless `best_effort`. `for_`, `base`, `adapter_name`
    and `max_rank` as of `scan`; a release that nobody reviewed is left out, with a UserWarning, and where no other is
    asked for it goes as without `for_`.

    `rank_zero` is what becomes of rank-0 layers: "pad" gives them zeros, "prune" takes them out. `weights` is the
    format to be written, "safetensors", "bin" or "same" (None: the one that the runtimes of `for_` read). `to_lora`
    makes plain LoRA of one rank and scale, `trim` cuts trailing zeros off the rank, `dtype` ("fp32", "bf16", "fp16") is
    what factors are written in, `for_training` gives an AdaLoRA the form that can be trained further. `tolerance` is
    the difference allowed in a delta, relative to its norm. `copy_all` also copies what is left out else, `dry_run`
    writes nothing, `force` replaces an `out` that exists.

    Raises AdapterError where `src` cannot be examined or `out` not be written, NotExactError where the result would
    compute something else, UnknownRuntimeError as in `scan`, ValueError for another value that is not taken.
    """
    _check("rank_zero", rank_zero, RANK_ZERO)
    _check("weights", weights, (None, *WEIGHTS))
    _check("dtype", dtype, (None, *DTYPES))
    _check("to", to, (None, *WRITTEN))
    _check_tolerance(tolerance)
    if to is not None and (for_ is not None or weights is not None or for_training):
        raise ValueError(f"to={to!r} writes no adapter of PEFT, which for_, weights and for_training are about")
    question = _question(for_, base, adapter_name, max_rank)
    from .files.writer import wanted

    source, target = located(os.fspath(src)), os.fspath(out)
    if same_place(source, target):
        raise AdapterError(f"{target} is {source}, or one lies within the other: name another folder")
    for doubt in unreviewed(question.runtimes or ()).values():
        warnings.warn(doubt, UserWarning, stacklevel=3)  # 2 is the decorator
    config = os.fspath(adapter_config) if adapter_config is not None else ""
    how = How(rank_zero, weights, for_training, to_lora, trim, dtype, drop, tool=to or "")
    with reading(source, whole=wanted(copy_all)):
        report = _one(examine_all(source, question._replace(runtimes=None), repairs=False, config=config), part)
        plan, written = fixed(
            report, target, question.runtimes, how,
            tolerance=tolerance, best_effort=best_effort, copy_all=copy_all, dry_run=dry_run, force=force,
        )  # fmt: skip
    out_ = None if written is None else written.out if is_remote(target) else Path(target)
    return FixResult(
        out_, plan.fixed, _of_arguments(report), plan.done,
        _steps_of_arguments(plan.refused), _findings_of_arguments(plan.findings), written.proof if written else None,
        written.left_out if written else (),
    )  # fmt: skip


def _one(reports: list[Report], part: str | None) -> Report:
    """The one report, or that of the part that is named. Raises AdapterError."""
    found = [report for report in reports if part in (None, report.part)]
    if len(found) != 1:
        names = ", ".join(report.part for report in reports if report.part)
        held = f"the adapters {names}: name one as part=" if names else "one adapter, which has no part to be named"
        raise AdapterError(f"{reports[0].path} holds {held}")
    if found[0].error:
        raise AdapterError(found[0].error)
    return found[0]


@_arguments_named()
def compare(a: AnyPath, b: AnyPath, tolerance: float = 1e-6) -> Comparison:
    """Whether two adapters compute the same function, without the base model.

    `verdict` of the result is "same", "different" or "cannot tell", and `if compare(a, b):` asks whether it is the
    first (ValueError where that cannot be told). `tolerance` is relative to the norm of each delta. Raises AdapterError
    where one cannot be examined, ValueError for a tolerance below 0.
    """
    _check_tolerance(tolerance)
    from .verbs.compare import compared

    return compared(os.fspath(a), os.fspath(b), tolerance)


def ranks(*paths: AnyPath, values: bool = False) -> list[Ranks | Run]:
    """The ranks of the adapters at and below paths; checkpoints of one training, or the log of one, are one `Run`.

    Of each `verdict` is what is to be seen, `advice` what to change in training, `layers` have their place and rank.
    With `values` the numbers are read: `spectra` by layer, `energy`, and `smallest`, the rank that would do. Raises
    AdapterError where something cannot be examined, or there is nothing.
    """
    from .verbs.ranks import look

    return look([os.fspath(path) for path in paths], values=values)


@_arguments_named()
def preload(
    path: AnyPath, for_: str | Iterable[str] = "installed", *, subfolder: str | None = None,
    revision: str | None = None, base: AnyPath | None = None, adapter_name: str = "default",
    max_rank: int | None = None, strict: bool = False, prove: bool = False,
) -> Path:  # fmt: skip
    """The path that the runtimes of `for_` can load: `path` itself, or a repaired copy of it.

    `path` is an adapter, a folder with just one below it (or the one in `subfolder`), or an id on the Hub (at
    `revision`). "installed" is the PEFT that can be imported here. Where all accept it, the path comes back as it was
    given. Where one would reject or misload it, the path of a copy in the cache (see `cache.root`), proved to compute
    the same. Where it is not known, the path with a UserWarning; under `strict` that is an error.

    With `prove` the PEFT of `for_` loads what is returned on a skeleton of its model first (docs/prove.md).

    Raises AdapterRejected where no copy would do, AdapterError where it cannot be examined or found,
    UnknownRuntimeError as in `scan`, ValueError for another value that is not taken; for a release that nobody reviewed
    it is not known.
    """
    question = _question(None if for_ == "installed" else for_, base, adapter_name, max_rank)
    folder = fetched(os.fspath(path), subfolder, revision)
    loadable, doubt = ready(folder, question, strict=strict, load=_load if prove else None)
    if doubt:
        warnings.warn(_in_arguments(doubt), UserWarning, stacklevel=3)  # 2 is the decorator
    return Path(loadable)


def _load(report: Report) -> tuple[Proof, ...]:
    from .verbs.environments import python_of
    from .verbs.prove import proved, releases

    return proved(report, releases(report), lambda runtime: python_of(runtime, warnings.warn)).proofs


def _question(
    for_: str | Iterable[str] | None, base: AnyPath | None, adapter_name: str, max_rank: int | None, *,
    values: bool = False,
) -> Question:  # fmt: skip
    if max_rank is not None and not max_rank >= 1:
        raise ValueError(f"max_rank={max_rank!r} is no limit of a rank: give 1 or more, or None")
    asked = pins.ids(for_) if for_ is not None else None
    if asked is not None and not asked:
        raise UnknownRuntimeError(f"for_={for_!r} names no runtime: name one, as peft==0.9.0 or vllm, or leave it out")
    model = named_base(os.fspath(base)) if base is not None else None
    return question_of(asked, adapter_name, model, max_rank, values=values)


def _check_tolerance(tolerance: float) -> None:
    if not tolerance >= 0:  # NaN is none, either
        raise ValueError(f"tolerance={tolerance!r} is no size of a difference: give 0 or more")
