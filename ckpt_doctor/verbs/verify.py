"""Whether the files that a fix wrote are still those that it proved. Reads and hashes; nothing in them is parsed."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

from ..adapter import AdapterError, DamagedFile
from ..conversions import WRITTEN
from ..files.digests import digest
from ..files.loader import BIN, CONFIG, RECORD, SAFETENSORS, is_remote, read_json, regular
from ..files.writer import SCHEMA

LFS = b"version https://git-lfs"
AGAIN = "restore it, or run `ckpt-doctor fix` again"


class Record(NamedTuple):
    """What is told of the record of a fix: the titles of its repairs, what it dropped, the proof, of that the largest
    relative difference, and the sha256 of each file.
    """

    repairs: tuple[str, ...]
    dropped: tuple[str, ...]
    proof: dict[str, object]
    worst: float
    sums: dict[str, str]


class Verified(NamedTuple):
    """What became of the files of a fix: the record that it left, and what no longer holds, a sentence each."""

    record: Record
    faults: tuple[str, ...]


def verify(folder: str) -> Verified:
    """Hold the files of a folder against the `ckpt-doctor.json` in it, which `fix` wrote.

    Each file that it names has to be there with its sha256, and none beside it that a loader reads instead. Whoever
    can write the files can write the record as well: this finds what was lost or changed, not who meant to deceive.
    Raises AdapterError where there is no record, or none that a fix wrote.
    """
    if is_remote(folder):
        raise AdapterError(f"{folder} is remote, and what is on a disk is verified: download it first")
    record = _record(folder)
    sums = record.sums
    faults = [fault for name, expected in sums.items() for fault in _changed(folder, name, expected)]
    # PEFT from 0.4 on reads safetensors before .bin, 0.2 and 0.3 read .bin alone (save_and_load.py: load_peft_weights)
    for name in (SAFETENSORS, BIN):
        if name not in sums and os.path.lexists(os.path.join(folder, name)):
            faults.append(f"{name} was not there when it was proved, and some loaders read it instead: remove it")
    return Verified(record, tuple(faults))


def _files(of: str) -> set[str]:
    """The files in which a fix writes the form of another tool."""
    from ..conversions import tool

    return {name for name in (tool(of).config, tool(of).weights) if name}


def _changed(folder: str, name: str, expected: str) -> list[str]:
    """What is wrong with a file that has to have a sha256."""
    path = os.path.join(folder, name)
    if not os.path.lexists(path):
        return [f"{name} is missing: {AGAIN}"]
    try:
        file, _ = regular(path)
        with file:
            start = file.read(len(LFS))
            file.seek(0)
            if start == LFS:
                return [f"{name} is a git-lfs pointer, not the file: run `git lfs pull`"]
            found = digest(file)
    except DamagedFile as error:
        return [f"{name}: {error.message}; {AGAIN}"]
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    return [] if found == expected else [f"{name} was changed (sha256 {expected[:12]}… → {found[:12]}…): {AGAIN}"]


def _record(folder: str) -> Record:
    """The record of a fix. Raises AdapterError for one that is not as a fix writes it."""
    path = os.path.join(folder, RECORD)
    if not os.path.lexists(path):
        raise AdapterError(
            f"{folder} has no {RECORD}, so nothing was proved of it: `ckpt-doctor fix IN OUT` writes one"
        )
    record, fault = read_json(folder, RECORD)
    if record is None:
        raise AdapterError(f"{folder}: {fault}")
    version = record.get("schema_version")
    if isinstance(version, int) and version > SCHEMA:
        raise AdapterError(f"{path} is of a newer ckpt-doctor: verify with that one")
    told = _told(record)
    if isinstance(told, str):
        raise AdapterError(
            f"{path} is no record that ckpt-doctor wrote ({told}): write OUT again with `ckpt-doctor fix`"
        )
    return told


def _told(record: dict[str, object]) -> Record | str:
    """A record, or what of it is not as a fix writes it."""
    match record:
        case {"schema_version": int(version), "tool": {"name": "ckpt-doctor", "version": str()}} if version == SCHEMA:
            pass
        case _:
            return "schema_version or tool"
    match record:
        case {"repairs": list(steps), "dropped": list(names)}:
            titles = tuple(title for step in steps if isinstance(title := _title(step), str))
            dropped = tuple(name for name in names if isinstance(name, str))
            if len(titles) != len(steps) or len(dropped) != len(names):
                return "repairs or dropped"
        case _:
            return "repairs or dropped"
    match record:
        case {"sha256": {"after": dict(after)}} if after.keys() in (
            {CONFIG, SAFETENSORS}, {CONFIG, BIN}, *map(_files, WRITTEN)
        ):  # fmt: skip
            sums = {name: sum_ for name, sum_ in after.items() if isinstance(sum_, str)}
        case _:
            return "the files of sha256"
    if len(sums) != len(after) or not all(re.fullmatch("[0-9a-f]{64}", sum_) for sum_ in sums.values()):
        return "a sha256"
    match record:
        case {"proof": dict(proof)} if proof.get("verdict") == ("different" if dropped else "same"):
            pass
        case _:
            return "the verdict of the proof"
    match proof:
        case {"largest_relative_difference": int() | float() as worst, "tolerance": int() | float() as most} if (
            0 <= worst <= most and worst <= sys.float_info.max
        ):
            return Record(titles, dropped, proof, float(worst), sums)
    return "the error of the proof"


def _title(step: object) -> object:
    return step.get("title") if isinstance(step, dict) else None
