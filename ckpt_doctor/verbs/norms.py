"""Norms of products of factors, which are never formed, also where squares overflow or vanish."""

from __future__ import annotations

import math

import numpy as np

from ..files.values import Array


def times_power(number: float, exponent: int) -> float:
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.inf


_DOUBT = 2e-8
"""The relative error of a norm from Gram matrices: the root of the rounding error of float64."""


def largest(array: Array) -> float:
    """The largest magnitude: NaN or infinity where there is any."""
    return max(float(array.max()), -float(array.min())) if array.size else 0.0


def ordinary(number: float) -> bool:
    """Whether products of four such numbers, in any sum that fits into memory, are far from the limits of float64."""
    return number == 0 or 1e-30 < number < 1e30


def scaled(array: Array) -> tuple[Array, int]:
    """An array over the power of two next to its largest magnitude, which is exact, and the exponent of that power."""
    exponent = math.frexp(largest(array))[1]
    return np.ldexp(array, -exponent), exponent


def norm(array: Array) -> float:
    """The Frobenius norm, also where its square is none that float64 has."""
    with np.errstate(over="ignore"):
        size = float(np.linalg.norm(array))
    if 1e-140 < size < math.inf:
        return size
    array, exponent = scaled(array)
    return times_power(float(np.linalg.norm(array)), exponent)


def product_norm(parts: list[tuple[Array, Array]], limit: float) -> float:
    """‖Σ B A‖, the sum over all parts: by Gram matrices, and by QR where those do not tell on which side of `limit`.

    A limit of 0 asks for three digits.
    """
    sizes = [(norm(b), norm(a)) for b, a in parts]
    parts = [part for part, size in zip(parts, sizes, strict=True) if all(size)]
    sizes = [size for size in sizes if all(size)]
    if not parts:
        return 0.0
    exponent = 0
    if not all(ordinary(number) for size in sizes for number in size):
        parts, exponent = balanced(parts)
        sizes = [(norm(b), norm(a)) for b, a in parts]
        limit = times_power(limit, -exponent)
    left, right = parts[0]
    if len(parts) > 1:
        left, right = np.hstack([b for b, _ in parts]), np.vstack([a for _, a in parts])
    whole, doubt = gram_norm(left, right), _DOUBT * sum(b * a for b, a in sizes)
    if abs(whole - limit) <= doubt * (1 if limit else 1e3):
        whole = qr_norm(left, right)
    return times_power(whole, exponent)


def balanced(parts: list[tuple[Array, Array]]) -> tuple[list[tuple[Array, Array]], int]:
    """The same products in units of a power of two, and its exponent: no factor is large, and small only those of a
    product that is small beside another.
    """
    reduced = [(*scaled(b), *scaled(a)) for b, a in parts]
    unit = max(by + too for _, by, _, too in reduced)
    return [(b, np.ldexp(a, by + too - unit)) for b, by, a, too in reduced], unit


def gram_norm(b: Array, a: Array) -> float:
    """‖B A‖ as the root of the sum over (BᵀB) · (A Aᵀ), elementwise."""
    return math.sqrt(max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0))


def qr_norm(b: Array, a: Array) -> float:
    """‖B A‖ as ‖R_B R_Aᵀ‖ of the QR decompositions of B and Aᵀ."""
    left, right = (np.asarray(np.linalg.qr(matrix, mode="r")) for matrix in (b, a.T))
    return norm(left @ right.T)
