"""What an index must give, by brute force in float64; and all that can be seen of one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from conftest import HAS_TORCH

if HAS_TORCH:
    import torch

METRICS = ("ip", "l2", "cosine")
DTYPES = ("float32", "float16", "bfloat16", "int8", "e4m3fn")
RNG = np.random.default_rng(3)


def integers(*shape):
    """Float32 values whose products and sums are exact in every dtype that keeps them."""
    return RNG.integers(-7, 8, shape).astype(np.float32)


def as_kept(x, dtype):
    """The values of rows kept in a dtype, in float64."""
    x = np.asarray(x, np.float64)
    if dtype in ("float32", "float16", "bfloat16"):
        return x.astype(np.dtype(getattr(ml_dtypes, dtype, dtype))).astype(np.float64)
    largest = 127 if dtype == "int8" else 448
    scale = (np.abs(x).max(1, keepdims=True).astype(np.float32) / np.float32(largest)).astype(np.float64)
    scale[scale == 0] = 1
    codes = np.float32(x) / np.float32(scale)
    codes = np.rint(codes) if dtype == "int8" else codes.astype(ml_dtypes.float8_e4m3fn)
    return codes.astype(np.float64) * scale


def scores_of(q, x, metric):
    """All scores in float64, the larger the better but for "l2"."""
    q, x = np.asarray(q, np.float64), np.asarray(x, np.float64)
    if metric == "l2":
        return ((q[:, None] - x) ** 2).sum(-1)
    if metric == "cosine":
        q, x = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (q, x))
    return q @ x.T


def brute(q, x, ids, metric, k, allowed=None):
    """Scores and ids of the k best rows, equal scores in the order of the rows, filled up with -1."""
    scores = scores_of(q, x, metric)
    keys = np.round(scores if metric == "l2" else -scores, 9)
    if allowed is not None:
        keys = np.where(allowed, keys, np.inf)
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    none = ~np.isfinite(np.take_along_axis(keys, order, 1))
    found = np.where(none, -1, np.asarray(ids)[order])
    best = np.where(none, np.inf if metric == "l2" else -np.inf, np.take_along_axis(scores, order, 1))
    missing = ((0, 0), (0, k - order.shape[1]))
    worst = np.inf if metric == "l2" else -np.inf
    return np.pad(best, missing, constant_values=worst), np.pad(found, missing, constant_values=-1)


def where(backend):
    """The device of an index whose searches run on a backend."""
    return None if backend == "cpu" else "cuda" if torch.cuda.is_available() else "cpu"


def state(index):
    """All that a user can see of an index."""
    q = np.eye(index.dim, dtype=np.float32)
    return (index.ids, *index.search(q, 40), np.asarray(index.reconstruct(index.ids)), index._table.view().next_id)


def same(a, b):
    for mine, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(mine, theirs)
