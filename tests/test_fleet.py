"""A scan of a fleet: what it is given, what it amounts to."""

from __future__ import annotations

import json
import os
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ADAPTERS, FIXTURES

from ckpt_doctor.adapter.runtimes import ids
from ckpt_doctor.cli import main
from ckpt_doctor.cli.terminal import spell
from ckpt_doctor.reports.wording import Tally
from ckpt_doctor.verbs.scan import examine

ZERO = FIXTURES / "adalora-rank0-0.17.1"
PLAIN = FIXTURES / "lora-plain-0.21.2"
TWO = (PLAIN, ZERO)


def entries(output: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The reports of a scan as lines, and what they amount to."""
    *reports, last = map(json.loads, output.splitlines())
    assert last.keys() == {"schema_version", "tool", "summary"}
    return reports, last["summary"]


def paths(output: str) -> list[str]:
    return [entry["path"] for entry in entries(output)[0]]


# Which ones


@pytest.mark.parametrize("between", ["\n", "\r\n", "\0"])
def test_paths_come_from_a_file_or_the_standard_input(run: Any, tmp_path: Path, between: str) -> None:
    listed = between.join(map(str, TWO)) + between
    (tmp_path / "list").write_bytes(listed.encode())
    expected = [str(path) for path in TWO]
    assert paths(run("scan", "--files-from", tmp_path / "list", "--format", "jsonl").stdout) == expected
    command = ["scan", "--files-from", "-", "--format", "jsonl"]
    assert paths(CliRunner().invoke(main, command, input=listed).stdout) == expected


@pytest.mark.skipif(os.name == "nt", reason="no file has such a name there")
def test_a_path_with_a_new_line_is_one_path(run: Any, tmp_path: Path) -> None:
    shutil.copytree(PLAIN, tmp_path / "a\nb")
    (tmp_path / "list").write_text(f"{tmp_path}/a\nb\0")
    assert paths(run("scan", "--files-from", tmp_path / "list", "--format", "jsonl").stdout) == [f"{tmp_path}/a\nb"]


def test_a_list_joins_the_paths_that_are_named_and_each_adapter_is_one(run: Any, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{ZERO}/adapter_config.json\n\n{ZERO}/adapter_model.safetensors\n{PLAIN}\n")
    scanned = run("scan", PLAIN, "--files-from", tmp_path / "list", "--format", "jsonl")
    assert paths(scanned.stdout) == [str(path) for path in TWO]


def test_what_is_listed_and_is_no_adapter_is_told_of(run: Any, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{PLAIN}\n{tmp_path}/none\n")
    result = run("scan", "--files-from", tmp_path / "list", "--format", "jsonl")
    assert (result.exit_code, paths(result.stdout)) == (2, [str(PLAIN), str(tmp_path / "none")])
    assert "none does not exist" in result.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "name a PATH"),
    (["--files-from", "none"], "none cannot be read"),
    (["--files-from", os.devnull], "names no path"),
    (["--shard", "0/3", "."], "is no part"), (["--shard", "4/3", "."], "is no part"),
    (["--shard", "2", "."], "is no part"), (["--shard", "1/0", "."], "is no part"),
    (["--shard", "²/3", "."], "is no part"),
])  # fmt: skip
def test_what_names_nothing_is_refused(run: Any, arguments: list[str], said: str) -> None:
    result = run("scan", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_each_adapter_is_in_one_shard_wherever_it_stands(run: Any, tmp_path: Path) -> None:
    for number in range(60):
        shutil.copytree(PLAIN, tmp_path / f"all/{number}")
    (tmp_path / "list").write_text("".join(f"{tmp_path}/all/./{number}\n" for number in reversed(range(60))))
    parts = [paths(run("scan", tmp_path / "all", "--shard", f"{k}/3", "--format", "jsonl").stdout) for k in (1, 2, 3)]
    assert sorted(chain(*parts)) == sorted(str(tmp_path / f"all/{number}") for number in range(60))
    assert min(map(len, parts)) > 10
    scanned = run("scan", "--files-from", tmp_path / "list", "--shard", "2/3", "--format", "jsonl")
    assert {os.path.normpath(path) for path in paths(scanned.stdout)} == set(parts[1])


def test_what_cannot_be_read_is_told_of_by_one_shard(run: Any, tmp_path: Path) -> None:
    codes = [run("scan", tmp_path / "none", PLAIN, "--shard", f"{k}/4").exit_code for k in (1, 2, 3, 4)]
    assert sorted(codes) == [0, 0, 0, 2]


# What they amount to


@pytest.mark.parametrize("asked", [None, "peft==0.9.0", "peft", "vllm", "servers"])
def test_the_summary_counts_by_cause_what_the_reports_say(run: Any, asked: str | None) -> None:
    options = [] if asked is None else ["--for", asked]
    reports, summary = entries(run("scan", FIXTURES, *options, "--format", "jsonl").stdout)
    outcomes = ("accepted", "rejected", "misloaded", "undecided")
    assert summary["adapters"] == len(reports) == len(ADAPTERS) == sum(summary[outcome] for outcome in outcomes)
    counts = {cause["code"]: sum(cause[outcome] for outcome in outcomes[1:]) for cause in summary["causes"]}
    if asked is not None:
        those = ids(asked)
        concerned = [
            {
                f["code"]
                for f in report["findings"]
                if those & {*f["rejected_by"], *f["misloaded_by"], *f["undecided_for"]}
            }
            for report in reports
        ]
        assert counts == {code: sum(code in each for each in concerned) for code in set().union(*concerned)}
        stopped = [report for report in reports if {report["verdicts"][id_] for id_ in those} != {"accepts"}]
        assert len(stopped) == len(reports) - summary["accepted"] == sum(map(bool, concerned))
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    document = json.loads(run("scan", FIXTURES, *options, "--format", "json").stdout)
    assert document["summary"] == summary


def test_without_a_question_errors_are_the_causes_of_what_is_rejected(run: Any, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copytree(ZERO, tmp_path / f"zero-{number}")
    shutil.copytree(PLAIN, tmp_path / "plain")
    _, summary = entries(run("scan", tmp_path, "--format", "jsonl").stdout)
    assert (summary["accepted"], summary["rejected"], summary["failing"]) == (1, 3, 3)
    cause = {"code": "CD101", "name": "adalora-rank-zero", "rejected": 3, "misloaded": 0, "undecided": 0}
    assert summary["causes"] == [cause]
    assert run("scan", tmp_path).stdout.splitlines()[-2] == "by cause: CD101 adalora-rank-zero 3"
    assert "by cause" not in run("scan", tmp_path / "plain", tmp_path / "zero-0").stdout
    ignored = run("scan", tmp_path, "--ignore", "CD101", "--format", "jsonl")
    assert entries(ignored.stdout)[1]["causes"] == []


def test_no_more_causes_are_told_than_a_person_reads() -> None:
    tally = Tally()
    one = examine(str(ZERO))
    for number in range(12):
        found = [f._replace(code=f"CD{100 + number}") for f in one.findings if f.severity == "error"]
        for _ in range(12 - number):
            tally.add(one._replace(findings=tuple(found)))
    assert tally.causes_line.startswith("by cause: CD100 adalora-rank-zero 12, CD101 ")
    assert tally.causes_line.endswith(", 2 more")


def test_what_could_not_be_examined_is_counted(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/adapter_config.json").mkdir()
    shutil.copytree(PLAIN, tmp_path / "b")
    result = run("scan", tmp_path, "--format", "jsonl")
    reports, summary = entries(result.stdout)
    assert summary["unread"] == sum(report["error"] is not None for report in reports)
    assert summary["adapters"] == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (119, "2 min"), (89, "89 s"), (7000, "117 min"), (7260, "2 h 1 min")]
)
def test_a_time_is_spelled_for_a_person(seconds: int, text: str) -> None:
    assert spell(seconds) == text
