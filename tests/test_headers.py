"""A header as safetensors writes it is read by its quotes; of none does that say anything else than a JSON parser."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from ckpt_doctor.adapter import DTYPE_BITS, DamagedFile
from ckpt_doctor.files.formats import safetensors

PIECES = (
    '"', "{", "}", "[", "]", ":", ",", " ", "0", "1", "9", "-1", "-0", "1.0", "1e0", "00", "true", "null", "NaN", "[]",
    "{}",
    "\\", "\\u0041", "\\ud800", "\n", "\0", "é", '"dtype":"F32"', '"shape":[1]', '"data_offsets":[0,0]', '"shape":{}',
    ":[0,8]},", '"__metadata__"', '"F4"', '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', str(2**64),
)  # fmt: skip


def written(chance: random.Random) -> tuple[str, int]:
    """A header as safetensors writes it, and how many bytes of data it speaks of."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}} if chance.random() < 0.7 else {}
    at = 0
    for number in range(chance.randint(0, 4)):
        dtype, width = chance.choice([("F32", 4), ("BF16", 2), ("U8", 1)])
        shape = [chance.choice([0, 1, 2, 10]) for _ in range(chance.randint(0, 3))]
        size = width
        for side in shape:
            size *= side
        entries[f"layers.{number}.lora_A"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return json.dumps(entries, separators=(",", ":")), at


def mutated(chance: random.Random, text: str) -> str:
    """The text with one or two pieces replaced, left out, put in, or twice there."""
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        start = chance.randint(0, len(text))
        end = min(len(text), start + chance.choice([0, 0, 1, 1, 2, 8, 40]))
        copied = text[start : start + chance.choice([1, 5, 30, 60])]
        text = text[:start] + chance.choice([*PIECES, "", copied + copied]) + text[end:]
    return text + " " * chance.choice([0, 0, 3])


def outcome(raw: bytes, size: int) -> object:
    try:
        return list(safetensors.parse_header(raw, "", 8 + len(raw), size).items())
    except DamagedFile as error:
        return error.fault, error.message


def test_both_ways_to_read_a_header_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)  # noqa: S311 - no secret
    quick = 0
    for _ in range(30_000):
        text, length = written(chance)
        raw = mutated(chance, text).encode()
        size = 8 + len(raw) + max(0, length + chance.choice([0, 0, 0, 0, 1, -1]))
        ours = outcome(raw, size)
        quick += safetensors._as_written(raw) is not None
        with monkeypatch.context() as patch:
            patch.setattr(safetensors, "_as_written", lambda _: None)
            assert ours == outcome(raw, size), raw
    assert quick > 5000


def test_a_header_with_the_names_of_one_before_is_read_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(2)  # noqa: S311 - no secret
    quick = right = 0
    for round_ in range(6000):
        if round_ % 20 == 0:
            names = [f"m.{number}.{leaf}" for number in range(chance.randint(1, 12)) for leaf in ("q.lora_A", "é")]
            metadata = chance.choice(['"__metadata__":{"format":"pt"},', ""])
            safetensors._met.clear()
            safetensors._written.clear()
        forms = {
            leaf: (chance.choice(["F32", "F4", "BF16"]), [chance.choice([0, 1, 16, 8]), chance.choice([4, 3])])
            for leaf in ("A", "é")
        }
        entries, end = [], 0
        for name in names:
            dtype, shape = forms[name[-1]]
            start, end = end, end + DTYPE_BITS[dtype] * shape[0] * shape[1] // 8
            sizes = ",".join(map(str, shape))
            entries.append(f'"{name}":{{"dtype":"{dtype}","shape":[{sizes}],"data_offsets":[{start},{end}]}}')
        text = f"{{{metadata}{','.join(entries)}}}"
        raw = (mutated(chance, text) if chance.random() < 0.5 else text).encode()
        size = 8 + len(raw) + max(0, end + chance.choice([0, 0, 0, 0, 1, -1]))
        quick += safetensors._as_before(raw) is not None
        ours = outcome(raw, size)
        right += isinstance(ours, list)
        with monkeypatch.context() as patch:
            patch.setattr(safetensors, "_as_before", lambda _: None)
            patch.setattr(safetensors, "_as_written", lambda _: None)
            assert ours == outcome(raw, size), raw
    assert quick > 2000
    assert right > 2000


@pytest.mark.parametrize("entry", ['"shape":[-0,4],"data_offsets":[0,0]', '"shape":[0,4],"data_offsets":[-0,0]'])
@pytest.mark.parametrize("space", ["", " "])
def test_minus_zero_is_no_size(tmp_path: Path, entry: str, space: str) -> None:
    raw = f'{{"a":{space}{{"dtype":"F32",{entry}}}}}'.encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with pytest.raises(SafetensorError):
        safe_open(path, "np")
    with pytest.raises(DamagedFile):
        safetensors.parse_header(raw, "", 8 + len(raw), 8 + len(raw))


def test_what_is_remembered_of_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "_MET", 50)
    safetensors._met.clear()
    safetensors._written.clear()
    for number in range(500):
        raw = f'{{"m{number % 120}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}'.encode()
        assert isinstance(outcome(raw, 8 + len(raw) + 4), list)
        assert len(safetensors._met) <= 50
        assert len(safetensors._written) <= safetensors._WRITTEN


def test_what_is_taken_is_what_safetensors_takes(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    path = tmp_path / "a.safetensors"
    for _ in range(2000):
        text, length = written(chance)
        raw = mutated(chance, text).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(length))
        try:
            with safe_open(path, framework="numpy") as file:
                theirs = set(file.keys())
        except SafetensorError:
            theirs = None
        ours = outcome(raw, 8 + len(raw) + length)
        assert (isinstance(ours, list) and {name for name, _ in ours}) == (theirs if theirs is not None else False), raw
