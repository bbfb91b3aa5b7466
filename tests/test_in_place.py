"""`ckpt-doctor fix --in-place`: what it touches, what stays as a backup, and what a failure leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from test_fix import load, tree

from ckpt_doctor.files import exchange, writer

ZERO = "adalora-rank0-0.21.2"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / ZERO, tmp_path / "adapter", copy_function=shutil.copyfile)
    return tmp_path / "adapter"


def git(folder: Path, *arguments: str) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *settings, "-C", folder, *arguments], check=True, capture_output=True, env=environ)


def test_the_newest_peft_computes_the_same_from_where_it_was(run: Any, adapter: Path) -> None:
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert run("scan", adapter).exit_code == 0
    (row,) = load(sys.executable, [adapter])
    assert row["verdict"] == "accepts"


def test_the_old_files_stay_beside_the_new_ones(run: Any, adapter: Path) -> None:
    before = tree(adapter)
    result = run("fix", "--in-place", "--format", "json", adapter)
    (done,) = json.loads(result.stdout)["results"]
    assert sorted(done["backups"]) == ["adapter_config.json.bak", "adapter_model.safetensors.bak"]
    after = tree(adapter)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert after.pop(f"{name}.bak") == before[name]
        assert after[name] != before[name]
    assert after.keys() == {*before, "ckpt-doctor.json"}
    assert after["expected_output.npy"] == before["expected_output.npy"]


def test_it_writes_what_a_fix_to_a_folder_writes(run: Any, adapter: Path, tmp_path: Path) -> None:
    run("fix", adapter, tmp_path / "out")
    run("fix", "--in-place", adapter)
    assert {name: data for name, data in tree(adapter).items() if not name.endswith(".bak")} == tree(tmp_path / "out")


def test_what_has_no_error_is_not_touched(run: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")}
    assert run("fix", "--in-place", tmp_path).exit_code == 0
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")} == before
    assert run("fix", "--in-place", tmp_path, "--for", "peft==0.9.0").exit_code == 0
    assert (tmp_path / "a/adapter_config.json.bak").exists()  # 0.9.0 rejects it, so that is an error


def test_a_second_time_changes_nothing(run: Any, adapter: Path) -> None:
    run("fix", "--in-place", adapter)
    before = tree(adapter)
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert tree(adapter) == before


def test_a_backup_is_never_overwritten(run: Any, adapter: Path) -> None:
    (adapter / "adapter_config.json.bak").write_text("mine")
    before = (adapter / "adapter_config.json").read_bytes()
    run("fix", "--in-place", adapter)
    assert (adapter / "adapter_config.json.bak").read_text() == "mine"
    assert (adapter / "adapter_config.json.bak2").read_bytes() == before


def test_what_git_has_needs_no_backup(run: Any, adapter: Path) -> None:
    root = adapter.parent
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text() + "\n")  # git has not got this
    edited = config.read_bytes()
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert [path.name for path in adapter.glob("*.bak")] == ["adapter_config.json.bak"]
    assert (adapter / "adapter_config.json.bak").read_bytes() == edited
    git(root, "checkout", "-q", "--", "adapter/adapter_model.safetensors")
    assert (adapter / "adapter_model.safetensors").read_bytes() == (
        FIXTURES / ZERO / "adapter_model.safetensors"
    ).read_bytes()


def test_what_is_only_staged_is_not_what_git_has(run: Any, adapter: Path) -> None:
    """A later `git add` would leave no name for it."""
    root = adapter.parent
    git(root, "init", "-q")
    git(root, "add", "-A")
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert len(list(adapter.glob("*.bak"))) == 2


def test_several_files_of_one_adapter_are_one_adapter(run: Any, adapter: Path) -> None:
    files = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    result = run("fix", "--in-place", "--format", "json", *files)
    assert len(json.loads(result.stdout)["results"]) == 1


def test_links_are_replaced_and_what_they_point_to_stays(run: Any, adapter: Path, tmp_path: Path) -> None:
    """As in the cache of the Hub."""
    (tmp_path / "blobs").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).rename(tmp_path / "blobs" / name)
        (adapter / name).symlink_to(tmp_path / "blobs" / name)
    before = tree(tmp_path / "blobs")
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert tree(tmp_path / "blobs") == before
    assert not (adapter / "adapter_config.json").is_symlink()
    assert (adapter / "adapter_config.json.bak").is_symlink()


def test_the_weights_in_another_format_do_not_stay_beside_the_new_ones(run: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "adalora-rank0-bin-0.12.0", tmp_path / "a")
    assert run("fix", "--in-place", tmp_path / "a").exit_code == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert "adapter_model.safetensors" in names
    assert "adapter_model.bin" not in names
    assert "adapter_model.bin.bak" in names
    assert run("scan", tmp_path / "a").exit_code == 0


def test_permissions_stay(run: Any, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").chmod(0o640)
    run("fix", "--in-place", adapter)
    assert (adapter / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("at", range(5))
def test_a_failure_at_any_step_is_undone(run: Any, adapter: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Two old files go, three new ones come: each of the five moves fails once."""
    before = tree(adapter)
    real, count = os.rename, 0

    def failing(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(exchange.os, "rename", failing)
    assert run("fix", "--in-place", adapter).exit_code == 2
    assert tree(adapter) == before
    monkeypatch.undo()
    assert run("fix", "--in-place", adapter).exit_code == 0


@pytest.mark.parametrize("at", range(1, 6))
def test_a_crash_at_any_step_leaves_the_old_adapter_the_new_one_or_none(adapter: Path, at: int) -> None:
    """Killed after a move: never a new config beside old weights, or the reverse; and nothing is lost."""
    before = tree(adapter)
    code = (
        "import os, sys\n"
        "from ckpt_doctor.files import exchange\n"
        "from ckpt_doctor.cli import main\n"
        "real, count = os.rename, 0\n"
        "def dying(a, b):\n"
        "    global count\n"
        "    real(a, b)\n"
        "    count += 1\n"
        f"    if count == {at}: os._exit(9)\n"
        "exchange.os.rename = dying\n"
        "main(['fix', '--in-place', sys.argv[1]])\n"
    )
    assert subprocess.run([sys.executable, "-c", code, adapter], check=False).returncode == 9
    config, weights = (adapter / name for name in ("adapter_config.json", "adapter_model.safetensors"))
    if config.exists():
        is_old = {config.read_bytes() == before[config.name], weights.read_bytes() == before[weights.name]}
        assert len(is_old) == 1
    left = tree(adapter).values()
    assert all(data in left for data in before.values())


def test_a_repository_cannot_have_a_command_run(run: Any, adapter: Path) -> None:
    """As a partial clone that lacks an object: git would fetch it, by the command that its config names."""
    root = adapter.parent
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    ran = root / "ran"
    config = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(root),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": f"touch {ran}; git-upload-pack",
        "protocol.file.allow": "always",
        "core.fsmonitor": f"touch {ran}",
        "filter.x.clean": f"touch {ran}; cat",
    }
    for key, value in config.items():
        git(root, "config", key, value)
    (root / ".git/info/attributes").write_text("* filter=x\n")
    shutil.rmtree(root / ".git/objects")
    (root / ".git/objects").mkdir()
    ask = ["git", "-C", root, "cat-file", "-p", "HEAD:./adapter/adapter_config.json"]
    subprocess.run(ask, check=False, capture_output=True)
    assert ran.exists()  # so it is a trap
    ran.unlink()
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert not ran.exists()
    assert len(list(adapter.glob("*.bak"))) == 2


def test_a_form_that_is_asked_for_by_name_is_made(run: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "adalora-no-rank0-0.21.2", tmp_path / "a")
    assert run("fix", "--in-place", tmp_path / "a").output.count("nothing to repair") == 1
    assert run("fix", "--in-place", "--to", "lora", tmp_path / "a").exit_code == 0
    assert json.loads((tmp_path / "a/adapter_config.json").read_text())["peft_type"] == "LORA"


SIX = """
import sys, time
from ckpt_doctor.cli import main
while time.time() < float(sys.argv[2]): pass
main(["fix", "--in-place", sys.argv[1]])
"""


def test_six_processes_on_one_adapter_leave_one_repaired_adapter(run: Any, adapter: Path, tmp_path: Path) -> None:
    """Whoever comes late finds that the files are not those that it read, and writes nothing made of both."""
    before = tree(adapter)
    run("fix", adapter, tmp_path / "out")
    command = [sys.executable, "-c", SIX, str(adapter), str(time.time() + 2)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    errors = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert 0 in codes
    assert all("by others meanwhile" in error for error, code in zip(errors, codes, strict=True) if code == 2)
    after = tree(adapter)
    assert {name: data for name, data in after.items() if ".bak" not in name} == tree(tmp_path / "out")
    assert {name: data for name, data in after.items() if ".bak" in name} == {
        f"{name}.bak": before[name] for name in ("adapter_config.json", "adapter_model.safetensors")
    }


@pytest.mark.parametrize("in_place", [True, False])
def test_nothing_is_made_of_a_file_that_was_replaced_meanwhile(
    run: Any, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    """As by a training that saves again: the headers that were read say nothing of the new file."""
    real = writer._write_safetensors
    other = (FIXTURES / "adalora-rank0-0.17.1/adapter_model.safetensors").read_bytes()

    def late(*arguments: Any) -> Any:
        (adapter / "new").write_bytes(other)
        (adapter / "new").replace(adapter / "adapter_model.safetensors")
        return real(*arguments)

    monkeypatch.setattr(writer, "_write_safetensors", late)
    result = run("fix", "--in-place", adapter) if in_place else run("fix", adapter, tmp_path / "out")
    assert result.exit_code == 2
    assert "by others meanwhile" in result.stderr
    assert (adapter / "adapter_model.safetensors").read_bytes() == other
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}
    assert tree(adapter).keys() == tree(FIXTURES / ZERO).keys()


def test_what_cannot_be_repaired_stays_as_it_is(run: Any, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    before = tree(adapter)
    assert run("fix", "--in-place", adapter).exit_code == 1
    assert tree(adapter) == before
    assert run("fix", "--in-place", adapter.parent / "none").exit_code == 2


def test_a_dry_run_writes_nothing(run: Any, adapter: Path) -> None:
    before = tree(adapter)
    result = run("fix", "--in-place", "--dry-run", adapter)
    assert result.exit_code == 0
    assert "would pad rank-0 layers" in result.output
    assert tree(adapter) == before
