"""Shapes and counts of work, shared by checks and benchmarks."""

from __future__ import annotations

SHAPES = ((1, 1, 1), (5, 100, 7), (13, 49, 64), (64, 2000, 100), (3, 5000, 33))
LARGE = ((300, 50_000, 128), (1, 300_000, 96))
SMALL = ((3, 70, 16), (17, 33, 20))
"""Queries, rows and dimensions of searches; the small ones are for interpreters."""

TOKENS = ((1, 1, 1), (2, 5, 3), (3, 32, 17), (2, 33, 128))
LENGTHS = (1, 0, 7, 16, 17, 12, 31, 33, 48, 2, 0, 64)
"""Queries, tokens and dimensions of late interactions, and the lengths of their documents."""


def min_bytes(queries: int, rows: int, dim: int, k: int, itemsize: int) -> int:
    """Bytes that a search must move: queries and rows once, and k scores with int64 ids for each query."""
    return itemsize * dim * (queries + rows) + 12 * queries * k


def flops(queries: int, rows: int, dim: int) -> int:
    """A multiplication and an addition for each element of every pair; of tokens for MaxSim."""
    return 2 * queries * rows * dim
