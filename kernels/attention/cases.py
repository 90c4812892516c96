"""Shapes, inputs and counts of work, shared by checks, tests and benchmarks."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float64": np.dtype(np.float64),
}


class Shape(NamedTuple):
    """Heads of queries and keys, numbers of queries and keys, and the sizes of a key and of a value."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    dim: int
    value_dim: int


SHAPES = (
    Shape(1, 1, 1, 1, 1, 1, 1),
    Shape(2, 8, 1, 7, 63, 40, 40),  # multi-query
    Shape(2, 6, 2, 1, 129, 64, 64),  # grouped-query, one token
    Shape(1, 3, 3, 63, 129, 96, 80),  # multi-head
    Shape(2, 16, 1, 1, 1000, 128, 128),
    Shape(1, 4, 4, 129, 63, 192, 128),  # more queries than keys
    Shape(1, 2, 1, 63, 7, 256, 256),
)
LARGE = (Shape(2, 24, 8, 1000, 1000, 64, 64), Shape(1, 16, 1, 1000, 3001, 128, 128))
SMALL = (Shape(2, 4, 2, 5, 33, 16, 16), Shape(1, 3, 1, 1, 70, 20, 8))
"""The small ones are for interpreters."""

FEATURES: tuple[dict[str, Any], ...] = (
    {},
    {"causal": True},
    {"causal": "upper_left", "scale": 0.3},
    {"causal": True, "window": (9, 0), "sinks": True},
    {"window": (5, 3), "softcap": 2.0},
    {"alibi_slopes": True, "kv_lengths": True, "causal": True},
    {"bias": (-3, -1), "mask": (0, -1)},
    {"bias": (0, -3, -2, -1), "mask": (-2, -1), "sinks": True, "kv_lengths": True},
)
"""Arguments of `attention`. True stands for an array that `arguments` makes; bias and mask name the axes of (B, Hq, Sq,
Sk) along which they are not broadcast."""


def operands(shape: Shape, dtype: str, seed: int = 0) -> tuple[Array, Array, Array]:
    """Random q, k and v."""
    rng = np.random.default_rng(seed)
    sizes = (
        (shape.batch, shape.heads, shape.queries, shape.dim),
        (shape.batch, shape.kv_heads, shape.keys, shape.dim),
        (shape.batch, shape.kv_heads, shape.keys, shape.value_dim),
    )
    q, k, v = (rng.standard_normal(size, np.float32).astype(DTYPES[dtype]) for size in sizes)
    return q, k, v


def arguments(shape: Shape, features: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    """`features` with arrays in place of what stands for them."""
    rng = np.random.default_rng(seed)
    made = dict(features)
    full = (shape.batch, shape.heads, shape.queries, shape.keys)
    for name in ("sinks", "alibi_slopes"):
        if name in made:
            made[name] = rng.standard_normal(shape.heads).astype(np.float32) ** 2
    for name in ("bias", "mask"):
        if name in made:
            kept = {axis % 4 for axis in made[name]}
            drawn = rng.standard_normal([size if axis in kept else 1 for axis, size in enumerate(full)])
            made[name] = drawn < 0.5 if name == "mask" else drawn.astype(np.float32)
    if "kv_lengths" in made:
        made["kv_lengths"] = rng.integers(0, shape.keys + 1, shape.batch)
    return made


def named(features: dict[str, Any]) -> str:
    """A few words for features."""
    return ", ".join(name if value is True else f"{name} {value}" for name, value in features.items()) or "plain"


def min_bytes(shape: Shape, itemsize: int) -> int:
    """Bytes that attention must move: q, k and v read once, and out written."""
    queries, keys = shape.batch * shape.heads * shape.queries, shape.batch * shape.kv_heads * shape.keys
    return (queries + keys) * (shape.dim + shape.value_dim) * itemsize


def flops(shape: Shape, causal: bool = False) -> int:
    """A multiplication and an addition for each element of a key and of a value that a query is allowed."""
    pairs = shape.queries * shape.keys
    if causal:  # the last query at the last key
        least = max(shape.keys - shape.queries + 1, 1)
        pairs = (least + shape.keys) * (shape.keys - least + 1) // 2
    return 2 * shape.batch * shape.heads * pairs * (shape.dim + shape.value_dim)
