"""`ckpt-doctor verify`: a folder that a fix wrote holds, and each way in which it can cease to is found."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES

from ckpt_doctor.adapter import AdapterError
from ckpt_doctor.cli.verify import command
from ckpt_doctor.verbs.verify import verify

ZERO, HEALTHY = FIXTURES / "adalora-rank0-0.17.1", FIXTURES / "lora-plain-0.21.2"
CONFIG, WEIGHTS, BIN, RECORD = (
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "ckpt-doctor.json",
)  # fmt: skip


@pytest.fixture
def fixed(tmp_path: Path, run: Any) -> Path:
    """A folder that a fix wrote, with its original gone."""
    shutil.copytree(ZERO, tmp_path / "source")
    assert run("fix", tmp_path / "source", tmp_path / "fixed").exit_code == 0
    shutil.rmtree(tmp_path / "source")
    return tmp_path / "fixed"


def state(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("options", "proved"),
    [
        ((), "same function as the original: bit-exact; repaired: pad rank-0 layers with zeros, "),
        (("--to", "lora"), "same function as the original: within "),
        (("--weights", "bin"), "same function as the original: bit-exact"),
    ],
)
def test_what_a_fix_wrote_holds_without_its_original(
    tmp_path: Path, run: Any, options: tuple[str, ...], proved: str
) -> None:
    assert run("fix", ZERO, tmp_path / "fixed", *options).exit_code == 0
    before = state(tmp_path)
    result = run("verify", tmp_path / "fixed")
    assert result.exit_code == 0
    assert f"  holds: {proved}" in result.stdout
    assert state(tmp_path) == before


def test_what_was_repaired_in_place_holds_and_so_does_a_second_fix(tmp_path: Path, run: Any) -> None:
    shutil.copytree(ZERO, tmp_path / "adapter")
    assert run("fix", "--in-place", tmp_path / "adapter", "--for", "peft==0.9.0").exit_code == 0
    assert list((tmp_path / "adapter").glob("*.bak*"))
    assert run("verify", tmp_path / "adapter").exit_code == 0
    assert run("fix", tmp_path / "adapter", tmp_path / "again").exit_code == 0
    assert run("verify", tmp_path / "again").exit_code == 0


def test_a_healthy_adapter_and_every_file_that_comes_along_hold(tmp_path: Path, run: Any) -> None:
    shutil.copytree(HEALTHY, tmp_path / "source")
    for name in ("README.md", "model.safetensors", "adapter_model.safetensors.index.json", "adapter_model.pt"):
        (tmp_path / "source" / name).write_text("{}")
    assert run("fix", tmp_path / "source", tmp_path / "fixed", "--for", "peft", "--copy-all").exit_code == 0
    result = run("verify", tmp_path / "fixed")
    assert (result.exit_code, "nothing was repaired" in result.stdout) == (0, True)


def test_what_was_dropped_is_said_again(fixed: Path, run: Any) -> None:
    record = json.loads((fixed / RECORD).read_text())
    record["dropped"] = ["lm_head"]
    record["proof"] |= {"verdict": "different", "reason": "not the same function: 1 layer dropped: lm_head"}
    (fixed / RECORD).write_text(json.dumps(record))
    assert "  holds: the original without lm_head, and else the same function: " in run("verify", fixed).stdout


def flip(path: Path) -> None:
    """Change one byte of the last, which leaves the size as it is."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a bit of the weights": (flip, WEIGHTS, "was changed (sha256 "),
    "a blank in the config": (lambda path: path.write_text(path.read_text() + " "), CONFIG, "was changed (sha256 "),
    "half of the weights": (lambda path: path.write_bytes(path.read_bytes()[:200]), WEIGHTS, "was changed (sha256 "),
    "no weights": (Path.unlink, WEIGHTS, "is missing: restore it"),
    "no config": (Path.unlink, CONFIG, "is missing: restore it"),
    "a pipe": (fifo, WEIGHTS, "not a regular file"),
    "a folder": (replaced_by_a_folder, CONFIG, "not a regular file"),
    "a link to nothing": (dangling, WEIGHTS, "a link to a file that is not there"),
    "a pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), WEIGHTS,
        "is a git-lfs pointer, not the file: run `git lfs pull`",
    ),
    "weights beside it": (lambda path: path.write_bytes(b""), BIN, "was not there when it was proved"),
    "a link beside it": (lambda path: path.symlink_to("nowhere"), BIN, "was not there when it was proved"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_what_no_longer_holds_is_named(fixed: Path, run: Any, what: str) -> None:
    damage, name, said = DAMAGE[what]
    damage(fixed / name)
    result = run("verify", fixed)
    assert result.exit_code == 1
    assert result.stderr == ""
    assert [line for line in result.stdout.splitlines() if "does not hold" in line and name in line and said in line]
    assert "  holds" not in result.stdout


def test_safetensors_beside_a_bin_are_read_first(tmp_path: Path, run: Any) -> None:
    assert run("fix", ZERO, tmp_path / "fixed", "--weights", "bin").exit_code == 0
    shutil.copy(ZERO / WEIGHTS, tmp_path / "fixed")
    result = run("verify", tmp_path / "fixed")
    assert (result.exit_code, f"{WEIGHTS} was not there" in result.stdout) == (1, True)


def test_a_folder_of_which_only_the_record_is_left_is_found(fixed: Path, run: Any) -> None:
    (fixed / CONFIG).unlink()
    (fixed / WEIGHTS).unlink()
    for path in (fixed, fixed.parent, fixed / RECORD):
        result = run("verify", path)
        assert result.exit_code == 1
        assert result.stdout.count("is missing") == 2


def changed(path: Path, **to: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **to}))


RECORDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (Path.unlink, "has no ckpt-doctor.json, so nothing was proved of it: `ckpt-doctor fix IN OUT` writes one"),
    "a pipe": (fifo, "not a regular file"),
    "no JSON": (lambda path: path.write_text("{"), "is not valid"),
    "a list": (lambda path: path.write_text("[]"), "is not valid: it is not a JSON object"),
    "too deep": (lambda path: path.write_text('{"a":' * 200_000), "is not valid"),
    "no bytes": (lambda path: path.write_bytes(b""), "is not valid"),
    "empty": (lambda path: path.write_text("{}"), "is no record that ckpt-doctor wrote"),
    "newer": (lambda path: changed(path, schema_version=2), "is of a newer ckpt-doctor"),
    "older": (lambda path: changed(path, schema_version=0), "is no record that ckpt-doctor wrote (schema_version"),
    "another tool's": (
        lambda path: changed(path, tool={"name": "other", "version": "1"}), "is no record that ckpt-doctor wrote (",
    ),
    "no sums": (lambda path: changed(path, sha256={"after": {}}), "(the files of sha256)"),
    "sums of other files": (
        lambda path: changed(path, sha256={"after": {CONFIG: "0" * 64, "../../etc/passwd": "0" * 64}}),
        "(the files of sha256)",
    ),
    "sums that are none": (
        lambda path: changed(path, sha256={"after": {CONFIG: "0" * 64, WEIGHTS: None}}), "(a sha256)",
    ),
    "no proof": (lambda path: changed(path, proof=None), "is no record that ckpt-doctor wrote"),
    "proved otherwise": (
        lambda path: changed(
            path, proof={"verdict": "different", "tolerance": 1e-6, "largest_relative_difference": 0.0}
        ),
        "(the verdict of the proof)",
    ),
    "an error above what was allowed": (
        lambda path: changed(path, proof={"verdict": "same", "tolerance": 1e-6, "largest_relative_difference": 1e-3}),
        "(the error of the proof)",
    ),
    "not a number": (
        lambda path: changed(
            path, proof={"verdict": "same", "tolerance": 1e-6, "largest_relative_difference": float("nan")}
        ),
        "(the error of the proof)",
    ),
    "repairs that are none": (lambda path: changed(path, repairs=[{"title": 3}]), "(repairs or dropped)"),
}  # fmt: skip


@pytest.mark.parametrize("what", RECORDS)
def test_what_has_no_record_of_a_fix_cannot_be_examined(fixed: Path, run: Any, what: str) -> None:
    damage, said = RECORDS[what]
    damage(fixed / RECORD)
    result = run("verify", fixed)
    assert result.exit_code == 2
    assert said in result.stderr
    assert str(fixed) in result.stderr
    assert "holds" not in result.stdout


def test_a_tree_is_held_folder_by_folder_and_the_highest_code_wins(tmp_path: Path, run: Any) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(ZERO, tmp_path / "in" / name)
    assert run("fix", tmp_path / "in", tmp_path / "out").exit_code == 0
    assert run("verify", tmp_path / "out").stdout.count("holds: same function") == 3
    assert run("verify", tmp_path / "out", "--quiet").stdout == ""
    flip(tmp_path / "out/b" / WEIGHTS)
    quiet = run("verify", tmp_path / "out", "--quiet")
    assert (quiet.exit_code, quiet.stdout.count("does not hold"), "/out/b\n" in quiet.stdout) == (1, 1, True)
    shutil.copytree(HEALTHY, tmp_path / "out/d")
    both = run("verify", tmp_path / "out", tmp_path / "out/a")
    assert (both.exit_code, both.stdout.count("does not hold"), both.stdout.count(" holds:")) == (2, 1, 2)


def test_the_json_says_the_same(fixed: Path, run: Any) -> None:
    (good,) = json.loads(run("verify", fixed, "--format", "json").stdout)["results"]
    assert (good["path"], good["holds"], good["faults"], good["error"]) == (str(fixed), True, [], None)
    assert good["repairs"][0] == "pad rank-0 layers with zeros"
    assert (good["dropped"], good["proof"]["verdict"], good["proof"]["largest_relative_difference"]) == ([], "same", 0)
    flip(fixed / WEIGHTS)
    shutil.copytree(HEALTHY, fixed / "other")
    result = run("verify", fixed, fixed / "nowhere", "--format", "json")
    entries = {entry["path"]: entry for entry in json.loads(result.stdout)["results"]}
    assert result.exit_code == 2
    assert [entries[str(fixed)]["holds"], len(entries[str(fixed)]["faults"])] == [False, 1]
    for name, reason in (("other", "has no ckpt-doctor.json"), ("nowhere", "does not exist")):
        entry = entries[str(fixed / name)]
        assert (entry["holds"], entry["proof"], reason in entry["error"]) == (None, None, True)


def test_nothing_there_cannot_be_examined(tmp_path: Path, run: Any) -> None:
    assert run("verify", tmp_path / "nowhere").exit_code == 2
    assert run("verify", tmp_path).exit_code == 2
    assert run("verify").exit_code == 2


def test_what_a_record_says_commands_no_terminal(fixed: Path, run: Any) -> None:
    changed(fixed / RECORD, repairs=[{"title": "\x1b[2Jgone"}])
    result = run("verify", fixed)
    assert (result.exit_code, "\x1b" in result.stdout) == (0, False)


def test_a_large_file_is_hashed_in_pieces(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of 300 MB takes no 300 MB of memory."""
    import tracemalloc

    with (fixed / WEIGHTS).open("r+b") as file:
        file.truncate(300_000_000)
    tracemalloc.start()
    try:
        assert verify(str(fixed)).faults
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(AdapterError, match="cannot be read"):
        verify(str(fixed))


def test_nothing_is_written_or_unpickled(fixed: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    import pickle

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        assert set(mode) <= set("rbt"), f"{file} is opened for writing"
        return real(file, mode, *args, **kwargs)

    real = builtins.open
    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(pickle, "Unpickler", None)
    assert run("verify", fixed).exit_code == 0


def test_what_fails_unforeseen_is_a_sentence(fixed: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setitem(command.callback.__globals__, "verify", fail)  # type: ignore[union-attr]
    result = run("verify", fixed, "--verbose")
    assert result.exit_code == 2
    assert "ckpt-doctor failed (ZeroDivisionError: odd); please report it" in result.stderr
    assert "Traceback" in result.stderr
    assert "Traceback" not in run("verify", fixed).stderr
