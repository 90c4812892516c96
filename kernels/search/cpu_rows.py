"""Sums of squares of rows, and squared distances of pairs of rows."""

from __future__ import annotations

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import jit, kernel
from .._widen import widen
from .cpu_lanes import one_product


@jit
def _widen_row(source, n, length, tail, row):
    """Row n of `source` as float32 in `row`, which is padded to whole vectors."""
    whole = length - length % VECTOR
    for j in range(0, whole, VECTOR):
        widen(source, n * length + j, row, j)
    if length > whole:
        for j in range(length - whole):
            tail[j] = source[n * length + whole + j]
        widen(tail, 0, row, whole)


@kernel
def square_rows(source, length, parts, out):
    """The sum of squares of each row of the vector `source`."""
    for part in numba.prange(parts):
        _square_share(np.int64(part), source, length, parts, out)


@jit
def _square_share(part, source, length, parts, out):
    share = (out.size + parts - 1) // parts
    vectors = (length + VECTOR - 1) // VECTOR
    tail, start = np.zeros(VECTOR, source.dtype), np.zeros(1, np.int64)
    row = np.zeros(vectors * VECTOR, np.float32)
    for n in range(part * share, min(out.size, (part + 1) * share)):
        _widen_row(source, n, length, tail, row)
        out[n] = 0
        one_product(row, start, row, 0, vectors, out[n:])


@kernel
def pair_distances(queries, source, scale, ids, out):
    """The squared distances of ``queries[i]`` and row ``ids[i, j]`` of the vector `source`; Inf where that is -1."""
    for i in numba.prange(ids.shape[0]):
        _row_distances(queries[i], source, scale, ids[i], out[i])


@jit
def _row_distances(query, source, scale, ids, out):
    vectors = (query.size + VECTOR - 1) // VECTOR
    tail, start = np.zeros(VECTOR, source.dtype), np.zeros(1, np.int64)
    row = np.zeros(vectors * VECTOR, np.float32)
    for j in range(ids.size):
        n = ids[j]
        if n < 0:
            out[j] = np.inf
            continue
        _widen_row(source, n, query.size, tail, row)
        factor = scale[n] if scale.size else np.float32(1)
        for c in range(query.size):
            row[c] = query[c] - factor * row[c]
        out[j] = 0
        one_product(row, start, row, 0, vectors, out[j:])
