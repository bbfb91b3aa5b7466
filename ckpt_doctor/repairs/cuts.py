"""Parts of factors as views of their file, and the guard of repairs that change what layers are called."""

from __future__ import annotations

import re

from ..adapter import DTYPE_BITS, Adapter, FileRange, Gathered, TensorInfo, Zeros, zeros
from ..adapter.findings import verdict
from ..adapter.runtimes import CURRENT, SERVERS, ranges
from ..facts.subject import Subject
from ..facts.targets import targeted
from ..rules import judge
from . import Refused, with_config


def cut(info: TensorInfo, rows: range, columns: range | None = None) -> TensorInfo:
    """Some rows and columns of a matrix, each at an even step. No number is computed, so every one keeps its bits."""
    height, width = info.shape
    columns = range(width) if columns is None else columns
    shape = (len(rows), len(columns))
    if (*rows, *columns) == (*range(height), *range(width)):
        return info
    if isinstance(info.source, Zeros):
        return zeros(info.dtype, shape)
    if isinstance(info.source, FileRange):
        storage, start, (down, right) = info.source, 0, (width, 1)
    elif isinstance(info.source, Gathered) and len(info.source.strides) == 2:
        storage, start, (down, right) = info.source
    else:
        raise Refused("factors that another repair computed are not cut: fix in two steps")
    if DTYPE_BITS[info.dtype] < 8:
        raise Refused(f"tensors of dtype {info.dtype} have no element of whole bytes")
    start += rows.start * down + columns.start * right
    return TensorInfo(info.dtype, shape, Gathered(storage, start, (down * rows.step, right * columns.step)))


def targeting(adapter: Adapter, modules: list[str]) -> Adapter:
    """The adapter with targets that name these modules as well, by the ends of their names."""
    config = adapter.config or {}
    ends = sorted(
        {m.rpartition(".")[2] for m in modules if not all(targeted(config, m, at) for at in ((0, 5), (0, 21)))}
    )
    if not ends:
        return adapter
    target = config.get("target_modules")
    if isinstance(target, str) and target:
        return with_config(adapter, target_modules=f"(?:{target})|(?:{_ending(ends)})")
    kept = [name for name in target if isinstance(name, str)] if isinstance(target, list) else []
    adapter = with_config(adapter, target_modules=[*kept, *ends])
    if not all(targeted(adapter.config or {}, module, at) for module in modules for at in ((0, 5), (0, 21))):
        raise Refused("the config leaves out layers by other keys than target_modules")
    return adapter


def _ending(ends: list[str]) -> str:
    names = [re.escape(end) for end in ends]
    return rf"(?:.*\.)?(?:{'|'.join(names)})"


def guarded(subject: Subject, adapter: Adapter) -> Adapter:
    """The adapter in a form that no server computes something else with, without a word, that did not before.

    All that are known are asked, not only those that were named: each in its newest release, and in those that were.
    Where the list of targets would let SGLang take what it then drops, a regex that names the same says it loudly:
    SGLang takes none (srt/lora/utils.py: get_normalized_target_modules), and the others read both alike.
    """
    before = _verdicts(subject)
    targets = (adapter.config or {}).get("target_modules")
    forms = [adapter]
    if isinstance(targets, list) and all(isinstance(name, str) for name in targets):
        forms.append(with_config(adapter, target_modules=_ending(sorted(targets))))
    silent: frozenset[str] = frozenset()
    for form in forms:
        after = _verdicts(subject.changed(form))
        quiet = frozenset(id_ for id_, word in after.items() if word == "misloads" and before[id_] != "misloads")
        if not quiet:
            return form
        silent = silent or quiet
    raise Refused(f"{ranges(silent)} would then load it and compute something else, in silence")


def _verdicts(subject: Subject) -> dict[str, str]:
    ids = CURRENT | (subject.question.runtimes or frozenset()) & SERVERS
    findings = judge(Subject(subject.adapter, subject.question._replace(runtimes=ids), subject.saved_by))
    return {id_: verdict(id_, findings) for id_ in ids}
