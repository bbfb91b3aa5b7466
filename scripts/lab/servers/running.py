"""Run the scripts of this folder in the environments of servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SCRIPTS = {"vllm": "in_vllm.py", "sglang": "in_sglang.py", "llama.cpp": "in_llama_cpp.py"}
PATIENCE = 1800
"""Seconds for all adapters of a model."""


class Outcome(NamedTuple):
    """`accepts`, `rejects`, `misloads`, `loads` (with what it means unknown) or `absent` (the model does not run there)."""

    verdict: str
    why: str


class Environments:
    """A folder that scripts/make_server_envs.sh has filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def _run(
        self, server: str, script: Path, *arguments: str, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        python = self.folder / server.replace("==", "-") / "bin/python"
        command = [str(python), "-W", "ignore", str(script), *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def save(self, server: str, folder: Path, seed: str, count: int) -> list[dict[str, Any]]:
        """Have adapters made in a folder, in the environment of a server: what was drawn for each."""
        done = self._run(server, HERE.parent / "save.py", "--served", seed, *map(str, range(count)), folder=folder)
        done.check_returncode()
        return [row for row in map(json.loads, done.stdout.splitlines()) if row]

    def meanings(self, server: str, base: Path, out: Path, adapters: Iterable[Path]) -> None:
        """Write OUT/NAME.safetensors with what each adapter means, in the environment of a server."""
        self._run(server, HERE / "meaning.py", str(base), str(out), *map(str, adapters))

    def load(self, server: str, base: Path, adapters: dict[Path, Path]) -> dict[Path, Outcome]:
        """What a server makes of adapters of one model; each with the file of what it means."""
        jobs = [f"{adapter}:{meaning}" for adapter, meaning in adapters.items()]
        done = self._run(server, HERE / SCRIPTS[server.partition("==")[0]], str(base), *jobs)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"adapter"')]
        outcomes = {Path(row["adapter"]): Outcome(row["outcome"], row["why"]) for row in rows}
        died = Outcome("absent", f"the loader ended early: {done.stderr[-300:]}")
        return {adapter: outcomes.get(adapter, died) for adapter in adapters}
