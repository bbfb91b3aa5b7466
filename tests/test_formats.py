"""Reading `.bin` without torch gives what torch reads, however the tensors are laid out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckpt_doctor.adapter import DamagedFile
from ckpt_doctor.files import streams
from ckpt_doctor.files.loader import read_weights
from ckpt_doctor.files.streams import Files, content

BASE = torch.arange(24, dtype=torch.float32).reshape(4, 6)
VIEWS = {
    "contiguous": BASE,
    "transposed": BASE.T,
    "sliced": BASE[1:3, 2:5],
    "stepped": BASE[::2, ::3],
    "three-dimensional": BASE.reshape(2, 3, 4).permute(2, 0, 1),
    "zero-sized": torch.zeros(0, 6),
    "scalar": torch.tensor(3.0),
    "bfloat16": BASE.to(torch.bfloat16).T,
    "float8": BASE.to(torch.float8_e4m3fn),
    "parameter": torch.nn.Parameter(BASE),
    "wide": torch.arange(3 * 5000, dtype=torch.int64).reshape(3, 5000)[:, ::2],
    "tall": torch.arange(3 * 5000, dtype=torch.float64).reshape(5000, 3).T,
}


def read(path: Path) -> dict[str, bytes]:
    with Files() as files:
        return {name: content(info, files) for name, info in read_weights(str(path)).items()}


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("held", [1 << 20, 0], ids=["held", "too large to hold"])
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_gathered(
    tmp_path: Path, name: str, as_zip: bool, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HELD", held)
    torch.save({name: VIEWS[name]}, tmp_path / "adapter_model.bin", _use_new_zipfile_serialization=as_zip)
    if name == "float8" and not as_zip:  # which torch writes, and cannot read again
        with pytest.raises(AttributeError, match="dtype"):
            torch.load(tmp_path / "adapter_model.bin", weights_only=True)
        with pytest.raises(DamagedFile, match="does not read"):
            read(tmp_path / "adapter_model.bin")
        return
    assert read(tmp_path / "adapter_model.bin") == {name: as_bytes(VIEWS[name])}


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before 1.6"])
def test_tensors_that_share_a_storage(tmp_path: Path, as_zip: bool) -> None:
    state = {"a": BASE, "b": BASE[2:], "c": BASE.T}
    torch.save(state, tmp_path / "adapter_model.bin", _use_new_zipfile_serialization=as_zip)
    expected = {"a": as_bytes(BASE), "b": as_bytes(BASE[2:]), "c": as_bytes(BASE.T)}
    assert read(tmp_path / "adapter_model.bin") == expected
