"""One page for a browser, with all that it needs in it: maps of ranks, runs over their steps, findings with their
pages, who accepts an adapter, what a fix changed, rows of a comparison.

The page is `page/page.html`, `page.css` and `page.js`, with what is told as JSON within. It draws its charts itself, as
SVG, in 5 KB: uPlot, the smallest library for them (53 KB in its release 1.6.32), draws on a canvas, which does not
change with the theme, prints as pixels, and says nothing to a screen reader.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from ..adapter import clean
from ..adapter.codes import CODES
from ..adapter.findings import Finding, verdict
from ..adapter.runtimes import PEFT, order, ranges
from ..facts.messages import quoted
from ..facts.places import Place, places, short
from ..verbs.ranks import Ranks, Run, ranks_of
from ..verbs.report import OUTCOMES, Report, named_release
from . import Style
from .json import changes, head
from .maps import picked
from .markdown import gravity
from .pages import paragraphs
from .wording import LONGEST, Tally, cut, of_question, outcomes, start_lines, verdict_phrases

if TYPE_CHECKING:
    from ..files.writer import Written
    from ..verbs.compare import Comparison, Row
    from ..verbs.plan import Plan

MOST_ROWS = 10_000
"""Adapters of a table."""
MOST_CHARACTERS = 4_000_000
"""Of what is told of adapters beside their rows; the first is told whatever it takes."""
MOST_LAYERS = 20_000
MOST_CELLS = 100_000
"""Layers times steps of a run."""
MOST_STEPS = 200
MOST_SINGULAR = 200_000
"""Singular values; where there are more, no spectrum is shown."""
MOST_FINDINGS = 100
MOST_NAMES = 20
"""Tensors and config keys of a finding."""
MOST_CHANGES = 5_000
LONGEST_NAME = 300
"""Characters of a name from a file."""

Item = dict[str, Any]


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """The page of a scan, the gravest adapters first."""
    every = sorted(reports, key=gravity)
    tally = Tally(every)
    starts = [list(start_lines(name, start)) for name, start in tally.starts.items()] if len(every) > 1 else []
    rows = [_row(report) for report in every[:MOST_ROWS]]
    _tell(rows, map(_examined, every))
    yield from _page("scan", str(tally), rows, len(every), {"start": starts})


def ranks(found: Iterable[Ranks | Run]) -> Iterator[str]:
    """The page of what was looked at: adapters, and runs with their steps; a few are also side by side."""
    every = list(found)
    rows = [_row_of_ranks(one) for one in every[:MOST_ROWS]]
    _tell(rows, ({"map": _map(one)} for one in every))
    ends = [one.last if isinstance(one, Run) else one for one in every]
    yield from _page("ranks", "", rows, len(every), {"beside": _beside(ends) if 1 < len(ends) <= 4 else None})


def fix(items: Iterable[Item]) -> Iterator[str]:
    """The page of a fix, of what `fixed` made of each adapter."""
    every = list(items)
    rows = [{**item} for item in every[:MOST_ROWS]]
    _tell(rows, (row.pop("detail") for row in rows))
    yield from _page("fix", "", rows, len(every), {})


def compare(first: str, second: str, result: Comparison) -> Iterator[str]:
    """The page of a comparison."""
    rows = (*result.layers, *result.others)
    largest = result.largest.relative if result.largest else 0.0
    compared = f"{len(result.layers)} layers and {len(result.others)} other tensors"
    numbers = [[r.name, *map(_rounded, (r.norm, r.difference, r.relative))] for r in rows[:MOST_LAYERS]]
    item = {
        "path": f"{first} ↔ {second}",
        "outcome": result.verdict,
        "verdict": result.verdict,
        "is": f"{compared}, largest relative difference {largest:.2g} (tolerance {result.tolerance:g})",
        "detail": {
            "said": list(result.reasons),
            "map": _differences(result.layers[:MOST_LAYERS], result.tolerance),
            "rows": numbers,
        },
    }
    yield from _page("compare", "", [item], 1, {"left_out": _more(len(rows) - MOST_LAYERS, "layers and tensors")})


def fixed(
    path: str, out: str | None, plan: Plan | None, written: Written | None, error: str | None, *, dry_run: bool
) -> Item:
    """What became of one adapter: who accepted it and who does, what was done, refused and changed."""
    from .table import done

    title = path if out is None else f"{path} → {out}"
    if plan is None:
        return {"path": title, "outcome": "refused", "verdict": error or "failed", "detail": {"said": [error or ""]}}
    good = plan.fixed or written is not None
    _, *said = (click.unstyle(line).strip() for line in done(plan, out, written, dry_run, Style()))
    after = Report(out or path, None, plan.after, plan.findings)
    # what another tool reads no release of PEFT accepts
    runtimes = [] if plan.tool else order(PEFT | (plan.asked or frozenset()))
    sides = (ranks_of(plan.before), ranks_of(after))
    repaired = "would be repaired" if dry_run else "repaired"
    left = () if plan.tool else plan.findings
    changed = list(_changes(plan))
    return {
        "path": title,
        "outcome": "accepted" if good else "rejected",
        "verdict": "refused" if not good else repaired if plan.done else "nothing to repair",
        "cause": next((f"{f.code} {f.name}" for f in plan.in_the_way), ""),
        "next": ", ".join(step.title for step in plan.done),
        "detail": {
            "said": said,
            "runtimes": [[id_, verdict(id_, plan.was), verdict(id_, plan.findings)] for id_ in runtimes],
            "words": _words(runtimes, plan.findings),
            "findings": _findings(plan.in_the_way),
            "left": _findings(left),
            "refused": [[step.title, list(step.codes), step.reason] for step in plan.refused],
            "changes": changed[:MOST_CHANGES],
            "left_out": [
                *_more(len(plan.in_the_way) - MOST_FINDINGS, "findings that were in the way"),
                *_more(len(left) - MOST_FINDINGS, "findings that are still there"),
                *_more(len(changed) - MOST_CHANGES, "changes"),
            ],
            "map": _steps_map("", sides, ("before", "after")) if any(side.known for side in sides) else None,
        },
    }  # fmt: skip


def _tell(rows: list[Item], details: Iterator[Item]) -> None:
    """Give rows their details as far as these fit, and the others none."""
    left = MOST_CHARACTERS
    for at, row in enumerate(rows):
        detail = next(details) if left > 0 else None
        left -= len(_json(detail))
        row["detail"] = detail if left > 0 or not at else None


def _row(report: Report) -> Item:
    """The row of an adapter."""
    from .table import described

    path = f"{report.path} ({report.part})" if report.part else report.path
    if report.error:
        return {"path": path, "outcome": "", "verdict": "not examined", "cause": cut(report.error, LONGEST)}
    cause = next(iter(of_question(report)), None)
    return {
        "path": path,
        "outcome": report.outcome,
        "verdict": "; ".join(verdict_phrases(report)),
        "is": described(report),
        "cause": f"{cause.code} {cause.name}" if cause else "",
        "next": cut(report.next[0].text, LONGEST),
    }


def _row_of_ranks(found: Ranks | Run) -> Item:
    last = found.last if isinstance(found, Run) else found
    return {"path": found.path, "outcome": "", "verdict": found.verdict, "is": last.method}


def _examined(report: Report) -> Item:
    """What is told of one adapter of a scan."""
    if report.adapter is None:
        return {"said": [report.error]}
    release, base = named_release(report.adapter), report.base_found
    about = [
        ("saved by", f"PEFT {release}" if release else "not told"),
        ("base model", str((report.adapter.config or {}).get("base_model_name_or_path") or "not named")),
        *([("judged by", f"{base.name} of the local cache")] if base else []),
    ]
    return {
        "about": about,
        "runtimes": [[id_, word] for id_, word in report.verdicts.items()],
        "words": _words(report.verdicts, report.findings),
        "findings": _findings(report.shown, report.asked),
        "left_out": _more(len(report.shown) - MOST_FINDINGS, "findings"),
        "ways": [[cut(way.text, LONGEST), way.command] for way in report.next],
        "map": _map(ranks_of(report)),
    }


def _more(count: int, of_what: str) -> list[str]:
    return [f"{count:,} more {of_what} are left out"] if count > 0 else []


def _words(ids: Iterable[str], findings: tuple[Finding, ...]) -> list[list[str]]:
    """Each verdict, and the runtimes that it is of."""
    by_word: dict[str, list[str]] = {word: [] for word in OUTCOMES}
    for id_ in ids:
        by_word[verdict(id_, findings)].append(id_)
    return [[word, ranges(named)] for word, named in by_word.items() if named]


def _findings(every: Sequence[Finding], asked: frozenset[str] | None = None) -> list[Item]:
    return [_finding(finding, asked) for finding in every[:MOST_FINDINGS]]


def _finding(finding: Finding, asked: frozenset[str] | None) -> Item:
    return {
        "severity": finding.severity,
        "code": finding.code,
        "name": finding.name,
        "message": cut(finding.message, LONGEST),
        "outcomes": list(outcomes(finding, asked)) or list(outcomes(finding)),
        "remedy": finding.remedy,
        "fixable": finding.fixable,
        "tensors": _names(finding.tensors),
        "keys": _names(finding.config_keys),
    }


def _names(names: Sequence[str]) -> list[str]:
    shown = [cut(name, LONGEST_NAME) for name in names[:MOST_NAMES]]
    return shown + ([f"and {len(names) - MOST_NAMES:,} more"] if len(names) > MOST_NAMES else [])


def _code(number: str) -> Item:
    """The page of a code: its parts, each with its heading, and the messages that it can be behind."""
    code = CODES[number]
    what, *rest = paragraphs(code)
    parts = [["What", what], *(list(part.partition(": ")[::2]) for part in rest)]
    return {"name": code.name, "parts": parts, "messages": [f"{m.quote} ({m.runtime})" for m in quoted(code)]}


def _changes(plan: Plan) -> Iterator[list[str]]:
    """What, which, and how it was and is."""
    for what, difference in changes(plan).items():
        for key, value in difference["removed"].items():
            yield [what, key, _value(value), ""]
        for key, value in difference["added"].items():
            yield [what, key, "", _value(value)]
        for key, (old, new) in difference["changed"].items():
            yield [what, key, _value(old), _value(new)]


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut(text or "there", LONGEST_NAME)


def _map(found: Ranks | Run) -> Item | None:
    """The ranks of an adapter, or over the steps of a run; None where there is none."""
    if not any(step.known for step in (found.steps if isinstance(found, Run) else (found,))):
        return None
    if isinstance(found, Ranks):
        name = "" if found.step is None else f"step {found.step:,}"
        return _steps_map(found.verdict, (found,), (name,), found.advice)
    most = max(min(MOST_STEPS, MOST_CELLS // max(len(found.modules), 1)), 2)
    steps = picked(found, most)
    names = ["the end" if step.step is None else f"step {step.step:,}" for step in steps]
    drawn = _steps_map(found.verdict, steps, names, found.advice)
    settled = found.settled
    drawn["settled"] = [settled.get(module) for module, *_ in drawn["layers"]]
    drawn["left_out"] += _more(len(found.steps) - len(steps), "checkpoints")
    for frame, step in zip(drawn["frames"], steps, strict=True):
        frame["planned"] = found.planned(step)
    return drawn


def _steps_map(verdict_: str, steps: Sequence[Ranks], names: Sequence[str], advice: Sequence[str] = ()) -> Item:
    """Blocks by modules, at each step; the spectra are those of the last."""
    every = {module: step.parameters.get(module) for step in steps for module in step.layers}
    last = steps[-1]
    drawn = _grid(dict(islice(every.items(), MOST_LAYERS)))
    drawn["why_not"] = next((one.spectrum for one in last.layers.values() if isinstance(one.spectrum, str)), None)
    modules = list(places(list(every)[:MOST_LAYERS]))
    most = max(step.most for step in steps)
    metrics = [_metric("rank", "whole", most, [[step.known.get(module) for module in modules] for step in steps])]
    if any(step.spectra for step in steps):
        effective, energy = [], []
        for step in steps:
            whole = step.energy or math.nan
            found = [step.spectra.get(module) for module in modules]
            effective.append([_rounded(one.effective) if one and not math.isnan(one.norm) else None for one in found])
            energy.append([_rounded(one.energy / whole) if one else None for one in found])
        largest = max((value for row in energy for value in row if value is not None), default=0.0)
        metrics.append(_metric("effective rank", "one", most, effective))
        metrics.append(_metric("share of the energy", "share", largest, energy))
        drawn["numbers"] = [
            [_rounded(one.norm), one.used if one.singular else None, one.dead] if one else None
            for one in (last.spectra.get(module) for module in modules)
        ]
        if sum(len(one.singular) for one in last.spectra.values()) <= MOST_SINGULAR:
            spectra = (last.spectra.get(module) for module in modules)
            drawn["spectra"] = [[_rounded(value) for value in one.singular] if one else None for one in spectra]
        else:
            drawn["left_out"].append("the spectra are left out: there are too many layers")
    drawn["left_out"] += _more(len(every) - MOST_LAYERS, "layers")
    frames = [
        {"name": name, "step": step.step, "smallest": step.smallest, "verdict": step.verdict}
        for name, step in zip(names, steps, strict=True)
    ]
    budget = last.budget.budget if last.budget else None
    return {
        **drawn, "verdict": verdict_, "advice": list(advice), "frames": frames, "metrics": metrics, "budget": budget,
        "pruned": last.method == "ADALORA", "first": int(len(metrics) > 1 and len(last.histogram) < 2),
    }  # fmt: skip


def _differences(rows: Sequence[Row], tolerance: float) -> Item | None:
    """Where two adapters differ, blocks by modules."""
    if not rows:
        return None
    drawn = _grid(dict.fromkeys(row.name for row in rows))
    by_name = {row.name: row.relative for row in rows}
    values = [by_name[module] for module in places(by_name)]
    # what is infinitely far is drawn as what is as far as its whole norm
    cells = [[_rounded(min(value, 1.0)) if value == value else 1.0 for value in values]]
    return {
        **drawn, "verdict": "", "advice": [], "frames": [{"name": ""}], "first": 0, "tolerance": tolerance,
        "metrics": [_metric("relative difference", "power", 1.0, cells)],
    }  # fmt: skip


def _metric(name: str, form: str, most: float, steps: Sequence[Sequence[float | None]]) -> Item:
    return {"name": name, "form": form, "most": most or 1, "steps": steps}


def _grid(parameters: Mapping[str, int | None]) -> Item:
    """The layers, each with its block and its module, in natural order."""
    where: dict[str, Place] = places(parameters)
    kinds = {kind: at for at, kind in enumerate(dict.fromkeys(place.kind for place in where.values()))}
    blocks = {block: at for at, block in enumerate(dict.fromkeys(place.block for place in where.values()))}
    stacks = {block.rpartition(".")[0] for block in blocks if block}
    names = [block.rpartition(".")[2] if len(stacks) == 1 else block for block in blocks]
    return {
        "kinds": [[cut(kind, LONGEST_NAME), cut(name, LONGEST_NAME)] for kind, name in short(kinds).items()],
        "blocks": [cut(name, LONGEST_NAME) or "–" for name in names],
        "stack": next(iter(stacks)) if len(stacks) == 1 else "",
        "layers": [
            [cut(module, LONGEST_NAME), blocks[place.block], kinds[place.kind], parameters[module]]
            for module, place in where.items()
        ],
        "left_out": [],
    }  # fmt: skip


def _beside(every: Sequence[Ranks]) -> Item:
    """Where each adapter put its ranks, and with values its energy, by module."""
    by_kind = [{kind.name: kind for kind in one.kinds} for one in every]
    names = short(dict.fromkeys(name for kinds in by_kind for name in kinds))
    rows: list[list[Any]] = []
    for name, named in names.items():
        found = [kinds.get(name) for kinds in by_kind]
        cells = [[k.ranks, _rounded(k.share), _rounded(k.energy_share)] if k else None for k in found]
        rows.append([cut(named, LONGEST_NAME), *cells])
    totals = [[one.sum, sum(one.parameters.values())] for one in every]
    return {"paths": [one.path for one in every], "rows": rows, "totals": totals}


def _rounded(value: float | None) -> float | None:
    """A number in three digits, which is what a page shows; None for what is none."""
    if value is None or not math.isfinite(value):
        return None
    short_ = float(f"{value:.3g}")
    return int(short_) if short_ == int(short_) and abs(short_) < 1e6 else short_


def _page(verb: str, summary: str, rows: list[Item], count: int, rest: Item) -> Iterator[str]:
    """The page, in one piece."""
    told = [row["detail"] for row in rows if row.get("detail")]
    left_out = [*rest.pop("left_out", []), *_more(count - len(rows), "adapters")]
    if len(told) < len(rows):
        left_out.append(f"what was found is told of {len(told):,} of them: {verb} the others alone")
    codes = {finding["code"] for one in told for finding in (*one.get("findings", ()), *one.get("left", ()))}
    body = {
        **head(), "verb": verb, "summary": summary, "items": rows, "left_out": left_out,
        "codes": {number: _code(number) for number in sorted(codes & CODES.keys())}, **rest,
    }  # fmt: skip
    folder = files(__package__) / "page"
    template, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    parts = {"style": style, "script": script, "data": _json(body), "policy": _policy(style, script)}
    yield "".join(parts[part] if at % 2 else part for at, part in enumerate(re.split(r"{{(\w+)}}", template))).rstrip()


def _policy(style: str, script: str) -> str:
    """What the page may do: its own style and script, and nothing else (Content Security Policy Level 3)."""
    own = (b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    styles, scripts = (f"'sha256-{text}'" for text in own)
    return f"default-src 'none'; style-src {styles}; script-src {scripts}; base-uri 'none'; form-action 'none'"


def _json(body: object) -> str:
    """JSON that no element of HTML ends in: ASCII, without `<`."""
    text = json.dumps(_plain(body), separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c")


def _plain(value: Any) -> Any:
    """Texts without the control characters that names from a file may have."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
