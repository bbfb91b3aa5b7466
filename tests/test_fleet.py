"""A scan of a fleet: what it is given, what it amounts to."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ADAPTERS, FIXTURES
from dull import dull

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.adapter.runtimes import ids
from ckpt_doctor.cli import fleet, main
from ckpt_doctor.cli.settings import Choice, Config, Settings
from ckpt_doctor.cli.terminal import spell
from ckpt_doctor.reports.wording import Tally
from ckpt_doctor.verbs import batches, workers
from ckpt_doctor.verbs.batches import Batches, Job
from ckpt_doctor.verbs.scan import examine
from ckpt_doctor.verbs.workers import Workers

ZERO = FIXTURES / "adalora-rank0-0.17.1"
PLAIN = FIXTURES / "lora-plain-0.21.2"
TWO = (PLAIN, ZERO)
FEW = (ZERO.name, "adalora-rank0-0.9.0", PLAIN.name)


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
    (["--shard", "²/3", "."], "is no part"), (["--shard", f"1/{'9' * 5000}", "."], "is no part"),
    (["--jobs", "9" * 5000, "."], "is neither auto nor"),
    (["--format", "jsonl=a", "--resume", "./a", "."], "to that of --html or --resume"),
    (["--format", "json=a.html", "--html", "./a.html", "."], "to that of --html or --resume"),
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


# What an earlier run has found


def old(folder: Path) -> Path:
    """The folder with its files as old as a journal wants them."""
    for path in folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FEW:
        shutil.copytree(FIXTURES / name, tmp_path / "tree" / name)
    return old(tmp_path / "tree")


@pytest.fixture
def resumed(run: Any, tmp_path: Path) -> Any:
    """A scan that resumes: what it told, how many it took from the journal; it is the same without one."""

    def scan(*arguments: object) -> tuple[str, int]:
        told = run("scan", *arguments, "--format", "jsonl", "--resume", tmp_path / "journal")
        plain = run("scan", *arguments, "--format", "jsonl")
        assert (told.stdout, told.exit_code) == (plain.stdout, plain.exit_code)
        again = re.search(r"(\d+) of \d+ adapters are unchanged", told.stderr)
        return told.stdout, int(again[1]) if again else 0

    return scan


ASKED = [(), ("--for", "peft==0.9.0"), ("--for", "vllm"), ("--values",), ("--for", "servers", "--base", "none")]


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_what_is_taken_from_the_journal_is_what_a_scan_tells(tree: Path, resumed: Any, asked: tuple[str, ...]) -> None:
    assert resumed(tree, *asked)[1] == 0
    assert resumed(tree, *asked)[1] == len(FEW)


def other_question(_: Path) -> tuple[str, ...]:
    return ("--for", "peft==0.9.0")


def other_choice(_: Path) -> tuple[str, ...]:
    return ("--ignore", "CD101")


def other_name(_: Path) -> tuple[str, ...]:
    return ("--adapter-name", "lora")


def other_limit(_: Path) -> tuple[str, ...]:
    return ("--max-rank", "8")


def read_by_numbers(_: Path) -> tuple[str, ...]:
    return ("--values",)


def other_failing(_: Path) -> tuple[str, ...]:
    return ("--fail-on", "note")


def other_base(tree: Path) -> tuple[str, ...]:
    (tree.parent / "base").mkdir()
    (tree.parent / "base/config.json").write_text('{"model_type": "llama"}')
    return ("--base", str(tree.parent / "base"))


@pytest.mark.parametrize("change", [
    other_question, other_choice, other_name, other_limit, read_by_numbers, other_failing, other_base,
])  # fmt: skip
def test_another_question_is_asked_anew(tree: Path, resumed: Any, change: Any) -> None:
    resumed(tree)
    question = change(tree)
    assert resumed(tree, *question)[1] == 0
    assert resumed(tree, *question)[1] == len(FEW)


def test_another_version_judges_anew(tree: Path, resumed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpt_doctor.cli import journal

    resumed(tree)
    monkeypatch.setattr(journal, "ourselves", lambda: "of another content")
    journal._question_of.cache_clear()
    assert resumed(tree)[1] == 0
    journal._question_of.cache_clear()


def longer_config(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(path.read_text() + " ")
    os.utime(path, (1_700_000_000, 1_700_000_000))


def later(folder: Path) -> None:
    os.utime(folder / "adapter_model.safetensors", (1_700_000_001, 1_700_000_001))


def replaced(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    shutil.copy2(path, folder.parent / "new")
    (folder.parent / "new").replace(path)


def one_more(folder: Path) -> None:
    (folder / "trainer_state.json").write_text("{}")
    os.utime(folder / "trainer_state.json", (1_700_000_000, 1_700_000_000))


def one_less(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def place_taken(folder: Path) -> None:
    folder.with_name(folder.name + "-fixed").mkdir()


@pytest.mark.parametrize("change", [longer_config, later, replaced, one_more, one_less, place_taken])
def test_what_has_changed_is_examined_anew(tree: Path, resumed: Any, change: Any) -> None:
    resumed(tree)
    change(tree / ZERO.name)
    assert resumed(tree)[1] == len(FEW) - 1
    expected = len(FEW) - (change is one_less)  # which is damaged, and so looked at each time
    assert resumed(tree)[1] == expected


def test_what_was_only_just_written_may_yet_change_within_its_time(tree: Path, resumed: Any) -> None:
    os.utime(tree / ZERO.name / "adapter_config.json")
    resumed(tree)
    assert resumed(tree)[1] == len(FEW) - 1


def test_what_could_not_be_examined_or_is_of_another_tool_is_looked_at_each_time(tree: Path, resumed: Any) -> None:
    (tree / "a").mkdir()
    (tree / "a/adapter_config.json").mkdir()
    (tree / "b").mkdir()
    (tree / "b/adapter_model.safetensors").write_bytes(b"")
    old(tree)
    resumed(tree)
    assert resumed(tree)[1] == len(FEW)


def test_the_model_that_the_cache_of_the_hub_gets_is_looked_up(
    tree: Path, resumed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckpt_doctor.cli import journal
    from ckpt_doctor.files.hub import cached_base

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    path = tree / PLAIN.name / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "a/b", "revision": None}))
    old(tree)
    resumed(tree, "--for", "vllm")
    assert resumed(tree, "--for", "vllm")[1] == len(FEW)
    snapshot = tmp_path / "hub/models--a--b/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "hub/models--a--b/refs").mkdir()
    (tmp_path / "hub/models--a--b/refs/main").write_text("0" * 40)
    cached_base.cache_clear()  # as in another run
    journal._cached.cache_clear()
    assert resumed(tree, "--for", "vllm")[1] == len(FEW) - 1
    cached_base.cache_clear()
    journal._cached.cache_clear()
    assert resumed(tree, "--for", "vllm")[1] == len(FEW)
    cached_base.cache_clear()
    journal._cached.cache_clear()


def of_other_program(path: Path) -> None:
    path.write_text("to do: nothing")


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE photographs (name)")


def other_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA application_id = 7")


def in_use(path: Path) -> Any:
    file = sqlite3.connect(path)
    file.execute("BEGIN EXCLUSIVE")
    return file


@pytest.mark.parametrize(("make", "said"), [
    (of_other_program, "is not a journal"), (other_database, "is not a journal"),
    (other_application, "is not a journal"),
    (Path.mkdir, "cannot be used"), (in_use, "in use by another run"),
])  # fmt: skip
def test_what_is_no_journal_stays_as_it_is(run: Any, tmp_path: Path, make: Any, said: str) -> None:
    held = make(tmp_path / "journal")
    before = (tmp_path / "journal").read_bytes() if (tmp_path / "journal").is_file() else b""
    result = run("scan", PLAIN, "--format", "jsonl", "--resume", tmp_path / "journal")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert before == ((tmp_path / "journal").read_bytes() if before else b"")
    if held:
        held.close()


def test_a_journal_is_a_file_whatever_it_is_called(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite keeps in memory what is called so, and in a file that goes again what has no name."""
    monkeypatch.chdir(tmp_path)
    assert run("scan", PLAIN, "--format", "jsonl", "--resume", ":memory:").exit_code == 0
    assert (tmp_path / ":memory:").exists()
    result = run("scan", PLAIN, "--format", "jsonl", "--resume", "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be used" in result.stderr


@pytest.mark.parametrize("damage", [
    "line = x'00'", "line = NULL", "mark = 'x'", "mark = '[]'", "mark = '[1, 2, 3, 4]'", "model = '[1]'",
    "line = zeroblob(99)",
])  # fmt: skip
def test_a_row_that_nobody_can_read_is_none(tree: Path, resumed: Any, tmp_path: Path, damage: str) -> None:
    resumed(tree)
    with closing(sqlite3.connect(tmp_path / "journal")) as file:
        file.execute(f"UPDATE adapters SET {damage} WHERE CAST(path AS TEXT) LIKE '%adalora-rank0-0.17.1'")  # noqa: S608 - ours
        file.commit()
    assert resumed(tree)[1] == len(FEW) - 1
    assert resumed(tree)[1] == len(FEW)


MANY = 2_000
OFTEN = """
import sys
from ckpt_doctor.cli import journal, main
journal.PAUSE = 0.1
main(sys.argv[1:])
"""


def test_a_run_that_is_killed_goes_on_and_tells_each_adapter_once(tmp_path: Path) -> None:
    first = old(shutil.copytree(PLAIN, tmp_path / "all/0000"))
    for number in range(1, MANY):
        folder = tmp_path / f"all/{number:04}"
        folder.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            os.link(first / name, folder / name)
        os.utime(folder, (1_700_000_000, 1_700_000_000))
    command = [sys.executable, "-c", OFTEN, "scan", tmp_path / "all", "--format", "jsonl", "--resume", tmp_path / "j"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(MANY // 2):
            process.stdout.readline()
        process.kill()
        process.stdout.read()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    reports, summary = entries(result.stdout)
    assert [report["path"][-4:] for report in reports] == [f"{number:04}" for number in range(MANY)]
    assert summary["adapters"] == summary["accepted"] == MANY
    again = re.search(rf"(\d+) of {MANY} adapters are unchanged", result.stderr)
    assert again
    assert MANY // 10 < int(again[1]) < MANY


@pytest.mark.parametrize("beside", [
    ("--format", "table"), ("--format", "json"), ("--format", "jsonl", "--prove"),
    ("--format", "jsonl", "--write-baseline", "known.json"), ("--format", "jsonl=a", "--format", "table"),
])  # fmt: skip
@pytest.mark.parametrize("option", [("--resume", "j"), ("--jobs", "2")])
def test_what_is_no_line_has_no_journal_and_no_workers(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], beside: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("scan", PLAIN, *option, *beside)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert re.search(
        f"{option[0]} is for --format jsonl or parquet alone, and does not go with (--format|--prove|--write)", said
    )
    assert not (tmp_path / "j").exists()


def test_a_project_says_it_for_the_scans_that_can(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old(shutil.copytree(PLAIN, tmp_path / "a"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpt-doctor.toml").write_text('resume = "j"\njobs = "auto"\n')
    assert run("scan", "a").exit_code == 0
    assert not (tmp_path / "j").exists()
    assert run("scan", "a", "--format", "jsonl").exit_code == 0
    assert "1 of 1 adapters are unchanged" in run("scan", "a", "--format", "jsonl").stderr
    assert "unchanged" not in run("scan", "a", "--format", "jsonl", "-q").stderr
    monkeypatch.setenv("CKPT_DOCTOR_RESUME", str(tmp_path / "other"))
    assert "unchanged" not in run("scan", "a", "--format", "jsonl").stderr
    for wrong in ("jobs = 0", "jobs = true", 'jobs = "all"', "jobs = 257", "resume = 3"):
        (tmp_path / "ckpt-doctor.toml").write_text(wrong + "\n")
        assert run("scan", "a").exit_code == 2, wrong


# Workers


def unborn(_: object) -> None:
    os._exit(4)


def answered(workers: Workers, tasks: list[str]) -> list[Job[str]]:
    with workers:
        batches: Batches[str] = Batches(workers, dull, lambda: 2, len(tasks), apart=True)
        jobs = list(batches.told(map(Job[str], tasks)))
    assert [job.task for job in jobs] == tasks
    assert multiprocessing.active_children() == []
    return jobs


def test_a_task_that_hangs_or_ends_its_process_is_lost_and_no_other() -> None:
    tasks = [*map(str, range(9)), "hang", "a", "die", "long", "b", "leave", "long", "fail", *map(str, range(30))]
    jobs = answered(Workers(2, 3), tasks)
    lost = {job.task: job.lost for job in jobs if job.lost}
    assert lost == {
        "hang": "hang: it was given up after 3 s",
        "die": "die: the process that examined it ended with signal 9",
        "leave": "leave: the process that examined it ended with exit code 3",
        "fail": "fail: ckpt-doctor failed (KeyError: 'x'); please report it",
    }
    assert [job.answer for job in jobs if not job.lost] == [
        task * 100_000 if task == "long" else task for task in tasks if task not in lost
    ]


def test_workers_that_do_not_start_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_work", unborn)
    with pytest.raises(AdapterError, match="could not be started"):
        answered(Workers(2, 60), ["a"])


@pytest.mark.parametrize(
    "asked", [(), ("-v", "--for", "vllm", "--fail-on", "warning"), ("--for", "vllm", "--base", "none")], ids=" ".join
)
def test_workers_tell_what_one_process_tells(run: Any, tree: Path, tmp_path: Path, asked: tuple[str, ...]) -> None:
    (tree / "a").mkdir()
    (tree / "a/adapter_config.json").mkdir()
    (tree.parent / "ckpt-doctor.toml").write_text('[[overrides]]\npaths = ["tree/adalora-*"]\nignore = "CD101"\n')
    options = ("scan", tree, tmp_path / "none", "--config", tmp_path / "ckpt-doctor.toml", "--format", "jsonl", *asked)
    alone, several = run(*options), run(*options, "--jobs", "2")
    assert (several.stdout, several.stderr, several.exit_code) == (alone.stdout, alone.stderr, alone.exit_code)
    noted = run(*options, "--jobs", "2", "--resume", tmp_path / "journal")
    assert noted.stdout == alone.stdout
    again = run(*options, "--jobs", "3", "--resume", tmp_path / "journal")
    assert again.stdout == alone.stdout
    assert f"{len(FEW)} of {len(FEW) + 1} adapters are unchanged" in again.stderr


def test_a_worker_that_stops_costs_nothing_but_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one adapter may take is reckoned by what all of them take, so that a busy machine loses no other worker."""
    folders = sorted(str(path) for path in tree.iterdir()) * 8
    choice = Choice(Config(), Settings(), frozenset())

    def told() -> Iterator[str]:
        return (one.line for one in fleet.Fleet(choice.of, choice, "jsonl", 2, None, verbose=False).told(folders))

    start = time.monotonic()
    lines = [*told()]
    monkeypatch.setattr(fleet, "SECONDS", 2 * (time.monotonic() - start))
    again = told()
    first = next(again)
    stopped = multiprocessing.active_children()[0]
    os.kill(stopped.pid or 0, signal.SIGSTOP)
    assert [first, *again] == lines
    stopped.join(60)
    assert stopped.exitcode == -signal.SIGKILL
    assert [json.loads(line)["error"] for line in lines] == [None] * len(folders)
    assert multiprocessing.active_children() == []


def until_workers(self: Any, rest: Iterator[str]) -> Iterator[str]:
    """As `_until_workers` of a fleet whose workers begin at once."""
    for folder in rest:
        yield folder
        if [future.result() for future in self._begun]:
            return


def test_workers_are_started_where_they_help(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [str(path) for path in tree.iterdir()] * 2
    choice = Choice(Config(), Settings(), frozenset())
    monkeypatch.setattr(fleet, "TRIAL", 0)
    monkeypatch.setattr(fleet, "_cores", lambda: 2)

    def processes() -> list[int]:
        running = fleet.Fleet(choice.of, choice, "jsonl", fleet.AUTO, None, verbose=False).told(folders)
        return [len(multiprocessing.active_children()) for _ in running]

    monkeypatch.setattr(batches, "FIRST", 1)
    assert max(processes()) == 0
    monkeypatch.setattr(fleet, "LEAST_LEFT", 0)
    monkeypatch.setattr(fleet, "LEAST", 0)
    assert len(processes()) == len(folders)  # all may be told of before they have begun
    monkeypatch.setattr(fleet.Fleet, "_until_workers", until_workers)
    assert processes()[:3] == [0, 0, 2]  # what comes first is no measure
    monkeypatch.setattr(fleet, "_cores", lambda: 1)
    assert processes() == [0] * len(folders)
    assert multiprocessing.active_children() == []


def test_where_workers_do_not_begin_none_is_needed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = Choice(Config(), Settings(), frozenset())
    for name, value in (("TRIAL", 0), ("LEAST_LEFT", 0), ("LEAST", 0), ("_cores", lambda: 2)):
        monkeypatch.setattr(fleet, name, value)
    monkeypatch.setattr(workers, "_work", unborn)
    folders = [str(next(tree.iterdir()))] * 100
    running = fleet.Fleet(choice.of, choice, "jsonl", fleet.AUTO, None, verbose=False)
    told = running.told(folders)
    lines = [next(told).line for _ in range(10)]
    assert all(isinstance(future.exception(60), AdapterError) for future in running._begun)
    assert len(running._begun) == 2
    lines += [one.line for one in told]
    assert (len(lines), {*lines}) == (100, {lines[0]})


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_an_interruption_ends_the_workers_and_is_one_line(tree: Path, tmp_path: Path) -> None:
    for number in range(300):
        shutil.copytree(tree / ZERO.name, tmp_path / f"many/{number}")
    command = [sys.executable, "-m", "ckpt_doctor", "scan", tmp_path / "many", "--format", "jsonl", "--jobs", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, errors = process.communicate(timeout=60)  # which ends when nobody has its standard error any more
    assert (process.returncode, errors) == (130, "ckpt-doctor: interrupted\n")
