"""The next step: what is proposed leads where it says, and is the same in every format; and it is told briefly."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import casefile
import check_next
import numpy as np
import pytest
from conftest import ADAPTERS, FIXTURES
from safetensors.numpy import save_file
from test_servers import ALL, QV, Q, base, lora  # noqa: F401 - base is a fixture

from ckpt_doctor.adapter import DTYPE_BITS
from ckpt_doctor.reports import Style, scan
from ckpt_doctor.reports.text import columns
from ckpt_doctor.verbs.scan import examine

SPECS = ("", "peft", "peft==0.9.0", "peft>=0.6,<0.10", "vllm", "servers")
HEALTHY = FIXTURES / "lora-plain-0.21.2"
ZERO = FIXTURES / "adalora-rank0-0.9.0"
ONE_IN = 5
"""Of the cases; scripts/check_next.py takes every adapter of a corpus."""


def written(adapter: Any, folder: Path) -> Path:
    """An adapter whose header alone there is, as files, with zeros for its numbers."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(adapter.config))
    header, at = {}, 0
    for key, info in adapter.tensors.items():
        size = int(np.prod(info.shape)) * DTYPE_BITS[info.dtype] // 8
        header[key] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return folder


def faults(folder: Path, out: Path, model: Path | None = None) -> Iterator[str]:
    for spec in SPECS:
        for fault in check_next.faults(folder, spec, model, out, Counter()):
            yield f"{folder.name} for {spec}: {fault}"


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_proposed_for_real_adapters_leads_there(name: str, tmp_path: Path) -> None:
    assert list(faults(FIXTURES / name, tmp_path / "out")) == []


def test_what_is_proposed_for_broken_adapters_leads_there(tmp_path: Path) -> None:
    found, tried = [], 0
    for path in casefile.PATHS[::ONE_IN]:
        (tmp_path / "cases" / path.stem).mkdir(parents=True)
        adapter = casefile.read(path, tmp_path / "cases" / path.stem).adapter.adapter
        sizes = [np.prod(info.shape) for info in adapter.tensors.values()]
        if adapter.config is None or adapter.format != "safetensors" or not 0 < sum(sizes) < 1 << 22:
            continue
        tried += 1
        found += faults(written(adapter, tmp_path / path.stem), tmp_path / "out")
        shutil.rmtree(tmp_path / path.stem)
    assert tried > 60
    assert found == []


def test_what_is_proposed_for_servers_leads_there(tmp_path: Path, base: Path) -> None:  # noqa: F811
    for name, modules, values in (("a", ALL, {}), ("b", QV, {"use_dora": True}), ("c", Q, {"bias": "all"})):
        folder = lora(tmp_path / name, modules, **values)
        assert list(faults(folder, tmp_path / "out", base)) == []


def test_the_check_sees_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal that leads nowhere, one that is not made, and a refusal that is none."""
    from ckpt_doctor.verbs import ways
    from ckpt_doctor.verbs.report import Report

    silent = property(lambda _: (ways.Way(ways.REFUSED, "no repair makes it load"),))
    monkeypatch.setattr(Report, "next", silent)
    (unproposed, refused) = check_next.faults(ZERO, "", None, tmp_path / "out", Counter())
    assert "none is proposed" in unproposed
    assert "beyond repair" in refused
    command = "ckpt-doctor fix {} x --dtype fp16 --tolerance 0"
    astray = property(lambda one: (ways.Way(ways.FIX, "repair it", command.format(one.path)),))
    monkeypatch.setattr(Report, "next", astray)
    (led,) = check_next.faults(FIXTURES / "adalora-never-allocated-0.9.0", "peft", None, tmp_path / "out", Counter())
    assert led.startswith("exits with 1")


def test_every_format_has_the_same_step(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(ZERO, tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    command = "ckpt-doctor fix a a-fixed --for peft==0.9.0"
    for format_ in ("table", "json", "jsonl", "sarif", "github", "markdown"):
        assert command in run("scan", "a", "--for", "peft==0.9.0", "--format", format_).output, format_
    (report,) = json.loads(run("scan", "a", "--for", "peft==0.9.0", "--format", "json").stdout)["reports"]
    assert [(way["kind"], way["command"]) for way in report["next"]] == [("fix", command), ("load", "")]
    assert report["next"] == [way._asdict() for way in examine("a").next] or report["next"][0]["command"] == command


def test_a_layer_that_is_called_by_a_number_is_named_with_what_it_is_in(scan: Any, tmp_path: Path) -> None:
    adapter = casefile.read(casefile.FOLDER / "CD324-number-at-the-end.toml", tmp_path).adapter.adapter
    (way,) = scan(written(adapter, tmp_path / "in"))["next"]
    assert '"modulation.0" to target_modules' in way["text"]


def test_a_place_that_is_taken_is_not_proposed(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(ZERO, tmp_path / "a")
    (tmp_path / "a-fixed").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "ckpt-doctor fix a a-fixed-2\n" in run("scan", "a").output


def printed(run: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    lines: list[str] = run("scan", *arguments).output.splitlines()
    return lines


def test_healthy_adapters_are_a_line_each(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(40):
        shutil.copytree(HEALTHY, tmp_path / f"adapters/customer-{number:03}/a-rather-long-name-of-a-run-{number}/last")
    lines = printed(run, monkeypatch, tmp_path / "adapters")
    assert len(lines) <= 45
    assert max(map(columns, lines)) <= 80
    assert lines[-1] == "40 adapters: 40 accepted"
    assert printed(run, monkeypatch, "-q", tmp_path / "adapters") == ["40 adapters: 40 accepted"]
    assert len(printed(run, monkeypatch, tmp_path / "adapters/customer-001")) <= 3


def test_a_dozen_for_a_server_fit_a_screen(
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    base: Path,  # noqa: F811
) -> None:
    kinds: list[dict[str, Any]] = [{}, {"use_dora": True}, {"bias": "all"}, {"r": 16}]
    for number in range(11):
        lora(tmp_path / f"all/adapter-{number}", QV if number % 2 else ALL, **kinds[number % 4])
    (tmp_path / "all/z").mkdir()
    (tmp_path / "all/z/adapter_config.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    lines = printed(run, monkeypatch, "all", "--for", "vllm", "--base", base.name, "--max-rank", "16")
    assert len(lines) <= 40
    assert max(map(columns, lines)) <= 80
    assert any(line.startswith("12 adapters: ") for line in lines)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("spec", SPECS)
def test_one_that_fails_is_six_lines(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, spec: str
) -> None:
    shutil.copytree(FIXTURES / name, tmp_path / "adapters" / name)
    monkeypatch.chdir(tmp_path)
    lines = printed(run, monkeypatch, f"adapters/{name}", *(["--for", spec] if spec else []))
    assert len(lines) <= 6
    assert max(map(columns, lines)) <= 80
    assert not any("…" in line for line in lines if "ckpt-doctor fix" in line)


def test_the_counts_are_counts(run: Any, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copytree(HEALTHY, tmp_path / f"fine-{number}")
    for number in range(2):
        shutil.copytree(ZERO, tmp_path / f"zero-{number}")
    shutil.copytree(HEALTHY, tmp_path / "lost")
    save_file({"x": np.ones(1, np.float32)}, tmp_path / "lost/adapter_model.safetensors")
    (tmp_path / "lost/adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["q"]}')
    (tmp_path / "unread/adapter_config.json").mkdir(parents=True)
    shutil.copy(HEALTHY / "adapter_model.safetensors", tmp_path / "unread")
    last = run("scan", tmp_path).output.splitlines()[-1]
    reports = [examine(str(path)) for path in sorted(tmp_path.iterdir())]
    outcomes = Counter(report.outcome for report in reports)
    assert outcomes["accepted"] == 3
    assert last.startswith(f"7 adapters: 3 accepted, {outcomes['rejected']} rejected")
    text = "\n".join(scan("table", reports, Style(80)))
    assert text.splitlines()[-1] == last


def test_unknown_for_the_want_of_a_base_is_said_once(run: Any, tmp_path: Path) -> None:
    for number in range(5):
        shutil.copytree(HEALTHY, tmp_path / f"a{number}")
    output = run("scan", tmp_path, "--for", "vllm", "--base", "none").output
    assert output.count("base model") == 1
    assert "5 undecided" in output


def test_what_is_repaired_without_a_question_is_what_the_catalogue_says() -> None:
    from ckpt_doctor.adapter.codes import REPAIRED_UNASKED
    from ckpt_doctor.repairs import all_of

    for rank_zero in ("pad", "prune"):
        heals = frozenset[str]().union(*(repair.heals for repair in all_of(rank_zero, asked=None)))
        assert heals == REPAIRED_UNASKED
