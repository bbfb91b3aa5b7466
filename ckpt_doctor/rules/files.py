"""Rules about the files themselves: what the loader saw wrong."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter import Adapter
from ..findings import ERROR, NOTE, Finding, rule
from ..layers import Layer
from ..runtimes import PEFT, peft

DAMAGE = {
    "no-weights": "CD001",
    "no-config": "CD002",
    "broken-config": "CD003",
    "empty-file": "CD004",
    "truncated-file": "CD005",
    "lfs-pointer": "CD006",
    "html-page": "CD007",
    "wrong-container": "CD008",
    "not-a-file": "CD009",
    "pickle-with-code": "CD010",
    "malformed-safetensors": "CD011",
    "malformed-bin": "CD012",
    "no-tensors": "CD013",
    "broken-index": "CD014",
}


@rule
def damaged_file(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A file is missing, damaged, or not what its name says. No loader takes the adapter.

    A file without tensors is none of these: it is read, and every layer stays as it was initialised.
    """
    for name, message in adapter.faults:
        ids = (frozenset[str](), PEFT) if name == "no-tensors" else (PEFT, frozenset[str]())
        yield Finding(DAMAGE[name], name, ERROR, message, (), (), *ids)


@rule
def sharded_weights(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """The weights are in shards. PEFT looks for one file only (utils/save_and_load.py: load_peft_weights)."""
    if adapter.format == "safetensors" and adapter.weights != ("adapter_model.safetensors",) and not adapter.faults:
        message = f"the weights are in {len(adapter.weights)} shards; PEFT reads one file only"
        yield Finding("CD015", "sharded-weights", ERROR, message, rejected_by=PEFT, fixable=True)


@rule
def file_format(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """PEFT 0.2 and 0.3 read only `adapter_model.bin` (peft_model.py: from_pretrained)."""
    if adapter.format == "safetensors" and "adapter_model.bin" not in adapter.files:
        message = "there is no adapter_model.bin, the only file that PEFT 0.2 and 0.3 read"
        yield Finding("CD021", "safetensors-only", NOTE, message, rejected_by=peft("0.2", "0.3"))


@rule
def both_files(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Both weight files are there: PEFT 0.4 and newer reads safetensors, 0.2 and 0.3 `.bin`, which may differ, or be
    damaged. One that cannot be looked into may hold code, and is an error.
    """
    if adapter.format != "safetensors" or "adapter_model.bin" not in adapter.files:
        return
    there, old = "adapter_model.bin is there as well", peft("0.2", "0.3")
    if adapter.beside and adapter.beside.name == "not-read":
        message = f"{there} and cannot be looked into, so nothing tells that it holds no code: {adapter.beside.message}"
        needs = "an adapter_model.bin that can be read"
        yield Finding("CD022", "both-files", ERROR, message, undecided_for=old, needs=needs)
    elif adapter.beside and adapter.beside.name != "pickle-with-code":
        message = f"{there}, the only file that PEFT 0.2 and 0.3 read, and is damaged: {adapter.beside.message}"
        yield Finding("CD022", "both-files", NOTE, message, rejected_by=old)
    elif adapter.beside:
        return  # code_beside tells
    elif adapter.bin_agrees is None:
        message = f"{there}, too large to compare: PEFT 0.2 and 0.3 read it instead"
        needs = "a comparison of both weight files"
        yield Finding("CD022", "both-files", NOTE, message, undecided_for=old, needs=needs)
    elif not adapter.bin_agrees:
        message = f"{there} and holds something else: PEFT 0.2 and 0.3 read it instead"
        yield Finding("CD022", "both-files", NOTE, message, misloaded_by=old)


@rule
def code_beside(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """An `adapter_model.bin` with code lies beside a good safetensors file. PEFT 0.2 and 0.3 and every program that
    prefers `.bin` run the code; PEFT 0.4 and newer does not open the file where `adapter_model.safetensors` is there
    (peft_model.py: load_adapter; utils/save_and_load.py: load_peft_weights).
    A pickle counts as one with code where it calls anything but what rebuilds tensors, and so does a container that
    torch reads otherwise than it looks. A fix leaves the file behind.
    """
    beside = adapter.beside
    there = adapter.format == "safetensors" and "adapter_model.bin" in adapter.files
    if there and beside and beside.name == "pickle-with-code":
        message = f"the adapter_model.bin beside the weights is run by what prefers it: {beside.message}"
        yield Finding("CD010", "pickle-with-code", ERROR, message, (), (), peft("0.2", "0.3"))
