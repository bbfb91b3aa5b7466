"""The JSON of a scan and of a fix: a versioned shape, not a dump of internals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..adapter import are_few
from ..adapter.findings import NOTE, Finding, accepted, verdict
from ..adapter.runtimes import order, ran
from ..verbs.report import OUTCOMES, Report, named_release
from .wording import STOPPED, Tally

if TYPE_CHECKING:
    from ..files.writer import Written
    from ..verbs.compare import Comparison, Row
    from ..verbs.plan import Plan
    from ..verbs.prove import Proof
    from ..verbs.ranks import Ranks, Run
    from ..verbs.start import Start
    from ..verbs.together import Together
    from ..verbs.verify import Verified

SCHEMA_VERSION = 1


def head() -> dict[str, Any]:
    """What every document begins with: the schema's version and the tool."""
    return {"schema_version": SCHEMA_VERSION, "tool": {"name": "ckpt-doctor", "version": __version__}}


def dump(body: dict[str, Any]) -> str:
    """A JSON document with the schema's version and the tool."""
    return written({**head(), **body}, indent=2)


def written(value: Any, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """JSON as every parser takes it, with nothing in it that commands a terminal or ends a line."""
    try:
        text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=indent, separators=separators, ensure_ascii=False)
    return text if text.isascii() and "\x7f" not in text else unseen(text)


def _finite(value: Any) -> Any:
    """The value with words for the numbers that JSON has none for: a config may have them all the same."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return _NO_NUMBER.get(repr(value), value) if isinstance(value, float) else value


_NO_NUMBER = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def unseen(text: str) -> str:
    """JSON with an escape for each character that is not seen: controls, marks of direction, ends of lines."""
    if text.replace("\n", "").isprintable():
        return text
    pieces = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return "".join(pieces)


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """The document of a scan, in one piece."""
    every = list(reports)
    tally = Tally(every)
    start = {name: start_object(start) for name, start in tally.starts.items()}
    body = {"reports": [report_object(report) for report in every], "start": start, "summary": summary(tally)}
    text = dump(body)
    first, *rest = text.split(NO_LAYERS)  # which no text has in it, as there a new line is escaped
    yield "".join(
        (first, *(f"{NO_LAYERS[:-2]}{layers(report, 8)}{piece}" for report, piece in zip(every, rest, strict=True)))
    )


NO_LAYERS = '\n      "layers": []'


def layers(report: Report, indent: int | None = None) -> str:
    """The list of layers as json.dumps writes it, a kind at once; `indent` is where each layer begins."""
    if report.subject is None or not report.layers:
        return "[]"
    outer, inner = ("", "") if indent is None else ("\n" + " " * indent, "\n" + " " * (indent + 2))
    between = f",{inner or ' '}"
    texts: dict[str, str] = {}
    kinds: dict[str, list[str]] = {}
    for modules in report.subject.kinds:
        _, _, rank, alpha, scaling = report.layers[modules[0]]
        same = repr((rank, alpha, scaling))
        if same not in texts:
            text = written({"rank": rank, "alpha": alpha, "scaling": scaling}, separators=(between, ": "))
            texts[same] = f"{between}{text[1:-1]}{outer}}}"
        kinds.setdefault(texts[same], []).extend(modules)
    names = tuple(report.layers)
    starts = _starts(names, outer, inner) if are_few(names) else _starts.__wrapped__(names, outer, inner)
    if len(kinds) == 1:
        (text,) = kinds
        return f"[{outer}{text.join(starts)}{text}{outer[:-2]}]"
    text_of = {module: text for text, modules in kinds.items() for module in modules}
    pieces = [""] * (2 * len(names))
    pieces[::2], pieces[1::2] = starts, map(text_of.__getitem__, names)
    return "".join((f"[{outer}", *pieces, f"{outer[:-2]}]"))


@lru_cache(8)
def _starts(names: tuple[str, ...], outer: str, inner: str) -> list[str]:
    starts = [f',{outer or " "}{{{inner}"module": {unseen(encode_basestring(name))}' for name in names]
    return [starts[0].lstrip(", \n"), *starts[1:]]


def summary(tally: Tally) -> dict[str, Any]:
    """How many adapters there are, what became of them, and for the sake of which codes."""
    return {
        "adapters": tally.adapters,
        "failing": tally.failing,
        "unread": tally.unread,
        **{outcome: tally.outcomes[outcome] for outcome in OUTCOMES.values()},
        "repairable": tally.repairable.total(),
        "causes": [
            {"code": code, "name": name, **{how: counts[how] for how in (*STOPPED, "undecided")}}
            for code, name, counts in tally.by_cause
        ],
    }


def start_object(start: Start) -> dict[str, Any]:
    """How a server is started: the options, what forces each, and what the adapters do to each other."""
    options = [{**option._asdict(), "forced_by": place(option.forced_by)} for option in start.options()]
    return {"adapters": start.adapters, "line": start.line, "options": options, "together": list(start.together())}


def place(path: str) -> str:
    """A path as every system writes it."""
    return path.replace("\\", "/")


def report_object(report: Report) -> dict[str, Any]:
    """One adapter; its layers are written by `layers`."""
    adapter, budget = report.adapter, report.budget
    return {
        "path": place(report.path),
        "error": report.error,
        "peft_type": adapter.peft_type if adapter else None,
        "peft_version": named_release(adapter) if adapter else None,
        "layers": [],
        "adalora": budget._asdict() if budget else None,
        "values": _values(report),
        "findings": [finding_object(finding) for finding in report.shown],
        "verdicts": report.verdicts,
        "base": _base(report),
        "commands": commands(report),
        "next": steps(report),
        "proofs": [{**proof._asdict(), "layers": len(proof.layers), "agrees": proof.agrees} for proof in report.proofs],
        "read_not_run": order(id_ for id_ in report.servers if not ran(id_)),
    }


def commands(report: Report) -> list[dict[str, Any]]:
    """What to type for servers that were asked for: convert and serve, or merge, or the reason not to."""
    if not report.servers:
        return []
    from ..verbs.commands import conversion, merges

    every = (*conversion(report.path, report.subject, report.findings), *merges(report))
    return [command._asdict() for command in every]


def steps(report: Report) -> list[dict[str, Any]]:
    """What can be done, the best first."""
    return [way._asdict() for way in report.next]


def _values(report: Report) -> dict[str, Any] | None:
    """What the weights hold, where their values were read: how many numbers are NaN and infinite, and the largest."""
    numbers = report.numbers
    if not numbers:
        return None
    most = max(numbers, key=lambda name: numbers[name].largest)
    return {
        "nan": sum(one.nan for one in numbers.values()),
        "infinite": sum(one.infinite for one in numbers.values()),
        "largest": numbers[most].largest,
        "largest_in": most,
    }


def _base(report: Report) -> dict[str, Any] | None:
    """The base model that it was judged by: its id on the Hub and the commit, where they are known, and whether it was
    looked up in the local cache.
    """
    base = report.subject.question.base if report.subject else None
    if base is None:
        return None
    found = report.base_found is not None
    return {"name": base.name or None, "revision": base.revision or None, "found_in_cache": found}


def finding_object(finding: Finding) -> dict[str, Any]:
    """One finding; runtimes oldest first."""
    fields = finding._asdict()
    for key in ("rejected_by", "misloaded_by", "undecided_for"):
        fields[key] = order(fields[key])
    return fields


def fix(path: str, out: str, plan: Plan | None, written: Written | None, error: str | None) -> dict[str, Any]:
    """One adapter of a fix: what was or would be changed, what was refused and why."""
    from ..verbs.commands import conversion

    head = {"path": place(path), "out": place(out), "error": error}
    if plan is None:
        return {**head, "written": written is not None}
    return {
        **head,
        "written": written is not None,
        "fixed": plan.fixed,
        "purpose": plan.purpose,
        "in_the_way": [finding_object(finding) for finding in plan.in_the_way if finding.severity != NOTE],
        "repairs": [{"title": step.title, "codes": list(step.codes)} for step in plan.done],
        "dropped": list(plan.dropped),
        "silent": order(plan.silent),
        "refused": [{"title": step.title, "codes": list(step.codes), "reason": step.reason} for step in plan.refused],
        "changes": changes(plan),
        "left_out": list(written.left_out) if written else [],
        "backups": list(written.backups) if written else [],
        "proof": written.proof if written else None,
        "remaining": [finding_object(finding) for finding in plan.findings],
        "verdicts": {
            id_: {"before": verdict(id_, plan.was), "after": verdict(id_, plan.findings)}
            for id_ in order(plan.asked or ())
        },
        "accepted_before": order(accepted(plan.before.findings)),
        "accepted_after": [] if plan.tool else order(accepted(plan.findings)),
        "commands": [command._asdict() for command in conversion(out or path, plan.after, plan.findings)],
    }


def changes(plan: Plan) -> dict[str, Any]:
    """The difference of config and tensors: added, removed, changed."""
    before, after = plan.before.adapter, plan.after.adapter
    assert before is not None  # noqa: S101 - a plan has one
    return {
        "weights": _difference(dict.fromkeys(before.weights, ""), dict.fromkeys(after.weights, "")),
        "config": _difference(before.config or {}, after.config or {}),
        "tensors": _difference(
            {key: f"{info.dtype} {list(info.shape)}" for key, info in before.tensors.items()},
            {key: f"{info.dtype} {list(info.shape)}" for key, info in after.tensors.items()},
        ),
    }


def _difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {
        "removed": {key: old[key] for key in old if key not in new},
        "added": {key: new[key] for key in new if key not in old},
        "changed": {key: [old[key], new[key]] for key in new if key in old and old[key] != new[key]},
    }


def verify(path: str, verified: Verified | None, error: str | None) -> dict[str, Any]:
    """What became of one folder that a fix wrote, and what its record says; null where it could not be examined."""
    return {
        "path": place(path),
        "error": error,
        "holds": not verified.faults if verified else None,
        "faults": list(verified.faults) if verified else [],
        "repairs": list(verified.record.repairs) if verified else [],
        "dropped": list(verified.record.dropped) if verified else [],
        "proof": verified.record.proof if verified else None,
    }


def prove(path: str, report: Report | None, proof: Proof | None, error: str | None) -> dict[str, Any]:
    """What a runtime made of one adapter; `report` is what to send where the facts say otherwise: no weights."""
    if proof is None or report is None or report.adapter is None:
        return {"path": place(path), "error": error}
    adapter = report.adapter
    sent = {
        "runtime": proof.runtime,
        "predicted": proof.predicted,
        "proved": proof.verdict,
        "why": proof.why,
        "findings": [finding.code for finding in report.findings],
        "config": adapter.config,
        "tensors": {key: f"{info.dtype} {list(info.shape)}" for key, info in adapter.tensors.items()},
    }
    return {
        "path": place(path),
        "error": None,
        "runtime": proof.runtime,
        "verdict": proof.verdict,
        "proved": proof.verdict != "unknown",
        "why": proof.why,
        "layers": [{"module": m, "relative": r if r != float("inf") else None} for m, r in proof.layers],
        "predicted": proof.predicted,
        "agrees": proof.agrees,
        "seconds": round(proof.seconds, 2),
        "report": None if proof.agrees else sent,
    }


def together(paths: Iterable[str], found: Iterable[Together]) -> Iterator[str]:
    """One object: the adapters, and of each runtime its answers and what a server is started with."""
    runtimes = [
        {
            "runtime": one.runtime,
            "models": list(one.models),
            "answers": [answer._asdict() for answer in one.answers],
            "start": one.options,
        }
        for one in found
    ]
    yield dump({"adapters": list(map(place, paths)), "error": None, "runtimes": runtimes})


def compare(result: Comparison) -> Iterator[str]:
    """One object: verdict, reasons, and every row."""
    yield dump(
        {
            "verdict": result.verdict,
            "tolerance": result.tolerance,
            "reasons": list(result.reasons),
            "layers": [_row(row) for row in result.layers],
            "others": [_row(row) for row in result.others],
        }
    )


def _row(row: Row) -> dict[str, object]:
    finite = row.difference != float("inf")
    return {
        "name": row.name,
        "norm": row.norm,
        "difference": row.difference if finite else None,
        "relative": row.relative if finite else None,
    }


def ranks(found: Iterable[Ranks | Run]) -> Iterator[str]:
    """The document of what was looked at: adapters, and runs with their steps."""
    from ..verbs.ranks import Run

    yield dump({"ranks": [_run(one) if isinstance(one, Run) else _ranks(one) for one in found]})


def _run(run: Run) -> dict[str, Any]:
    return {
        "path": place(run.path),
        "verdict": run.verdict,
        "advice": list(run.advice),
        "settled": run.settled,
        "died": run.died,
        "steps": [{**_ranks(step), "planned": run.planned(step)} for step in run.steps],
    }


def _ranks(ranks: Ranks) -> dict[str, Any]:
    return {
        "path": place(ranks.path),
        "step": ranks.step,
        "method": ranks.method,
        "verdict": ranks.verdict,
        "advice": list(ranks.advice),
        "largest_rank": ranks.most,
        "rank_sum": ranks.sum,
        "histogram": {str(rank): count for rank, count in ranks.histogram.items()},
        "adalora": ranks.budget._asdict() if ranks.budget else None,
        "energy": ranks.energy,
        "smallest_rank": ranks.smallest,
        "kinds": [kind._asdict() for kind in ranks.kinds],
        "layers": [layer_of(ranks, module) for module in ranks.layers],
    }


def layer_of(ranks: Ranks, module: str) -> dict[str, Any]:
    """What is known of a layer; of its numbers only where they were read."""
    layer = ranks.layers[module]
    entry: dict[str, Any] = {
        "module": module, "block": layer.place.block, "kind": layer.place.kind, "rank": layer.rank,
        "parameters": ranks.parameters.get(module),
    }  # fmt: skip
    one = ranks.spectra.get(module)
    if one is not None:
        finite = math.isfinite(one.energy)
        entry |= {"norm": one.norm if finite else None, "energy": one.energy if finite else None,
                  "effective_rank": one.effective if finite else None, "used": one.used if finite else None,
                  "dead": one.dead, "finite": finite}  # fmt: skip
    elif layer.spectrum is not None:
        entry["why_no_values"] = layer.spectrum
    return entry
