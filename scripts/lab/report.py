"""What the verdicts get right and wrong of the adapters in a folder, and which rules they come from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import judging
import make_net
import net
import repairs
from repairs import WITH, WITHOUT
from tabulate import tabulate

OUTCOMES = ("accepts", "rejects", "misloads", "unknown")


class Judged(NamedTuple):
    """An adapter in a release: what that does, what is said, and the rules that say it."""

    base: str
    name: str
    group: str
    release: str
    real: str
    ours: str
    right: bool
    rules: tuple[str, ...]


def as_known(id_: str) -> str:
    """The release itself, or the newest that the facts know."""
    return id_ if id_ in judging.PEFT else judging.NEWEST


def judged(record: dict[str, Any]) -> Iterator[Judged]:
    """Each adapter in each release, without its base model and with it."""
    groups = {name: known["group"] for held in record["corpora"].values() for name, known in held["adapters"].items()}
    for question in net.questions(record):
        base = WITH if question.corpus.endswith("with base") else WITHOUT
        name, by_rule = question.name, judging.by_rule(question.adapter)
        verdicts = judging.verdicts(judging.PEFT, judging.judge(question.adapter))
        for id_, real in question.real.items():
            ours, rules = verdicts[as_known(id_)], tuple(_saying(by_rule, as_known(id_)))
            right = net.is_right(id_, real, ours, question.unsaid)
            yield Judged(base, name, groups[name], id_.removeprefix("peft=="), real, ours, right, rules)


def _saying(by_rule: dict[str, Any], id_: str) -> Iterator[str]:
    """The rules that keep a release from accepting."""
    for rule, findings in by_rule.items():
        for finding in findings:
            if id_ in finding.rejected_by | finding.misloaded_by | finding.undecided_for:
                yield f"{rule} {finding.code}"


def matrix(rows: list[Judged]) -> str:
    """How often which outcome was called what."""
    parts = []
    for base in (WITHOUT, WITH):
        counts = Counter((row.real, row.ours) for row in rows if row.base == base)
        table = [(real, *(counts[real, ours] for ours in OUTCOMES)) for real in OUTCOMES[:3]]
        right = sum(row.right for row in rows if row.base == base)
        false = sum(not row.right and row.ours == "accepts" for row in rows if row.base == base)
        parts.append(f"{base}: {right} of {counts.total()} right, {false} false accepts\n")
        parts.append(tabulate(table, (f"{base}: real, ours", *OUTCOMES)) + "\n")
    return "\n".join(parts)


def shares(rows: list[Judged], title: str, key: Any) -> str:
    """How many are right, by what `key` makes of a row."""
    counts: dict[Any, Counter[str]] = {}
    for row in rows:
        counts.setdefault(key(row), Counter()).update({row.base: 1, f"{row.base} right": row.right})
    table = [
        (one, *(f"{count[f'{base} right']} of {count[base]}" for base in (WITHOUT, WITH)))
        for one, count in sorted(counts.items())
    ]
    return tabulate(table, (title, WITHOUT, WITH)) + "\n"


def wrong(rows: list[Judged], errors: dict[tuple[str, str], str]) -> str:
    """What is wrong, by method, edit, what is real and what is said; with the rules that say it."""
    groups: dict[tuple[str, ...], dict[str, list[Judged]]] = {}
    for row in rows:
        if not row.right:
            groups.setdefault((row.group, row.real, row.ours, row.base), {}).setdefault(row.name, []).append(row)
    lines = []
    for (group, real, ours, base), adapters in sorted(groups.items()):
        lines.append(f"\n{group}: {real}, judged {ours} ({base})")
        for name, found in adapters.items():
            lines.append(f"  {name}  {' '.join(row.release for row in found)}")
            lines.append(f"    real: {errors.get((name, found[0].release)) or real}")
            lines += [f"    says so: {rule}" for rule in dict.fromkeys(rule for row in found for rule in row.rules)]
    return "\n".join(lines)


def tell(folder: Path, *, record: bool) -> None:
    """Print it all; put it into the record where that is wanted, under the folder's name."""
    truths = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    errors = {(name, rel): error for name, truth in truths.items() for rel, (_, error) in truth["peft"].items()}
    whole = make_net.made([str(folder)], None)
    rows = list(judged(whole))
    print(wrong(rows, errors), "\n")
    print(shares(rows, "method", lambda row: row.group.split()[0]))
    print(shares(rows, "release", lambda row: row.release.rjust(6)))
    print(matrix(rows))
    if (folder / "repairs.json").exists():
        tried = json.loads((folder / "repairs.json").read_text(encoding="utf-8"))
        print(repairs.told([repairs.Repair(*one) for one in tried["repairs"]], truths, tried["results"]))
    if record:
        before = net.read(net.LAB) if net.LAB.exists() else whole
        together = {key: before[key] | whole[key] for key in ("bases", "corpora")}
        net.write({**whole, **together}, net.LAB)
