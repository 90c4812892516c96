"""The search of few queries: the database is read once, at the speed of memory."""

from __future__ import annotations

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import LANES, jit, kernel, prefetch_lanes
from .cpu_candidates import offer
from .cpu_lanes import FEW_ROWS, few_products

AHEAD = 32
"""Rows that are asked for before they are needed: the hardware does not foresee reads from several rows in turn."""


@kernel
def search_few(queries, source, length, scale, bias, listed, count, mask, k, keys, ids, filled):
    """As `cpu_search.search_parts`, of the float32 vector `queries`, each padded to whole vectors."""
    for part in numba.prange(keys.shape[0]):
        _search_part(np.int64(part), queries, source, length, scale, bias, listed, count, mask, k, keys, ids, filled)


@jit
def _search_part(part, queries, source, length, scale, bias, listed, count, mask, k, keys, ids, filled):
    share = (count + keys.shape[0] - 1) // keys.shape[0]
    used = keys.shape[1]
    pitch = queries.size // used
    whole = length // VECTOR
    scores = np.empty(FEW_ROWS, np.float32)
    bounds = np.full(used, np.float32(-np.inf), np.float32)
    tails = np.zeros(FEW_ROWS * VECTOR, source.dtype)
    numbers, starts = np.empty(FEW_ROWS, np.int64), np.empty(FEW_ROWS, np.int64)
    tail_starts = np.arange(FEW_ROWS) * VECTOR
    last = min(count, (part + 1) * share)
    for first in range(part * share, last, FEW_ROWS):
        for i in range(FEW_ROWS):
            position = min(first + i, last - 1)
            numbers[i] = listed[position] if listed.size else position
            starts[i] = numbers[i] * length
            ahead = min(position + AHEAD, last - 1)
            ahead = (listed[ahead] if listed.size else ahead) * length
            for j in range(0, length, LANES):
                prefetch_lanes(source, ahead + j)
            for j in range(length - whole * VECTOR):
                tails[i * VECTOR + j] = source[starts[i] + whole * VECTOR + j]
        for q in range(used):
            for i in range(FEW_ROWS):
                scores[i] = 0
            if whole:
                few_products(source, starts, queries, q * pitch, whole, scores)
            if whole * VECTOR < length:
                few_products(tails, tail_starts, queries, q * pitch + whole * VECTOR, 1, scores)
            for i in range(min(FEW_ROWS, last - first)):
                n = numbers[i]
                a = scale[n] if scale.size else np.float32(1)
                b = bias[n] if bias.size else np.float32(0)
                score = scores[i] * a + b
                if score > bounds[q] and (mask.size == 0 or mask[q, n]):
                    filled[part, q] = offer(keys[part, q], ids[part, q], filled[part, q], k, score, n, bounds, q)
