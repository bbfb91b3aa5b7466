"""The functions as a person meets them: in a shell or a notebook, by completion, help and what they say."""

from __future__ import annotations

import ast
import json
import pydoc
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES
from safetensors.numpy import save_file

import ckpt_doctor
from ckpt_doctor import AdapterError, AdapterRejected, Report
from ckpt_doctor.cli import COMMANDS, main
from ckpt_doctor.repairs import DTYPES
from ckpt_doctor.verbs.plan import RANK_ZERO, WEIGHTS

ZERO, HEALTHY, OTHER = (
    FIXTURES / name for name in ("adalora-rank0-0.9.0", "lora-plain-0.21.2", "adalora-rank0-0.17.1")
)
FUNCTIONS = {name for name in ckpt_doctor.__all__ if name.islower()}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A LoRA of 448 tensors, whose folder has a name that is HTML and commands a terminal."""
    folder = tmp_path / "<b>large\x1b[31m"
    folder.mkdir()
    shutil.copy(HEALTHY / "adapter_config.json", folder)
    names = (f"base_model.model.layers.{n}.{m}" for n in range(56) for m in ("q", "k", "v", "o"))
    shapes = {"lora_A": (2, 4), "lora_B": (4, 2)}
    tensors = {f"{n}.{f}.weight": np.ones(s, np.float32) for n in names for f, s in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_every_name_is_seen_by_completion_help_and_type_checkers() -> None:
    assert {"scan", "scan_tree", "fix", "compare", "load", "preload", "ranks"} == FUNCTIONS
    assert {name for name in dir(ckpt_doctor) if not name.startswith("_")} == set(ckpt_doctor.__all__)
    page = pydoc.plain(pydoc.render_doc(ckpt_doctor))
    assert [name for name in FUNCTIONS if f"\n    {name}(" not in page] == []
    # what a type checker reads is not run: it has to be the same by hand
    tree = ast.parse(Path(str(ckpt_doctor.__file__)).read_text())
    imports = [n for branch in tree.body if isinstance(branch, ast.If) for n in branch.body]
    checked = {alias.name: node.module for node in imports if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert checked == ckpt_doctor._HOMES
    assert checked.keys() == set(ckpt_doctor.__all__)
    assert [name for name in ckpt_doctor.__all__ if getattr(ckpt_doctor, name).__doc__ is None] == []


def test_the_import_and_dir_load_nothing() -> None:
    code = "import sys, ckpt_doctor; dir(ckpt_doctor); print(*(n for n in sys.modules if n.startswith('ckpt_doctor')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["ckpt_doctor"]


def test_the_truth_of_a_comparison(tmp_path: Path) -> None:
    assert ckpt_doctor.compare(ZERO, ZERO)
    assert not ckpt_doctor.compare(ZERO, OTHER)
    shutil.copytree(HEALTHY, tmp_path / "a")
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    (tmp_path / "a/adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    doubtful = ckpt_doctor.compare(HEALTHY, tmp_path / "a")
    assert doubtful.verdict == "cannot tell"
    with pytest.raises(ValueError, match=re.escape(doubtful.reasons[0]) + r".*\.verdict.*\.reasons"):
        bool(doubtful)


def test_the_truth_of_a_fix(tmp_path: Path) -> None:
    written = ckpt_doctor.fix(ZERO, tmp_path / "out")
    assert written
    assert written.out
    assert ckpt_doctor.fix(ZERO, tmp_path / "dry", dry_run=True)
    lost = FIXTURES / "adalora-all-rank0-0.9.0"
    assert not ckpt_doctor.fix(lost, tmp_path / "no", rank_zero="prune")
    with pytest.warns(UserWarning, match=r"PEFT 0\.99 .* not known") as warned:
        assert ckpt_doctor.fix(ZERO, tmp_path / "new", "peft==0.99", dry_run=True)
    assert warned[0].filename == __file__
    partly = ckpt_doctor.fix(ZERO, tmp_path / "some", "peft==0.2.0", weights="safetensors", best_effort=True)
    assert partly.out
    assert not partly


def test_a_notebook_shows_a_few_lines(large: Path, tmp_path: Path) -> None:
    shown = (
        ckpt_doctor.load(large), ckpt_doctor.scan(large), ckpt_doctor.scan(large, "vllm"),
        ckpt_doctor.fix(large, tmp_path / "out"), ckpt_doctor.compare(large, large), ckpt_doctor.compare(large, ZERO),
        Report(str(large), error="<i>no\x07</i>"), ckpt_doctor.fix(ZERO, tmp_path / "x", "peft==0.2.0", dry_run=True),
    )  # fmt: skip
    for value in shown:
        text = repr(value)
        first, *rest = text.split("\n")
        assert first == type(value).__name__
        assert 3 <= len(rest) + 1 <= 16
        assert max(map(len, rest)) < 180
        assert "".join(rest).isprintable()
        html = value._repr_html_()
        assert html.count("<tr>") == len(rest)
        assert set(re.findall(r"</?(\w+)", html)) == {"table", "caption", "tr", "th", "td"}
        assert html.isprintable()
    assert "448 in adapter_model.safetensors" in repr(shown[0])
    assert "&lt;i&gt;no" in shown[6]._repr_html_()


def test_what_a_repr_says() -> None:
    report = repr(ckpt_doctor.scan(ZERO))
    assert "CD101" in report
    assert re.search(r"rejects +PEFT 0\.2\.0 – 0\.3\.0, 0\.6\.0", report)
    assert re.search(r"verdict +different\n +reason +\d+ layers", repr(ckpt_doctor.compare(ZERO, OTHER)))
    assert re.search(r"rejects +PEFT 0\.9\.0, vllm", repr(ckpt_doctor.scan(ZERO, ["peft==0.9.0", "vllm"])))


WRONG: list[tuple[Callable[[], object], tuple[str, ...]]] = [
    (lambda: ckpt_doctor.fix(ZERO, "out", rank_zero="zeros"), RANK_ZERO),
    (lambda: ckpt_doctor.fix(ZERO, "out", weights="pt"), WEIGHTS),
    (lambda: ckpt_doctor.fix(ZERO, "out", dtype="int8"), tuple(DTYPES)),
    (lambda: ckpt_doctor.fix(ZERO, "out", tolerance=float("nan")), ("tolerance", "0 or more")),
    (lambda: ckpt_doctor.compare(ZERO, ZERO, -1), ("tolerance", "0 or more")),
    (lambda: ckpt_doctor.scan(ZERO, max_rank=0), ("max_rank", "1 or more")),
    (lambda: ckpt_doctor.scan(ZERO, "vlm"), ("vllm",)),
    (lambda: ckpt_doctor.scan(ZERO, "keras"), ("vllm", "peft==0.9.0")),
    (lambda: ckpt_doctor.scan(ZERO, []), ("for_", "vllm")),
    (lambda: ckpt_doctor.scan_tree(ZERO, []), ("for_", "vllm")),
    (lambda: ckpt_doctor.preload(ZERO, []), ("for_", "vllm")),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_value_is_told_the_choices(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, choices = WRONG[number]
    with pytest.raises(ValueError, match=r".") as raised:
        call()
    assert [choice for choice in choices if choice not in str(raised.value)] == []
    assert list(tmp_path.iterdir()) == []


def options() -> set[str]:
    commands = (main.get_command(None, name) for name in COMMANDS)  # type: ignore[arg-type]
    return {text for command in commands if command for option in command.params for text in option.opts}


def sentences(report: Report) -> list[str]:
    return [text for finding in report.findings for text in (finding.message, finding.needs or "")]


def test_sentences_speak_of_arguments(tmp_path: Path) -> None:
    """Every word of the command that has an argument here is said as the argument."""
    shutil.copytree(HEALTHY, tmp_path / "a")
    (tmp_path / "b").mkdir()
    said = sentences(ckpt_doctor.scan(ZERO, "servers"))
    said += [text for report in ckpt_doctor.scan_tree(FIXTURES, "servers") for text in sentences(report)]
    result = ckpt_doctor.fix(ZERO, tmp_path / "out", "servers", to_lora=True, dry_run=True)
    said += [text for finding in result.remaining for text in (finding.message, finding.needs or "")]
    said += [way.text for way in ckpt_doctor.scan(HEALTHY, "servers", base="none").next]
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: ckpt_doctor.fix(ZERO, tmp_path / "a"), "force=True"),
        (lambda: ckpt_doctor.scan(ZERO, base=tmp_path / "b"), "base="),
        (lambda: ckpt_doctor.fix(ZERO, tmp_path / "c", to_lora=True, dtype="bf16"), "tolerance="),
        (lambda: ckpt_doctor.preload(HEALTHY, "vllm", strict=True), "base="),
    ]
    for call, argument in calls:
        with pytest.raises(AdapterError) as raised:
            call()
        assert argument in str(raised.value)
        said.append(str(raised.value))
        if isinstance(raised.value, AdapterRejected):
            said += [finding.needs or "" for finding in raised.value.findings]
    with pytest.warns(UserWarning, match="base=") as warned:
        ckpt_doctor.preload(HEALTHY, "vllm")
    assert warned[0].filename == __file__
    said.append(str(warned[0].message))
    assert {word for text in said for word in re.findall(r"(?<![\w-])--[\w-]+", text)} & options() == set()


def test_every_option_that_fix_shares_is_an_argument() -> None:
    from ckpt_doctor.api import _in_arguments

    names = signature(ckpt_doctor.fix).parameters.keys() - {"src", "out", "to_lora"}
    told = {name: _in_arguments(f"--{name.rstrip('_').replace('_', '-')}") for name in names}
    assert {name: said.partition("=")[0] for name, said in told.items()} == {name: name for name in names}
    assert _in_arguments("serve with --max-lora-rank 16, x--base") == "serve with --max-lora-rank 16, x--base"


def test_a_tree_comes_one_by_one(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(HEALTHY, tmp_path / name)
    reports = ckpt_doctor.scan_tree(tmp_path, "peft==0.9.0")
    assert next(reports).path == str(tmp_path / "a")
    (tmp_path / "b/adapter_config.json").write_text("{")
    shutil.rmtree(tmp_path / "c")
    second, third = reports
    assert any(finding.severity == "error" for finding in second.findings)
    assert third.error
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match="no adapter"):
        ckpt_doctor.scan_tree(tmp_path / "empty")
