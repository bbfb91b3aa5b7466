"""What `fix` writes of adapters: every result is loaded like any other, and has to compute what its original means."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from check_fixes import digest
from tabulate import tabulate

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.adapter.findings import verdict
from ckpt_doctor.api import fix, scan

WITHOUT, WITH = "without base", "with base"
WAYS: dict[str, dict[str, Any]] = {"fix": {}, "fix --trim": {"trim": True}, "fix --to lora": {"to_lora": True}}
"""What is asked of every adapter, beside `fix --for` each release that does not accept it."""


class Repair(NamedTuple):
    """A fix: of which adapter, with or without its base model, how it was asked for, and the adapter it wrote, "" where
    it wrote none. `verdicts` are release → what is said of the result.
    """

    of: str
    base: str
    way: str
    made: str
    verdicts: dict[str, str]


def repaired(folder: Path, made: dict[str, dict[str, Any]], releases: list[str]) -> tuple[dict[str, Any], list[Repair]]:
    """Fix every adapter in a folder; results join adapters/, each once. Their rows, by name, and the repairs."""
    rows: dict[str, Any] = {}
    repairs: list[Repair] = []
    bases = [folder / "base" / row["base"] for row in made.values()]
    with ProcessPoolExecutor(2) as pool:
        for name, found in zip(made, pool.map(partial(_fixes, folder, releases), made, bases), strict=True):
            repairs += found
            rows |= {one.made: {**made[name], "fixed": name} for one in found if one.made not in ("", name)}
    return rows, repairs


def _fixes(folder: Path, releases: list[str], name: str, model: Path) -> list[Repair]:
    found = []
    adapter = folder / "adapters" / name
    for base, at in ((WITHOUT, "none"), (WITH, str(model))):
        said = scan(adapter, base=at).verdicts
        stopping = [release for release in releases if said[f"peft=={release}"] != "accepts"]
        ways = {**WAYS, **{f"fix --for peft=={release}": {"for_": f"peft=={release}"} for release in stopping}}
        for way, how in ways.items():
            out = folder / "fixed" / name
            try:
                result = fix(adapter, out, base=at, force=True, **how)
            except AdapterError:
                found.append(Repair(name, base, way, "", {}))
                continue
            verdicts = {release: verdict(f"peft=={release}", result.remaining) for release in releases}
            found.append(Repair(name, base, way, _kept(adapter, out) if result.out else "", verdicts))
    return found


def _kept(adapter: Path, out: Path) -> str:
    """The name under which a result joins the adapters: that of the original where it is the same."""
    if digest(out) == digest(adapter):
        return adapter.name
    kept = adapter.with_name(f"{adapter.name}~{digest(out)[:8]}")
    if not kept.exists():
        shutil.move(out, kept)
    return kept.name


class Outcome(NamedTuple):
    """A result in a release: what that does, what is said, what it did with the original; `right` has the answer."""

    repair: Repair
    release: str
    real: str
    error: str
    before: str

    @property
    def fault(self) -> str:
        """What is wrong: an accepted result does not load or computes something else, or one is silently wrong in a
        release that accepted or rejected the original.
        """
        said = self.repair.verdicts[self.release]
        if said == "accepts" and self.real == "rejects":
            return "does not load"
        loud = self.before in ("accepts", "rejects") and said != "unknown"
        return "changed" if self.real == "misloads" and (said == "accepts" or loud) else ""


def outcomes(repairs: Iterable[Repair], truths: dict[str, Any], results: dict[str, Any]) -> Iterator[Outcome]:
    """What became of results, but where the files do not tell what the original means."""
    for repair in repairs:
        truth = truths.get(repair.of)
        if truth and repair.made and not _untold(truth, repair.base):
            ran = truth["peft"] if repair.made == repair.of else results[repair.made]
            for release in repair.verdicts.keys() & truth["peft"].keys():
                yield Outcome(repair, release, *ran[release], truth["peft"][release][0])


def _untold(truth: dict[str, Any], base: str) -> bool:
    return bool(truth["files_do_not_tell"] or (truth["only_the_base_tells"] and base == WITHOUT))


def told(repairs: list[Repair], truths: dict[str, Any], results: dict[str, Any]) -> str:
    """How many repairs there are of each way, and what is wrong with which."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for repair in repairs:
        kind = "refused" if not repair.made else "as it was" if repair.made == repair.of else "repaired"
        counts.setdefault((repair.way, repair.base), Counter())[kind] += 1
    lines = []
    for one in outcomes(repairs, truths, results):
        count = counts[one.repair.way, one.repair.base]
        count.update({"loads": 1, "promised": one.repair.verdicts[one.release] == "accepts", one.fault: 1})
        if one.fault:
            lines.append(f"{one.repair.of}  {one.repair.way} ({one.repair.base}): {one.fault} in {one.release}, which "
                         f"{one.before} the original: {one.error}  {one.repair.made}")  # fmt: skip
    kinds = ("repaired", "as it was", "refused", "loads", "promised", "does not load", "changed")
    table = [(*key, *(count[kind] for kind in kinds)) for key, count in sorted(counts.items())]
    total = ["all", "", *(sum(count[kind] for count in counts.values()) for kind in kinds)]
    return "\n".join([*lines, "", tabulate([*table, total], ("", "", *kinds))])
