"""Parts of factors as views of their file, and targets for layers that are called otherwise."""

from __future__ import annotations

import re

from ..adapter import DTYPE_BITS, Adapter, Computed, FileRange, Gathered, TensorInfo, Zeros, zeros
from ..facts.names import is_all_linear
from ..facts.targets import targeted
from . import Refused, with_config


def cut(info: TensorInfo, rows: range, columns: range | None = None) -> TensorInfo:
    """Some rows and columns of a matrix, each at an even step. No number is computed, so every one keeps its bits."""
    height, width = info.shape
    columns = range(width) if columns is None else columns
    shape = (len(rows), len(columns))
    if (*rows, *columns) == (*range(height), *range(width)):
        return info
    if isinstance(info.source, Zeros):
        return zeros(info.dtype, shape)
    if isinstance(info.source, FileRange):
        storage, start, (down, right) = info.source, 0, (width, 1)
    elif isinstance(info.source, Gathered) and len(info.source.strides) == 2:
        storage, start, (down, right) = info.source
    else:
        raise Refused("factors that another repair computed are not cut: fix in two steps")
    if DTYPE_BITS[info.dtype] < 8:
        raise Refused(f"tensors of dtype {info.dtype} have no element of whole bytes")
    start += rows.start * down + columns.start * right
    return TensorInfo(info.dtype, shape, Gathered(storage, start, (down * rows.step, right * columns.step)))


def transposed(info: TensorInfo) -> TensorInfo:
    """A matrix with its sides turned, every number with its bits."""
    height, width = info.shape
    if isinstance(info.source, Zeros):
        return zeros(info.dtype, (width, height))
    view = info.source
    if isinstance(view, FileRange) and DTYPE_BITS[info.dtype] >= 8:
        return TensorInfo(info.dtype, (width, height), Gathered(view, 0, (1, width)))
    if isinstance(view, Gathered) and len(view.strides) == 2:
        return TensorInfo(info.dtype, (width, height), Gathered(view.storage, view.start, view.strides[::-1]))
    if isinstance(view, Computed):
        turned = Computed(transposed(view.base), view.scale, view.by, axis=1 - view.axis)
        return TensorInfo(info.dtype, (width, height), turned)
    raise Refused("factors that another repair computed are not turned: fix in two steps")


def targeting(adapter: Adapter, modules: list[str]) -> Adapter:
    """The adapter with targets that name these modules as well, by the ends of their names."""
    config = adapter.config or {}
    ends = sorted(
        {m.rpartition(".")[2] for m in modules if not all(targeted(config, m, at) for at in ((0, 5), (0, 21)))}
    )
    if not ends:
        return adapter
    target = config.get("target_modules")
    if is_all_linear(target):  # of the model's own layers, and the rest of the regex would be nonsense
        target = sorted({key.partition(".lora_")[0].rpartition(".")[2] for key in adapter.tensors if ".lora_" in key})
        ends = [end for end in ends if end not in target]
    if isinstance(target, str) and target:
        return with_config(adapter, target_modules=f"(?:{target})|(?:{ending(ends)})")
    kept = [name for name in target if isinstance(name, str)] if isinstance(target, list) else []
    adapter = with_config(adapter, target_modules=[*kept, *ends])
    if not all(targeted(adapter.config or {}, module, at) for module in modules for at in ((0, 5), (0, 21))):
        raise Refused("the config leaves out layers by other keys than target_modules")
    return adapter


def ending(ends: list[str]) -> str:
    """A regex of the modules whose names end so."""
    names = [re.escape(end) for end in ends]
    return rf"(?:.*\.)?(?:{'|'.join(names)})"
