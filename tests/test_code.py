"""Files that torch runs though they look harmless: torch itself shows that they run, and none is ever accepted."""

from __future__ import annotations

import io
import json
import pickletools
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIXTURES

from ckpt_doctor.adapter.runtimes import PEFT

PLAIN = FIXTURES / "lora-plain-0.21.2"
OLD = ("peft==0.2.0", "peft==0.3.0")
LOAD = (
    "import sys, torch\nfor path in sys.argv[1:]:\n try: torch.load(path, weights_only=False)\n except Exception: pass"
)


def code(marker: Path) -> bytes:
    """A pickle that makes the folder `marker`, as harmless as what runs can be."""
    path = str(marker).encode()
    return b"\x80\x02cos\nmkdir\nX" + struct.pack("<I", len(path)) + path + b"\x85R."


def good(*, as_zip: bool = True) -> bytes:
    from safetensors.torch import load_file

    buffer = io.BytesIO()
    torch.save(load_file(PLAIN / "adapter_model.safetensors"), buffer, _use_new_zipfile_serialization=as_zip)
    return buffer.getvalue()


def records() -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(good())) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(entries: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def harm(payload: bytes) -> list[tuple[str, bytes]]:
    """The records of a file that says openly that its pickle runs code."""
    return [("archive/data.pkl", payload), *records()[1:]]


def twin(name: str, fillers: int, *, last: bool) -> Callable[[bytes], bytes]:
    """A second data.pkl under a name that torch takes for the same; which one it takes hangs on the number of both."""

    def made(payload: bytes) -> bytes:
        entries = [*records(), *((f"archive/.data/{number}", b"") for number in range(fillers))]
        entries.insert(len(entries) if last else 0, (name, payload))
        return zipped(entries)

    return made


def tar(payload: bytes) -> bytes:
    """A tar archive whose header is, from its name on, an older file of torch: its fields lie within a long string."""
    old = good(as_zip=False)
    pickles = io.BytesIO(old)
    for _ in range(2):
        list(pickletools.genops(pickles))
    start = old[: pickles.tell()] + b"\x80\x02}X\r\0\0\0little_endian\x88s.\x80\x02X"
    list(pickletools.genops(pickles))
    name = start + struct.pack("<I", 512 - len(start) - 4)
    first = b"0" + old[pickles.tell() :]
    member = tarfile.TarInfo("x")
    member.size = len(first)
    head = bytearray(member.tobuf())
    head[: len(name)] = name
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    rest = io.BytesIO()
    with tarfile.open(fileobj=rest, mode="w") as archive:
        storages = tarfile.TarInfo("storages")
        storages.size = len(payload)
        archive.addfile(storages, io.BytesIO(payload))
    return bytes(head) + first + bytes(-len(first) % 512) + rest.getvalue()


def in_front(payload: bytes) -> bytes:
    """Two archives in a row: Python's zipfile counts from the second one's begin, torch from that of the file."""
    (name, state), *others = records()
    length = max(len(payload), len(state))
    return b"".join(zipped([(name, pickle.ljust(length, b"\0")), *others]) for pickle in (payload, state))


def two_ends(payload: bytes) -> bytes:
    """Two zip64 ends: the one that stands where it should, and the one that is pointed to."""
    false, real = zipped(harm(payload)), zipped(records())
    shift, count = len(false) - 22, len(records())
    size, start = struct.unpack("<II", real[-10:-2])
    directory = bytearray(real[start : start + size])
    at = 0
    while at < size:
        (offset,) = struct.unpack_from("<I", directory, at + 42)
        struct.pack_into("<I", directory, at + 42, offset + shift + 56)
        at += 46 + sum(struct.unpack_from("<3H", directory, at + 28))

    def end(number: int, length: int, begin: int) -> bytes:
        return struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, number, number, length, begin)

    length, begin = struct.unpack("<II", false[-10:-2])
    body = false[:-22] + end(count, length, begin) + real[:start] + directory
    body += end(count, size, shift + 56 + start)
    body += struct.pack("<4sIQI", b"PK\x06\x07", 0, shift, 1)
    return body + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


FILES: dict[str, Callable[[bytes], bytes]] = {
    "a pickle": lambda payload: zipped(harm(payload)),
    "a compressed pickle": lambda payload: zipped(harm(payload), zipfile.ZIP_DEFLATED),
    "a tar archive": tar,
    "data.pkl twice": twin("archive/data.pkl", 0, last=False),
    "data.pkl twice, the other way": twin("archive/data.pkl", 1, last=True),
    "Data.PKL": twin("archive/Data.PKL", 0, last=False),
    "an archive in front": in_front,
    "two ends": two_ends,
}


@pytest.fixture(scope="module")
def run_by_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that torch.load was seen to run, each with what it holds."""
    folder = tmp_path_factory.mktemp("code")
    files = {name: (folder / f"{at}.bin", folder / f"{at}") for at, name in enumerate(FILES)}
    for name, (path, marker) in files.items():
        path.write_bytes(FILES[name](code(marker)))
    subprocess.run([sys.executable, "-c", LOAD, *(path for path, _ in files.values())], check=True, capture_output=True)
    return {name: path.read_bytes() for name, (path, marker) in files.items() if marker.is_dir()}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder with a good adapter, whose `.bin` is still to be written."""
    return Path(shutil.copytree(PLAIN, tmp_path / "a"))


def severities(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(finding["code"], finding["severity"]) for finding in report["findings"]}


@pytest.mark.parametrize("name", FILES)
def test_what_torch_runs_is_never_accepted(
    run: Any, scan: Any, adapter: Path, run_by_torch: dict[str, bytes], name: str
) -> None:
    assert name in run_by_torch
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(run_by_torch[name])
    assert run("scan", adapter).exit_code in (1, 2)
    if name != "a compressed pickle":  # which is not looked into
        report = scan(adapter)
        assert ("CD010", "error") in severities(report) or (
            name == "two ends" and ("CD012", "error") in severities(report)
        )
        assert {report["verdicts"][id_] for id_ in PEFT} == {"rejects"}


@pytest.mark.parametrize("name", FILES)
def test_what_torch_runs_is_named_beside_good_weights(
    run: Any, scan: Any, adapter: Path, run_by_torch: dict[str, bytes], name: str
) -> None:
    (adapter / "adapter_model.bin").write_bytes(run_by_torch[name])
    assert run("scan", adapter).exit_code == 1
    report = scan(adapter)
    assert ("CD010", "error") in severities(report)
    (finding,) = (finding for finding in report["findings"] if finding["code"] == "CD010")
    assert "adapter_model.bin" in finding["message"]
    assert finding["fixable"]
    assert all(report["verdicts"][id_] != "accepts" for id_ in OLD)
    assert report["verdicts"]["peft==0.21.2"] == "accepts"


def test_a_large_bin_with_code_is_named(scan: Any, adapter: Path) -> None:
    large = [*harm(code(adapter / "marker")), ("archive/data/large", bytes(2 << 20))]
    (adapter / "adapter_model.bin").write_bytes(zipped(large))
    assert ("CD010", "error") in severities(scan(adapter))


def test_code_beside_shards_is_named(scan: Any, adapter: Path) -> None:
    from safetensors import safe_open

    (adapter / "adapter_model.safetensors").rename(adapter / "one.safetensors")
    with safe_open(adapter / "one.safetensors", framework="numpy") as file:
        index = {"weight_map": dict.fromkeys(file.keys(), "one.safetensors")}
    (adapter / "adapter_model.safetensors.index.json").write_text(json.dumps(index))
    (adapter / "adapter_model.bin").write_bytes(zipped(harm(code(adapter / "marker"))))
    assert ("CD010", "error") in severities(scan(adapter))


def test_a_fix_leaves_code_behind(run: Any, scan: Any, adapter: Path, tmp_path: Path) -> None:
    harmful = zipped(harm(code(tmp_path / "marker")))
    (adapter / "adapter_model.bin").write_bytes(harmful)
    for options in ((), ("--for", "peft==0.9.0"), ("--for", "peft==0.3.0", "--weights", "bin"), ("--copy-all",)):
        out = tmp_path / "out"
        assert run("fix", *options, adapter, out).exit_code == 0, options
        assert not any(finding["code"] == "CD010" for finding in scan(out)["findings"]), options
        assert harmful not in [path.read_bytes() for path in out.iterdir()], options
        shutil.rmtree(out)
    assert run("fix", "--in-place", adapter).exit_code == 0
    assert not (adapter / "adapter_model.bin").exists()
    assert ("CD010", "error") not in severities(scan(adapter))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs", good()[:-30], b"nothing"])
def test_a_damaged_bin_beside_good_weights_is_a_note(scan: Any, adapter: Path, data: bytes) -> None:
    (adapter / "adapter_model.bin").write_bytes(data)
    report = scan(adapter)
    assert ("CD022", "note") in severities(report)
    assert {report["verdicts"][id_] for id_ in OLD} == {"rejects"}
    assert report["verdicts"]["peft==0.21.2"] == "accepts"


REFUSED = {
    "another folder first": [("other/DATA.PKL", b"N."), ("other/version", b"3\n"), *records()],
    "a name outside": [*records(), ("other/x", b"")],
    "an absolute name": [*records(), ("/archive/data/9", b"")],
    "a name upwards": [*records(), ("archive/../archive/data/9", b"")],
    "a name with a backslash": [*records(), ("archive\\data.pkl", b"")],
    "TorchScript": [*records(), ("archive/constants.pkl", b"")],
    "only the case differs": [*records(), ("archive/DATA/0", b"")],
}


@pytest.mark.parametrize("name", REFUSED)
def test_records_that_torch_does_not_write_are_refused(scan: Any, adapter: Path, name: str) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(zipped(REFUSED[name]))
    assert ("CD010", "error") in severities(scan(adapter))


@pytest.mark.parametrize("tail", [b"x", b"PK\x05\x06" + bytes(18)])
def test_a_comment_is_refused(scan: Any, adapter: Path, tail: bytes) -> None:
    whole = zipped(records())
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(whole[:-2] + struct.pack("<H", len(tail)) + tail)
    assert severities(scan(adapter)) & {("CD010", "error"), ("CD012", "error")}


def test_torchscript_is_what_torch_takes_it_for(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(zipped(REFUSED["TorchScript"]))
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError):
            torch.load(tmp_path / "a.bin", weights_only=False)
    assert any("TorchScript" in str(warning.message) for warning in log)


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("stem", ["adapter_model", "wägen", "a.b", "x" * 200])
def test_what_torch_writes_is_read(scan: Any, adapter: Path, as_zip: bool, stem: str) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    state = torch.load(io.BytesIO(good()), weights_only=True)
    torch.save(state, adapter / f"{stem}.pt", _use_new_zipfile_serialization=as_zip)
    (adapter / f"{stem}.pt").rename(adapter / "adapter_model.bin")
    report = scan(adapter)
    assert {report["verdicts"][id_] for id_ in OLD} == {"accepts"}
    assert not any(severity == "error" for _, severity in severities(report))


def test_a_zip_that_was_written_again_is_read(scan: Any, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(zipped(records()))
    assert not any(severity == "error" for _, severity in severities(scan(adapter)))
