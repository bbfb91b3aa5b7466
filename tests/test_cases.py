"""The rules by their cases: each code has one that fires and one that nearly does, and says whom it stops."""

from __future__ import annotations

from pathlib import Path

import casefile
import judging
import pytest


@pytest.mark.parametrize("path", casefile.PATHS, ids=lambda path: path.stem)
def test_what_is_found(path: Path, tmp_path: Path) -> None:
    case = casefile.read(path, tmp_path)
    assert not case.faults(judging.judge(case.adapter, case.asked))


MADE_ELSEWHERE = {"CD903"}
"""What no rule finds: CD903 is what a real release did (tests/test_prove.py)."""


@pytest.mark.parametrize("code", sorted(judging.codes().keys() - MADE_ELSEWHERE))
def test_each_code_fires_and_nearly_does(code: str, tmp_path: Path) -> None:
    cases = [casefile.read(path, tmp_path) for path in casefile.PATHS if path.stem.startswith(f"{code}-")]
    fires = any(code in case.fires and code in case.severities for case in cases if not case.is_near)
    assert fires, f"no case {code}-NAME.toml fires with a severity"
    assert any(code in case.quiet for case in cases if case.is_near), f"no case {code}-NAME-near.toml has it in quiet"


def test_each_case_is_about_the_code_of_its_name(tmp_path: Path) -> None:
    for path in casefile.PATHS:
        case = casefile.read(path, tmp_path)
        assert case.code in judging.codes()
        assert case.code in (case.quiet if case.is_near else case.fires)
