"""Gradients of halo attention in Numba. Logits are computed again; their weights follow from the stored lse.

Windows of neighbouring blocks overlap in dk and dv. Stripes of blocks are taken in several rounds, so that those of
a round have no pixel in common, and the blocks of a stripe in turn: every sum has one order, whatever the threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import in_turn, jit
from .cpu_halo_block import (
    KEYS,
    Inputs,
    X,
    Y,
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
from .cpu_halo_float64 import halo_backward as halo_backward_float64
from .cpu_halo_lanes import logit_gradients
from .cpu_halo_rows import field, read_row, write_row
from .cpu_product import LANES, ROWS, add_products, add_products_at, products
from .cpu_softmax import exponentials
from .problem import Window

Array = np.ndarray[Any, Any]


def halo_backward(
    grad_out: Array,
    q: Array,
    k: Array,
    v: Array,
    rel_height: Array | None,
    rel_width: Array | None,
    window: Window,
    scale: float,
    out: Array,
    lse: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    drel_height: Array | None,
    drel_width: Array | None,
) -> None:
    """See `reference_halo.halo_backward`; strides of the gradients are not negative, their last is 1."""
    if q.dtype == np.float64:
        halo_backward_float64(
            grad_out, q, k, v, rel_height, rel_width, window, scale, out, lse, dq, dk, dv, drel_height, drel_width
        )
        return
    given = Inputs(q, k, v, rel_height, rel_width)
    sizes, rel = image(given, window, scale), tables(given, window)
    sums = [x if x.dtype == np.float32 else np.empty(x.shape, np.float32) for x in (dk, dv)]
    for total in sums:
        total[...] = 0
    stripes = -(-sizes.height // sizes.block)
    rows = 2 * (sizes.block + sizes.halo) - 1
    parts = np.zeros((sizes.heads * stripes, 2, -(-rows // ROWS) * ROWS, -(-sizes.dim // LANES) * LANES), np.float32)
    if lse.size:
        rounds = 1 - (-2 * sizes.halo // sizes.block)
        inputs = fields(grad_out, q, k, v, out, lse)
        results = *map(field, (dq, *sums)), parts
        for first in range(min(rounds, stripes)):
            in_turn(_pull_back, sizes, first, rounds, *inputs, rel, *results)
    for target, total in zip((dk, dv), sums, strict=True):
        if target is not total:
            target[...] = total
    totals = parts[:, :, :rows, : sizes.dim].sum(0, dtype=np.float64)
    for table, of_table in zip((drel_height, drel_width), totals, strict=True):
        if table is not None:
            table[...] = of_table


class _Scratch(NamedTuple):
    """Of a thread. Columns are [element][lane], rows [lane][element], each of a multiple of `LANES` elements."""

    runs: Any
    lanes: Any
    key_at: Any
    value_at: Any
    target_at: Any
    keys: Any  # empty where keys are float32 in memory
    values: Any
    q: Any  # columns
    q_rows: Any
    grad: Any  # columns
    grad_rows: Any
    row: Any
    places: Any  # columns of both sides of a window: what the tables add to logits, and then their gradients
    by_row: Any  # columns of a table
    p: Any  # columns of a window
    ds: Any
    subtract: Any
    delta: Any
    total: Any
    dq: Any  # columns
    dk: Any  # rows of a window
    dv: Any


class _Lists(NamedTuple):
    """Offsets of the rows of products."""

    table: Any
    columns: Any  # rows of LANES
    elements: Any  # neighbours


@jit
def _scratch(image, k, v):
    side, dim, value_dim = image.block + 2 * image.halo, image.dim, image.value_dim
    window = padded(side * side, ROWS)
    rows = padded(2 * (image.block + image.halo) - 1, ROWS)
    width, value_width = padded(dim, LANES), padded(value_dim, LANES)
    return _Scratch(
        np.empty((3 * side, 3), np.int64),
        np.empty((4, LANES), np.int64),
        np.empty(window, np.int64),
        np.empty(window, np.int64),
        np.empty(window, np.int64),
        scratch_rows(k, side * side, dim),
        scratch_rows(v, side * side, value_dim),
        _floats(dim * LANES),
        _floats(LANES * width),
        _floats(value_dim * LANES),
        _floats(LANES * value_width),
        _floats(max(width, value_width)),
        np.empty((2, side * LANES), np.float32),
        _floats(rows * LANES),
        _floats(window * LANES),
        _floats(window * LANES),
        _floats(LANES),
        _floats(LANES),
        _floats(LANES),
        _floats(padded(dim, ROWS) * LANES),
        _floats(window * width),
        _floats(window * value_width),
    )


@jit
def _floats(count):
    return np.zeros(count, np.float32)


@jit(parallel=True)
def _pull_back(
    image, first, rounds, grad_out, q, k, v, out, lse, rel, dq, dk, dv, of_tables
):  # fmt: skip
    """The stripes ``first, first + rounds, ...`` of all heads."""
    stripes = (image.height + image.block - 1) // image.block
    each = (stripes - first + rounds - 1) // rounds
    for unit in numba.prange(image.heads * each):
        head = np.int64(unit) // each
        stripe = first + np.int64(unit) % each * rounds
        part = head * stripes + stripe
        _pull_back_stripe(
            head, stripe * image.block, image, grad_out, q, k, v, out, lse, rel, dq, dk, dv, of_tables[part],
        )  # fmt: skip


@jit
def _pull_back_stripe(
    head, top, image, grad_out, q, k, v, out, lse, rel, dq, dk, dv, of_tables
):  # fmt: skip
    w = _scratch(image, k, v)
    window = w.p.size // LANES
    lists = _Lists(
        offsets(2 * (image.block + image.halo) - 1, image.dim),
        offsets(max(window, w.by_row.size // LANES), LANES),
        offsets(image.dim, 1),
    )
    down = queries_in(image.block, image.height - top, image.stride)
    for left in range(0, image.width, image.block):
        inside, count, inside_keys, _ = list_runs(image, top, left, w.runs)
        locate(k, head, image, top, left, w.runs, inside, w.key_at)
        locate(v, head, image, top, left, w.runs, inside, w.value_at)
        keys = as_floats(k, w.key_at, inside_keys, image.dim, w.keys)
        values = as_floats(v, w.value_at, inside_keys, image.value_dim, w.values)
        clear(w.dk)
        clear(w.dv)
        queries = down * queries_in(image.block, image.width - left, image.stride)
        for first in range(0, queries, LANES):
            used = min(LANES, queries - first)
            list_queries(image, top, left, first, used, w.lanes)
            read_panel(q, head, w.lanes, used, image.dim, w.q_rows, padded(image.dim, LANES), w.q)
            relative(rel, lists.table, w.q, image, w.lanes, w.by_row, w.places)
            all_keys = logits(image, keys, w.key_at, inside_keys, w.runs, count, w.q, w.places, w.p, w.subtract)
            _read_results(head, image, grad_out, out, lse, used, w)
            for lane in range(0, LANES, VECTOR):
                exponentials(w.p, lane, LANES, all_keys, w.subtract, w.total, lane)
            _differentiate(image, values, count, inside_keys, all_keys, w)
            _gradient_of_queries(image, keys, inside_keys, rel, used, of_tables, lists, w)
            for lane in range(used):
                for d in range(image.dim):
                    w.row[d] = w.dq[d * LANES + lane]
                write_row(w.row, image.dim, dq, query_at(dq, head, w.lanes, lane))
            _add_outer(w.ds, lists.columns, inside_keys, w.q_rows, used, w.dk)
            _add_outer(w.p, lists.columns, inside_keys, w.grad_rows, used, w.dv)
        locate(dk, head, image, top, left, w.runs, inside, w.target_at)
        _add_rows(w.dk, inside_keys, image.dim, np.float32(image.scale), dk.floats, w.target_at)
        locate(dv, head, image, top, left, w.runs, inside, w.target_at)
        _add_rows(w.dv, inside_keys, image.value_dim, np.float32(1), dv.floats, w.target_at)


@jit
def _read_results(head, image, grad_out, out, lse, used, w):
    """Gradients of the outputs, their products with the outputs, and lse; zeros for further lanes."""
    value_width = padded(image.value_dim, LANES)
    read_panel(grad_out, head, w.lanes, used, image.value_dim, w.grad_rows, value_width, w.grad)
    for lane in range(LANES):
        w.subtract[lane] = w.delta[lane] = 0
    for lane in range(used):
        read_row(out, query_at(out, head, w.lanes, lane), image.value_dim, w.row, 0)
        delta = np.float32(0)
        for d in range(image.value_dim):
            delta += w.grad_rows[lane * value_width + d] * w.row[d]
        w.delta[lane] = delta
        w.subtract[lane] = lse.floats[query_at(lse, head, w.lanes, lane)]


@jit
def _differentiate(image, values, count, inside_keys, all_keys, w):
    """`ds` of all keys, and their sums over rows and columns of the window in `places`."""
    products(values, w.value_at, inside_keys, 1, w.grad, 0, LANES, image.value_dim, w.ds, 0, LANES)
    for i in range(inside_keys * LANES, all_keys * LANES):
        w.ds[i] = 0
    clear(w.places[Y])
    clear(w.places[X])
    first = 0
    for r in range(count):
        logit_gradients(
            w.p, w.ds, first * LANES, w.runs[r, KEYS], w.delta, w.places[Y], w.runs[r, Y] * LANES,
            w.places[X], w.runs[r, X] * LANES,
        )  # fmt: skip
        first += w.runs[r, KEYS]


@jit
def _gradient_of_queries(image, keys, inside_keys, rel, used, of_tables, lists, w):
    """Fill `dq`, and add to the gradients of the tables."""
    clear(w.dq)
    add_products_at(keys, lists.elements, image.dim, w.key_at, w.ds, 0, LANES, inside_keys, w.dq, 0, LANES)
    for i in range(w.dq.size):
        w.dq[i] *= np.float32(image.scale)
    if rel.size == 0:
        return
    rows = rel.shape[1] // image.dim
    for axis in range(2):
        clear(w.by_row)
        for lane in range(LANES):
            ds, by_row = w.places[axis, lane:], w.by_row[(image.block - 1 - w.lanes[axis, lane]) * LANES + lane :]
            for i in range(0, ds.size, LANES):
                by_row[i] = ds[i]
        add_products(rel[axis], lists.elements, image.dim, image.dim, w.by_row, 0, LANES, rows, w.dq, 0, LANES)
        _add_outer(w.by_row, lists.columns, rows, w.q_rows, used, of_tables[axis].reshape(-1))


@jit
def _add_outer(x, x_rows, count, rows, used, total):
    """``total += x rows``, over the `used` lanes, of `count` columns x."""
    width = rows.size // LANES
    for d in range(0, width, LANES):
        add_products(x, x_rows, count, 1, rows, d, width, used, total, d, width)


@jit
def _add_rows(x, count, length, factor, out, at):
    width = padded(length, LANES)
    for i in range(count):
        source, target = x[i * width : i * width + length], out[at[i] : at[i] + length]
        for d in range(source.size):
            target[d] += factor * source[d]
