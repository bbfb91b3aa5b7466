"""The numbers of tensors, with numpy: from the bytes of any float dtype to float64, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..adapter import DTYPE_BITS, AdapterError, Computed, TensorInfo

Array = np.ndarray[Any, np.dtype[np.float64]]
_PLAIN = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_EIGHT_BITS = {"F8_E4M3": (4, 3, 7), "F8_E5M2": (5, 2, 15)}
"""Exponent bits, mantissa bits and bias (Micikevicius et al. 2022, arXiv:2209.05433)."""


def read(info: TensorInfo, raw: bytes) -> Array:
    """The values of a tensor, given its bytes, as float64 in its shape. Raises AdapterError for other dtypes."""
    if info.dtype in _PLAIN:
        flat = np.frombuffer(raw, _PLAIN[info.dtype]).astype(np.float64)
    elif info.dtype == "BF16":
        flat = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    elif info.dtype in _EIGHT_BITS:
        flat = _eight_bits(info.dtype)[np.frombuffer(raw, "u1")]
    else:
        raise AdapterError(f"tensors of dtype {info.dtype} cannot be computed with")
    return flat.reshape(info.shape)


def _eight_bits(dtype: str) -> Array:
    """The 256 values of an 8-bit float."""
    exponent_bits, mantissa_bits, bias = _EIGHT_BITS[dtype]
    code = np.arange(256)
    sign = np.where(code & 0x80, -1.0, 1.0)
    exponent, mantissa = (code >> mantissa_bits) & ((1 << exponent_bits) - 1), code & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    normal = exponent > 0
    value = sign * np.where(normal, 1 + fraction, fraction) * 2.0 ** (np.where(normal, exponent, 1) - bias)
    if dtype == "F8_E4M3":
        value[(code & 0x7F) == 0x7F] = np.nan
    else:
        infinite = (code & 0x7C) == 0x7C
        value[infinite] = np.where(mantissa[infinite] == 0, sign[infinite] * np.inf, np.nan)
    return value


def _bf16(values: Array) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """float32 bits rounded to their upper half, ties to even."""
    bits = values.astype("<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")


def computed(info: TensorInfo, source: Computed, raw: bytes, by: bytes) -> bytes:
    """The bytes of a computed factor, given those of what it is made from. One that is only padded keeps its bits."""
    base = source.base
    if source.by is None and source.scale == 1 and info.dtype == base.dtype:
        width = DTYPE_BITS[base.dtype] // 8
        if not width:
            raise AdapterError(f"tensors of dtype {base.dtype} cannot be padded")
        cells: Any = np.frombuffer(raw, f"V{width}").reshape(base.shape)
        out: Any = np.zeros(info.shape, f"V{width}")
    else:
        cells = read(base, raw) * source.scale
        if source.by is not None:
            e = read(source.by, by)
            if e.size != cells.shape[source.axis]:
                raise AdapterError(
                    f"lora_E {list(e.shape)} has not one number for each row of lora_A {list(cells.shape)}"
                )
            cells = cells * e.reshape([-1 if at == source.axis else 1 for at in range(cells.ndim)])
        with np.errstate(over="ignore"):  # what becomes infinite is not proved the same
            cells = _bf16(cells) if info.dtype == "BF16" else cells.astype(_PLAIN[info.dtype])
        out = np.zeros(info.shape, cells.dtype)
    common = tuple(slice(min(old, new)) for old, new in zip(base.shape, info.shape, strict=True))
    out[common] = cells[common]
    data: bytes = out.tobytes()
    return data
