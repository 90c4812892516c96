"""Shapes, inputs and counts of work, shared by checks, tests and benchmarks."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
HALF_UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""The largest relative error of one rounding (of bfloat16, two)."""

ROWS = ((1, 1), (7, 63), (3, 1025), (40, 100))
"""(M, E) of norms, (M, F) of gates."""

HEADS = ((1, 3, 1, 8, 8), (2, 5, 7, 20, 12), (1, 2, 300, 64, 64))
"""(n, H, T, D, R) of rotary positions."""

MEASURED = (1, 512)
"""Rows that are measured: a token, and a prompt."""


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    drawn: Array = np.random.default_rng(seed).standard_normal(shape)
    return drawn.astype(DTYPES[dtype])


def tables(positions: int, half: int, theta: float = 100.0) -> tuple[Array, Array]:
    """Cosines and sines (P, R / 2) of rotary positions."""
    angles = np.arange(positions)[:, None] * theta ** (-np.arange(half) / half)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def normalize_bytes(rows: int, width: int, itemsize: int) -> int:
    """Bytes that a norm with a residual must move: two inputs, the total and the output; weights are in cache."""
    return 4 * rows * width * itemsize


def gated_bytes(rows: int, hidden: int, itemsize: int) -> int:
    return 3 * rows * hidden * itemsize


def rotary_bytes(rows: int, heads: int, turned: int, itemsize: int) -> int:
    """Read and written where it is; tables are in cache."""
    return 2 * rows * heads * turned * itemsize
