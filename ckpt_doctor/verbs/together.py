"""Whether adapters of one model can be merged, swapped for each other, and served side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..adapter import NotExactError, Question
from ..adapter.codes import SERVER_RANK_LIMIT
from ..adapter.findings import THE_BASE, THE_TRANSFORMERS, verdict
from ..adapter.runtimes import NEWEST, PEFT, SERVERS, minor, order, specs
from ..facts.layers import RANK_AXIS
from ..facts.methods import LORAS
from ..facts.subject import Subject
from ..facts.together import SWAPPED, Answer, beside, merged, outer, swapped
from .report import Report
from .scan import examined
from .start import Starts, needed_flags

WORST = ("rejects", "misloads", "unknown")


class Together(NamedTuple):
    """What a runtime makes of several adapters: an answer for each use, and for a server the options that it needs.

    `models` are the base models that they name, where these are not one.
    """

    runtime: str
    answers: tuple[Answer, ...]
    options: str = ""
    models: tuple[str, ...] = ()

    def can(self, use: str) -> bool:
        """Whether a way of a use is open: "merged", "hot-swapped" or "side by side"."""
        return any(answer.verdict == "accepts" for answer in self.answers if answer.use.startswith(use))

    @property
    def is_whole(self) -> bool:
        """Whether every use is open in some way."""
        return all(self.can(use) for use in {answer.use.split(" by ")[0] for answer in self.answers})


def together(paths: Sequence[str], question: Question) -> list[Together]:
    """What the runtimes asked for, or the newest PEFT, make of several adapters in the order given.

    Raises AdapterError where one cannot be examined.
    """
    asked = question.runtimes or frozenset((NEWEST,))
    reports = [examined(path, question._replace(runtimes=asked), repairs=False) for path in paths]
    found = []
    for id_ in order(asked):
        alone = _alone(id_, reports)
        if id_ in SERVERS:
            found.append(_served(id_, reports))
        elif id_ in PEFT:
            subjects = [report.subject for report in reports if report.subject is not None]
            found.append(Together(id_, tuple(_in_peft(id_, subjects, alone))))
        else:
            doubt = Answer("side by side", "unknown", f"nobody reviewed {id_}", "a newer ckpt-doctor")
            found.append(Together(id_, (doubt,)))
    named = [report.subject.config.get("base_model_name_or_path") for report in reports if report.subject]
    models = tuple(sorted({name for name in named if isinstance(name, str) and name}))
    return [one._replace(models=models) for one in found] if len(models) > 1 else found


def _alone(id_: str, reports: Sequence[Report]) -> tuple[str, str, str] | None:
    """What is in the way of the first that a runtime does not take by itself."""
    for worst in WORST:
        for report in reports:
            if verdict(id_, report.findings) == worst:
                finding = next(f for f in report.findings if _says(f, id_, worst))
                needs = finding.needs
                way = "--base" if needs == THE_BASE else f"ckpt-doctor scan {report.path} --for {id_}"
                if needs == THE_TRANSFORMERS:
                    way = ""
                return worst, f"{report.path} by itself: {finding.message}", way
    return None


def _says(finding: object, id_: str, verdict_: str) -> bool:
    where = {"rejects": "rejected_by", "misloads": "misloaded_by", "unknown": "undecided_for"}[verdict_]
    return id_ in getattr(finding, where)


def _in_peft(id_: str, subjects: Sequence[Subject], alone: tuple[str, str, str] | None) -> list[Answer]:
    release = minor(id_.partition("==")[2])
    answers = [*merged(subjects, release), swapped(subjects, release), beside(subjects, release)]
    if alone is None:
        return answers
    # what it does by itself it does among others, unless they stop it first
    return [
        answer if answer.verdict == "rejects" or (release < SWAPPED and answer.use == "hot-swapped")
        else Answer(answer.use, *alone)
        for answer in answers
    ]  # fmt: skip


def _served(id_: str, reports: Sequence[Report]) -> Together:
    """Whether a server takes each, with what it can be told at its start."""
    use = "side by side"
    alone = _alone(id_, [report for report in reports if needed_flags(report, id_) is None or _is_above(id_, report)])
    if alone is not None:
        return Together(id_, (Answer(use, *alone),))
    starts = Starts()
    for report in reports:
        starts.add(report)
    named = starts.named()
    if len(named) > 1:
        return Together(id_, (Answer(use, "rejects", f"they are of several models: {', '.join(named)}"),))
    start = named.get(specs((id_,))[0])
    notes = "; ".join(start.together()) if start else ""
    return Together(id_, (Answer(use, "accepts", notes),), start.line if start else "")


def _is_above(id_: str, report: Report) -> bool:
    """Whether a rank is above the limit that was named, which an option of the server would raise."""
    return any(f.code == SERVER_RANK_LIMIT.number and id_ in f.rejected_by for f in report.findings)


def union(reports: Iterable[Report]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Every module that one of some adapters adapts, with the shape of each factor there.

    Raises NotExactError where a module is of another size in another of them.
    """
    found: dict[str, tuple[dict[str, tuple[int, ...]], tuple[int, ...], str]] = {}
    for report in reports:
        subject = report.subject
        if subject and subject.method not in LORAS:
            raise NotExactError(f"{report.path} is {subject.method}, and there are zero pairs of LoRA alone")
        for module, layer in subject.layers.items() if subject else ():
            size = outer(subject, module) if subject else None
            if subject is None or size is None:
                raise NotExactError(f"{report.path}: the factors of {module} do not tell its size")
            shapes = {factor: shape for factor, shape in subject.shapes(layer).items() if factor in RANK_AXIS}
            shapes.pop("lora_E", None)
            _, known, path = found.setdefault(module, (shapes, size, report.path))
            if known != size:
                raise NotExactError(
                    f"{report.path}: {module} is {list(size)} here and {list(known)} in {path}: two models"
                )
    return {module: shapes for module, (shapes, _, _) in found.items()}
