"""The example between a request and vLLM: with what stands in for vLLM here, and with vLLM in `make front-door`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FIXTURES

EXAMPLE = FIXTURES.parent / "examples/vllm_front_door"
STAND_IN = {
    "vllm/__init__.py": '__version__ = "0.33.0"\n',
    "vllm/plugins.py": (
        "from importlib.metadata import entry_points\n"
        "def load_general_plugins():\n"
        "    for plugin in entry_points(group='vllm.general_plugins'):\n"
        "        plugin.load()()\n"
    ),
    "vllm/lora/__init__.py": "",
    "vllm/lora/request.py": (
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class LoRARequest:\n"
        "    lora_name: str\n"
        "    lora_int_id: int\n"
        "    lora_path: str\n"
    ),
    "vllm/lora/resolver.py": (
        "from abc import ABC, abstractmethod\n"
        "class LoRAResolver(ABC):\n"
        "    @abstractmethod\n"
        "    async def resolve_lora(self, base_model_name, lora_name): ...\n"
        "class LoRAResolverRegistry:\n"
        "    resolvers = {}\n"
        "    register_resolver = resolvers.__setitem__\n"
        "    get_resolver = resolvers.__getitem__\n"
    ),
}
"""The interface of vLLM 0.33.0 as it was read: vllm/lora/resolver.py, lora/request.py, plugins/__init__.py."""


def test_a_request_gets_what_its_server_takes_or_nothing(tmp_path: Path) -> None:
    for name, text in STAND_IN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    about = tmp_path / "vllm_front_door-0.1.0.dist-info"  # as it is when the example is installed
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-front-door\nVersion: 0.1.0\n")
    project = _toml((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((group, points),) = project["entry-points"].items()
    (about / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    paths = os.pathsep.join(map(str, (tmp_path, EXAMPLE, FIXTURES.parent)))
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE / "check.py", FIXTURES], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stdout.splitlines()[-1:]) == (0, ["not loaded: this is no vLLM"]), result.stderr
    assert "'torn' is not served: " in result.stderr
    assert "'elsewhere' is not served: it is of the model 'owner/other'" in result.stderr


def _toml(text: str) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    loads = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli").loads
    found: dict[str, dict[str, dict[str, dict[str, str]]]] = loads(text)
    return found
