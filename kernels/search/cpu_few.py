"""The search of few queries: the database is read once, at the speed of memory, row by row."""

from __future__ import annotations

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import jit, kernel
from .cpu_candidates import offer
from .cpu_lanes import FEW, few_products


@kernel
def search_few(queries, source, length, scale, bias, listed, count, mask, k, keys, ids, filled):
    """As `cpu_search.search_parts`, of up to `FEW` queries: the float32 vector `queries`, rows padded to `VECTOR`."""
    for part in numba.prange(keys.shape[0]):
        _search_part(np.int64(part), queries, source, length, scale, bias, listed, count, mask, k, keys, ids, filled)


@jit
def _search_part(part, queries, source, length, scale, bias, listed, count, mask, k, keys, ids, filled):
    share = (count + keys.shape[0] - 1) // keys.shape[0]
    used = keys.shape[1]
    scores = np.empty(FEW, np.float32)
    bounds = np.full(FEW, np.float32(-np.inf), np.float32)
    tail = np.zeros(VECTOR, source.dtype)
    for position in range(part * share, min(count, (part + 1) * share)):
        n = listed[position] if listed.size else position
        _row_scores(queries, source, n, length, tail, scores)
        a = scale[n] if scale.size else np.float32(1)
        b = bias[n] if bias.size else np.float32(0)
        for q in range(used):
            score = scores[q] * a + b
            if score > bounds[q] and (mask.size == 0 or mask[q, n]):
                filled[part, q] = offer(keys[part, q], ids[part, q], filled[part, q], k, score, n, bounds, q)


@jit
def _row_scores(queries, source, n, length, tail, scores):
    pitch = queries.size // FEW
    whole = length // VECTOR
    rest = length - whole * VECTOR
    for q in range(FEW):
        scores[q] = 0
    if whole:
        few_products(source, n * length, queries, 0, pitch, whole, scores)
    if rest:
        for j in range(rest):
            tail[j] = source[n * length + whole * VECTOR + j]
        few_products(tail, 0, queries, whole * VECTOR, pitch, 1, scores)
