"""What nobody foresaw in one adapter is one sentence, and stops neither the others nor the output."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import load_file, save_file
from test_fix import tree

from ckpt_doctor.reports import json as json_reporter
from ckpt_doctor.reports import table
from ckpt_doctor.verbs import fix, scan

HEALTHY, ZERO = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.21.2"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A tree of three, of which the second is to fail."""
    for name in ("first", "second", "third"):
        shutil.copytree(ZERO, tmp_path / "in" / name)
    return tmp_path / "in"


STEPS: dict[str, tuple[Any, str]] = {
    "read": (scan, "judge"),
    "planned": (fix, "plan"),
    "written": (fix, "carry_out"),
    "told": (table, "fix"),
    "told as JSON": (json_reporter, "changes"),
}


@pytest.mark.parametrize("kind", [ValueError, KeyError, MemoryError, RecursionError, OSError])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("in_place", [False, True])
def test_the_others_are_done(
    run: Any, adapters: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], step: str, in_place: bool
) -> None:
    module, name = STEPS[step]
    real = getattr(module, name)

    def failing(about: Any, *rest: Any, **options: Any) -> Any:
        path = next(getattr(about, name, about) for name in ("before", "adapter") if hasattr(about, name)).path
        if path.endswith("second"):
            raise kind("at the 2nd")
        return real(about, *rest, **options)

    monkeypatch.setattr(module, name, failing)
    out = adapters if in_place else adapters.parent / "out"
    arguments = ["fix", "--in-place", adapters] if in_place else ["fix", adapters, out]
    as_json = ["--format", "json"] if step == "told as JSON" else []
    result = run(*arguments, *as_json)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ckpt-doctor: {adapters}/second: ")
    assert "at the 2nd" in line
    assert ("please report it" in line) == (kind is not OSError or step.startswith("told"))
    assert run("scan", out / "first", out / "third").exit_code == 0
    if as_json:
        first, second, third = json.loads(result.stdout)["results"]
        assert [entry["error"] for entry in (first, third)] == [None, None]
        assert "at the 2nd" in second["error"]
        assert second["written"]


def test_the_trace_is_for_who_asks(run: Any, adapters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise ValueError("a\x1b]0;b")

    def traced(*arguments: object) -> bool:
        result = run(*arguments)
        assert result.exit_code == 2
        assert "\x1b" not in result.output
        assert "please report it" in result.output
        return "in failing" in result.stderr

    commands: list[tuple[str, ...]]
    commands = [
        ("fix", f"{adapters}", f"{adapters}-out"),
        ("fix", "--in-place", f"{adapters}"),
        ("scan", f"{adapters}"),
    ]
    for module, name in ((scan, "judge"), (fix, "carry_out")):
        monkeypatch.setattr(module, name, failing)
        for command in commands:
            assert [traced(*command), traced(*command, "-v")] == [False, True]
        monkeypatch.undo()
        commands.pop()
    monkeypatch.setattr("ckpt_doctor.verbs.compare.compare", failing)
    assert [traced("compare", ZERO, ZERO), traced("compare", ZERO, ZERO, "--verbose")] == [False, True]
    monkeypatch.setattr("ckpt_doctor.cli.scan.render", failing)  # beyond any one adapter
    assert [traced("scan", ZERO), traced("scan", ZERO, "-v")] == [False, True]


def test_a_comparison_that_fails_is_whole_json(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("compare", ZERO, tmp_path / "none", "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (2, "cannot tell")
    monkeypatch.setattr("ckpt_doctor.verbs.compare.saved_meanings", None)
    result = run("compare", ZERO, ZERO, "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (2, "cannot tell")
    assert "TypeError" in json.loads(result.stdout)["reasons"][0]


def test_verbose_tells_more_of_a_fix(run: Any, tmp_path: Path) -> None:
    shutil.copytree(HEALTHY, tmp_path / "in")
    (tmp_path / "in/adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": "x"}')
    outputs = [run("fix", tmp_path / "in", tmp_path / "out", *more).output for more in ([], ["-v"])]
    assert ["config keys: lora_alpha" in text for text in outputs] == [False, True]


def config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def tensors(change: Callable[[str, Any], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / WEIGHTS
        table = {key: np.ascontiguousarray(change(key, value)) for key, value in load_file(path).items()}
        save_file(table, path)

    return changed


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def named(name: str) -> Callable[[Path], None]:
    """The tensors as a .bin that has one more."""

    def change(folder: Path) -> None:
        import torch

        table = {key: torch.tensor(value) for key, value in load_file(folder / WEIGHTS).items()}
        (folder / WEIGHTS).unlink()
        torch.save({**table, name: torch.ones(2)}, folder / "adapter_model.bin")

    return change


def empty(key: str, value: Any) -> Any:
    if "blocks.0.q" not in key:
        return value
    return value[:0] if "lora_A" in key else value[:, :0]


def padded(key: str, value: Any) -> Any:
    return np.concatenate([value, 0 * value], 0 if "lora_A" in key else 1)


def kernel(key: str, value: Any) -> Any:
    if "blocks.0.q.lora_A" in key:
        return value[..., None, None]
    return np.ones((*value.shape, 3, 3), "f4") if "blocks.0.q.lora_B" in key else value


def triplets(key: str, value: Any) -> Any:
    return np.ones((len(value), 3), "f4") if "lora_E" in key else value


HUGE = 10**400
CASES: dict[str, tuple[Path, Callable[[Path], None], list[str], str]] = {
    "__metadata__": (HEALTHY, named("__metadata__"), [], "is missing before 1 key, ignored in silence (__metadata__)"),
    "lone surrogate": (HEALTHY, named("base_model.model.a.\ud800.weight"), [], "no safetensors file can have a tensor"),
    "in place": (ZERO, named("base_model.model.a.\ud800.weight"), ["--in-place"], "no safetensors file can"),
    "pattern below 0": (
        HEALTHY, both(tensors(empty), config(rank_pattern={"blocks.0.q": -2})), [], "a rank below 0"
    ),
    "pattern below 0, flattened": (
        HEALTHY, both(tensors(empty), config(rank_pattern={"blocks.0.q": -2})), ["--for", "peft==*"], "a rank below 0"
    ),
    "E of three columns": (ZERO, tensors(triplets), [], "do not agree on a rank"),
    "E of three columns, folded": (ZERO, tensors(triplets), ["--to", "lora"], "not one number for each row"),
    "lora_B of four dimensions": (
        HEALTHY, both(tensors(kernel), config(alpha_pattern={"blocks.0.q": 3})), ["--to", "lora"], "which no PEFT"
    ),
    "huge alpha": (HEALTHY, config(lora_alpha=HUGE), [], ""),
    "huge alpha at another rank": (HEALTHY, config(lora_alpha=HUGE), ["--to", "lora", "--rank", "8"], ""),
    "huge alpha of AdaLoRA": (ZERO, config(lora_alpha=HUGE), ["--to", "lora"], ""),
    "trim and alpha no number": (HEALTHY, both(tensors(padded), config(r=8, lora_alpha="x")), ["--trim"], ""),
}  # fmt: skip
"""The adapter, what is done to it, options, and what is said of it."""


@pytest.mark.parametrize("name", CASES)
def test_a_strange_adapter_does_not_stop_its_neighbours(tmp_path: Path, name: str) -> None:
    fixture, change, options, message = CASES[name]
    other = ZERO if options == ["--in-place"] else HEALTHY
    for place, source in (("a", other), ("b", fixture), ("c", other)):
        shutil.copytree(source, tmp_path / "in" / place)
    change(tmp_path / "in/b")
    before = tree(tmp_path / "in/b")
    paths = [tmp_path / "in"] if options == ["--in-place"] else [tmp_path / "in", tmp_path / "out"]
    command = [sys.executable, "-m", "ckpt_doctor", "fix", *paths, *options, "--format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    results = json.loads(result.stdout)["results"]
    assert [entry["path"][-1] for entry in results] == ["a", "b", "c"]
    assert [(entry["error"], entry["written"]) for entry in (results[0], results[2])] == [(None, True)] * 2
    if message and results[1]["error"] is None:
        assert message in json.dumps(results[1]["refused"])
    elif message:
        assert message in results[1]["error"]
        assert message in result.stderr
    assert tree(tmp_path / "in/b") == before
    assert not (tmp_path / "out/b").exists()


@pytest.mark.parametrize(
    ("fixture", "change"),
    [(HEALTHY, tensors(kernel)), (ZERO, tensors(triplets)), (HEALTHY, config(lora_alpha=HUGE))],
    ids=["lora_B of four dimensions", "E of three columns", "huge alpha"],
)
def test_a_strange_adapter_cannot_be_compared(
    run: Any, tmp_path: Path, fixture: Path, change: Callable[[Path], None]
) -> None:
    shutil.copytree(fixture, tmp_path / "a")
    change(tmp_path / "a")
    result = run("compare", tmp_path / "a", fixture)
    assert result.exit_code == 2
    assert "cannot tell" in result.output
    assert "please report it" not in result.output


BASES: dict[str, Any] = {
    "list": [],
    "null": None,
    "no names": {"a": 1},
    "nothing": {},
    "NUL": {"a": "\0"},
    "deep": "deep",
}


@pytest.mark.parametrize("name", ["empty folder", *BASES])
def test_a_base_that_is_none_is_said(run: Any, tmp_path: Path, name: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    if name in BASES:
        base /= "model.safetensors.index.json"
        text = json.dumps({"weight_map": BASES[name]})
        base.write_text(text.replace('"deep"', "[" * 100_000 + "]" * 100_000))
    for command in (["scan", HEALTHY], ["fix", HEALTHY, tmp_path / "out"], ["preload", HEALTHY]):
        result = run(*command, "--base", base)
        assert result.exit_code == 2
        assert "Invalid value for '--base'" in result.stderr
        assert "please report it" not in result.stderr


ENTRY = {"path": "a", "code": "CD101", "name": "x", "severity": "error", "fingerprint": "0"}
BASELINES: dict[str, Any] = {
    "path a list": {**ENTRY, "path": []},
    "path null": {**ENTRY, "path": None},
    "path with NUL": {**ENTRY, "path": "\0"},
    "severity unknown": {**ENTRY, "severity": "grave"},
    "severity a dict": {**ENTRY, "severity": {}},
    "fingerprint a list": {**ENTRY, "fingerprint": ["0"]},
    "code a number": {**ENTRY, "code": 101},
    "a text": "entry",
    "deep": "deep",
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_that_is_none_is_said(run: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / "known.json"
    text = json.dumps({"schema_version": 1, "findings": [BASELINES[name]]})
    path.write_text(text.replace('"deep"', "[" * 100_000 + "]" * 100_000))
    before = path.read_bytes()
    for more in ([], ["--write-baseline", path]):
        result = run("scan", ZERO, "--baseline", path, *more)
        assert result.exit_code == 2
        assert "is not a baseline that ckpt-doctor wrote" in result.stderr
        assert path.read_bytes() == before
