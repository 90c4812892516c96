"""The candidates of a query: the best scores so far, among others that arrived since they were last sorted out."""

from __future__ import annotations

import numba
import numpy as np

from .._numba import jit, kernel
from .._order import float32_of_key, key_of_float32
from .._select import keep_best, sort_best


@jit
def offer(keys, ids, filled, k, score, n, bounds, lane):
    """Add a score above ``bounds[lane]`` of row n to `filled` candidates; returns their number.

    A full list is cut to its k best, and the bound becomes the least of them: rows come in
    ascending order, so that an equal score of a later row loses.
    """
    if filled == keys.size:
        bounds[lane] = float32_of_key(keep_best(keys, ids, filled, k))
        filled = k
        if not score > bounds[lane]:
            return filled
    keys[filled], ids[filled] = key_of_float32(score), n
    return filled + 1


@kernel
def merge_parts(keys, ids, filled, scores, found_ids):
    """The best of all parts of every query, in order, into `scores` and `found_ids` (queries, k)."""
    for query in numba.prange(keys.shape[1]):
        _merge(keys[:, query], ids[:, query], filled[:, query], scores[query], found_ids[query])


@jit
def _merge(keys, ids, filled, scores, found_ids):
    all_keys, all_ids = np.empty(keys.size, np.int32), np.empty(keys.size, np.int64)
    n = 0
    for part in range(filled.size):
        for i in range(filled[part]):
            all_keys[n], all_ids[n] = keys[part, i], ids[part, i]
            n += 1
    k = scores.size
    found = min(k, n)
    if n > k:
        keep_best(all_keys, all_ids, n, k)
    sort_best(all_keys, all_ids, found, np.empty(found, np.int32), np.empty(found, np.int64))
    for i in range(k):
        scores[i] = float32_of_key(all_keys[i]) if i < found else np.float32(-np.inf)
        found_ids[i] = all_ids[i] if i < found else -1
