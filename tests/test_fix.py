"""`ckpt-doctor fix`: what it writes, refuses and leaves alone; judged by the newest PEFT."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import ADAPTERS, FIXTURES, OLD_READING
from safetensors.numpy import load_file, save_file

from ckpt_doctor.files import beside, digests, streams, writer


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def load(python: str, folders: list[Path]) -> list[dict[str, Any]]:
    """What a PEFT makes of adapters, one row each."""
    command = [python, "-W", "ignore", str(FIXTURES / "load.py"), *map(str, folders)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


TODAYS = [name for name in ADAPTERS if name not in OLD_READING]


def fixed(run: Any, tmp_path: Path, *options: str, names: list[str] = TODAYS) -> list[Path]:
    folders = []
    for name in names:
        if "prune" in options and "all-rank0" in name:
            continue
        if {"peft==*", "peft==0.2.0"} & set(options) and "gpt2" in name:
            assert run("fix", FIXTURES / name, tmp_path / name, *options).exit_code == 1  # 0.2 has no LoRA on Conv1D
            continue
        result = run("fix", FIXTURES / name, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        folders.append(tmp_path / name)
    return folders


@pytest.mark.parametrize("how", ["pad", "prune"])
def test_the_newest_peft_computes_the_same(run: Any, tmp_path: Path, how: str) -> None:
    rows = load(sys.executable, fixed(run, tmp_path, "--rank-zero", how))
    assert rows
    assert {row["folder"]: row["verdict"] for row in rows if row["verdict"] != "accepts"} == {}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_input_stays_and_a_second_fix_changes_nothing(run: Any, tmp_path: Path, name: str) -> None:
    before = tree(FIXTURES / name)
    assert run("fix", FIXTURES / name, tmp_path / "a").exit_code == 0
    assert run("fix", tmp_path / "a", tmp_path / "b").exit_code == 0
    assert tree(FIXTURES / name) == before
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_refusals(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "adalora-all-rank0-0.9.0"
    assert run("fix", source, tmp_path / "a", "--rank-zero", "prune").exit_code == 1
    assert not (tmp_path / "a").exists()
    assert run("fix", source, source).exit_code == 2
    assert run("fix", source, tmp_path / "a", "--dry-run").exit_code == 0
    assert not (tmp_path / "a").exists()
    assert run("fix", source, tmp_path / "a").exit_code == 0
    assert run("fix", source, tmp_path / "a").exit_code == 2
    assert run("fix", source, tmp_path / "a", "--force").exit_code == 0


def test_an_adalora_is_no_lora_of_what_is_left_of_it(run: Any, tmp_path: Path) -> None:
    """rank_pattern alone told that layers are called otherwise, or are gone: without it the rest loaded in silence."""
    adapter = copy("adalora-rank0-0.21.2", tmp_path / "in")
    config = adapter / "adapter_config.json"
    keys = json.loads(config.read_text())
    keys["rank_pattern"] = {f"transformer.{name}": mask for name, mask in keys["rank_pattern"].items()}
    config.write_text(json.dumps(keys))
    result = run("fix", "--to", "lora", adapter, tmp_path / "out")
    assert result.exit_code == 1
    assert "a rank, and its tensors are gone" in result.output
    assert not (tmp_path / "out").exists()


def test_a_pissa_adapter_keeps_its_keys(run: Any, tmp_path: Path) -> None:
    """Without them PEFT 0.6 would load it and compute something else."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "in")
    path = tmp_path / "in/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": "pissa"}))
    result = run("fix", tmp_path / "in", tmp_path / "out", "-v")
    assert "refused" in result.output
    assert json.loads((tmp_path / "out/adapter_config.json").read_text()) == json.loads(path.read_text())


def test_bin_in_safetensors_out_and_back(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "adalora-rank0-bin-0.12.0"
    assert run("fix", source, tmp_path / "a").exit_code == 0
    assert (tmp_path / "a/adapter_model.safetensors").exists()
    assert run("fix", source, tmp_path / "b", "--weights", "same").exit_code == 0
    assert (tmp_path / "b/adapter_model.bin").exists()
    assert not (tmp_path / "b/adapter_model.safetensors").exists()


def copy(name: str, to: Path) -> Path:
    shutil.copytree(FIXTURES / name, to)
    return to


def test_other_files_come_along_or_are_named(run: Any, tmp_path: Path) -> None:
    source = copy("lora-plain-0.21.2", tmp_path / "in")
    for name in ("README.md", "tokenizer.json", "model_card.md"):
        (source / name).write_text(name)
    for name in ("optimizer.pt", "trainer_state.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"):
        (source / name).write_text(name)
    (source / "global_step5").mkdir()
    (source / "large.txt").write_bytes(bytes(10_000_001))
    (source / "link.md").symlink_to(source / "README.md")
    result = run("fix", source, tmp_path / "out", "--format", "json")
    left_out = {
        "optimizer.pt", "trainer_state.json", "model-00001-of-00002.safetensors", "pytorch_model.bin", "global_step5",
        "large.txt",
    }  # fmt: skip
    assert set(json.loads(result.stdout)["results"][0]["left_out"]) == left_out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {path.name for path in source.iterdir()} - left_out | {"ckpt-doctor.json"}
    assert not (tmp_path / "out/link.md").is_symlink()
    assert run("fix", source, tmp_path / "all", "--copy-all").exit_code == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == written | left_out - {"global_step5"}


def test_a_healthy_adapter_is_copied_byte_for_byte(run: Any, tmp_path: Path) -> None:
    source = FIXTURES / "lora-plain-0.6.2"
    assert run("fix", source, tmp_path / "out", "--weights", "same").exit_code == 0
    written = tree(tmp_path / "out")
    assert written.pop("ckpt-doctor.json")
    assert written.pop("adapter_config.json") == (source / "adapter_config.json").read_bytes()
    assert written.keys() == tree(source).keys() - {"adapter_config.json"}


def test_the_metadata_of_the_file_stays(run: Any, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = copy("adalora-rank0-0.9.0", tmp_path / "in")
    weights = source / "adapter_model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "made by": "me"})
    assert run("fix", source, tmp_path / "out").exit_code == 0
    with safe_open(tmp_path / "out/adapter_model.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "made by": "me"}


def test_a_tree_is_done_adapter_by_adapter(run: Any, tmp_path: Path) -> None:
    copy("adalora-rank0-0.9.0", tmp_path / "in")
    copy("adalora-rank0-0.21.2", tmp_path / "in/deep/er")
    broken = copy("lora-plain-0.21.2", tmp_path / "in/broken")
    (broken / "adapter_model.safetensors").write_bytes(b"")
    result = run("fix", tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "nothing was written" in result.output
    assert (tmp_path / "out/adapter_config.json").exists()
    assert (tmp_path / "out/deep/er/adapter_model.safetensors").exists()
    assert not (tmp_path / "out/broken").exists()


def test_what_a_change_of_format_loses_is_named(run: Any, tmp_path: Path) -> None:
    result = run("fix", FIXTURES / "lora-bin-shared-0.12.0", tmp_path / "a")
    assert "adapter_model.safetensors: PEFT 0.2.0 – 0.3.0 can no longer read it" in " ".join(result.output.split())
    result = run("fix", FIXTURES / "lora-bin-shared-0.12.0", tmp_path / "b", "--weights", "bin")
    assert "lost" not in result.output


def test_the_file_that_was_not_repaired_is_left_out_and_named(run: Any, tmp_path: Path) -> None:
    result = run("fix", FIXTURES / "lora-both-files-0.21.2", tmp_path / "out")
    assert "left out: adapter_model.bin" in result.output
    assert not (tmp_path / "out/adapter_model.bin").exists()


def test_the_record_says_what_was_done_and_carries_an_earlier_one(run: Any, tmp_path: Path) -> None:
    assert run("fix", FIXTURES / "adalora-rank0-0.21.2", tmp_path / "a").exit_code == 0
    record = json.loads((tmp_path / "a/ckpt-doctor.json").read_text())
    assert record["saved_by"] == ["0.21.2"]
    assert {code for repair in record["repairs"] for code in repair["codes"]} >= {"CD101", "CD201"}
    assert record["sha256"]["before"].keys() == record["sha256"]["after"].keys()
    assert str(tmp_path) not in json.dumps(record)
    assert run("fix", tmp_path / "a", tmp_path / "b", "--weights", "bin").exit_code == 0
    assert json.loads((tmp_path / "b/ckpt-doctor.json").read_text())["earlier"] == record


def test_a_crash_leaves_nothing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives back other bytes than it was given."""
    copied = writer._write_safetensors

    def damaged(path: str, *rest: Any) -> dict[str, bytes]:
        computed = copied(path, *rest)
        with open(path, "r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x01")
        return computed

    monkeypatch.setattr(writer, "_write_safetensors", damaged)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    result = run("fix", FIXTURES / "adalora-rank0-0.9.0", tmp_path / "out", "--force")
    assert result.exit_code == 2
    assert "read back" in result.stderr
    assert tree(tmp_path) == {"out/mine": b"mine"}


def test_the_digest_of_a_file_that_was_read_as_it_grew_is_that_of_the_whole(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "STEP", 1)
    result = run("fix", FIXTURES / "adalora-rank0-0.21.2", tmp_path / "out")
    assert result.exit_code == 0
    after = json.loads((tmp_path / "out/ckpt-doctor.json").read_text())["sha256"]["after"]
    assert after == {name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in after}


def test_a_digest_waits_for_what_is_still_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "STEP", 1)
    path, data = tmp_path / "file", bytes(range(256)) * 2048
    with beside.Beside() as threads:
        with digests.Growing(str(path), threads) as growing, path.open("wb", buffering=0) as file:
            for at in range(0, len(data), 1 << 16):
                growing.grown(at + file.write(data[at : at + (1 << 16)]))
            growing.digest.join(0.3)
            assert growing.digest.is_alive()
            file.write(b"the last")  # of which nobody was told
        assert growing.digest.result() == hashlib.sha256(data + b"the last").hexdigest()


def test_a_digest_reads_no_further_than_what_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind it may not be as it will be in the end."""
    monkeypatch.setattr(digests, "STEP", 1)
    path = tmp_path / "file"
    path.write_bytes(b"whole, part")
    with beside.Beside() as threads:
        with digests.Growing(str(path), threads) as growing:
            growing.grown(5)
            growing.digest.join(0.3)
            path.write_bytes(b"whole, whole")
        assert growing.digest.result() == hashlib.sha256(b"whole, whole").hexdigest()


def endless(_: str, threads: beside.Beside) -> str:
    with open("/dev/zero", "rb") as file:
        return digests.digest(file, threads)


@pytest.mark.parametrize("ends", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_what_is_left_to_be_hashed_holds_up_no_fix_that_fails(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    def failing(*_: Any) -> None:
        raise ends

    monkeypatch.setattr(writer, "sha256", endless)
    monkeypatch.setattr(writer, "_write_safetensors", failing)
    result = run("fix", FIXTURES / "adalora-rank0-0.21.2", tmp_path / "out")
    assert result.exit_code == (2 if isinstance(ends, OSError) else 130)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, beside.Work)]
    assert list(tmp_path.iterdir()) == []


def test_a_thread_without_its_last_word_holds_up_no_end(tmp_path: Path) -> None:
    """Python may run a handler of a signal before the first step of a function."""
    script = """
from ckpt_doctor.cli import fix, main
from ckpt_doctor.files import digests
def interrupted(*_): raise KeyboardInterrupt
digests.Growing.__exit__ = interrupted
main()"""
    command = [sys.executable, "-c", script, "fix", FIXTURES / "adalora-rank0-0.21.2", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "ckpt-doctor: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_digest_that_fails_ends_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "STEP", 1)
    with beside.Beside() as threads, digests.Growing(str(tmp_path / "nothing"), threads) as growing:
        growing.grown(1)
        growing.digest.join()
        with pytest.raises(FileNotFoundError):
            growing.grown(2)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of the size of a file")
def test_a_disk_that_is_full_for_torch_is_a_sentence(run: Any, tmp_path: Path) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (FIXTURES / "adalora-rank0-bin-0.12.0/adapter_model.bin").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, limit[1]))
    try:
        result = run("fix", FIXTURES / "adalora-rank0-bin-0.12.0", tmp_path / "out", "--weights", "bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert result.exit_code == 2
    assert "torch cannot write" in result.stderr
    assert "report it" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_in_that_cannot_be_read_is_named(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = copy("adalora-rank0-0.21.2", tmp_path / "in")
    (source / "README.md").write_text("mine")

    def opened(path: str, *mode: Any, **options: Any) -> Any:
        if path == str(source / "README.md"):
            raise PermissionError(13, "Permission denied", path)
        return open(path, *mode, **options)

    monkeypatch.setattr(writer, "open", opened, raising=False)
    result = run("fix", source, tmp_path / "out")
    assert result.exit_code == 2
    assert f"{source / 'README.md'} cannot be read" in result.stderr
    assert not (tmp_path / "out").exists()


def test_two_interruptions_end_as_one(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_read_back", interrupted)
    monkeypatch.setattr("ckpt_doctor.cli.complain", interrupted)
    assert run("fix", FIXTURES / "adalora-rank0-0.21.2", tmp_path / "out").exit_code == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["copied", "hashed"])
def test_a_disk_of_in_that_fails_is_no_fault_of_out(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The weights, as they are copied and as their digest is taken: what the system says of a read names no file."""
    source = copy("adalora-rank0-0.21.2", tmp_path / "in")
    bad = [False]

    class Failing(io.FileIO):
        def readinto(self, *_: Any) -> Any:
            raise OSError(5, "Input/output error")

        read = readinto

    def fill(*arguments: Any) -> Any:
        bad[0] = True
        return filled(*arguments)

    def opened(path: str, mode: str = "rb") -> Any:
        return Failing(path) if bad[0] and path == str(source / "adapter_model.safetensors") else open(path, mode)

    filled = writer._fill
    monkeypatch.setattr(writer, "_fill", fill)
    if place == "copied":
        monkeypatch.setattr(streams, "open", opened, raising=False)
    else:
        monkeypatch.setattr(digests, "regular", lambda path: (opened(path), 0))
    result = run("fix", source, tmp_path / "out")
    assert result.exit_code == 2
    assert f"{source / 'adapter_model.safetensors'} cannot be read: Input/output error" in result.stderr
    assert not (tmp_path / "out").exists()


LORA_ZERO = {
    "r: 0": ({"r": 0}, None, 1),
    "pattern": ({"rank_pattern": {"blocks.0.q": 0}}, "blocks.0.q", 0),
    "tensors only": ({}, "blocks.0.q", 0),
    "pattern only": ({"rank_pattern": {"blocks.0.q": 0}}, None, 1),
}


@pytest.mark.parametrize("name", LORA_ZERO)
def test_lora_of_rank_zero(run: Any, tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    values, module, code = LORA_ZERO[name]
    source = copy("lora-plain-0.21.2", tmp_path / "in")
    path = source / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    weights = source / "adapter_model.safetensors"
    tensors = load_file(weights)
    for key in tensors:
        if module and module in key:  # side.blocks.0.q as well: a pattern matches any longer name
            tensors[key] = tensors[key][:0] if "lora_A" in key else tensors[key][:, :0].contiguous()
    save_file(tensors, weights)
    assert run("scan", source).exit_code == 1
    assert run("fix", source, tmp_path / "out").exit_code == code
    if code == 0:
        written = load_file(tmp_path / "out/adapter_model.safetensors")
        assert {tensor.shape[0] for key, tensor in written.items() if "lora_A" in key} == {4}
        assert run("scan", tmp_path / "out").exit_code == 0


def test_no_command_is_proposed_that_is_refused(run: Any, tmp_path: Path) -> None:
    """Keys that older releases do not know could go, and then those would load it, and drop its magnitudes."""
    source = tmp_path / "in"
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", source)
    weights = load_file(source / "adapter_model.safetensors")
    for key in [key for key in weights if key.endswith("lora_A.weight")]:
        weights[key.replace("lora_A.weight", "lora_magnitude_vector")] = weights[key][:, 0].copy()
    save_file(weights, source / "adapter_model.safetensors")
    assert "ckpt-doctor fix" not in run("scan", source).output
    assert "next: set use_dora to true in adapter_config.json" in run("scan", source).output
    assert run("fix", source, tmp_path / "out").exit_code == 1
