"""`ckpt-doctor fix` stopped at any step, and raced by others: nothing that a user has is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from test_fix import tree

from ckpt_doctor import fix
from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.files import renaming, replacing, staging, writer

ZERO, HEALTHY, OTHER = (FIXTURES / n for n in ("adalora-rank0-0.21.2", "lora-plain-0.21.2", "lora-plain-0.6.2"))


@pytest.fixture(params=["exchange", "fallback"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that can exchange two names in one step, and on one that cannot."""
    if request.param == "fallback":
        monkeypatch.setattr(renaming, "_renamed", lambda *_: False)


def test_this_system_can_exchange_names(tmp_path: Path) -> None:
    """Else the tests below that need it say nothing."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert renaming.exchanged(str(tmp_path / "a"), str(tmp_path / "b")) == (sys.platform == "linux")
    assert (tmp_path / "a/b").exists() == (sys.platform == "linux")


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL", "error"])
@pytest.mark.parametrize("scenario", ["new", "force", "force fallback", "in place"])
def test_at_any_step_the_old_one_or_the_new_one_is_there(tmp_path: Path, scenario: str, how: str) -> None:
    """And IN as it was, nothing staged but after SIGKILL, and the next run comes through."""
    command = [sys.executable, Path(__file__).parent / "interrupt.py", scenario, how, tmp_path]
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["wrong"] == []
    assert report["runs"] > 5


@pytest.mark.usefixtures("renames")
@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link"])
def test_what_appears_meanwhile_is_not_replaced(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    out, real = tmp_path / "out", writer._read_back

    def late(*arguments: Any) -> None:
        real(*arguments)
        if "folder" in kind:
            out.mkdir()
        if kind == "folder":
            (out / "mine").write_text("mine")
        if kind == "file":
            out.write_text("mine")
        if kind == "link":
            out.symlink_to(tmp_path / "nowhere")

    monkeypatch.setattr(writer, "_read_back", late)
    result = run("fix", ZERO, out)
    assert result.exit_code == 2
    assert f"{out} exists" in result.stderr
    assert list(tmp_path.iterdir()) == [out]
    assert tree(tmp_path) == ({"out/mine": b"mine"} if kind == "folder" else {"out": b"mine"} if kind == "file" else {})


RACER = """
import sys, time
from ckpt_doctor.verbs import compare as comparison
from ckpt_doctor.files import renaming, writer
from ckpt_doctor.cli import fix, main
if sys.argv[4] == "fallback":
    renaming._renamed = lambda *_: False
while time.time() < float(sys.argv[3]): pass
main(["fix", sys.argv[1], sys.argv[2]])
"""


@pytest.mark.parametrize("renames", ["exchange", "fallback"])
@pytest.mark.parametrize("shape", ["one", "tree", "root"])
def test_of_two_at_once_one_writes(tmp_path: Path, shape: str, renames: str) -> None:
    """One adapter; a tree of them; a tree whose root is one."""
    source = tmp_path / "in"
    if shape == "tree":
        shutil.copytree(ZERO, source / "a")
    else:
        shutil.copytree(ZERO, source)
    if shape != "one":
        shutil.copytree(HEALTHY, source / "b")
    command = [sys.executable, "-c", RACER, source, tmp_path / "out", str(time.time() + 2), renames]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in "12"]
    errors = [process.communicate()[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 2]
    assert "out exists" in "".join(errors)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert not [name for name in tree(tmp_path / "out") if name.startswith(".") or "/." in name]
    assert (tmp_path / "out/b").exists() == (shape != "one")


def test_a_tree_of_which_nothing_is_written_leaves_no_folder(run: Any, tmp_path: Path) -> None:
    shutil.copytree(HEALTHY, tmp_path / "in/a")
    (tmp_path / "in/a/adapter_model.safetensors").write_bytes(b"")
    assert run("fix", tmp_path / "in", tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert run("fix", tmp_path / "in", tmp_path / "out", "--force").exit_code == 1
    assert (tmp_path / "out").exists()


@pytest.mark.usefixtures("renames")
def test_what_lies_below_a_root_stays_until_it_is_written_again(run: Any, tmp_path: Path) -> None:
    for folder in ("in", "in/sub", "in/deep/er"):
        shutil.copytree(ZERO, tmp_path / folder)
    assert run("fix", tmp_path / "in", tmp_path / "out").exit_code == 0
    (tmp_path / "out/sub/mine").write_text("mine")
    (tmp_path / "out/mine").write_text("mine")
    (tmp_path / "out/notes").mkdir()
    (tmp_path / "out/link").symlink_to("sub")
    earlier = tree(tmp_path / "out")
    (tmp_path / "in/sub/adapter_model.safetensors").write_bytes(b"")
    result = run("fix", tmp_path / "in", tmp_path / "out", "--force", "--weights", "same")
    assert result.exit_code == 1
    assert "nothing was written" in result.output
    after = tree(tmp_path / "out")
    assert after.keys() == earlier.keys() - {"mine"}
    assert {name: data for name, data in after.items() if name.startswith("sub/")} == {
        name: data for name, data in earlier.items() if name.startswith("sub/")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert not (tmp_path / "out/notes").exists()
    assert (tmp_path / "out/link").readlink() == Path("sub")
    shutil.copytree(ZERO, tmp_path / "in/sub", dirs_exist_ok=True)
    assert run("fix", tmp_path / "in", tmp_path / "out", "--force").exit_code == 0
    assert not (tmp_path / "out/sub/mine").exists()


@pytest.mark.usefixtures("renames")
@pytest.mark.parametrize("linked", ["links", "no links"])
def test_what_stays_is_what_it_was(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: str) -> None:
    def refused(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    if linked == "no links":
        monkeypatch.setattr(writer.os, "link", refused)
    shutil.copytree(ZERO, tmp_path / "out/sub")
    (tmp_path / "out/sub/run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "out/sub/run.sh").chmod(0o750)
    (tmp_path / "out/sub").chmod(0o711)
    before = tree(tmp_path / "out")
    assert run("fix", HEALTHY, tmp_path / "out", "--force").exit_code == 0
    assert tree(tmp_path / "out").items() > before.items()
    assert (tmp_path / "out/sub/run.sh").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out/sub").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "out/sub/run.sh").stat().st_nlink == 1


@pytest.mark.usefixtures("renames")
@pytest.mark.parametrize("kind", ["file", "link to a folder", "link to nothing"])
def test_force_replaces_what_is_no_folder_and_leaves_nothing(run: Any, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(ZERO, tmp_path / "target/sub")
    if kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / ("target" if "folder" in kind else "nowhere"))
    before = tree(tmp_path / "target")
    assert run("fix", HEALTHY, out, "--force").exit_code == 0
    assert not out.is_symlink()
    assert (out / "adapter_config.json").exists()
    assert not (out / "sub").exists()
    assert tree(tmp_path / "target") == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "target"}


@pytest.mark.usefixtures("renames")
@pytest.mark.parametrize("shape", ["one", "tree"])
def test_force_replaces_no_device_and_no_pipe(run: Any, tmp_path: Path, shape: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(ZERO, source / "a" if shape == "tree" else source)
    os.mkfifo(out)
    result = run("fix", source, out, "--force")
    assert result.exit_code == 2
    assert "is a device, a pipe or a socket" in result.stderr
    assert out.is_fifo()
    with pytest.raises(AdapterError, match="a pipe"):
        fix(source / "a" if shape == "tree" else source, out, force=True)
    assert out.is_fifo()


def test_what_can_neither_be_replaced_nor_go_back_has_a_name_that_is_said(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names cannot be exchanged, and someone takes the name in between."""
    monkeypatch.setattr(renaming, "_renamed", lambda *_: False)
    out, real = tmp_path / "out", os.rename
    out.mkdir()
    (out / "mine").write_text("mine")

    def moving(source: str, target: str) -> None:
        real(source, target)
        if source == str(out):
            out.mkdir()
            (out / "theirs").write_text("theirs")

    monkeypatch.setattr(writer.os, "rename", moving)
    result = run("fix", HEALTHY, out, "--force")
    assert result.exit_code == 2
    assert tree(out) == {"theirs": b"theirs"}
    (aside,) = (path for path in tmp_path.iterdir() if path != out)
    assert f"what was in its place is now {aside}/out" in result.stderr
    assert tree(aside) == {"out/mine": b"mine"}
    monkeypatch.undo()
    again = run("fix", HEALTHY, out, "--force")
    assert again.exit_code == 0
    assert f"{aside}/out was in the place of out" in again.stderr
    assert tree(aside) == {"out/mine": b"mine"}


def test_what_is_left_of_the_old_one_has_the_name_of_what_was_staged(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names cannot be exchanged: what could not be removed is not told of as what a killed fix left, and goes."""
    monkeypatch.setattr(renaming, "_renamed", lambda *_: False)
    monkeypatch.setattr(staging, "remove", lambda _: None)
    monkeypatch.setattr(replacing, "remove", lambda _: None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert run("fix", HEALTHY, out, "--force").exit_code == 0
    (left,) = (path for path in tmp_path.iterdir() if path != out)
    assert tree(left) == {"out/out/mine": b"mine"}
    assert replacing.REPLACED not in "".join(map(str, left.rglob("*")))
    monkeypatch.undo()
    staging._sweep.cache_clear()
    again = run("fix", HEALTHY, out, "--force")
    assert (again.exit_code, again.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_program_says_of_sigterm_holds(run: Any, tmp_path: Path) -> None:
    heard = []
    earlier = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        assert run("scan", HEALTHY, "--output", tmp_path / "report").exit_code == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [True]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert run("scan", HEALTHY, "--output", tmp_path / "report").exit_code == 0
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_a_folder_that_cannot_be_listed_now_is_not_taken_for_another_tools(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    shutil.copytree(ZERO, source)
    shutil.copytree(ZERO, source / "sub")
    real, failed = os.scandir, []

    def once(path: Any = ".") -> Any:
        if str(path) == str(source) and not failed:
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(os, "scandir", once)
    result = run("fix", source, tmp_path / "out")
    assert (result.exit_code, failed) == (2, [str(source)])
    assert "cannot be read: Input/output error" in result.output
    assert not (tmp_path / "out").exists()


def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    shutil.copytree(HEALTHY, tmp_path / "in")
    (tmp_path / "in/adapter_model.safetensors").unlink()
    os.mkfifo(tmp_path / "in/adapter_model.safetensors")
    command = [sys.executable, "-m", "ckpt_doctor", "fix", "in", "out", "--for", "peft==*", "--best-effort"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "it is not a regular file" in done.stderr
    assert not (tmp_path / "out").exists()
