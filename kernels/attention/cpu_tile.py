"""Attention of many rows: panels of `LANES` rows against blocks of keys, at the rate of the products.

Queries, keys and values are float32, or bfloat16 where its products are instructions.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import bits_from_float32, jit, kernel
from .cpu_lanes import FIELDS, QUERY_HEAD, describe, name_keys, reach
from .cpu_operands import add_values, operands, pack, prepare, score
from .cpu_problem import DIM, GROUP, KEYS, QUERIES, VALUE_DIM
from .cpu_product import LANES, ROWS
from .cpu_rows import finish
from .cpu_scores import bound, logits
from .cpu_softmax import exponentials, raise_maxima, rescale

BLOCK = 64
"""Keys of a block: their logits and weights stay in the first cache."""

PANELS = 4
"""Panels of a task at most, which share blocks of keys from the second cache."""

f32 = np.float32
_INFINITY = np.uint32(0x7F800000)


@kernel
def attend_tiles(places, rules, tasks, panels, workers):
    """Task t: `panels` panels from ``tasks[t, 2]`` of key head ``tasks[t, 1]`` of sequence ``tasks[t, 0]``.

    Later rows may see more keys: each of the `workers` takes every so many tasks.
    """
    for worker in numba.prange(workers):
        _work(np.int64(worker), workers, places, rules, tasks, panels)


@jit
def _work(worker, workers, places, rules, tasks, panels):
    for task in range(worker, len(tasks), workers):
        _attend(places, rules, tasks[task, 0], tasks[task, 1], tasks[task, 2], panels)


@jit
def _attend(places, rules, n, h, first_panel, panels):
    sequences, sizes = places.sequences, places.sizes
    dim, value_dim = sizes[DIM], sizes[VALUE_DIM]
    rows = sequences[n, QUERIES] * sizes[GROUP]
    panels = min(panels, -(-rows // LANES) - first_panel)
    block, values, weights = operands(places.q, places.v, dim, value_dim, panels, BLOCK)
    lanes, reaches = np.empty((panels, FIELDS, LANES), np.int64), np.empty((panels, 4), np.int64)
    low, high = sequences[n, KEYS], np.int64(0)
    for panel in range(panels):
        first = (first_panel + panel) * LANES
        describe(sequences, sizes, rules.numbers, n, h, first, min(LANES, rows - first), LANES, lanes[panel])
        reach(lanes[panel], reaches[panel])
        low, high = min(low, reaches[panel, 0]), max(high, reaches[panel, 3])
        pack(places.q, dim, lanes[panel], block[panel])
    elements = elements_of(value_dim, 4 // values.itemsize)
    s = np.empty((BLOCK + ROWS) * LANES, f32)
    out = np.zeros((panels, len(elements) * LANES), f32)
    highest, total = np.full((panels, LANES), f32(-np.inf), f32), np.zeros((panels, LANES), f32)
    k_offsets, v_offsets = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for start in range(low // BLOCK * BLOCK, high, BLOCK):
        first = max(start, low)
        count = min(start + BLOCK, high) - first
        name_keys(sequences, sizes, places.table, n, h, first, count, BLOCK, k_offsets, v_offsets)
        prepare(places.v, v_offsets, value_dim, count, values)
        for panel in range(panels):
            if first >= reaches[panel, 3] or first + count <= reaches[panel, 0]:
                continue
            score(places.k, k_offsets, count, block[panel], dim, s)
            logits(rules, s, LANES, first, count, lanes[panel])
            if first < reaches[panel, 1] or first + count > reaches[panel, 2]:
                bound(s, LANES, first, count, lanes[panel])
            _soften(s, count, highest[panel], total[panel], out[panel])
            add_values(places.v, v_offsets, elements, value_dim, s, count, values, weights, out[panel])
    for panel in range(panels):
        first = (first_panel + panel) * LANES
        count = min(LANES, rows - first)
        _conclude(places, rules, n, h, count, lanes[panel], highest[panel], total[panel], out[panel])


@jit
def elements_of(dim, step):
    """Where the elements of a vector are, `step` apart, the last repeated up to whole tiles of rows."""
    elements = np.empty((dim + ROWS - 1) // ROWS * ROWS, np.int64)
    for d in range(len(elements)):
        elements[d] = min(d, dim - 1) * step
    return elements


@jit
def _soften(s, count, highest, total, out):
    """Weights in place of logits, relative to the highest so far; what was summed before is made to match."""
    before = highest.copy()
    for at in range(0, LANES, VECTOR):
        raise_maxima(s, at, LANES, count, highest, at)
        rescale(before, highest, total, at, out, at, LANES, len(out) // LANES)
        exponentials(s, at, LANES, count, highest, total, at)


@jit
def _conclude(places, rules, n, h, count, lanes, highest, total, out):
    unsound = np.zeros(LANES, np.uint32)
    for d in range(len(out) // LANES):
        row = out[d * LANES : (d + 1) * LANES]
        for lane in range(LANES):
            unsound[lane] |= bits_from_float32(abs(row[lane])) >= _INFINITY
    for lane in range(count):
        most, weight = np.float64(highest[lane]), np.float64(total[lane])
        if rules.sinks.size:
            sink = np.float64(rules.sinks[lanes[QUERY_HEAD, lane]])
            if sink > most:
                known = math.exp(most - sink)
                weight *= known
                for d in range(len(out) // LANES):
                    out[d * LANES + lane] *= f32(known)
                most = sink
            weight += math.exp(sink - most) if most > -np.inf else 0.0
        finish(places, rules, n, h, lane, lanes, out[lane:], LANES, unsound[lane] == 0, most, weight)
