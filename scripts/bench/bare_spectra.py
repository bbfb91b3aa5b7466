"""The arithmetic of `ranks --values` without anything around it: the singular values of every pair of bf16 factors.

usage: python scripts/bench/bare_spectra.py FOLDER
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

with (Path(sys.argv[1]) / "adapter_model.safetensors").open("rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)

    def factor(key: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        first, last = header[key]["data_offsets"]
        file.seek(8 + length + first)
        bits = np.frombuffer(file.read(last - first), "<u2").astype("<u4") << 16
        return bits.view("<f4").astype(np.float64).reshape(header[key]["shape"])

    for key in header:
        if key.endswith("lora_A.weight"):
            a, b = factor(key), factor(key.replace("lora_A", "lora_B"))
            left, right = b.T @ b, a @ a.T
            values, vectors = np.linalg.eigh(left)
            root = vectors * np.sqrt(np.maximum(values, 0))
            np.linalg.eigvalsh(root.T @ right @ root)
