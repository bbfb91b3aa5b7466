"""The outcome of each load: what the releases computed, against what an adapter means.

An adapter means what it computed when it was saved. An edited one means what the release that saved it makes of it, if
that takes every tensor and misses none; else the edit has broken it, and it means what it did before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import edits
import numpy as np
from repairs import Repair

NEAR = 1e-4
"""How far outputs of one function are apart, by its largest number."""
PROMPTS = frozenset({"PREFIX_TUNING", "P_TUNING", "PROMPT_TUNING"})
SHAPED_BY_BASE = frozenset({"PREFIX_TUNING", "P_TUNING", "ADAPTION_PROMPT"})
"""What these put before the input fits or not by the sizes of the base model."""

Rows = dict[str, dict[str, Any]]
"""Adapter → what load.py says of it."""


def same(one: Path, other: Path) -> bool:
    """Whether two outputs are of one function."""
    first, second = np.load(one), np.load(other)
    return first.shape == second.shape and bool(np.abs(first - second).max() <= NEAR * max(1, np.abs(second).max()))


def _more(now: dict[str, Any], before: dict[str, Any], what: str) -> set[str]:
    """Keys that are left over or missed since the edit: those of prompts always are."""
    return {*now[what]} - {*before[what]}


class Truths:
    """What is true of the adapters in a folder; `loads` is release → what load.py says there."""

    def __init__(self, folder: Path, made: Rows, loads: dict[str, Rows]) -> None:
        self.folder, self.made, self.loads = folder, made, loads

    def _output(self, release: str, name: str) -> Path:
        return self.folder / "outputs" / release / f"{name}.npy"

    def _trained(self, name: str) -> Path:
        return self.folder / "adapters" / name / "expected_output.npy"

    def meaning(self, name: str) -> Path | None:
        """The file with what the adapter means; None where that cannot be said."""
        row = self.made[name]
        if "fixed" in row:
            return self.meaning(row["fixed"])
        if not row["edit"]:
            return self._trained(name)
        saver, origin = row["saved_by"], self._trained(row["of"])
        before, now = self.loads[saver][row["of"]], self.loads[saver][name]
        if "error" in before or before["random"] or not same(self._output(saver, row["of"]), origin):
            return None
        if "error" in now or now["random"] or _more(now, before, "unexpected") or _more(now, before, "missing"):
            return origin
        # Without its task nothing puts a prompt before the input, though it is loaded whole.
        unused = row["method"] in PROMPTS and row["edit"].startswith("task_")
        return origin if unused else self._output(saver, name)

    def comparable(self, release: str, name: str) -> bool:
        """Whether the bare model computes in this environment what it did where the adapter was saved."""
        row = self.made[name]
        if "absent" in self.loads[release][name]:
            return False
        return same(*(self._output(where, f"{row['base']}.bare") for where in (release, row["saved_by"])))

    def outcome(self, release: str, name: str, meaning: Path) -> list[str]:
        """What a release makes of an adapter, and the error or what differs."""
        row = self.loads[release][name]
        if "error" in row:
            return ["rejects", row["error"]]
        if row["random"]:
            return ["misloads", f"random; missed: {row['missing'][:2]}"]
        if same(self._output(release, name), meaning):
            return ["accepts", ""]
        return ["misloads", f"left over: {row['unexpected'][:2]}; missed: {row['missing'][:2]}"]

    def ran(self, releases: list[str], name: str) -> dict[str, list[str]]:
        """Release → what it makes of an adapter, and why; none where it cannot be said what that means."""
        meaning = self.meaning(name)
        return {rel: self.outcome(rel, name, meaning) for rel in releases if meaning and self.comparable(rel, name)}

    def all(self, releases: list[str]) -> dict[str, dict[str, Any]]:
        """The content of truth.json."""
        whole = {}
        for name, row in self.made.items():
            if "fixed" not in row and self.meaning(name):
                ran = self.ran(releases, name)
                unsaid = edits.UNSAID.get(row["edit"], "base" if row["method"] in SHAPED_BY_BASE else None)
                whole[name] = {
                    "base": row["base"], "saved_by": row["saved_by"], "drawn": row["drawn"],
                    "group": f"{row['method']} {row['edit'] or 'as saved'}", "peft": ran,
                    "files_do_not_tell": unsaid == "always", "only_the_base_tells": unsaid == "base",
                }  # fmt: skip
        return whole

    def results(self, releases: list[str]) -> dict[str, dict[str, list[str]]]:
        """What releases make of what fixes wrote."""
        return {name: self.ran(releases, name) for name, row in self.made.items() if "fixed" in row}

    def write(self, releases: list[str], repairs: list[Repair]) -> None:
        """Write truth.json and repairs.json."""
        for name, value in {
            "truth": self.all(releases), "repairs": {"repairs": repairs, "results": self.results(releases)}
        }.items():  # fmt: skip
            (self.folder / f"{name}.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
