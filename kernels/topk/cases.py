"""Inputs and work counts that tests, checks and benchmarks share."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

FLOATS = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
DTYPES = {**FLOATS, **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8")}}
ORDERS = (
    "random",  # Gaussian, or the whole range of an integer type
    "ties",  # of four values
    "special",  # NaN of both signs, Inf, zeros of both signs, subnormal numbers; or the ends of an integer type
    "patterns",  # any bits
    "narrow",  # differences in the last bits
    "ascending",  # types of 8 and 16 bits start over at 100 and 30,000
    "descending",
    "equal",
    "periodic",  # with period 64, which divides most numbers of bins
)
SHAPES = ((0, 5), (1, 1), (3, 7), (2, 31), (2, 32), (2, 33), (5, 63), (3, 100), (2, 257), (3, 1025), (2, 5000))
"""(R, n): on both sides of the lengths of vectors and of chunks."""
LONG_SHAPES = ((1, 70_001), (3, 131_072), (7, 65_537))
"""Rows that threads share."""


def rows(shape: tuple[int, ...], dtype: str, order: str, seed: int = 0) -> Array:
    """An array whose last axis has one of the `ORDERS`."""
    kind, n, rng = DTYPES[dtype], shape[-1], np.random.default_rng(seed)
    if order == "random":
        return rng.standard_normal(shape).astype(kind) if dtype in FLOATS else _integers(shape, kind, rng)
    if order == "ties":
        return rng.integers(0, 4, shape).astype(kind)
    if order == "special":
        return rng.choice(_special(dtype), shape)
    if order == "patterns":
        return rng.integers(0, 256, (*shape[:-1], n * kind.itemsize), np.uint8).view(kind)
    if order == "narrow":
        return (100 + rng.random(shape)).astype(kind)
    if order == "equal":
        return np.full(shape, 3, kind)
    period = {"periodic": 64, "int8": 100, "uint8": 100, "int16": 30_000, "float16": 30_000, "bfloat16": 30_000}
    steps = np.arange(n) % period.get(order, period.get(dtype, n + 1))
    return np.ascontiguousarray(np.broadcast_to(steps[::-1] if order == "descending" else steps, shape)).astype(kind)


def _integers(shape: tuple[int, ...], kind: np.dtype[Any], rng: np.random.Generator) -> Array:
    info = np.iinfo(kind)
    drawn: Array = rng.integers(info.min, info.max, shape, kind, endpoint=True)
    return drawn


def _special(dtype: str) -> Array:
    kind = DTYPES[dtype]
    if dtype not in FLOATS:
        info = np.iinfo(kind)
        return np.array([info.min, info.min + 1, 0, 1, info.max - 1, info.max], kind)
    limits: Any = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    numbers = np.array([np.nan, np.inf, 0, limits.smallest_subnormal, limits.smallest_normal, 1, limits.max], kind)
    return np.concatenate([numbers, -numbers])


def min_bytes(n: int, k: int, itemsize: int) -> int:
    """Bytes per row that a selection must move: the row, and k values with int64 indices."""
    return n * itemsize + k * (itemsize + 8)


def flops(n: int) -> int:
    """Operations per row as the definition counts them: one comparison for every element."""
    return n
