"""Every fixture, before and after, in real PEFT releases (`make compat`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import ADAPTERS, FIXTURES
from test_fix import fixed, load

from ckpt_doctor.doctor import scan
from ckpt_doctor.findings import verdict
from ckpt_doctor.runtimes import parse

pytestmark = pytest.mark.compat
VENVS = sorted(Path(os.environ.get("PEFT_VENVS", ".venvs")).glob("peft-*"))


def test_there_are_releases_to_try() -> None:
    assert VENVS


@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_before_is_as_the_findings_say(venv: Path) -> None:
    release = venv.name.replace("-", "==")
    said = {str(FIXTURES / n): verdict(release, scan(str(FIXTURES / n)).findings) for n in ADAPTERS}
    rows = load(str(venv / "bin/python"), [FIXTURES / name for name in ADAPTERS])
    assert {row["folder"]: row["verdict"] for row in rows} == said


@pytest.mark.parametrize("how", ["pad", "prune"])
@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_after_is_as_the_findings_say(run: Any, tmp_path: Path, venv: Path, how: str) -> None:
    """And from 0.5 on, that is accepted."""
    release = venv.name.replace("-", "==")
    folders = fixed(run, tmp_path, "--rank-zero", how)
    said = {str(folder): verdict(release, scan(str(folder)).findings) for folder in folders}
    rows = load(str(venv / "bin/python"), folders)
    assert {row["folder"]: row["verdict"] for row in rows} == said
    if release in parse("peft>=0.5"):
        assert set(said.values()) == {"accepts"}


@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_fix_for_a_release_is_accepted_by_it(run: Any, tmp_path: Path, venv: Path) -> None:
    """Also in the form for all releases."""
    release = venv.name.replace("-", "==")
    for spec in (release, "peft==*"):
        (tmp_path / spec).mkdir()
        rows = load(str(venv / "bin/python"), fixed(run, tmp_path / spec, "--for", spec))
        assert [row for row in rows if row["verdict"] != "accepts"] == []
