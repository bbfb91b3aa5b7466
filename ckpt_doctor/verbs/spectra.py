"""What of the rank of a layer is used: the singular values of its delta, from the small factors alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from ..adapter import AdapterError, Layer
from ..facts.meaning import saved_meanings
from ..facts.methods import LORAS
from ..facts.subject import Subject
from ..files.streams import Files
from ..files.values import Array
from .compare import Delta, delta_of, factors
from .norms import ordinary, times_power

KEPT = 0.99
"""The share of the energy that a smaller rank is to keep."""
LARGEST = 2048
"""Ranks up to which singular values are worked out: they cost the third power of it."""
_SEEN = 1e-7
"""Singular values below so much of the largest are lost in the rounding of Gram matrices: their squares are 1e-14."""


class Spectrum(NamedTuple):
    """The singular values of a layer's delta, the largest first, as many as its rank; with NaN or infinity in a factor
    there are none, and `norm` is NaN.

    `dead` are the triplets whose row of A, column of B or entry of E is zero.
    """

    singular: tuple[float, ...]
    norm: float
    dead: int

    @property
    def energy(self) -> float:
        """The square of the Frobenius norm of the delta."""
        return self.norm * self.norm

    @property
    def effective(self) -> float:
        """The effective rank: e to the entropy of the singular values over their sum (Roy and Vetterli 2007, "The
        effective rank: A measure of effective dimensionality"). 0 where all of them are.
        """
        whole = sum(self.singular)
        shares = [value / whole for value in self.singular if value > 0] if 0 < whole < math.inf else []
        return math.exp(-sum(share * math.log(share) for share in shares if share > 0)) if shares else 0.0

    @property
    def used(self) -> int:
        """How many singular values are more than what rounding leaves of zeros."""
        return sum(value > _SEEN * self.singular[0] for value in self.singular)


def spectra(subject: Subject) -> Iterator[tuple[str, Spectrum | str]]:
    """The spectrum of each layer as the release that saved the adapter reads it, or why there is none; one layer is in
    memory at a time. Raises AdapterError where the file can no longer be read.
    """
    if subject.method not in LORAS:
        yield from (
            (module, f"singular values are of a product B·A, and {subject.method} has none")
            for module in subject.layers
        )
        return
    meant = saved_meanings(subject)
    with Files() as files:
        for module, found in subject.layers.items():
            readings = [one.layers[module] for one in meant if module in one.layers] or [found]
            try:
                if len({layer.scaling for layer in readings}) > 1:
                    raise AdapterError(f"the releases that may have saved it scale {module} otherwise than one another")
                yield module, _spectrum(subject, readings[0], files)
            except AdapterError as error:
                yield module, str(error)


def _spectrum(subject: Subject, layer: Layer, files: Files) -> Spectrum:
    if layer.rank == 0:
        return Spectrum((), 0.0, 0)
    if subject.config.get("target_parameters"):
        raise AdapterError("the factors of parameters hold one matrix for each expert")
    if layer.rank is None or layer.rank > LARGEST:
        raise AdapterError(f"the rank of {layer.module} is not known, or above {LARGEST}")
    if layer.scaling is None:
        raise AdapterError(f"the scale of {layer.module} is not known")
    product, scaling = factors(subject, layer, files), layer.scaling
    b, a, e = product
    with np.errstate(all="ignore"):  # what becomes infinite is worked out again
        left, right = b.T @ b, a @ a.T
    if e is not None:
        right = right * e * e.T
    sizes = (float(left.max()), float(right.max()), scaling * scaling)
    if all(map(ordinary, sizes)):
        return _of_grams(left, right, abs(scaling))
    found = delta_of(product, scaling)
    return Spectrum((), math.nan, 0) if found is None else spectrum_of(found)


def spectrum_of(product: Delta) -> Spectrum:
    """The singular values of B A, without forming it."""
    return _of_grams(product.b.T @ product.b, product.a @ product.a.T, times_power(1.0, product.exponent))


def _of_grams(left: Array, right: Array, scale: float) -> Spectrum:
    """The singular values of B A from BᵀB and A Aᵀ: their squares are the eigenvalues of √(BᵀB) (A Aᵀ) √(BᵀB)."""
    dead = int(((np.diagonal(left) == 0) | (np.diagonal(right) == 0)).sum())
    values, vectors = np.linalg.eigh(left)
    root: Array = vectors * np.sqrt(np.maximum(values, 0.0))
    squares = np.maximum(np.linalg.eigvalsh(root.T @ right @ root)[::-1], 0.0)
    return Spectrum(tuple((np.sqrt(squares) * scale).tolist()), float(np.sqrt(squares.sum())) * scale, dead)


def smallest_rank(found: Collection[Spectrum], share: float = KEPT) -> int | None:
    """The smallest rank of all layers alike that keeps a share of the energy of all of them together; None where one
    holds NaN or infinity, or all are zero.
    """
    whole = sum(one.energy for one in found)
    if not 0 < whole < math.inf:
        return None
    kept, most = 0.0, max(len(one.singular) for one in found)
    for rank in range(most):
        kept += sum(one.singular[rank] ** 2 for one in found if rank < len(one.singular))
        if kept >= share * whole * (1 - 1e-12):  # which is rounding
            return rank + 1
    return most
