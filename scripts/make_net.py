"""Make tests/data/net.json.xz, adapters without weights and what real runtimes did with them; or the list beside it.

usage: python scripts/make_net.py FOLDER[=BASE]... [--max-rank N]
       python scripts/make_net.py --known [--allow-new]
FOLDER holds adapters/ and truth.json: name → "peft" and "runtimes" ({release or server: [outcome, error]}), and where it
is so "base", "adapter_name", "files_do_not_tell", "only_the_base_tells". The bases of its adapters are in base/, as the
Hub has them, and in base_full/, as their own classes name them; BASE is the one of all.
With --known, tests/data/net_known_wrong.txt and lab_known_wrong.txt are written anew: outcomes that are right now go; one that was not in it is
added with --allow-new only, or where a wrong word has become "unknown".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import judging
import net

LETTERS = {outcome: letter for letter, outcome in net.OUTCOMES.items()}
NOT_OF_THE_ADAPTER = "expected_output.npy"


def entry(folder: Path, truth: dict[str, Any], releases: list[str], bases: dict[str, str]) -> dict[str, Any]:
    """What the net keeps of an adapter."""
    unsaid = {"always": truth.get("files_do_not_tell"), "base": truth.get("only_the_base_tells")}
    adapter = judging.described(str(folder))
    adapter["files"] = [name for name in adapter["files"] if name != NOT_OF_THE_ADAPTER]
    if "adapter_name" in truth:
        adapter["adapter_name"] = truth["adapter_name"]
    ran = truth.get("peft", {})
    return {
        "group": truth.get("group", truth.get("family")),
        "bases": bases,
        "unsaid": next((what for what, is_so in unsaid.items() if is_so), None),
        "peft": "".join(LETTERS[ran[release][0]] if release in ran else net.NOT_RUN for release in releases),
        "servers": {id_: LETTERS[outcome] for id_, (outcome, _) in truth.get("runtimes", {}).items()},
        "adapter": adapter,
    }


def made(places: list[str], max_rank: int | None) -> dict[str, Any]:
    """The net of some folders."""
    whole: dict[str, Any] = {"max_rank": max_rank, "bases": {}, "corpora": {}}
    for place in places:
        root, _, one = place.partition("=")
        folder, adapters = Path(root), {}
        truths = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        ran = {release for truth in truths.values() for release in truth.get("peft", {})}
        releases = sorted(ran, key=lambda release: tuple(map(int, release.split("."))))
        for name, truth in truths.items():
            at = {form: folder / form / truth.get("base", "none") for form in ("base", "base_full")}
            at = {"base": Path(one)} if one else {form: path for form, path in at.items() if path.is_dir()}
            bases = {form: f"{folder.name}/{form}/{path.name}" for form, path in at.items()}
            for form, path in at.items():
                if bases[form] not in whole["bases"]:
                    whole["bases"][bases[form]] = judging.described_base(str(path))
            adapters[name] = entry(folder / "adapters" / name, truth, releases, bases)
        whole["corpora"][folder.name] = {"peft": releases, "adapters": adapters}
    return whole


def list_known(path: Path, *, allow_new: bool) -> None:
    """Write the list of what is known to be wrong in a record."""
    asked, list_ = list(net.questions(net.read(path))), net.known_wrong(path)
    recorded = {question.key: list(question.real) for question in asked}
    mistakes = {question.key: net.mistakes(question, net.judged(question)) for question in asked}
    mistakes = {key: ids for key, ids in mistakes.items() if ids}
    before = net.known(list_.read_text(encoding="utf-8"), recorded) if list_.exists() else {}
    new, gone = net.difference(mistakes, before)
    if new and not allow_new:
        print(net.listing(new, recorded))
        sys.exit(f"{net.count(new)} outcomes are wrong that were not: nothing is written without --allow-new")
    list_.write_text(net.head(path) + net.listing(mistakes, recorded), encoding="utf-8")
    print(f"{list_.name}: {net.count(new)} added, {net.count(gone)} removed, {net.count(mistakes)} known to be wrong")


def main() -> None:
    """Make the net or the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", help="FOLDER or FOLDER=BASE")
    parser.add_argument("--max-rank", type=int, help="the limit that the servers were run with")
    parser.add_argument("--known", action="store_true", help="write the list of what is known to be wrong")
    parser.add_argument("--allow-new", action="store_true", help="also add to it")
    asked = parser.parse_args()
    if asked.known is bool(asked.folder):
        parser.error("name folders, or --known")
    if asked.known:
        for path in (net.NET, net.LAB):
            list_known(path, allow_new=asked.allow_new)
    else:
        net.write(made(asked.folder, asked.max_rank), net.NET)


if __name__ == "__main__":
    main()
