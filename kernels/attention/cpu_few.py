"""Attention of few rows to many keys, as when one token is decoded: keys and values are read once, in order,
for all rows.

The keys of a sequence are split into runs of `SPLIT`, whatever the number of threads, so that one long sequence
occupies them all; the parts are merged in order.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import types
from numba.extending import overload

from .._dot import VECTOR
from .._exp import exp
from .._numba import LANES, jit, kernel, prefetch_lanes
from .cpu_few_product import (
    KEYS,
    ROWS,
    WIDTH,
    dots,
    first_weighted,
    first_weighted_wide,
    first_weighted_wide_pairs,
    weighted,
    weighted_wide,
    weighted_wide_pairs,
)
from .cpu_lanes import FIELDS, QUERY_AT, QUERY_HEAD, describe, name_keys, name_scales, reach
from .cpu_operands import pair_weights
from .cpu_problem import DIM, GROUP, QUERIES, VALUE_DIM
from .cpu_problem import KEYS as KEY_COUNT
from .cpu_rows import finish
from .cpu_scores import bound, logits
from .cpu_softmax import exponentials, raise_maxima, scale_keys

SPLIT = 1024
BLOCK = 64

MOST = 4 * WIDTH
"""Rows that are few. More are worth the widths of `cpu_tile`, but that leaves the keys of a sequence to one thread."""

f32 = np.float32


def are_few(rows: int, dim: int, value_dim: int) -> bool:
    """Whether rows of a head of keys are so few that keys are read once for them, of sizes that this is done for."""
    return rows <= MOST and dim % VECTOR == 0 and value_dim % VECTOR == 0


@kernel
def attend_splits(places, rules, tasks, highest, total, sums, workers):
    """Task t: the keys ``tasks[t, 2] * SPLIT`` on, of key head ``tasks[t, 1]`` of sequence ``tasks[t, 0]``.

    Maxima and totals (tasks, R) and sums of values (tasks, R * Dv), R being a multiple of WIDTH that holds all rows,
    are for `merge_splits`.
    """
    for worker in numba.prange(workers):
        _work(np.int64(worker), workers, places, rules, tasks, highest, total, sums)


@jit
def _work(worker, workers, places, rules, tasks, highest, total, sums):
    for task in range(worker, len(tasks), workers):
        attend_split(places, rules, tasks[task], highest[task], total[task], sums[task])


@jit
def attend_split(places, rules, task, highest, total, sums):
    sequences, sizes, table = places.sequences, places.sizes, places.table
    n, h, dim, value_dim = task[0], task[1], sizes[DIM], sizes[VALUE_DIM]
    rows = sequences[n, QUERIES] * sizes[GROUP]
    blocks = (rows + WIDTH - 1) // WIDTH
    lanes, reaches = np.empty((blocks, FIELDS, WIDTH), np.int64), np.empty((blocks, 4), np.int64)
    low, high = sequences[n, KEY_COUNT], np.int64(0)
    for b in range(blocks):
        own = min(WIDTH, rows - b * WIDTH)
        describe(sequences, sizes, rules.numbers, n, h, b * WIDTH, own, WIDTH, lanes[b])
        reach(lanes[b], reaches[b])
        low, high = min(low, reaches[b, 0]), max(high, reaches[b, 3])
    low, high = max(low, task[2] * SPLIT), min(high, (task[2] + 1) * SPLIT)
    highest[:] = -np.inf
    total[:] = 0
    sums[:] = 0
    q = rows_of(places.q, dim, lanes)
    s, words = np.zeros((BLOCK + 1) * WIDTH, f32), np.empty(BLOCK // 2 * WIDTH, np.uint32)
    k_offsets, v_offsets = np.empty(2 * BLOCK, np.int64), np.empty(2 * BLOCK, np.int64)
    k_factors, v_factors = np.empty(BLOCK, f32), np.empty(BLOCK, f32)
    if low < high:
        name_keys(
            sequences, sizes, table, n, h, low, min(BLOCK, high - low), BLOCK, k_offsets[BLOCK:], v_offsets[BLOCK:]
        )
    for first in range(low, high, BLOCK):
        count = min(BLOCK, high - first)
        for j in range(BLOCK):
            k_offsets[j], v_offsets[j] = k_offsets[BLOCK + j], v_offsets[BLOCK + j]
        then = min(first + BLOCK, high - 1)
        after = min(BLOCK, high - then)
        name_keys(sequences, sizes, table, n, h, then, after, BLOCK, k_offsets[BLOCK:], v_offsets[BLOCK:])
        if places.k_scale.size:
            name_scales(sizes, table, places.k_scale, n, h, first, count, k_factors)
            name_scales(sizes, table, places.v_scale, n, h, first, count, v_factors)
        for b in range(blocks):
            own = min(WIDTH, rows - b * WIDTH)
            for j in range(0, count, KEYS):
                if b == 0:
                    fetch(places.k, k_offsets[BLOCK + j :], KEYS, dim)
                for row in range(0, own, ROWS):
                    dots(q[b], row * dim, dim, places.k, k_offsets, j, dim, s)
            if places.k_scale.size:
                scale_keys(s, WIDTH, count, k_factors)
            logits(rules, s, WIDTH, first, count, lanes[b])
            if first < reaches[b, 1] or first + count > reaches[b, 2]:
                bound(s, WIDTH, first, count, lanes[b])
            start, stop = b * WIDTH, (b + 1) * WIDTH
            own_sums = sums[start * value_dim : stop * value_dim]
            _soften(s, count, own, highest[start:stop], total[start:stop], own_sums)
            if places.k_scale.size:
                scale_keys(s, WIDTH, count, v_factors)
            add_values(q[b], s, count, words, own, places.v, v_offsets, value_dim, own_sums)


@jit
def fetch(x, offsets, count, dim):
    """Ask for rows of the next block: the hardware does not foresee reads from several rows in turn."""
    for j in range(count):
        for d in range(0, dim, LANES):
            prefetch_lanes(x, offsets[j] + d)


@jit
def _soften(s, count, rows, highest, total, sums):
    """Weights in place of logits, relative to the highest so far; what was summed before is made to match."""
    before = highest.copy()
    raise_maxima(s, 0, WIDTH, count, highest, 0)
    value_dim = len(sums) // WIDTH
    for row in range(rows):
        if highest[row] != before[row] and before[row] > f32(-np.inf):
            factor = exp(before[row] - highest[row])
            total[row] *= factor
            for d in range(row * value_dim, (row + 1) * value_dim):
                sums[d] *= factor
    exponentials(s, 0, WIDTH, count, highest, total, 0)


@kernel
def merge_splits(places, rules, heads, highest, total, sums):
    """Outputs of key head ``heads[i, 1]`` of sequence ``heads[i, 0]`` from the parts ``heads[i, 2] : heads[i, 3]``."""
    for i in numba.prange(len(heads)):
        merge_split(places, rules, heads[i], highest, total, sums)


@jit
def merge_split(places, rules, head, highest, total, sums):
    n, h, value_dim = head[0], head[1], places.sizes[VALUE_DIM]
    lanes = np.empty((FIELDS, 1), np.int64)
    whole = np.empty(value_dim, f32)
    for row in range(places.sequences[n, QUERIES] * places.sizes[GROUP]):
        describe(places.sequences, places.sizes, rules.numbers, n, h, row, 1, 1, lanes)
        sink = np.float64(rules.sinks[lanes[QUERY_HEAD, 0]]) if rules.sinks.size else -np.inf
        most = sink
        for part in range(head[2], head[3]):
            most = max(most, np.float64(highest[part, row]))
        weight = math.exp(sink - most) if sink > -np.inf else 0.0
        whole[:] = 0
        for part in range(head[2], head[3]):
            if total[part, row] != 0:
                factor = f32(math.exp(highest[part, row] - most)) if most > -np.inf else f32(1)
                weight += np.float64(total[part, row]) * factor
                for d in range(value_dim):
                    whole[d] += sums[part, row * value_dim + d] * factor
        sound = True
        for d in range(value_dim):
            sound = sound and abs(whole[d]) < np.inf
        finish(places, rules, n, h, 0, lanes, whole, 1, sound, most, weight)


def rows_of(q, dim, lanes):
    """Queries of blocks of lanes, one after the other, as `dots` takes them; for jitted code."""
    raise NotImplementedError


@overload(rows_of)
def _rows_of(q, dim, lanes):
    kind = np.uint16 if q.dtype == types.uint16 else np.float32

    def rows(q, dim, lanes):
        own = np.empty((len(lanes), WIDTH * dim), kind)
        for b in range(len(lanes)):
            for lane in range(WIDTH):
                for d in range(dim):
                    own[b, lane * dim + d] = q[lanes[b, QUERY_AT, lane] + d]
        return own

    return rows


def add_values(q, s, count, words, rows, v, v_offsets, value_dim, sums):
    """``sums[row * value_dim + d]`` plus values by the weights `s`, in pairs where queries are; for jitted code."""
    raise NotImplementedError


@overload(add_values)
def _add_values(q, s, count, words, rows, v, v_offsets, value_dim, sums):
    if q.dtype == types.uint16:

        def pairs(q, s, count, words, rows, v, v_offsets, value_dim, sums):
            pair_weights(s, WIDTH, count, words)
            whole = value_dim // 64 * 64
            for d in range(0, whole, 64):
                first_weighted_wide_pairs(words, 0, v, v_offsets, BLOCK, d, count, sums, value_dim)
                for row in range(ROWS, rows, ROWS):
                    weighted_wide_pairs(words, row, v, v_offsets, BLOCK, d, count, sums, value_dim)
            for d in range(whole, value_dim, 32):
                first_weighted(words, 0, v, v_offsets, BLOCK, d, count, sums, value_dim)
                for row in range(ROWS, rows, ROWS):
                    weighted(words, row, v, v_offsets, BLOCK, d, count, sums, value_dim)

        return pairs

    def floats(q, s, count, words, rows, v, v_offsets, value_dim, sums):
        whole = value_dim // 64 * 64
        for d in range(0, whole, 64):
            first_weighted_wide(s, 0, v, v_offsets, BLOCK, d, count, sums, value_dim)
            for row in range(ROWS, rows, ROWS):
                weighted_wide(s, row, v, v_offsets, BLOCK, d, count, sums, value_dim)
        for d in range(whole, value_dim, 16):
            first_weighted(s, 0, v, v_offsets, BLOCK, d, count, sums, value_dim)
            for row in range(ROWS, rows, ROWS):
                weighted(s, row, v, v_offsets, BLOCK, d, count, sums, value_dim)

    return floats
