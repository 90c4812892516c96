"""Gradients of rows by their definition, in the type of the logits: float64, and rows that tiles leave out.

In a tile, a key that a row may not see has a weight of zero, and zero times NaN or Inf is NaN. Tiles therefore leave
out rows and keys that are not finite; see `cpu_backward_tile`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from .._numba import jit, kernel
from .cpu_lanes import FIELDS, HIGH, LOW, LSE_AT, OUT_AT, QUERY_AT, QUERY_HEAD, describe
from .cpu_problem import BASE, DIM, GROUP, HEAD, QUERIES, VALUE_DIM, K
from .cpu_product import LANES
from .cpu_scores import logits, tanh

PART_ROWS = 7
"""Column of `Work.sequences` after those of `Places`: rows of a part of a head."""

BIAS_STRIDE = 20
"""Elements of `Work.sizes` after those of `Places`: strides of the bias gradient, 0 where the bias was broadcast."""


class Work(NamedTuple):
    """Vectors of one type, float32 or float64, as in `Places`; keys and values are dense.

    `grad_q` lies as q does, `grad_out` as out, `grad_lse` and `delta` as lse.
    """

    q: Any
    k: Any
    v: Any
    out: Any
    lse: Any
    grad_out: Any
    grad_lse: Any
    delta: Any  # <grad_out, out> - grad_lse of each row
    grad_q: Any
    grad_keys: Any  # (parts, keys of all heads, columns): sums of a part, of dk / scale and then of dv; see `columns`
    grad_bias: Any
    sequences: Any  # (N, 8) int64
    sizes: Any  # (24,) int64


@jit
def columns(dim):
    """Columns that a key, or a value, of `dim` elements takes in `Work.grad_keys`: whole widths of a product."""
    return (dim + LANES - 1) // LANES * LANES


@jit
def rows_of(sequences, sizes, n, part):
    """The first row of a part of any head of sequence `n`, and one more than the last."""
    first = part * sequences[n, PART_ROWS]
    return first, min(first + sequences[n, PART_ROWS], sequences[n, QUERIES] * sizes[GROUP])


@jit
def key_row(sequences, sizes, n, h):
    """The row of `Work.grad_keys` of the first key of a sequence's head."""
    return (sequences[n, BASE + K] + h * sizes[HEAD + K]) // sizes[DIM]


@jit
def bias_at(sizes, n, row, head):
    """Where the bias gradient of a row begins."""
    strides = sizes[BIAS_STRIDE:]
    return n * strides[0] + head * strides[1] + row // sizes[GROUP] * strides[2]


@jit
def row_delta(out, grad_out, at, dim, grad_lse):
    """Sum of p dp over the keys of a row, less the gradient of its lse."""
    total = -grad_lse
    for d in range(at, at + dim):
        total += grad_out[d] * out[d]
    return total


@jit
def flatness(rules, s, count, flat):
    """The derivative of softcap's bound at products `s`; not written where there is none."""
    if rules.softcap > 0:
        kind = s.dtype.type
        one, factor = kind(1), kind(rules.scale / rules.softcap)
        for i in range(count):
            bounded = tanh(s[i] * factor)
            flat[i] = one - bounded * bounded


@kernel
def differentiate_rows(work, rules, parts, edges, everything, workers):
    """Gradients of all rows, or of those whose `Work.delta` is not finite.

    Part i is part ``parts[i, 2]`` of key head ``parts[i, 1]`` of sequence ``parts[i, 0]``; task t is the parts from
    ``edges[t]`` to ``edges[t + 1]``, in turn.
    """
    for worker in numba.prange(workers):
        for task in range(np.int64(worker), len(edges) - 1, workers):
            for i in range(edges[task], edges[task + 1]):
                _differentiate(work, rules, parts[i, 0], parts[i, 1], parts[i, 2], everything)


@jit
def _differentiate(work, rules, n, h, part, everything):
    lanes = np.empty((FIELDS, 1), np.int64)
    first, end = rows_of(work.sequences, work.sizes, n, part)
    for row in range(first, end):
        describe(work.sequences, work.sizes, rules.numbers, n, h, row, 1, 1, lanes)
        if everything or not math.isfinite(work.delta[lanes[LSE_AT, 0]]):
            _row(work, rules, n, h, part, row, lanes)


@jit
def _row(work, rules, n, h, part, row, lanes):
    dim, value_dim = work.sizes[DIM], work.sizes[VALUE_DIM]
    q_at, out_at, lse_at, low = lanes[QUERY_AT, 0], lanes[OUT_AT, 0], lanes[LSE_AT, 0], lanes[LOW, 0]
    lse, delta = work.lse[lse_at], row_delta(work.out, work.grad_out, out_at, value_dim, work.grad_lse[lse_at])
    work.delta[lse_at] = delta
    count = max(0, lanes[HIGH, 0] - low) if lse != -np.inf else 0
    s = np.empty(count, work.lse.dtype)
    first_key = key_row(work.sequences, work.sizes, n, h)
    for j in range(count):
        s[j] = _dot(work.q, q_at, work.k, (first_key + low + j) * dim, dim)
    flat = np.ones(count, s.dtype)
    if count > 0:
        flatness(rules, s, count, flat)
        logits(rules, s, 1, low, count, lanes)
    q, given = work.q[q_at : q_at + dim], work.grad_out[out_at : out_at + value_dim]
    grad_q = np.zeros(dim, s.dtype)
    grad_bias_at = bias_at(work.sizes, n, row, lanes[QUERY_HEAD, 0])
    for j in range(count):
        if s[j] == -np.inf:
            continue
        key = first_key + low + j
        p = math.exp(s[j] - lse)
        ds = p * (_dot(given, 0, work.v, key * value_dim, value_dim) - delta)
        if work.grad_bias.size:
            work.grad_bias[grad_bias_at + (low + j) * work.sizes[BIAS_STRIDE + 3]] += ds
        ds *= flat[j]
        into = work.grad_keys[part, key]
        for d in range(dim):
            grad_q[d] += ds * work.k[key * dim + d]
            into[d] += ds * q[d]
        for d in range(value_dim):
            into[columns(dim) + d] += p * given[d]
    for d in range(dim):
        work.grad_q[q_at + d] = rules.scale * grad_q[d]


@jit
def _dot(a, a_at, b, b_at, dim):
    total = 0.0
    for d in range(dim):
        total += a[a_at + d] * b[b_at + d]
    return total
