"""The best of each bin, and the selection of candidates that carry ids.

A row is read stripe by stripe, one element for every bin. Most elements do not reach the least of the
survivors of their bin: the vector comparison that finds this out is all that they cost. A stripe is
rotated, so a run of bins is at most two runs of its elements. A run of which many reach it is inserted
as a whole, rank by rank.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._numba import LANES, jit, kernel
from .._order import bit_count, key_of, lanes_above, load_order, lowest_bit
from .._select import find_threshold, keep_best, sort_best

DENSE = 8
"""A run is inserted as a whole if one in so many of its elements has to be."""


@jit
def rotations(stripes, bins):
    """The bin of the first element of each stripe."""
    turns = np.empty(stripes, np.int64)
    for step in range(stripes):
        h = step * 0x9E3779B1 & 0xFFFFFFFF
        h = (h ^ h >> 15) * 0x85EBCA77 & 0xFFFFFFFF
        turns[step] = (h ^ h >> 13) * bins >> 32
    return turns


@jit
def _insert_run(elements, order, step, fresh, at, keys, steps):
    """Insert ``elements[b]`` into bin ``at + b``, for all of them, below the survivors that equal it."""
    n = elements.size
    for b in range(n):
        fresh[b] = key_of(elements[b], order)
    for rank in range(min(step, keys.shape[0] - 1), -1, -1):
        key, number = keys[rank, at : at + n], steps[rank, at : at + n]
        above, number_above = keys[rank - 1, at : at + n], steps[rank - 1, at : at + n]
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
def _insert_all(elements, order, step, fresh, at, keys, steps):
    """Insert ``elements[b]`` into bin ``at + b``, around the end of the bins."""
    before = min(elements.size, steps.shape[1] - at)
    _insert_run(elements[:before], order, step, fresh, at, keys, steps)
    if before < elements.size:
        _insert_run(elements[before:], order, step, fresh, 0, keys, steps)


@jit
def _first_above(elements, first, last, order, least):
    """`lanes_above` of only the elements before `last`, which are fewer than `LANES`."""
    if first + LANES <= elements.size:
        return lanes_above(elements, first, order, least) & ((1 << (last - first)) - 1)
    mask = 0
    for i in range(last - first):
        mask |= np.int64(key_of(elements[first + i], order) > least[first + i]) << i
    return mask


@jit
def _bins(row, order, bins, turns, first, masks, fresh, keys, steps):
    """The best of the bins from `first`, as many as `steps` (per_bin, bins) has columns.

    `keys` has room for as many again: if these are all bins, its last rank is kept there once more, so
    that a stripe is one run from any bin.
    """
    per_bin, width = steps.shape
    least, again = keys[per_bin - 1], keys[per_bin - 1, width:]
    last = first + width
    runs = 1 if width == bins else 2
    for run in range(runs * turns.size):
        step = run // runs
        turn = turns[step]
        start = step * bins - turn
        if runs == 1:
            low, high = turn, turn + bins
        elif run % 2 == 0:
            low, high = max(first, turn), last
        else:
            low, high, start = first, min(last, turn), start + bins
        size = min(high - low, row.size - start - low)
        if size <= 0:
            continue
        at, elements, reached = low - first, row[start + low :], least[low - first :]
        count, whole = 0, size - size % LANES
        if step >= per_bin:
            for b in range(0, whole, LANES):
                mask = lanes_above(elements, b, order, reached)
                masks[b // LANES] = mask
                count += bit_count(mask)
            if whole < size:
                mask = _first_above(elements, whole, size, order, reached)
                masks[whole // LANES] = mask
                count += bit_count(mask)
            if count == 0:
                continue
        if step < per_bin or count * DENSE > size:
            _insert_all(elements[:size], order, step, fresh, at, keys, steps)
        else:
            for b in range(0, size, LANES):
                mask = masks[b // LANES]
                while mask != 0:
                    i = b + lowest_bit(mask)
                    mask &= mask - 1
                    place = at + i - (width if at + i >= width else 0)
                    _insert(key_of(elements[i], order), step, place, keys, steps)
        if runs == 1:
            for b in range(width):
                again[b] = least[b]


@kernel
def partial_kernel(x, constants, bins, tile, values, indices):
    """values, indices (R, per_bin, bins); `tile` bins are one task."""
    order = load_order(constants)
    tiles = (bins + tile - 1) // tile
    turns = rotations((x.shape[1] + bins - 1) // bins, bins)
    for task in prange(x.shape[0] * tiles):
        r, t = divmod(np.int64(task), tiles)
        _tile(x[r], order, bins, turns, t * tile, min(tile, bins - t * tile), values[r], indices[r])


@jit
def _tile(row, order, bins, turns, first, width, values, indices):
    """The survivors of `width` bins from `first`, in values, indices (per_bin, bins)."""
    per_bin = values.shape[0]
    masks, fresh = np.empty(width // LANES + 1, np.int64), np.empty(width, values.dtype)
    keys, steps = np.empty((per_bin, 2 * width + LANES), values.dtype), np.empty((per_bin, width), np.int32)
    _bins(row, order, bins, turns, first, masks, fresh, keys, steps)
    for rank in range(per_bin):
        number, index, value = steps[rank], indices[rank], values[rank]
        for b in range(width):
            step = np.int64(number[b])
            place = first + b - turns[step]
            i = step * bins + (place if place >= 0 else place + bins)
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
