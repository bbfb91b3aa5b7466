"""What programs call: scan, fix, compare, load and preload, each for one adapter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .adapter import Adapter, AdapterError, Question, question_of
from .adapter.findings import Finding
from .adapter.runtimes import ids
from .facts.subject import Subject
from .files.base import named_base
from .files.hub import fetched
from .files.loader import load as load_folder
from .files.loader import locate
from .verbs.fix import fix as fixed
from .verbs.fix import same_place
from .verbs.plan import How
from .verbs.planner import Step
from .verbs.preload import ready
from .verbs.report import Report
from .verbs.scan import examined

if TYPE_CHECKING:
    from .verbs.compare import Comparison

AnyPath = str | os.PathLike[str]


class FixResult(NamedTuple):
    """What became of a fix.

    `out` is the folder that was written, None where none was; `fixed` says whether all that was asked for is reached.
    `repairs` were made, `refused` have a reason why not; `remaining` are the findings of the result. `proof` is the
    comparison with the original, `left_out` the names of files that were not copied.
    """

    out: Path | None
    fixed: bool
    before: Report
    repairs: tuple[Step, ...]
    refused: tuple[Step, ...]
    remaining: tuple[Finding, ...]
    proof: dict[str, Any] | None
    left_out: tuple[str, ...]


def load(path: AnyPath) -> Adapter:
    """Read the one adapter at or below `path`: its config, and dtype, shape and place of each tensor.

    Raises AdapterError for what cannot be examined; what is damaged is in `faults` of the result.
    """
    return load_folder(locate(os.fspath(path)))


def scan(
    path: AnyPath, for_: str | Iterable[str] | None = None, *, base: AnyPath | None = None,
    adapter_name: str = "default", max_rank: int | None = None,
) -> Report:  # fmt: skip
    """Examine the one adapter at or below `path`.

    `for_` names the runtimes that matter, as "peft==0.9.0", ["peft>=0.6,<0.10", "vllm"] or "installed"; what stops one
    of them is an error. `base` is the model (without it the local cache of the Hub is looked up where one of them is
    undecided; "none": not there either), `adapter_name` what it will be loaded under, `max_rank` the limit of the
    server. Of a release that nobody reviewed every verdict is "unknown", and a finding (CD902) says so. Raises
    AdapterError where it cannot be examined, UnknownRuntimeError where `for_` is misspelt or names what never was.
    """
    return examined(locate(os.fspath(path)), _question(for_, base, adapter_name, max_rank))


def fix(
    src: AnyPath, out: AnyPath, for_: str | Iterable[str] | None = None, *, base: AnyPath | None = None,
    adapter_name: str = "default", max_rank: int | None = None, rank_zero: str = "pad", weights: str | None = None,
    to_lora: bool = False, trim: bool = False, dtype: str | None = None, for_training: bool = False,
    drop: bool = False, tolerance: float = 1e-6, best_effort: bool = False, copy_all: bool = False,
    dry_run: bool = False, force: bool = False,
) -> FixResult:  # fmt: skip
    """Write the one adapter at or below `src` to the folder `out` so that the runtimes of `for_` take it.

    Without `for_`, what needs no runtime to be named is repaired. It is proved that the result computes the same;
    otherwise, and where not all is reached, nothing is written, unless `best_effort`. Options as of `ckpt-doctor fix`,
    and as in `verbs.plan.How`. Raises AdapterError where `src` cannot be examined or `out` not be written,
    NotExactError where the result would compute something else, UnknownRuntimeError as in `scan`; a release that nobody
    reviewed is left out, and where no other is asked for it goes as without `for_`.
    """
    source, target = locate(os.fspath(src)), os.fspath(out)
    if same_place(source, target):
        raise AdapterError(f"{target} is {source}, or one lies within the other: name another folder")
    question = _question(for_, base, adapter_name, max_rank)
    report = examined(source, question._replace(runtimes=None), repairs=False)
    plan, written = fixed(
        report, target, question.runtimes, How(rank_zero, weights, for_training, to_lora, trim, dtype, drop),
        tolerance=tolerance, best_effort=best_effort, copy_all=copy_all, dry_run=dry_run, force=force,
    )  # fmt: skip
    return FixResult(
        Path(target) if written else None, plan.fixed, report, plan.done, plan.refused, plan.findings,
        written.proof if written else None, written.left_out if written else (),
    )  # fmt: skip


def compare(a: AnyPath, b: AnyPath, tolerance: float = 1e-6) -> Comparison:
    """Whether two adapters compute the same function, without the base model.

    `verdict` of the result is "same", "different" or "cannot tell"; `tolerance` is relative to the norm of each delta.
    Raises AdapterError where one cannot be examined.
    """
    from .verbs.compare import compare as compared

    return compared(Subject(load(a)), Subject(load(b)), tolerance)


def preload(
    path: AnyPath, for_: str | Iterable[str] = "installed", *, subfolder: str | None = None,
    revision: str | None = None, base: AnyPath | None = None, adapter_name: str = "default",
    max_rank: int | None = None, strict: bool = False,
) -> Path:  # fmt: skip
    """The path that the runtimes of `for_` can load: `path` itself, or a repaired copy of it.

    `path` is an adapter, a folder with just one below it (or the one in `subfolder`), or an id on the Hub (at
    `revision`). "installed" is the PEFT that can be imported here. Where all accept it, the path comes back as it was
    given. Where one would reject or misload it, the path of a copy in the cache (see `cache.root`), proved to compute
    the same. Where it is not known, the path with a UserWarning; under `strict` that is an error.

    Raises AdapterRejected where no copy would do, AdapterError where it cannot be examined or found,
    UnknownRuntimeError as in `scan`; for a release that nobody reviewed it is not known.
    """
    folder = locate(fetched(os.fspath(path), subfolder, revision), subfolder)
    loadable, doubt = ready(
        folder, _question(None if for_ == "installed" else for_, base, adapter_name, max_rank), strict=strict
    )
    if doubt:
        warnings.warn(doubt, UserWarning, stacklevel=2)
    return Path(loadable)


def _question(
    for_: str | Iterable[str] | None, base: AnyPath | None, adapter_name: str, max_rank: int | None
) -> Question:
    model = named_base(os.fspath(base)) if base is not None else None
    return question_of(ids(for_) if for_ is not None else None, adapter_name, model, max_rank)
