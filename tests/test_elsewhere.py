"""The commands where a system has not got what Linux has (tests/elsewhere.py): the same comes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FIXTURES
from test_fix import tree

ZERO = FIXTURES / "adalora-rank0-0.9.0"
COMMANDS = {
    "scan tree/in --for peft==0.9.0": 1,
    "fix tree/in out --for peft==0.9.0": 0,
    "fix tree/in out": 2,  # which is there
    "fix tree/in out --for peft==0.9.0 --force": 0,
    "fix tree all": 0,
    "compare tree/in out": 0,
    "verify out": 0,
    "ranks out --values --html page.html": 0,
    "preload tree/in --for peft==0.9.0": 0,
    "scan tree --format jsonl=lines --resume journal": 1,
    "fix --in-place tree/in --for peft==0.9.0": 0,
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[int, str]], set[str]]:
    return results("linux", tmp_path_factory.mktemp("linux"))


def results(system: str, folder: Path) -> tuple[list[tuple[int, str]], set[str]]:
    """What comes of each command, and what lies there in the end."""
    shutil.copytree(ZERO, folder / "tree/in")
    environ = {**os.environ, "CKPT_DOCTOR_CACHE": str(folder / "cache")}
    found = []
    for command in COMMANDS:
        arguments = [sys.executable, Path(__file__).parent / "elsewhere.py", system, *command.split()]
        run = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=folder, env=environ)
        found.append((run.returncode, run.stdout + run.stderr))
    return found, {name for name in tree(folder) if not name.startswith("cache/")}


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_the_same_comes_of_each_command(
    system: str, here: tuple[list[tuple[int, str]], set[str]], tmp_path: Path
) -> None:
    found, files = results(system, tmp_path)
    for (command, code), one, other in zip(COMMANDS.items(), found, here[0], strict=True):
        assert (one[0], other[0]) == (code, code), f"{command}: {one[1]}"
        if not command.startswith("preload"):  # which prints where its copy is
            assert one[1] == other[1], command
    assert files == here[1]
    assert not any(".ckpt-doctor-" in name for name in files)
