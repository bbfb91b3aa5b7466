"""A .bin is read as `torch.load(weights_only=True)` reads it, or is refused; "code" is what torch refuses to call."""

from __future__ import annotations

import io
from pathlib import Path

import fuzz
import hostile
import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from ckpt_doctor.adapter import AdapterError, DamagedFile
from ckpt_doctor.adapter.limits import STEPS
from ckpt_doctor.files.loader import load, read_weights


def kind(path: Path) -> str:
    """What is made of a file here."""
    try:
        read_weights(str(path))
    except DamagedFile as error:
        return "code" if error.fault == "pickle-with-code" else "damaged"
    except AdapterError:
        return "refused"
    return "read"


@pytest.mark.parametrize("name", hostile.TORCH)
def test_a_file_on_which_readers_may_differ(tmp_path: Path, name: str) -> None:
    expected, data = hostile.TORCH[name]
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(data)
    assert kind(path) == expected
    assert fuzz.outcome(fuzz.READERS["torch"], data) == ""
    theirs = fuzz.of_torch(data)
    assert isinstance(theirs, str) or expected in ("read", "refused")
    if expected == "code":
        assert isinstance(theirs, str)
        assert "allowed global" in theirs or "is blocked" in theirs


def test_what_torch_calls_by_itself_is_no_code(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.bin"
    for name in _get_allowed_globals():
        path.write_bytes(hostile.saved(hostile.state(a=hostile.named(name))))
        assert kind(path) in ("refused", "damaged"), name
    for name in ("torch.load", "torch.hub.load", "torch._utils._rebuild_x", "torch.sparse.BoolTensor", "os.system"):
        path.write_bytes(hostile.saved(hostile.state(a=hostile.named(name))))
        assert kind(path) == "code", name


def saved_of(dtype: torch.dtype) -> bytes:
    """What torch writes of a tensor; nothing of a dtype of which there are none, as uint3."""
    file = io.BytesIO()
    try:
        torch.save({"a": torch.zeros(16, dtype=torch.uint8).view(dtype)}, file)
    except (RuntimeError, TypeError, KeyError):
        return b""
    return file.getvalue()


DTYPES = {str(dtype): saved_of(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


@pytest.mark.parametrize("dtype", [dtype for dtype, data in DTYPES.items() if data])
def test_a_dtype_is_read_as_torch_reads_it_or_refused(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(DTYPES[dtype])
    assert kind(tmp_path / "adapter_model.bin") in ("read", "refused")
    assert fuzz.outcome(fuzz.READERS["torch"], DTYPES[dtype]) == ""


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(2)}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert fuzz.outcome(fuzz.READERS["torch"], file.getvalue()) == ""
    (tmp_path / "adapter_model.bin").write_bytes(file.getvalue())
    assert kind(tmp_path / "adapter_model.bin") == "read"


RUN_BY_OLDER = {
    "a pickle of protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "behind an opcode that torch does not write": hostile.saved(b"\x80\x02I1\n0cos\nsystem\n(X\4\0\0\0truetR."),
    "behind an item of a list that is set": hostile.saved(b"\x80\x02]K\x01aK\x00K\x02scos\nsystem\n(X\4\0\0\0truetR."),
}


@pytest.mark.parametrize("name", RUN_BY_OLDER)
def test_what_an_older_torch_may_run_is_an_error_beside_safetensors(tmp_path: Path, name: str) -> None:
    folder = hostile.built(tmp_path / "a", hostile.Input(hostile.bin_of(RUN_BY_OLDER[name], beside=True)))
    beside = load(str(folder)).beside
    assert beside is not None
    assert beside.name in ("pickle-with-code", "not-read")


@pytest.mark.parametrize("name", [hostile.WEIGHTS, hostile.BIN])
def test_gguf_under_the_name_of_peft_is_no_adapter(tmp_path: Path, name: str) -> None:
    data = (Path(__file__).parent / "data/conversions/gguf/llama/gguf/lora.gguf").read_bytes()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DamagedFile, match="GGUF"):
        read_weights(str(tmp_path / name))


def test_a_pickle_beyond_the_steps_is_no_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(hostile.saved(b"\x80\x02" + b"N" * (STEPS.most + 1) + b"."))
    assert kind(tmp_path / "adapter_model.bin") == "refused"
