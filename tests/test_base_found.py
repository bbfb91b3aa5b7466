"""The base that an adapter's config names, from the local cache of the Hub: by its id, and only where it decides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_servers import QV, VLLM, base, lora  # noqa: F401 - base is a fixture

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A cache with the base as some/llama."""
    folder = tmp_path / "cache" / "models--some--llama"
    shutil.copytree(base, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    from ckpt_doctor.files.hub import cached_base

    cached_base.cache_clear()
    return tmp_path / "cache"


def report(run: Any, folder: Path, *options: str) -> dict[str, Any]:
    out = run("scan", folder, "--format", "json", *options).stdout
    only: dict[str, Any] = json.loads(out)["reports"][0]
    return only


def test_the_cache_decides_what_is_asked_and_the_report_says_so(run: Any, tmp_path: Path, cache: Path) -> None:
    folder = lora(tmp_path / "a", QV, base_model_name_or_path="some/llama")
    found = report(run, folder, "--for", "vllm")
    assert found["verdicts"][VLLM] == "accepts"
    assert found["base"] == {"name": "some/llama", "revision": COMMIT, "found_in_cache": True}
    assert "judged by some/llama" in " ".join(run("scan", folder, "--for", "vllm").stdout.split())
    assert cache.exists()


@pytest.mark.parametrize("options", [("--for", "vllm", "--base", "none"), ()])
def test_it_is_left_where_nothing_needs_it_or_none_is_wanted(
    run: Any, tmp_path: Path, cache: Path, options: tuple[str, ...]
) -> None:
    folder = lora(tmp_path / "a", QV, base_model_name_or_path="some/llama")
    assert report(run, folder, *options)["base"] is None
    assert cache.exists()


@pytest.mark.parametrize("name", ["{base}", "../base", "some/../llama", "some/llama/x", "/etc", "", "some/other"])
def test_a_name_is_an_id_and_never_a_path(run: Any, tmp_path: Path, cache: Path, name: str) -> None:
    folder = lora(tmp_path / "a", QV, base_model_name_or_path=name.format(base=tmp_path / "base"))
    assert report(run, folder, "--for", "vllm")["base"] is None
    assert cache.exists()


def test_a_fix_uses_it_as_well(run: Any, tmp_path: Path, cache: Path) -> None:
    folder = lora(tmp_path / "a", QV, base_model_name_or_path="some/llama")
    result = run("fix", folder, tmp_path / "out", "--for", "sglang")
    assert result.exit_code == 0, result.output
    assert (
        report(run, tmp_path / "out", "--for", "sglang", "--base", str(tmp_path / "base"))["verdicts"]["sglang==0.5.23"]
        == "accepts"
    )
    assert cache.exists()


def test_a_config_alone_in_the_cache_tells_its_name_too(run: Any, tmp_path: Path, cache: Path) -> None:
    folder = lora(tmp_path / "a", QV, base_model_name_or_path="some/mistral")
    config = cache / "models--some--llama" / "snapshots" / COMMIT / "config.json"
    found = [finding["code"] for finding in report(run, folder, "--base", str(config))["findings"]]
    assert "CD330" in found
