"""A tensor, and where its bytes come from."""

from typing import NamedTuple

from . import DTYPE_BITS


class FileRange(NamedTuple):
    """`length` bytes of the file `path`, from byte `offset` on."""

    path: str
    offset: int
    length: int


class Gathered(NamedTuple):
    """A strided view of a storage: `storage` holds it; `start` and `strides` count elements of it."""

    storage: FileRange
    start: int
    strides: tuple[int, ...]


class Zeros(NamedTuple):
    """`length` zero bytes."""

    length: int


class Constant(NamedTuple):
    """Bytes of no file: a number that a form keeps as a tensor, where PEFT's has it in the config."""

    data: bytes


class Computed(NamedTuple):
    """A factor made from another one when it is written: `scale · base · by`, then zeros up to the new rank.

    `by` is AdaLoRA's E `[r, 1]`, which multiplies the rows of A `[r, in]`, or where that is turned its columns (`axis`
    1). Computed in float64.
    """

    base: "TensorInfo"
    scale: float = 1.0
    by: "TensorInfo | None" = None
    axis: int = 0


class Joined(NamedTuple):
    """Matrices of one dtype in one: below one another (axis 0), or beside one another (axis 1)."""

    parts: tuple["TensorInfo", ...]
    axis: int


Source = FileRange | Gathered | Zeros | Constant | Computed | Joined


class TensorInfo(NamedTuple):
    """A tensor: dtype (a key of `DTYPE_BITS`), shape in elements, and where its little-endian bytes come from."""

    dtype: str
    shape: tuple[int, ...]
    source: Source

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        count = 1
        for size in self.shape:
            count *= size
        return count * DTYPE_BITS[self.dtype] // 8


def zeros(dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    """A tensor of zeros."""
    info = TensorInfo(dtype, shape, Zeros(0))
    return info._replace(source=Zeros(info.nbytes))
