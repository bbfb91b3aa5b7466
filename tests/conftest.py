"""Where the fixtures are, and how to run the command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ckpt_doctor.cli import main

FIXTURES = Path(__file__).parent.parent / "fixtures"
sys.path[:0] = [str(FIXTURES), str(FIXTURES.parent / "scripts")]
os.environ.pop("COLUMNS", None)  # which pytest-xdist sets: what is tested writes to a pipe
OLD_READING = ("lora-nested-0.9.0", "lora-patterns-0.9.0", "lora-head-bert-0.9.0")
"""Saved by PEFT 0.9, which reads them otherwise than the newest."""
ADAPTERS = sorted(path.name for path in FIXTURES.iterdir() if (path / "adapter_config.json").exists())


@pytest.fixture
def run() -> Any:
    """Run `ckpt-doctor` with the arguments given."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def scan(run: Any) -> Any:
    """The one report of `ckpt-doctor scan --format json`."""

    def one(path: object) -> dict[str, Any]:
        (report,) = json.loads(run("scan", "--format", "json", path).stdout)["reports"]
        assert isinstance(report, dict)
        return report

    return one
