"""Exact selection: chunk maxima find a threshold, and only chunks that reach it are read again.

At least k chunks have a maximum of `threshold` or more, so at least k elements do, and the k best are
among the elements of those chunks that do. They are visited in the order of their indices, so an
element that equals the k-th best of those before it ranks after it. Where k is large, a chunk is one
element, and the maxima are the keys of the row.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._numba import LANES, WIDE, jit, kernel
from .._order import first_at_least, key_of, load_order, lowest_bit, max_key_lanes, max_key_wide
from .._select import find_threshold, keep_best, sort_best

LONGEST = 512
"""Elements of the longest chunks."""


@jit
def chunk_maxima(row, order, chunk, first, maxima):
    """The largest key of each chunk of `row` from the chunk `first` into `maxima`."""
    if chunk == 1:
        part = row[first : first + maxima.size]
        for i in range(part.size):
            maxima[i] = key_of(part[i], order)
        return
    whole = min(max(row.size // chunk - first, 0), maxima.size)
    for j in range(whole):
        start = (first + j) * chunk
        if chunk % WIDE == 0:
            largest = max_key_wide(row, start, order)
            for i in range(start + WIDE, start + chunk, WIDE):
                largest = max(largest, max_key_wide(row, i, order))
        else:
            largest = max_key_lanes(row, start, order)
            for i in range(start + LANES, start + chunk, LANES):
                largest = max(largest, max_key_lanes(row, i, order))
        maxima[j] = largest
    for j in range(whole, maxima.size):  # the last, shorter one
        start = (first + j) * chunk
        largest = maxima.dtype.type(key_of(row[start], order))
        for i in range(start, row.size):
            largest = max(largest, maxima.dtype.type(key_of(row[i], order)))
        maxima[j] = largest


@jit
def _collect(row, order, start, end, threshold, keys, ids, found):
    for first in range(start, end, LANES):
        chosen = first_at_least(row, first, end, order, threshold)
        while chosen != 0:
            i = first + lowest_bit(chosen)
            chosen &= chosen - 1
            keys[found], ids[found] = key_of(row[i], order), i
            found += 1
    return found


@jit
def _candidates(row, order, chunk, maxima, k, keys, ids):
    """Collect a superset of the k best of `row`; returns how many entries it has."""
    threshold = find_threshold(maxima, maxima.size, k, k // 4)
    last_key = np.iinfo(row.dtype).max
    found = 0
    for group in range(0, maxima.size, LANES):
        reached = first_at_least(maxima, group, maxima.size, None, threshold)
        while reached != 0:
            j = group + lowest_bit(reached)
            reached &= reached - 1
            if chunk == 1:
                keys[found], ids[found] = maxima[j], j
                found += 1
            else:
                found = _collect(row, order, j * chunk, min((j + 1) * chunk, row.size), threshold, keys, ids, found)
            if found + chunk > keys.size:
                kth = keep_best(keys, ids, found, k)
                found = k
                if kth == last_key:
                    return found
                threshold = kth + 1
                reached &= first_at_least(maxima, group, maxima.size, None, threshold)
    return found


@jit
def _finish(row, order, chunk, maxima, k, ordered, keys, ids, spare_keys, spare_ids, values, indices):
    """The k best of `row`, the maxima of whose chunks are known."""
    found = _candidates(row, order, chunk, maxima, k, keys, ids)
    if found > k:
        keep_best(keys, ids, found, k)
    if ordered:
        sort_best(keys, ids, k, spare_keys, spare_ids)
    for j in range(k):
        indices[j] = ids[j]
        values[j] = row[ids[j]]


@kernel
def maxima_kernel(x, constants, chunk, maxima, parts):
    order = load_order(constants)
    part = (maxima.shape[1] + parts - 1) // parts
    for task in prange(x.shape[0] * parts):
        row, j = divmod(np.int64(task), parts)
        first = min(j * part, maxima.shape[1])
        chunk_maxima(x[row], order, chunk, first, maxima[row][first : first + part])


@kernel
def topk_kernel(x, constants, chunk, maxima, ordered, values, indices, tasks):
    """The k best of the rows of `x`; `maxima` (R, chunks) are known, or (0, chunks) are not."""
    order = load_order(constants)
    part = (x.shape[0] + tasks - 1) // tasks
    for task in prange(tasks):
        start = np.int64(task) * part
        _topk_rows(start, min(start + part, x.shape[0]), x, order, chunk, maxima, ordered, values, indices)


@jit
def _topk_rows(start, stop, x, order, chunk, maxima, ordered, values, indices):
    known, k, chunks = maxima.shape[0] > 0, values.shape[1], maxima.shape[1]
    capacity = min(x.shape[1] + chunk, 2 * (k + LONGEST))
    own = np.empty(0 if known else chunks, maxima.dtype)
    keys, ids = np.empty(capacity, maxima.dtype), np.empty(capacity, np.int64)
    spare_keys, spare_ids = np.empty(k, maxima.dtype), np.empty(k, np.int64)
    for r in range(start, stop):
        row, largest = x[r], own
        if known:
            largest = maxima[r]
        else:
            chunk_maxima(row, order, chunk, 0, own)
        _finish(row, order, chunk, largest, k, ordered, keys, ids, spare_keys, spare_ids, values[r], indices[r])
