"""Whether the files that a fix wrote are still those that it proved. Reads and hashes; nothing in them is parsed."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from ..adapter import AdapterError, DamagedFile
from ..conversions import WRITTEN
from ..files.loader import BIN, CONFIG, RECORD, SAFETENSORS, is_remote, read_json, regular
from ..files.writer import SCHEMA, digest

LFS = b"version https://git-lfs"
AGAIN = "restore it, or run `ckpt-doctor fix` again"


class Verified(NamedTuple):
    """What became of the files of a fix: the record that it left, and what no longer holds, a sentence each."""

    record: dict[str, Any]
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
    sums: dict[str, str] = record["sha256"]["after"]
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


def _record(folder: str) -> dict[str, Any]:
    """The record of a fix, as far as it is used here of the shape that a fix gives it. Raises AdapterError."""
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
    try:
        wrong = _shape(record)
    except (KeyError, TypeError, AttributeError) as error:
        wrong = f"{error}"
    if wrong:
        raise AdapterError(
            f"{path} is no record that ckpt-doctor wrote ({wrong}): write OUT again with `ckpt-doctor fix`"
        )
    return record


def _shape(record: dict[str, Any]) -> str | None:
    """What is not as a fix writes it. Raises KeyError, TypeError and AttributeError for the same."""
    proof, sums = record["proof"], record["sha256"]["after"]
    titles = [*(step["title"] for step in record["repairs"]), *record["dropped"], record["tool"]["version"]]
    if record["schema_version"] != SCHEMA or record["tool"]["name"] != "ckpt-doctor":
        return "schema_version or tool"
    if not all(isinstance(title, str) for title in titles):
        return "repairs or dropped"
    if sums.keys() not in ({CONFIG, SAFETENSORS}, {CONFIG, BIN}, *map(_files, WRITTEN)):
        return "the files of sha256"
    if not all(isinstance(sum_, str) and re.fullmatch("[0-9a-f]{64}", sum_) for sum_ in sums.values()):
        return "a sha256"
    if proof["verdict"] != ("different" if record["dropped"] else "same"):
        return "the verdict of the proof"
    return None if 0 <= proof["largest_relative_difference"] <= proof["tolerance"] else "the error of the proof"
