"""Shapes, operands, counts of work and tolerances, shared by checks, tests and benchmarks."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

FLOATS = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
FP8 = {name: np.dtype(getattr(ml_dtypes, f"float8_{name}")) for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")}
FORMATS = {"int8": np.dtype(np.int8), **FP8}


class Shape(NamedTuple):
    """Rows of x, rows of the weight, and the columns of both."""

    m: int
    n: int
    k: int


SHAPES = (
    Shape(1, 1, 1),
    Shape(1, 257, 100),
    Shape(2, 63, 257),
    Shape(3, 7, 63),
    Shape(4, 100, 1025),
    Shape(5, 1, 257),
    Shape(17, 257, 63),
    Shape(33, 100, 100),
    Shape(130, 63, 257),
)
EMPTY = (Shape(0, 7, 9), Shape(3, 0, 9), Shape(3, 7, 0))
ROWS = (1, 2, 4, 8, 16, 32, 128, 512, 1024, 4096)
LAYERS = ((4096, 4096), (4096, 16384), (16384, 4096))
"""(N, K) of layers that are measured, with `ROWS`."""

BLOCKS = ("tensor", "row", "column", (1, 32), (16, 1), (16, 48))
"""What shares a scale, as `quantize` calls it."""


def block_of(blocks: str | tuple[int, int], shape: Shape) -> tuple[int, int]:
    """Rows and columns that share a scale in a weight of a shape."""
    n, k = max(shape.n, 1), max(shape.k, 1)
    named = {"tensor": (n, k), "row": (1, k), "column": (n, 1)}
    return named[blocks] if isinstance(blocks, str) else blocks


def activations(shape: Shape, dtype: str, seed: int = 0) -> Array:
    """Random x (M, K) whose rows differ in size."""
    rng = np.random.default_rng(seed)
    drawn: Array = rng.standard_normal((shape.m, shape.k)) * np.exp(rng.uniform(-2, 2, (shape.m, 1)))
    return drawn.astype(FLOATS[dtype])


def codes(shape: Shape, format: str, seed: int = 1) -> Array:
    """Random codes (N, K) of int8 from -127 to 127, of every finite fp8 number, or of normal floats."""
    rng, size = np.random.default_rng(seed), (shape.n, shape.k)
    if format in FLOATS:
        return rng.standard_normal(size).astype(FLOATS[format])
    if format == "int8":
        return rng.integers(-127, 128, size, np.int8)
    every = np.arange(256, dtype=np.uint8).view(FP8[format])
    return rng.choice(every[np.isfinite(every.astype(np.float32))], size)


def scales(shape: Shape, format: str, block: tuple[int, int], seed: int = 2) -> Array:
    """Random float32 scales of blocks, which take the codes of a format to several orders of magnitude up to e."""
    grid = -(-shape.n // block[0]), -(-shape.k // block[1])
    largest = 127 if format == "int8" else float(ml_dtypes.finfo(FP8[format]).max)  # type: ignore[no-untyped-call]
    return (np.exp(np.random.default_rng(seed).uniform(-5, 1, grid)) / largest).astype(np.float32)


def bias(shape: Shape, dtype: str = "float32", seed: int = 3) -> Array:
    drawn: Array = np.random.default_rng(seed).standard_normal(shape.n) * 10
    return drawn.astype(FLOATS[dtype])


def tolerance(x: Array, weight: Array, bias: Array | None, expected: Array, dtype: str) -> Array:
    """How far each element (M, N) in `dtype` may be from `expected`, for float64 numbers of x, weight and bias.

    Sums in float32, four roundings of every product, errors that add up as a random walk and pass through an
    activation, of slope 1.13 at most; then one rounding to `dtype`, which may be subnormal.
    """
    size = np.abs(x) @ np.abs(weight).T
    if bias is not None:
        size = size + np.abs(bias)
    kind: Any = ml_dtypes.finfo(FLOATS[dtype])  # type: ignore[no-untyped-call]
    summed = 4 * 2.0**-24 * np.sqrt(x.shape[1] + 1) * size
    rounded: Array = summed + float(kind.eps) * np.abs(expected) + float(kind.smallest_subnormal)
    return rounded


def min_bytes(shape: Shape, x_bytes: int, weight_bytes: int, out_bytes: int, block: tuple[int, int] | None) -> int:
    """Bytes that a product must move, by item sizes: x, the weight and its scales read once, and y written."""
    grid = 0 if block is None else -(-shape.n // block[0]) * -(-shape.k // block[1])
    m, n, k = shape
    return m * k * x_bytes + n * k * weight_bytes + 4 * grid + m * n * out_bytes


def flops(shape: Shape) -> int:
    """A multiplication and an addition for each pair of a row of x and an element of the weight."""
    return 2 * shape.m * shape.n * shape.k
