"""The tables by architecture: read line by line, whole, and on the page that is made from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_doctor.facts.servers.architectures import line
from ckpt_doctor.facts.servers.loads import FOLLOWED

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "ckpt_doctor/facts/servers"


@pytest.mark.parametrize("table", FOLLOWED.values())
def test_each_line_is_one_architecture(table: str) -> None:
    whole = json.loads((FOLDER / f"{table}.json").read_text())
    assert whole.pop("version")
    assert all(line(table, name) == entry for name, entry in whole.items())
    assert line(table, "NoSuchForCausalLM") is None


def test_the_classes_that_were_run_are_in_the_tables() -> None:
    run = json.loads((FOLDER / "run.json").read_text())
    assert run.keys() <= set(FOLLOWED.values())
    assert [name for name in run["llama_cpp"] if line("llama_cpp", name) is None] == ["OPTForCausalLM"]


def test_the_page_of_servers_is_made_from_the_tables(tmp_path: Path) -> None:
    paths = [str(ROOT / "scripts"), str(ROOT)]
    program = f"import sys; sys.path[:0] = {paths!r}; import server_page; print(server_page.page(), end='')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (ROOT / "docs/servers.md").read_text() == done.stdout, "run python scripts/server_page.py"
