"""The same config and header are judged once; whatever else a verdict hangs on is looked at in each folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ADAPTERS, FIXTURES

from ckpt_doctor.adapter import Question
from ckpt_doctor.adapter.runtimes import ids
from ckpt_doctor.files import loader
from ckpt_doctor.verbs import memory
from ckpt_doctor.verbs.scan import examine

PLAIN = FIXTURES / "lora-plain-0.21.2"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were judged, not remembered."""
    folders: list[str] = []

    def noting(folder: str, question: Question, **seen: Any) -> Any:
        folders.append(os.path.basename(folder))
        return examine(folder, question, **seen)

    monkeypatch.setattr(memory, "examine", noting)
    return folders


def copies(tmp_path: Path, source: Path, count: int = 2) -> list[str]:
    return [str(shutil.copytree(source, tmp_path / f"{source.name}-{number}")) for number in range(count)]


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_remembered_is_what_is_found(tmp_path: Path, name: str) -> None:
    ours = memory.Memory()
    for folder in copies(tmp_path, FIXTURES / name, 3):
        report, alone = ours.examine(folder, Question()), examine(folder, Question())
        assert report.path == folder
        assert (report.findings, report.verdicts, report.next) == (alone.findings, alone.verdicts, alone.next)
        assert report.layers == alone.layers


def other_config(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 3}))


def longer(folder: Path) -> None:
    with (folder / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")


def other_header(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"lora_A", b"lora_X"))


def code_beside(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")


def linked_to_nothing(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").symlink_to("gone")


CHANGES: list[Callable[[Path], None]] = [other_config, longer, other_header, code_beside, linked_to_nothing]


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_judged_by_itself(tmp_path: Path, judged: list[str], change: Callable[[Path], None]) -> None:
    ours = memory.Memory()
    zeroth, first, second, third = copies(tmp_path, PLAIN, 4)
    change(Path(second))
    assert ours.examine(zeroth, Question()).findings == ours.examine(first, Question()).findings
    reports = [ours.examine(folder, Question()) for folder in (first, second, third)]
    assert judged[:3] == [os.path.basename(folder) for folder in (zeroth, first, second)]
    assert reports[1].findings == examine(second, Question()).findings != reports[0].findings == reports[2].findings


def test_another_question_is_another_judgement(tmp_path: Path, judged: list[str]) -> None:
    ours = memory.Memory()
    (folder,) = copies(tmp_path, PLAIN, 1)
    for question in (
        Question(),
        Question(ids("peft==0.9.0")),
        Question(adapter_name="x.y"),
        Question(adapter_name="x.y"),
    ):
        assert ours.examine(folder, question).findings == examine(folder, question).findings
    assert len(judged) == 3


def test_only_so_much_is_remembered(tmp_path: Path, judged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = memory.Memory()
    plain, other = (copies(tmp_path, FIXTURES / name, 1)[0] for name in (PLAIN.name, "adalora-rank0-0.21.2"))
    monkeypatch.setattr(memory, "ROOM", 4000)
    for folder in (plain, other, other, other, plain, plain, other):
        ours.examine(folder, Question())
    assert len(judged) == 5  # each when it is met and when it comes again, and the one that had to go
    monkeypatch.setattr(memory, "ROOM", 10)
    judged.clear()
    ours = memory.Memory()
    for folder in (plain, plain, plain):
        ours.examine(folder, Question())
    assert len(judged) == 3


def test_what_a_glance_reads_is_what_a_load_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [path.parent for path in sorted(FIXTURES.rglob("adapter_config.json"))]
    at_a_glance = {folder: loader.load(str(folder)) for folder in folders}
    assert sum(loader.glance(str(folder)) is not None for folder in folders) > 10
    monkeypatch.setattr(loader, "glance", lambda _: None)
    for folder, adapter in at_a_glance.items():
        slowly = loader.load(str(folder))
        assert {**slowly.tensors} == {**adapter.tensors}
        assert slowly._replace(tensors={}) == adapter._replace(tensors={})
