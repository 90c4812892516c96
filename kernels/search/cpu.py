"""Numba launchers, with the names and signatures of `reference`, for C-contiguous NumPy arrays."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._dot import LANES, VECTOR
from .cpu_candidates import merge_parts
from .cpu_few import search_few
from .cpu_maxsim import sum_maxima
from .cpu_operands import as_source, as_values, block_columns, few_queries, operands, tile_rows
from .cpu_rows import pair_distances, square_rows
from .cpu_search import search_parts
from .problem import Problem

Array = np.ndarray[Any, Any]

_NO_TOKENS = np.empty((0, 0, 0), np.int64)
_NO_FLOATS, _NO_NUMBERS, _NO_MASK = np.empty(0, np.float32), np.empty(0, np.int64), np.empty((0, 0), np.uint8)
_LEAST_CAPACITY = 128
_BLOCKS_TO_SHARE = 8
"""Blocks of queries for each thread that make it worth to share the queries and not the rows."""


def search(
    q: Array,
    x: Array,
    scale: Array | None,
    bias: Array | None,
    rows: Array | None,
    mask: Array | None,
    workspace: int,
    scores: Array,
    ids: Array,
) -> None:
    """The best rows of `x` (N, D) for each of `q` (Q, D), in order; see `reference.search`."""
    problem = Problem(q, x, scale, bias, rows, mask)
    count, k = problem.searched, scores.shape[1]
    if scores.size == 0 or count == 0:
        scores[...], ids[...] = -np.inf, -1
        return
    threads = numba.get_num_threads()
    capacity = min(count, max(2 * k, _LEAST_CAPACITY))
    per_query = threads * 12 * capacity + 8 * q.shape[1] + 8 * threads
    batch = max(1, workspace // per_query)
    batch = max(batch // LANES * LANES, min(batch, LANES))
    few = len(q) <= few_queries(x.dtype)
    for first in range(0, len(q), batch):
        part = slice(first, first + batch)
        _search(problem.part(part), capacity, few, scores[part], ids[part])


def _search(problem: Problem, capacity: int, few: bool, scores: Array, ids: Array) -> None:
    """The same of one batch of queries; lists of candidates have room for `capacity`."""
    q, x, scale, bias, rows, mask = problem
    count = problem.searched
    length, k, threads = x.shape[1], scores.shape[1], numba.get_num_threads()
    restrictions = (
        _NO_FLOATS if scale is None else scale,
        _NO_FLOATS if bias is None else bias,
        _NO_NUMBERS if rows is None else rows,
        count,
        _NO_MASK if mask is None else mask.view(np.uint8),
        min(k, count),
    )
    nbytes = count * x.itemsize * length * max(1, len(q) >> 3)
    if few:
        splits = (1, threads)
    else:
        op = operands(q, x, block_columns(len(q)))
        shares = threads if len(op.blocks) >= threads * _BLOCKS_TO_SHARE else 1
        splits = (shares, -(-threads // shares))
    keys = np.empty((splits[1], len(q), capacity), np.int32)
    numbers = np.empty(keys.shape, np.int64)
    filled = np.zeros(keys.shape[:2], np.int64)
    if few:
        padded = np.zeros((len(q), -(-length // VECTOR) * VECTOR), np.float32)
        padded[:, :length] = as_values(q)
        search_few(nbytes, padded.reshape(-1), as_source(x).reshape(-1), length, *restrictions, keys, numbers, filled)
    else:
        tile = tile_rows(op.steps)
        search_parts(
            nbytes, op.blocks, op.words, op.source, length, op.columns, op.steps, tile,
            *restrictions, splits, keys, numbers, filled,
        )  # fmt: skip
    merge_parts(len(q) * k * 64, keys, numbers, filled, scores, ids)


def sums_of_squares(x: Array, out: Array) -> None:
    """``sum(x[n] ** 2)`` of each row into the float32 `out`."""
    square_rows(x.nbytes, as_source(x).reshape(-1), x.shape[1], numba.get_num_threads(), out)


def distances(q: Array, x: Array, scale: Array | None, ids: Array, out: Array) -> None:
    """``sum((q[i] - scale[n] * x[n]) ** 2)`` for n = ids[i, j] into float32 `out` (Q, k); Inf where n is -1."""
    values = np.ascontiguousarray(as_values(q), np.float32)
    factors = _NO_FLOATS if scale is None else scale
    pair_distances(ids.size * x.shape[1] * 4, values, as_source(x).reshape(-1), factors, ids, out)


def maxsim(q: Array, lengths: Array, x: Array, rows: Array | None, offsets: Array, scores: Array, argmax: Any) -> None:
    """Scores (B, documents) of the queries `q` (B, L, D), of which the first `lengths[b]` tokens count.

    See `reference.maxsim`.
    """
    queries, tokens, length = q.shape
    empty = np.diff(offsets) == 0
    scores[...] = np.where(empty & (lengths[:, None] > 0), np.float32(-np.inf), np.float32(0))
    if argmax is not None:
        argmax[...] = -1
    if scores.size == 0 or tokens == 0 or empty.all():
        return
    columns = block_columns(tokens)
    per_query = -(-tokens // columns)
    padded = np.zeros((queries, per_query * columns, length), q.dtype)
    padded[:, :tokens] = q
    op = operands(padded.reshape(-1, length), x, columns)
    work = np.linspace(offsets[0], offsets[-1], numba.get_num_threads() + 1)
    shares = np.searchsorted(offsets, work).astype(np.int64)
    shares[0], shares[-1] = 0, len(offsets) - 1
    numbers = _NO_NUMBERS if rows is None else rows
    best = _NO_TOKENS if argmax is None else argmax
    nbytes = int(offsets[-1] - offsets[0]) * length * x.itemsize * max(1, queries * tokens >> 3)
    sum_maxima(
        nbytes, op.blocks, op.words, op.source, length, columns, op.steps, tile_rows(op.steps),
        numbers, offsets, shares, lengths, scores, best,
    )  # fmt: skip
