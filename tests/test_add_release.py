"""A new PEFT release: looked at first, written only where that worked, and unknown until its methods were reviewed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES

ROOT = FIXTURES.parent
STUB = """#!{python}
import json, os, sys
sys.path.insert(0, {root!r})
from ckpt_doctor.verbs.scan import examine
if "-c" in sys.argv:
    print(json.dumps([{release!r}, json.loads({configs!r})]))
else:
    for folder in sys.argv[4:]:
        if {fails}:
            sys.exit("cannot import name 'EncoderDecoderCache'")
        verdict = examine(folder).verdicts["peft==0.21.2"]
        print(json.dumps({{"folder": folder, "verdict": "rejects" if "head" in folder else verdict, "error": "no"}}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the script reads and writes."""
    for name in ("ckpt_doctor", "scripts", "fixtures"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "project"


def stub(project: Path, release: str = "0.22.0", fails: bool = False) -> Path:
    """An interpreter whose PEFT is a release that nobody made: LoRA has one key more, LoHa one less."""
    table = json.loads((project / "ckpt_doctor/facts/config_keys.json").read_text())
    configs = {
        method: {key: row[2] for key, row in rows.items() if row[1] is None}
        for method, rows in table.items() if rows["peft_type"][1] is None
    }  # fmt: skip
    configs["LORA"]["use_stub"] = False
    configs["LORA"]["lora_alpha"] = 16
    del configs["LOHA"]["rank_dropout"]
    text = STUB.format(
        python=sys.executable, root=str(project), release=release, configs=json.dumps(configs), fails=fails
    )
    path = project / "python"
    path.write_text(text)
    path.chmod(0o755)
    return path


def add(project: Path, python: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project / "scripts/add_release.py"), str(python), *options]
    environ = {**os.environ, "PYTHONPATH": str(project)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


def tables(project: Path) -> list[bytes]:
    return [(project / "ckpt_doctor" / name).read_bytes() for name in ("adapter/runtimes.py", "facts/config_keys.json")]


def verdicts(project: Path, fixture: str) -> dict[str, Any]:
    code = (
        "import sys, json; from ckpt_doctor.verbs.scan import examine; print(json.dumps(examine(sys.argv[1]).verdicts))"
    )
    command = [sys.executable, "-c", code, str(project / "fixtures" / fixture)]
    environ = {**os.environ, "PYTHONPATH": str(project)}
    out = subprocess.run(command, capture_output=True, check=True, env=environ, cwd=project).stdout
    by_id: dict[str, Any] = json.loads(out)
    return by_id


def test_it_is_looked_at_without_being_written(project: Path) -> None:
    before = tables(project)
    result = add(project, stub(project))
    assert result.returncode == 0, result.stderr
    assert tables(project) == before
    for line in ("+ LORA.use_stub: false", "~ LORA.lora_alpha: the default was 8 and is 16",
                 "- LOHA.rank_dropout: the last release with it is 0.21.2"):  # fmt: skip
        assert line in result.stdout
    assert "lora-head-bert-0.9.0: rejects" not in result.stdout  # as the newest known one does
    assert "written" not in result.stdout


def test_what_is_written_is_unknown_until_someone_looked(project: Path) -> None:
    before = verdicts(project, "lora-plain-0.21.2")
    assert add(project, stub(project), "--write").returncode == 0
    after = verdicts(project, "lora-plain-0.21.2")
    assert after.pop("peft==0.22.0") == "unknown"
    assert after == before
    assert verdicts(project, "adalora-no-rank0-0.21.2")["peft==0.22.0"] == "unknown"


@pytest.mark.parametrize(
    ("release", "fails"), [("0.22.0", True), ("0.21.2", False), ("0.20.1", False), ("0.22.0rc1", False)]
)
def test_where_something_is_wrong_nothing_is_written(project: Path, release: str, fails: bool) -> None:
    before = tables(project)
    result = add(project, stub(project, release, fails), "--write")
    assert result.returncode != 0
    assert tables(project) == before
