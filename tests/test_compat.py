"""Every fixture, before and after, in real PEFT releases (`make compat`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from check_fixes import faults
from click.testing import CliRunner
from conftest import ADAPTERS, FIXTURES, OLD_READING
from test_fix import fixed, load

from ckpt_doctor.adapter.findings import verdict
from ckpt_doctor.adapter.runtimes import parse
from ckpt_doctor.cli import main
from ckpt_doctor.verbs.prove import proofs
from ckpt_doctor.verbs.scan import examine

pytestmark = pytest.mark.compat
VENVS = sorted(Path(os.environ.get("PEFT_VENVS", ".venvs")).glob("peft-*"))


def test_there_are_releases_to_try() -> None:
    assert VENVS


@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_before_is_as_the_findings_say(venv: Path) -> None:
    release = venv.name.replace("-", "==")
    expected = {str(FIXTURES / n): verdict(release, examine(str(FIXTURES / n)).findings) for n in ADAPTERS}
    rows = load(str(venv / "bin/python"), [FIXTURES / name for name in ADAPTERS])
    assert {row["folder"]: row["verdict"] for row in rows} == expected


@pytest.mark.parametrize("how", ["pad", "prune"])
@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_after_is_as_the_findings_say(run: Any, tmp_path: Path, venv: Path, how: str) -> None:
    """And from 0.5 on, that is accepted."""
    release = venv.name.replace("-", "==")
    folders = fixed(run, tmp_path, "--rank-zero", how)
    expected = {str(folder): verdict(release, examine(str(folder)).findings) for folder in folders}
    rows = load(str(venv / "bin/python"), folders)
    assert {row["folder"]: row["verdict"] for row in rows} == expected
    if release in parse("peft>=0.5"):
        assert set(expected.values()) == {"accepts"}


@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_fix_for_a_release_is_accepted_by_it(run: Any, tmp_path: Path, venv: Path) -> None:
    """Also in the form for all releases."""
    release = venv.name.replace("-", "==")
    folders = []
    for spec in (release, "peft==*"):
        (tmp_path / spec).mkdir()
        heads = [] if release in parse("peft>=0.7,<0.13") and spec == release else OLD_READING[2:]
        names = [name for name in ADAPTERS if name not in heads]
        folders += fixed(run, tmp_path / spec, "--for", spec, names=names)
    rows = load(str(venv / "bin/python"), folders)
    assert [row for row in rows if row["verdict"] != "accepts"] == []


SPECS = [*(venv.name.replace("-", "==") for venv in VENVS), "nothing"]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: Any) -> Any:
    """What each release makes of the fixtures, and of what is written for each of SPECS: folder → release → verdict;
    and where that is. Each release is started once.
    """
    out = tmp_path_factory.mktemp("fixes")
    for spec in SPECS:
        (out / spec).mkdir()
        for name in ADAPTERS:
            options = ["--for", spec] if "==" in spec else []
            CliRunner().invoke(
                main, ["fix", str(FIXTURES / name), str(out / spec / name), *options], catch_exceptions=False
            )
    originals = [FIXTURES / name for name in ADAPTERS]
    fixes = [out / spec / name for spec in SPECS for name in ADAPTERS if (out / spec / name).exists()]
    found: dict[Path, dict[str, str]] = {}
    for venv in VENVS:
        for row in load(str(venv / "bin/python"), [*originals, *fixes]):
            found.setdefault(Path(row["folder"]), {})[venv.name.removeprefix("peft-")] = row["verdict"]
    return out, found


@pytest.mark.xdist_group("silent")
@pytest.mark.parametrize("spec", SPECS)
def test_no_fix_takes_a_release_from_a_loud_rejection_to_a_silent_difference(verdicts: Any, spec: str) -> None:
    out, found = verdicts
    for name in ADAPTERS:
        before, after = found[FIXTURES / name], found.get(out / spec / name, {})
        assert (name, faults(spec.removeprefix("peft=="), before, after)) == (name, [])


PRELOAD = """
import sys
from ckpt_doctor import preload
for path in sys.argv[1:]:
    print(preload(path, strict=True))
"""


@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_what_preload_gives_is_accepted_by_the_release_that_is_installed(tmp_path: Path, venv: Path) -> None:
    release = venv.name.replace("-", "==")
    names = [name for name in ADAPTERS if release in parse("peft>=0.5") or "gpt2" not in name]
    names = [name for name in names if release in parse("peft>=0.7,<0.13") or name not in OLD_READING[2:]]
    environ = {**os.environ, "PYTHONPATH": str(FIXTURES.parent), "CKPT_DOCTOR_CACHE": str(tmp_path / "cache")}
    command = [str(venv / "bin/python"), "-c", PRELOAD, *(str(FIXTURES / name) for name in names)]
    paths = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout.splitlines()
    for name, path in zip(names, paths, strict=True):
        assert (path == str(FIXTURES / name)) == (verdict(release, examine(str(FIXTURES / name)).findings) == "accepts")
        shutil.copytree(path, tmp_path / name)
    rows = load(str(venv / "bin/python"), [tmp_path / name for name in names])
    assert [row for row in rows if row["verdict"] != "accepts"] == []


@pytest.mark.parametrize("venv", VENVS, ids=lambda venv: venv.name)
def test_what_is_proved_on_a_skeleton_is_what_the_facts_say(venv: Path) -> None:
    release = venv.name.replace("-", "==")
    reports = [examine(str(FIXTURES / name)) for name in ADAPTERS]
    found = dict(zip(ADAPTERS, proofs(reports, release, str(venv / "bin/python")), strict=True))
    assert {name: proof for name, proof in found.items() if not proof.agrees} == {}
    # up to 0.4 a model has to have a config, which one that is not of transformers lacks
    least = len(ADAPTERS) - (3 if release in parse("peft>=0.5") else 8)
    assert sum(proof.verdict != "unknown" for proof in found.values()) >= least
