"""The rows of a scan, read back by the programs that they are for."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pytest
from conftest import FIXTURES
from pyarrow import parquet

from ckpt_doctor.reports import parquet as ours

DOCS = FIXTURES.parent / "docs/fleet.md"


def rows(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    return found


@pytest.mark.parametrize("asked", [(), ("--for", "vllm", "--base", "none")], ids=" ".join)
def test_a_row_says_what_the_report_says(run: Any, tmp_path: Path, asked: tuple[str, ...]) -> None:
    result = run("scan", FIXTURES, *asked, "--format", f"json={tmp_path}/j", "--format", f"parquet={tmp_path}/p")
    document = json.loads((tmp_path / "j").read_text())
    found = rows(tmp_path / "p")
    assert result.exit_code == 1
    assert list(found[0]) == list(ours.COLUMNS)
    expected = []
    for report in document["reports"]:
        ranks = [layer["rank"] for layer in report["layers"] if layer["rank"] is not None]
        one = {
            "path": report["path"], "error": report["error"], "method": report["peft_type"],
            "saved_by": report["peft_version"], "layers": len(report["layers"]),
            "least_rank": min(ranks, default=None), "largest_rank": max(ranks, default=None),
            "accepted_by": [id_ for id_, verdict in report["verdicts"].items() if verdict == "accepts"],
            "next": report["next"][0]["kind"], "command": report["next"][0]["command"] or None,
        }  # fmt: skip
        for finding in report["findings"] or [{}]:
            expected.append({**one, **{key: finding.get(key) for key in ours.OF_FINDINGS}})
    beside = ("outcome", "failing", "base_model", "repairable")
    assert [{key: value for key, value in row.items() if key not in beside} for row in found] == expected
    by_path = {row["path"]: row for row in found}
    for outcome in ("accepted", "rejected", "misloaded", "undecided"):
        assert sum(row["outcome"] == outcome for row in by_path.values()) == document["summary"][outcome]
    assert sum(row["failing"] for row in by_path.values()) == document["summary"]["failing"]


def test_types_are_strict_and_the_document_names_each_column(run: Any, tmp_path: Path) -> None:
    run("scan", FIXTURES, "--format", f"parquet={tmp_path}/p")
    schema = parquet.read_schema(tmp_path / "p")
    words = {pyarrow.string(): "text", pyarrow.int64(): "int64", pyarrow.bool_(): "bool"}

    def word(kind: Any) -> str:
        return f"list of {words[kind.value_type]}" if pyarrow.types.is_list(kind) else words[kind]

    told = {field.name: word(field.type) + ("" if field.nullable else ", never null") for field in schema}
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", DOCS.read_text(), re.M))
    assert told == table
    assert list(told) == list(table)
    assert json.loads(schema.metadata[b"ckpt_doctor.tool"])["name"] == "ckpt-doctor"
    assert schema.metadata[b"ckpt_doctor.schema_version"] == b"1"


def test_it_is_the_same_by_workers_and_from_a_journal(run: Any, tmp_path: Path) -> None:
    for number, name in enumerate(("adalora-rank0-0.17.1", "lora-plain-0.21.2") * 3):
        shutil.copytree(FIXTURES / name, tmp_path / f"tree/{number}")
        for path in (tmp_path / f"tree/{number}").iterdir():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    (tmp_path / "tree/a/adapter_config.json").mkdir(parents=True)
    options = ["scan", tmp_path / "tree", tmp_path / "none", "-o", tmp_path / "p", "--format", "parquet"]
    assert run(*options).exit_code == 2
    alone = (tmp_path / "p").read_bytes()
    error = {row["path"]: row["error"] for row in rows(tmp_path / "p")}
    assert [path for path, said in error.items() if said] == [str(tmp_path / "none")]
    for beside, told in ((("--jobs", "2"), 0), (("--resume", tmp_path / "j"), 0), (("--resume", tmp_path / "j"), 6)):
        (tmp_path / "p").unlink()
        result = run(*options, *beside)
        assert (result.exit_code, (tmp_path / "p").read_bytes()) == (2, alone)
        assert (f"{told} of 7 adapters are unchanged" in result.stderr) == bool(told)
    lines = run("scan", tmp_path / "tree", "--format", "jsonl", "--resume", tmp_path / "j")
    assert "unchanged" not in lines.stderr  # what is noted are rows
    assert len(lines.stdout.splitlines()) == 8


def test_rows_are_written_in_groups_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "ROWS", 10)
    one = dict.fromkeys(ours.COLUMNS) | {
        "path": "a\udcff\u202eé", "failing": False, "accepted_by": [], "repairable": False, "next": "nothing",
        "largest_rank": (1 << 63) - 1,
    }  # fmt: skip
    made = 0

    def adapters() -> Any:
        nonlocal made
        for made in range(1, 46):  # noqa: B007 - told by the other
            yield [one]

    pieces = ours.packed(adapters())
    whole = next(pieces)
    assert made == 10
    whole += b"".join(pieces)
    file = parquet.ParquetFile(pyarrow.BufferReader(whole))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [10, 10, 10, 10, 5]
    assert file.read().to_pylist()[44] == {**one, "path": "a\\udcff\u202eé"}
    assert parquet.ParquetFile(pyarrow.BufferReader(b"".join(ours.packed([])))).metadata.num_rows == 0


def test_it_needs_a_file_and_pyarrow_and_leaves_no_half(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("scan", FIXTURES, "--format", "parquet")
    assert (result.exit_code, "give it a file, as parquet=FILE" in result.stderr) == (2, True)
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "p").write_text("of before")
    for beside in ((), ("--jobs", "2")):
        result = run("scan", FIXTURES, "--format", f"parquet={tmp_path}/p", *beside)
        assert (result.exit_code, "pip install 'ckpt-doctor[parquet]'" in result.stderr) == (2, True)
    assert ([*tmp_path.iterdir()], (tmp_path / "p").read_text()) == ([tmp_path / "p"], "of before")


def test_the_queries_of_the_document_run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("scan", FIXTURES, "--for", "peft==0.9.0", "--format", "parquet=findings.parquet")
    queries = re.findall(r"^```sql\n(.*?)^```", DOCS.read_text(), re.M | re.S)
    assert queries
    for query in queries:
        assert duckdb.sql(query).fetchall()
