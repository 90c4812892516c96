"""The best of each strided bin, and the selection of candidates that carry ids.

A row is read in steps of one element for every bin. Most elements do not reach the least of the
survivors of their bin: the vector comparison that finds this out is all that they cost. A step of
which many do is inserted as a whole, rank by rank.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._numba import LANES, jit, kernel
from .._order import bit_count, key_of, lanes_above, load_order, lowest_bit
from .._select import find_threshold, keep_best, sort_best

DENSE = 8
"""A step is inserted as a whole if one in so many of its elements has to be."""


@jit
def _insert_step(row, order, step, fresh, keys, steps):
    """Insert ``row[b]`` into bin b, for all of `row`, below the survivors that equal it."""
    n = row.size
    for b in range(n):
        fresh[b] = key_of(row[b], order)
    for rank in range(min(step, keys.shape[0] - 1), -1, -1):
        key, number, above, number_above = keys[rank], steps[rank], keys[rank - 1], steps[rank - 1]
        if rank == step:  # nothing is there yet
            for b in range(n):
                key[b], number[b] = fresh[b], np.int32(step)
        if rank == 0:
            for b in range(n):
                better = fresh[b] > key[b]
                key[b] = fresh[b] if better else key[b]
                number[b] = np.int32(step) if better else number[b]
        else:
            for b in range(n):
                better, best = fresh[b] > key[b], fresh[b] > above[b]
                key[b] = above[b] if best else (fresh[b] if better else key[b])
                number[b] = number_above[b] if best else (np.int32(step) if better else number[b])


@jit
def _insert(key, step, b, keys, steps):
    rank = keys.shape[0] - 1
    while rank > 0 and keys[rank - 1, b] < key:
        keys[rank, b], steps[rank, b] = keys[rank - 1, b], steps[rank - 1, b]
        rank -= 1
    keys[rank, b], steps[rank, b] = key, step


@jit
def _bins(row, order, bins, first, masks, fresh, keys, steps):
    """The best of the bins from `first`, as many as `keys` (per_bin, bins) has columns."""
    least = keys[keys.shape[0] - 1]
    for step in range((row.size - first + bins - 1) // bins):
        start = step * bins + first
        elements = row[start : min(start + keys.shape[1], row.size)]
        if step < keys.shape[0]:
            _insert_step(elements, order, step, fresh, keys, steps)
            continue
        count = 0
        whole = elements.size - elements.size % LANES
        for b in range(0, whole, LANES):
            mask = lanes_above(elements, b, order, least)
            masks[b // LANES] = mask
            count += bit_count(mask)
        if count * DENSE > elements.size:
            _insert_step(elements, order, step, fresh, keys, steps)
            continue
        if count:
            for b in range(0, whole, LANES):
                mask = masks[b // LANES]
                while mask != 0:
                    i = b + lowest_bit(mask)
                    mask &= mask - 1
                    _insert(key_of(elements[i], order), step, i, keys, steps)
        for i in range(whole, elements.size):
            key = key_of(elements[i], order)
            if key > least[i]:
                _insert(key, step, i, keys, steps)


@kernel
def partial_kernel(x, constants, bins, tile, values, indices):
    """values, indices (R, per_bin, bins); `tile` bins are one task."""
    order = load_order(constants)
    tiles = (bins + tile - 1) // tile
    for task in prange(x.shape[0] * tiles):
        r, t = divmod(np.int64(task), tiles)
        _tile(x[r], order, bins, t * tile, min(tile, bins - t * tile), values[r], indices[r])


@jit
def _tile(row, order, bins, first, width, values, indices):
    """The survivors of `width` bins from `first`, in values, indices (per_bin, bins)."""
    per_bin = values.shape[0]
    masks, fresh = np.empty(width // LANES + 1, np.int64), np.empty(width, values.dtype)
    keys, steps = np.empty((per_bin, width), values.dtype), np.empty((per_bin, width), np.int32)
    _bins(row, order, bins, first, masks, fresh, keys, steps)
    for rank in range(per_bin):
        number, index, value = steps[rank], indices[rank], values[rank]
        for b in range(width):
            i = np.int64(number[b]) * bins + first + b
            index[first + b] = i
            value[first + b] = row[i]


@jit
def _select_row(row, order, tags, k, ordered_ids, keys, positions, spare_ids, spare_keys, spare_positions):
    """The first k of `positions` become those of the k best of `row`, in order."""
    for i in range(row.size):
        keys[i] = key_of(row[i], order)
    threshold = find_threshold(keys, row.size, k, 0)
    found = 0
    for i in range(row.size):
        positions[found], ordered_ids[found] = i, ~tags[i]
        found += keys[i] >= threshold
    sort_best(ordered_ids, positions, found, spare_ids, spare_positions)
    for j in range(found):
        keys[j] = key_of(row[positions[j]], order)
    if found > k:
        keep_best(keys, positions, found, k)
    sort_best(keys, positions, k, spare_keys, spare_positions)


@kernel
def select_kernel(x, constants, ids, all_keys, values, indices):
    """The k best of the rows of `x`, which have `ids`; `all_keys` (tasks, n) is memory for keys."""
    order = load_order(constants)
    tasks = all_keys.shape[0]
    part = (x.shape[0] + tasks - 1) // tasks
    for task in prange(tasks):
        start = np.int64(task) * part
        _select_rows(start, min(start + part, x.shape[0]), x, order, ids, all_keys[task], values, indices)


@jit
def _select_rows(start, stop, x, order, ids, keys, values, indices):
    n, k = x.shape[1], values.shape[1]
    spare_keys, spare_ids, spare_positions = np.empty(n, keys.dtype), np.empty(n, np.int64), np.empty(n, np.int64)
    positions, ordered_ids = np.empty(n, np.int64), np.empty(n, np.int64)
    for r in range(start, stop):
        _select_row(x[r], order, ids[r], k, ordered_ids, keys, positions, spare_ids, spare_keys, spare_positions)
        for j in range(k):
            indices[r, j], values[r, j] = ids[r, positions[j]], x[r, positions[j]]
