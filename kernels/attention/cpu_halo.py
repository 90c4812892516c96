"""Halo attention in Numba: a thread takes a stripe of blocks of one head, and a block `LANES` queries at a time.

A query costs 2 side^2 D multiply-adds, for its logits and its output, and side^2 exponentials; keys and values of a
window are read where they lie.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import in_turn, jit
from .cpu_halo_block import (
    Inputs,
    as_floats,
    clear,
    fields,
    image,
    list_queries,
    list_runs,
    locate,
    logits,
    offsets,
    padded,
    queries_in,
    query_at,
    read_panel,
    relative,
    scratch_rows,
    tables,
)
from .cpu_halo_float64 import halo as halo_float64
from .cpu_halo_rows import write_row
from .cpu_product import LANES, ROWS, add_products_at
from .cpu_softmax import exponentials
from .problem import Window

Array = np.ndarray[Any, Any]


def halo(
    q: Array,
    k: Array,
    v: Array,
    rel_height: Array | None,
    rel_width: Array | None,
    window: Window,
    scale: float,
    out: Array,
    lse: Array,
) -> None:
    """See `reference_halo.halo`; strides of `out` and `lse` are not negative, the last of `out` is 1."""
    if lse.size == 0:
        return
    if q.dtype == np.float64:
        halo_float64(q, k, v, rel_height, rel_width, window, scale, out, lse)
        return
    inputs = Inputs(q, k, v, rel_height, rel_width)
    sizes = image(inputs, window, scale)
    in_turn(_attend, sizes, *fields(q, k, v, out, lse), tables(inputs, window))


@jit(parallel=True)
def _attend(image, q, k, v, out, lse, rel):
    stripes = (image.height + image.block - 1) // image.block
    for unit in numba.prange(image.heads * stripes):
        _attend_stripe(np.int64(unit) // stripes, np.int64(unit) % stripes, image, q, k, v, out, lse, rel)


@jit
def _attend_stripe(head, stripe, image, q, k, v, out, lse, rel):
    side, dim, value_dim = image.block + 2 * image.halo, image.dim, image.value_dim
    room = padded(side * side, ROWS)
    runs, lanes = np.empty((3 * side, 3), np.int64), np.empty((4, LANES), np.int64)
    key_at, value_at = np.empty(room, np.int64), np.empty(room, np.int64)
    key_scratch, value_scratch = scratch_rows(k, side * side, dim), scratch_rows(v, side * side, value_dim)
    columns, rows = np.empty(dim * LANES, np.float32), np.empty(LANES * padded(dim, VECTOR), np.float32)
    table_at, value_rows = offsets(rel.shape[1] // dim, dim), offsets(value_dim, 1)
    by_row = np.empty(table_at.size * LANES, np.float32)
    places = np.empty((2, side * LANES), np.float32)
    s, sums = np.empty(room * LANES, np.float32), np.empty(value_rows.size * LANES, np.float32)
    highest, total = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    result = np.empty(value_dim, np.float32)
    top = stripe * image.block
    down = queries_in(image.block, image.height - top, image.stride)
    for left in range(0, image.width, image.block):
        inside, count, inside_keys, _ = list_runs(image, top, left, runs)
        locate(k, head, image, top, left, runs, inside, key_at)
        locate(v, head, image, top, left, runs, inside, value_at)
        keys = as_floats(k, key_at, inside_keys, dim, key_scratch)
        values = as_floats(v, value_at, inside_keys, value_dim, value_scratch)
        queries = down * queries_in(image.block, image.width - left, image.stride)
        for first in range(0, queries, LANES):
            used = min(LANES, queries - first)
            list_queries(image, top, left, first, used, lanes)
            read_panel(q, head, lanes, used, dim, rows, padded(dim, VECTOR), columns)
            relative(rel, table_at, columns, image, lanes, by_row, places)
            all_keys = logits(image, keys, key_at, inside_keys, runs, count, columns, places, s, highest)
            clear(sums)
            clear(total)
            for lane in range(0, LANES, VECTOR):
                exponentials(s, lane, LANES, all_keys, highest, total, lane)
            add_products_at(values, value_rows, value_dim, value_at, s, 0, LANES, inside_keys, sums, 0, LANES)
            finish(sums, total, highest)
            for lane in range(used):
                lse.floats[query_at(lse, head, lanes, lane)] = highest[lane]
                at = query_at(out, head, lanes, lane)
                for d in range(value_dim):
                    result[d] = sums[d * LANES + lane]
                write_row(result, value_dim, out, at)


@jit
def finish(sums, total, highest):
    """Divide the sums by their lane's `total`, and make of `highest` the logarithm of the denominator."""
    for lane in range(LANES):
        if total[lane] == 0:
            highest[lane], total[lane] = -np.inf, 1
        else:
            highest[lane] += np.float32(math.log(total[lane]))
            total[lane] = np.float32(1) / total[lane]
    for first in range(0, sums.size, LANES):
        row = sums[first : first + LANES]
        for lane in range(LANES):
            row[lane] *= total[lane]
