"""Hold what a scan proposes against what the commands do: every one of it, over corpora of adapters.

usage: python scripts/check_next.py CORPUS... [--for SPEC...] [--without-base] [--limit N]
Each CORPUS holds adapters/ and truth.json (name → {"base"}), and may have base/. Each adapter is examined for nothing,
and for each SPEC (several in one with +), with and without its base. A proposed fix has to exit with 0 and write what
was asked for accepts, or only the missing base leaves undecided; where a fix with the same options repairs something,
it has to be proposed; and what no repair is said to make accepted, no fix for the same may repair, nor one for PEFT.
Prints what is not so, and how long plans took; exits with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from ckpt_doctor.adapter import AdapterError, question_of
from ckpt_doctor.adapter.findings import LEFT, THE_BASE, verdict
from ckpt_doctor.adapter.runtimes import NEWEST, ids
from ckpt_doctor.api import fix
from ckpt_doctor.cli import main as command
from ckpt_doctor.files.base import named_base
from ckpt_doctor.verbs.report import Report
from ckpt_doctor.verbs.scan import examine
from ckpt_doctor.verbs.ways import DROP, FIX, REFUSED

SPECS = ("", "peft", "peft==0.9.0", "peft>=0.6,<0.10", "vllm", "servers")


def adapters(corpora: list[Path], limit: int) -> Iterator[tuple[Path, Path | None]]:
    """Each adapter with the folder of its base, if there is one."""
    for corpus in corpora:
        truth = json.loads((corpus / "truth.json").read_text())
        for name in sorted(truth)[:limit]:
            row = truth[name]
            base = corpus / "base" / str(row.get("base", "")) if isinstance(row, dict) else corpus / "none"
            if (corpus / "adapters" / name).is_dir():
                yield corpus / "adapters" / name, base if base.is_dir() else None


def taken(report: Report, asked: frozenset[str]) -> bool:
    """Whether it is accepted, or undecided for the want of a base alone."""
    for id_ in asked:
        word = verdict(id_, report.findings)
        doubts = [finding for finding in report.findings if id_ in finding.undecided_for]
        if word != "accepts" and not (word == "unknown" and all(f.needs == THE_BASE or f.code in LEFT for f in doubts)):
            return False
    return True


def fixed(folder: Path, spec: str, base: Path | None) -> bool:
    """Whether a fix with the same options repairs something."""
    specs = spec.split("+") if spec else None
    try:
        result = fix(folder, "/nonexistent/out", specs, base=base or "none", dry_run=True)
    except (AdapterError, ValueError):
        return False
    return bool(result.fixed and result.repairs)


def faults(folder: Path, spec: str, base: Path | None, out: Path, spent: Counter[str]) -> Iterator[str]:
    """What does not hold of one adapter under one question."""
    asked = ids(spec.split("+")) if spec else None
    question = question_of(asked, "default", named_base(str(base or "none")), None)
    start = time.perf_counter()
    examine(str(folder), question, repairs=False)
    middle = time.perf_counter()
    report = examine(str(folder), question)
    spent["judged"] += int((middle - start) * 1e6)
    spent["planned"] += int((time.perf_counter() - middle) * 1e6)
    spent["reports"] += 1
    ways = report.next
    spent.update(f"{way.kind}" for way in ways)
    if not ways:
        yield "no next step"
    for way in ways:
        if not way.command.startswith("ckpt-doctor fix "):
            continue
        words = shlex.split(way.command)[1:]
        words[2] = str(out)
        result = CliRunner().invoke(command, words)
        if result.exit_code:
            yield f"exits with {result.exit_code}: {way.command}: {result.output.splitlines()[-1:]}"
        else:
            named = ids(words[at + 1] for at, word in enumerate(words) if word == "--for")
            after = examine(str(out), question._replace(runtimes=named or None), repairs=False)
            if not taken(after, named or frozenset()):
                yield f"is not accepted: {way.command}"
        shutil.rmtree(out, ignore_errors=True)
    proposed = any(way.kind in (FIX, DROP) for way in ways)
    if report.error is None and not proposed and fixed(folder, spec, base):
        yield "a fix repairs it, and none is proposed"
    if any(way.kind == REFUSED and way.text.startswith("no repair") for way in ways):
        if fixed(folder, spec, base):
            yield "said to be beyond repair, and a fix for the same repairs it"
        if verdict(NEWEST, report.findings) != "accepts" and not proposed and fixed(folder, "peft", base):
            yield "said to be beyond repair, and a fix for PEFT repairs it"


def main() -> int:
    """Try all, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="+")
    parser.add_argument("--for", dest="specs", nargs="+", default=SPECS)
    parser.add_argument("--without-base", action="store_true")
    parser.add_argument("--limit", type=int, default=1_000_000, help="adapters of each corpus")
    given = parser.parse_args()
    spent = Counter[str]()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for path, base in adapters(given.corpora, given.limit):
            for spec in given.specs:
                for model in dict.fromkeys((None, None if given.without_base else base)):
                    for fault in faults(path, spec, model, Path(folder) / "out", spent):
                        wrong += 1
                        print(f"{path} --for {spec or 'nothing'}{' --base' if model else ''}: {fault}", flush=True)
    print(dict(spent))
    print(f"{wrong} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
