"""What a person sees: colour, width, progress, quiet and verbose, help; and what a pipe gets."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import FIXTURES

from ckpt_doctor.cli import COMMANDS, main
from ckpt_doctor.reports import Style
from ckpt_doctor.reports.text import columns, lines, shortened

ZERO, HEALTHY = FIXTURES / "adalora-rank0-0.9.0", FIXTURES / "lora-plain-0.21.2"
ESCAPE = "\x1b["


def at_a_terminal(
    *arguments: object, width: int = 80, stderr_only: bool = False, module: bool = True, **environ: str
) -> str:
    """What a command writes to a terminal of that width; its standard output is no part of it under `stderr_only`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    command = [sys.executable, *(("-m", "ckpt_doctor") if module else ()), *map(str, arguments)]
    out = subprocess.DEVNULL if stderr_only else slave
    with subprocess.Popen(
        command, stdout=out, stderr=slave, env={**clean, "TERM": "xterm", **environ}, close_fds=True
    ) as process:
        os.close(slave)
        data = b""
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            data += piece
        process.wait()
    os.close(master)
    return data.decode()


def piped(*arguments: object, **environ: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "ckpt_doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**clean, **environ}).stdout


def test_colour_is_for_terminals() -> None:
    assert ESCAPE in at_a_terminal("scan", ZERO)
    assert ESCAPE not in piped("scan", ZERO)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_no_color_at_a_terminal(environ: dict[str, str], coloured: bool) -> None:
    assert (ESCAPE in at_a_terminal("scan", ZERO, **environ)) == coloured


def test_force_color_in_a_pipe_and_never_in_a_file(tmp_path: Path) -> None:
    assert ESCAPE in piped("scan", ZERO, FORCE_COLOR="1")
    assert ESCAPE not in piped("scan", ZERO, FORCE_COLOR="0")
    piped("scan", ZERO, "--output", tmp_path / "out.txt", FORCE_COLOR="1")
    assert "CD101" in (tmp_path / "out.txt").read_text()
    assert ESCAPE not in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_lines_fit_the_terminal(width: int) -> None:
    """But for paths and commands, which stay whole to be copied."""
    output = at_a_terminal("scan", ZERO, "-v", width=width, NO_COLOR="1")
    long = [line for line in output.splitlines() if columns(line) > width and str(ZERO) not in line]
    assert long == []
    assert "accepted by" in output


def test_lines_are_whole_in_a_pipe() -> None:
    assert any(len(line) > 120 for line in piped("scan", ZERO).splitlines())


def test_columns_counts_wide_characters_twice() -> None:
    assert columns("秩为 0") == 6
    assert max(columns(line) for line in lines("模型 适配器 加载 失败 因为 秩为 零", 2, Style(20))) <= 20
    assert shortened("model.layers.0.self_attn.q_proj", 12) == "…attn.q_proj"
    assert columns(shortened("模型适配器加载失败", 9)) <= 9


def test_tables_line_up_with_wide_characters(run: Any, tmp_path: Path) -> None:
    """As in a module that someone named in Chinese."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(FIXTURES / "lora-patterns-0.9.0", tmp_path / "a")
    weights = tmp_path / "a/adapter_model.safetensors"
    save_file({key.replace("blocks", "模块"): value for key, value in load_file(weights).items()}, weights)
    table = [line for line in run("scan", "--layers", tmp_path / "a").output.splitlines() if line.endswith("/16")]
    assert len(table) == 3
    assert len({columns(line) for line in table}) == 1


def test_a_name_cannot_command_the_terminal(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b]0;mine\x07"
    shutil.copytree(ZERO, folder)
    assert "\x1b]" not in run("scan", folder).output
    assert "\x07" not in run("fix", folder, tmp_path / "out").output


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_cannot_write_all_is_no_failure(encoding: str, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/n\xff"  # no UTF-8
    shutil.copytree(ZERO, os.fsdecode(folder))
    for arguments in (["scan"], ["scan", "--format", "json"], ["scan", "--format", "markdown"], ["preload"]):
        command = [os.fsencode(part) for part in (sys.executable, "-m", "ckpt_doctor", *arguments)]
        environ = {**os.environ, "PYTHONIOENCODING": encoding}
        result = subprocess.run([*command, folder], capture_output=True, check=False, env=environ)
        assert b"Traceback" not in result.stderr
        assert result.returncode == int(arguments[0] == "scan")
        if arguments[-1] == "json" and encoding != "ascii":  # there click writes UTF-8, with ? for what is none
            assert os.fsencode(json.loads(result.stdout.decode(encoding))["reports"][0]["path"]) == folder
        if arguments[0] == "preload":
            assert result.stdout == folder + b"\n"


def test_what_cannot_be_written_is_no_finding() -> None:
    for arguments in (["scan"], ["scan", "--format", "json"], ["compare", str(ZERO)]):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "ckpt_doctor", *arguments, str(ZERO)]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr == "ckpt-doctor: input or output failed: No space left on device\n"


def test_a_fault_of_ours_is_no_finding(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt_doctor.cli.scan.render", None)
    result = run("scan", ZERO)
    assert result.exit_code == 2
    assert "please report it: TypeError" in result.stderr


def test_closed_streams_are_no_failure() -> None:
    command = f'"{sys.executable}" -m ckpt_doctor scan "{ZERO}" >&-'
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert (result.returncode, result.stderr) == (1, "")


def test_quiet_tells_what_fails_and_nothing_else(run: Any) -> None:
    output = run("scan", "-q", ZERO, HEALTHY).output
    assert "CD101" in output
    assert "CD201" not in output
    assert str(HEALTHY) not in output
    assert run("scan", "-q", HEALTHY).output == ""


def test_verbose_tells_where(run: Any) -> None:
    output = run("scan", "-v", ZERO).output
    assert "tensors: base_model.model.blocks.1.up.lora_A" in output
    assert "config keys: rank_pattern" in output
    assert "scaling" in output


def many(tmp_path: Path, count: int) -> Path:
    for number in range(count):
        shutil.copytree(ZERO, tmp_path / "many" / f"a{number}")
    return tmp_path / "many"


CLOCKED = """
import sys
from itertools import count
from types import SimpleNamespace
from ckpt_doctor.cli import main, terminal
clock = count(0, float(sys.argv.pop(1)))
terminal.time = SimpleNamespace(monotonic=lambda: next(clock))
main(sys.argv[1:])
"""
"""A command by a clock on which each adapter takes as long, whatever the machine does beside."""


def test_progress_is_for_a_person_who_waits(tmp_path: Path) -> None:
    """On standard error, after a second, ten times a second, gone when it is done; never where quiet is asked for."""
    command = ("scan", many(tmp_path, 30), "--format", "json")
    slow, quick = (("-c", CLOCKED, seconds, *command) for seconds in (0.06, 0.03))
    output = at_a_terminal(*slow, stderr_only=True, module=False)
    assert output.startswith(f"\r16 of 30 adapters, 16 a second, 1 s left{ESCAPE}K\r18 of 30 adapters, ")
    assert output.endswith(f"\r28 of 30 adapters, 16 a second, 0 s left{ESCAPE}K\r{ESCAPE}K")
    assert at_a_terminal(*slow, "-q", stderr_only=True, module=False) == ""
    assert at_a_terminal(*quick, stderr_only=True, module=False) == ""


BUSY = """
import time
from ckpt_doctor.cli.terminal import busy
with busy("mine"):
    time.sleep(1.5)
with busy("short"):
    pass
"""


def test_long_work_shows_that_it_goes_on() -> None:
    assert at_a_terminal("-c", BUSY, module=False) == f"\rmine, 1 s\r{ESCAPE}K"
    result = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, check=True)
    assert result.stderr == b""


def test_a_reader_that_leaves_is_no_failure(tmp_path: Path) -> None:
    folder = many(tmp_path, 200)
    command = f'"{sys.executable}" -m ckpt_doctor scan "{folder}" | head -1'
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602
    assert result.stderr == ""


def test_formats_go_each_to_its_file(run: Any, tmp_path: Path) -> None:
    result = run("scan", ZERO, "--format", "table", "--format", f"json={tmp_path / 'a.json'}")
    assert "CD101" in result.stdout
    assert json.loads((tmp_path / "a.json").read_text())["reports"][0]["peft_type"] == "ADALORA"
    assert run("scan", ZERO, "--format", "json", "-o", tmp_path / "b.json").stdout == ""
    assert (tmp_path / "b.json").read_text() == (tmp_path / "a.json").read_text()
    assert run("scan", ZERO, "--format", "json", "--format", "table").exit_code == 2
    assert run("scan", ZERO, "--format", "xml").exit_code == 2
    assert run("scan", ZERO, "--format", "json=").exit_code == 2
    assert run("scan", ZERO, "--format", "json=a", "--output", "b").exit_code == 2
    assert run("scan", ZERO, "--format", "json=a", "--format", "table", "--output", "a").exit_code == 2
    result = run("scan", ZERO, "--output", tmp_path / "none/a")
    assert result.exit_code == 2
    assert "there is no folder" in result.stderr


def test_a_file_can_be_a_pipe_that_has_no_name() -> None:
    """As /dev/stdout of a pipe has none, nor >(…) of a shell."""
    command = [sys.executable, "-m", "ckpt_doctor", "scan", HEALTHY, "--format", "json=/dev/stdout"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["summary"]["adapters"] == 1


def test_a_report_that_fails_half_way_does_not_replace_the_old_one(run: Any, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked/a.json").mkdir()
    result = run("scan", ZERO, "--output", tmp_path / "locked/a.json")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_json_lines_come_as_they_are_found(tmp_path: Path) -> None:
    folder = many(tmp_path, 30)
    command = [sys.executable, "-m", "ckpt_doctor", "scan", str(folder), "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert process.poll() is None
        *rest, last = [json.loads(line) for line in process.stdout]
    assert {key for line in (first, *rest) for key in line} >= {"schema_version", "path", "verdicts"}
    assert len(rest) == 29
    assert last["summary"]["adapters"] == 30


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_fits(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"  ckpt-doctor {command} " in result.output
    assert "Exit code" in result.output


def test_the_shell_completes_commands_and_options() -> None:
    environ = {"_CKPT_DOCTOR_COMPLETE": "bash_complete", "COMP_WORDS": "ckpt-doctor scan --fail", "COMP_CWORD": "2"}
    command = Path(sys.executable).parent / "ckpt-doctor"
    result = subprocess.run([command], capture_output=True, text=True, check=False, env={**os.environ, **environ})
    assert result.stdout == "plain,--fail-on\n"


def test_what_github_does_not_show_goes_to_the_summary(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert "more findings are left out" in run("scan", FIXTURES, "--format", "github").output.splitlines()[-1]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "summary").write_text("of an earlier command\n")
    last = run("scan", FIXTURES, "--format", "github").output.splitlines()[-1]
    assert "more findings are in the summary" in last
    lines = (tmp_path / "summary").read_text().splitlines()
    assert lines[0] == "of an earlier command"
    beside = lines[lines.index("| adapter | code | severity | message |") :]
    assert len([line for line in beside if line.startswith("| `")]) == int(last.split()[0])
