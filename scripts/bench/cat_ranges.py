"""The requests of a scan of remote adapters without anything around them, by fsspec: the config of each, and the first
128 KiB of its weights, so many at once as a scan has.

usage: python scripts/bench/cat_ranges.py FILE, which has an address a line
"""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec

IN_FLIGHT = 64
BATCH = 500
"""Adapters whose bytes are held at once."""

addresses = Path(sys.argv[1]).read_text().split()
fs = fsspec.filesystem("http")
for start in range(0, len(addresses), BATCH):
    few = addresses[start : start + BATCH]
    paths = [f"{address}/{name}" for address in few for name in ("adapter_config.json", "adapter_model.safetensors")]
    found = fs.cat_ranges(paths, 0, [1 << 20, 128 << 10] * len(few), batch_size=IN_FLIGHT, on_error="raise")
    if not all(found):
        raise SystemExit("an answer is empty")
