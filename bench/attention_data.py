"""What the benchmarks of attention read: random queries, keys and values, caches that hold them, exact outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from pykernels import attention
from pykernels.bench.harness import rotate
from pykernels.kernels.attention import cases, reference
from pykernels.kernels.attention.cases import Shape as Shape
from pykernels.kernels.attention.problem import Scoring

Array = np.ndarray[Any, Any]
Places = list[tuple[tuple[Any, ...], Array]]
"""Exact outputs, after their place in the output."""

DTYPES = {**cases.DTYPES, "int8": np.dtype(np.int8), "e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn)}
SHORT = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8", "e4m3fn": "e4m3fn"}
SCALED = ("int8", "e4m3fn")

PERIOD = 4_194_301
"""Normal numbers that are drawn, and repeated: a prime, so that no two rows are alike."""

ROWS = 32
"""Queries in a row whose exact outputs are computed."""


def step_of(batch: int, heads: int, kv_heads: int, keys: int, dim: int = 128) -> Shape:
    """One query of each head in each sequence."""
    return Shape(batch, heads, kv_heads, 1, keys, dim, dim)


def cache_bytes(shape: Shape, dtype: str) -> int:
    """Bytes of keys and values, and of their scales if they have any."""
    tokens = shape.batch * shape.kv_heads * shape.keys
    each: int = (shape.dim + shape.value_dim) * DTYPES[dtype].itemsize + (8 if dtype in SCALED else 0)
    return tokens * each


def described(shape: Shape) -> str:
    return f"B={shape.batch}, {shape.heads}/{shape.kv_heads} heads, S={shape.keys}, D={shape.dim}"


def normal(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Normal numbers; they repeat after `PERIOD`."""
    drawn = np.random.default_rng(seed).standard_normal(min(int(np.prod(shape)), PERIOD), np.float32)
    return np.resize(drawn.astype(DTYPES[dtype]), shape)


def arrays(dtype: str, shape: Shape, copies: int = 1) -> tuple[Array, Array, Array]:
    """Queries (copies * B, Hq, 1, D), and keys and values (copies * B, Hkv, Sk, D)."""
    count = copies * shape.batch
    of_keys = (count, shape.kv_heads, shape.keys, shape.dim)
    return normal((count, shape.heads, 1, shape.dim), dtype, 0), normal(of_keys, dtype, 1), normal(of_keys, dtype, 2)


def steps(dtype: str, batch: int, q: Array, k: Array, v: Array) -> Callable[[], Any]:
    """`decode` of `batch` sequences after the other, from a cache of `dtype` that holds all of `k` and `v`."""
    count, heads, length, dim = k.shape
    cache = attention.KVCache.contiguous(count, length, heads, dim, dtype=dtype)
    sequences = [cache.new() for _ in range(count)]
    for n, sequence in enumerate(sequences):
        cache.append([sequence], k[n : n + 1], v[n : n + 1])
    parts = [slice(first, first + batch) for first in range(0, count, batch)]
    return rotate([functools.partial(attention.decode, q[part], cache, sequences[part]) for part in parts])


def exact_step(batch: int, q: Array, k: Array, v: Array) -> Places:
    """The last head of the first and of the last of `batch` sequences."""
    return [((b, -1), _exact(q[b, -1], k[b, -1], v[b, -1], False)) for b in {0, batch - 1}]


def exact_heads(q: Array, k: Array, v: Array) -> Array:
    """All heads (Hq, D) of the first sequence."""
    group = q.shape[1] // k.shape[1]
    return np.concatenate([_exact(q[0, h], k[0, h // group], v[0, h // group], False) for h in range(q.shape[1])])


def exact_rows(q: Array, k: Array, v: Array, causal: bool) -> Places:
    """The first, middle and last queries of the last head of a sequence that attends to itself."""
    length, exact = q.shape[2], []
    for first in {0, max(0, (length - ROWS) // 2), max(0, length - ROWS)}:
        rows = slice(first, min(length, first + ROWS))
        keys = slice(rows.stop if causal else length)
        exact.append(((0, -1, rows), _exact(q[0, -1, rows], k[0, -1, keys], v[0, -1, keys], causal)))
    return exact


def wide(x: Any) -> Array:
    """An array or tensor of any dtype in float64."""
    converted: Array = (x if isinstance(x, np.ndarray) else x.detach().double().numpy()).astype(np.float64)
    return converted


def _exact(q: Array, k: Array, v: Array, causal: bool) -> Array:
    scoring = Scoring(q.shape[-1] ** -0.5, right=0 if causal else -1)
    return reference.head(wide(q), wide(k), wide(v), scoring, 0, 0)[0]
