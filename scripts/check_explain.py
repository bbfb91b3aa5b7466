"""Hold what `explain` makes of messages against what `scan` finds: every message of corpora of real loads.

usage: python scripts/check_explain.py CORPUS... [--wrong]
Each CORPUS holds adapters/ and truth.json: name → {"base", "adapter_name", "peft" and "runtimes": {release: [outcome,
what was printed]}}, and may have base/. A message of a load that failed is explained right where one of the codes, three
at most, is reported by a scan for that runtime, of that adapter with its base, as rejecting or misloading it. Prints
the share of the outcomes, and of the messages that differ (right where they are of each adapter), by runtime; --wrong
also what is wrong. Exits with 1 where less than 95 % of the messages are right.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from ckpt_doctor.adapter import question_of
from ckpt_doctor.adapter.runtimes import ids
from ckpt_doctor.files.base import named_base
from ckpt_doctor.verbs.recognise import likely, recognised
from ckpt_doctor.verbs.scan import examine

ENOUGH = 0.95
MAX_RANK = 16
"""The limit that the servers of such corpora were started with."""


def outcomes(corpus: Path) -> Iterator[tuple[str, str, str, set[str]]]:
    """Of each load that failed: the adapter, the runtime, what was printed, and the codes of a scan."""
    for name, row in json.loads((corpus / "truth.json").read_text()).items():
        failed = {
            f"peft=={release}": text for release, (word, text) in row.get("peft", {}).items() if word == "rejects"
        }
        failed |= {runtime: text for runtime, (word, text) in row.get("runtimes", {}).items() if word == "rejects"}
        known = {runtime: min(ids([runtime])) for runtime, text in failed.items() if text}
        if not known:
            continue
        base = corpus / "base" / str(row.get("base"))
        model = named_base(str(base if base.is_dir() else "none"))
        limit = MAX_RANK if "runtimes" in row else None
        question = question_of(frozenset(known.values()), row.get("adapter_name", "default"), model, limit)
        report = examine(str(corpus / "adapters" / name), question, repairs=False)
        for runtime, id_ in known.items():
            found = {each.code for each in report.findings if id_ in each.rejected_by | each.misloaded_by}
            yield name, id_, failed[runtime], found


def measured(corpora: list[Path], wrong: bool) -> bool:
    """Prints how many are right, and says whether that is enough."""
    loads: dict[str, Counter[bool]] = defaultdict(Counter)
    texts: dict[str, dict[str, bool]] = defaultdict(dict)
    for corpus in corpora:
        for name, id_, text, found in outcomes(corpus):
            named = {code.number for code in likely(recognised(text))}
            right = bool(named & found)
            for runtime in (id_.partition("==")[0], "all"):
                loads[runtime][right] += 1
                texts[runtime][text] = texts[runtime].get(text, True) and right
            if wrong and not right:
                print(f"{name} {id_}: named {sorted(named)}, found {sorted(found)}: {text[:160]}")
    for runtime, counts in sorted(loads.items()):
        each = texts[runtime].values()
        print(f"{runtime:13} loads {counts[True]}/{counts.total()}, messages {sum(each)}/{len(each)}")
    return sum(texts["all"].values()) >= ENOUGH * len(texts["all"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", type=Path, metavar="CORPUS")
    parser.add_argument("--wrong", action="store_true")
    options = parser.parse_args()
    sys.exit(not measured(options.corpora, options.wrong))


if __name__ == "__main__":
    main()
