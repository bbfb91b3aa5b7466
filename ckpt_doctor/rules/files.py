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
    """Both weight files are there: PEFT 0.4 and newer reads safetensors, 0.2 and 0.3 `.bin`, which may differ."""
    if adapter.format != "safetensors" or "adapter_model.bin" not in adapter.files:
        return
    old = peft("0.2", "0.3")
    if adapter.bin_agrees is None:
        message = "adapter_model.bin is there as well, too large to compare: PEFT 0.2 and 0.3 read it instead"
        needs = "a comparison of both weight files"
        yield Finding("CD022", "both-files", NOTE, message, undecided_for=old, needs=needs)
    elif not adapter.bin_agrees:
        message = "adapter_model.bin is there as well and holds something else: PEFT 0.2 and 0.3 read it instead"
        yield Finding("CD022", "both-files", NOTE, message, misloaded_by=old)
