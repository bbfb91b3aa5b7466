"""Files that are broken, or mean harm: each is a diagnosis, none a traceback, none is run, none takes long."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from safetensors import SafetensorError, safe_open

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def container(header: bytes, data: bytes = bytes(8)) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def one(**changes: Any) -> bytes:
    return container(json.dumps({"a": {**ENTRY, **changes}}).encode())


HEADERS = {
    "too short": b"\0\0\0",
    "header too large": struct.pack("<Q", 2**40) + b"{}",
    "header beyond the end": struct.pack("<Q", 100) + b"{}",
    "not UTF-8": container(b'{"\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "byte order mark": container(b"\xef\xbb\xbf" + json.dumps({"a": ENTRY}).encode()),
    "not JSON": container(b"{a}"),
    "a list": container(b"[]"),
    "NaN": container(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
    "lone surrogate": container(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "nested": container(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "metadata not strings": container(b'{"__metadata__":{"a":1},"a":' + json.dumps(ENTRY).encode() + b"}"),
    "field twice": container(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "unknown dtype": one(dtype="F31"),
    "dtype is a list": one(dtype=[]),
    "negative size": one(shape=[-2]),
    "size is true": one(shape=[True, 2]),
    "size is a float": one(shape=[2.0]),
    "huge size": one(shape=[2**63, 2**63]),
    "offsets backwards": one(data_offsets=[8, 0]),
    "three offsets": one(data_offsets=[0, 8, 8]),
    "shape does not fit": one(shape=[3]),
    "no shape": container(b'{"a":{"dtype":"F32","data_offsets":[0,8]}}'),
    "beyond the end": container(json.dumps({"a": {**ENTRY, "shape": [3], "data_offsets": [0, 12]}}).encode()),
    "a gap": container(json.dumps({"a": {**ENTRY, "data_offsets": [8, 16]}}).encode(), bytes(16)),
    "an overlap": container(json.dumps({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}).encode(), bytes(12)),
    "bytes at the end": container(json.dumps({"a": ENTRY}).encode(), bytes(9)),
    "half a byte": one(dtype="F4", shape=[1], data_offsets=[0, 0]),
}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder with a good config and no weights yet."""
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    (tmp_path / "a/adapter_model.safetensors").unlink()
    return tmp_path / "a"


def damage(report: dict[str, Any]) -> list[str]:
    assert report["error"] is None
    return [f["code"] for f in report["findings"] if f["code"] < "CD015"]


@pytest.mark.parametrize("name", HEADERS)
def test_a_malformed_header_is_found_as_safetensors_finds_it(scan: Any, adapter: Path, name: str) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(HEADERS[name])
    with pytest.raises(SafetensorError), safe_open(path, framework="numpy"):
        pass
    assert damage(scan(adapter)) in (["CD005"], ["CD011"])


def in_zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)


def nested_key() -> bytes:
    """Tuples of tuples as a dict's key: 2 ** 40 hashes in a few hundred bytes."""
    return b"\x80\x02})" + b"2\x86" * 40 + b"K\x01s."


PICKLES = {
    "nested key": nested_key(),
    "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "long promise": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "string promise": b"\x80\x02X\xff\xff\xff\x7fabc",
    "no stop": b"\x80\x02}",
    "empty": b"",
    "pops nothing": b"\x80\x020.",
    "unknown opcode": b"\x80\x02\xff.",
    "memo of nothing": b"\x80\x02h\x07.",
    "a number": b"\x80\x02K\x01.",
    "not tensors": pickle.dumps({"a": 1}, protocol=2),
}
CODE = {
    "reduce": pickle.dumps(Path("/"), protocol=2),
    "a global": b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.",
    "inst": b"\x80\x02(ios\nsystem\n.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_ends_soon(scan: Any, adapter: Path, name: str) -> None:
    in_zip(adapter / "adapter_model.bin", PICKLES[name])
    assert damage(scan(adapter)) == ["CD012"]


@pytest.mark.parametrize("name", CODE)
def test_a_pickle_with_code_is_named_so(scan: Any, adapter: Path, name: str) -> None:
    in_zip(adapter / "adapter_model.bin", CODE[name])
    assert damage(scan(adapter)) == ["CD010"]


def shards(adapter: Path, index: object, *files: str) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", adapter.parent / "whole")
    for name in files:
        shutil.copy(adapter.parent / "whole/adapter_model.safetensors", adapter / name)
    (adapter / "adapter_model.safetensors.index.json").write_text(json.dumps(index))


INDEXES: list[object] = [
    {},
    [],
    {"weight_map": {"a": "../a.safetensors"}},
    {"weight_map": {"a": "gone.safetensors"}},
    {"weight_map": {"nobody": "x.safetensors"}},
]


@pytest.mark.parametrize("index", INDEXES)
def test_a_broken_index(scan: Any, adapter: Path, index: object) -> None:
    shards(adapter, index, "x.safetensors")
    assert damage(scan(adapter)) == ["CD014"]


def test_a_tensor_in_two_shards_is_of_neither(run: Any, scan: Any, adapter: Path, tmp_path: Path) -> None:
    """Who goes by the index reads one, who loads shard after shard the other."""
    with safe_open(FIXTURES / "lora-plain-0.21.2/adapter_model.safetensors", framework="numpy") as whole:
        first, *others = whole.keys()
    index = {"weight_map": {first: "y.safetensors", **dict.fromkeys(others, "x.safetensors")}}
    shards(adapter, index, "x.safetensors", "y.safetensors")
    assert damage(scan(adapter)) == ["CD014"]
    assert run("fix", adapter, tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()


def test_shards_are_read_and_written_as_one(run: Any, scan: Any, adapter: Path, tmp_path: Path) -> None:
    with safe_open(FIXTURES / "lora-plain-0.21.2/adapter_model.safetensors", framework="numpy") as whole:
        names = list(whole.keys())
    shards(adapter, {"weight_map": dict.fromkeys(names, "x.safetensors")}, "x.safetensors")
    report = scan(adapter)
    assert len(report["layers"]) == len(scan(FIXTURES / "lora-plain-0.21.2")["layers"])
    assert "CD015" in {finding["code"] for finding in report["findings"]}
    assert run("fix", adapter, tmp_path / "out").exit_code == 0
    assert not (tmp_path / "out/x.safetensors").exists()
    assert "CD015" not in {finding["code"] for finding in scan(tmp_path / "out")["findings"]}


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": }', "[" * 100_000, "\ufeff{}"])
def test_a_broken_config(scan: Any, tmp_path: Path, text: str) -> None:
    shutil.copytree(FIXTURES / "lora-plain-0.21.2", tmp_path / "a")
    (tmp_path / "a/adapter_config.json").write_text(text)
    assert damage(scan(tmp_path / "a")) == ["CD003"]
