"""Attention of one row by its definition, in the type of the logits: float64, and what tiles leave to it.

Weights of keys that a row may not see are zero in a tile, and zero times NaN or Inf is NaN. Rows that came out so are
computed again here, from the keys that they may see alone.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .._numba import jit, kernel
from .cpu_lanes import FIELDS, HIGH, LOW, LSE_AT, OUT_AT, QUERY_AT, QUERY_HEAD, describe, name_keys, name_scales
from .cpu_operands import number, put
from .cpu_problem import DIM, GROUP, QUERIES, VALUE_DIM
from .cpu_scores import logits


@kernel
def attend_rows(places, rules, tasks):
    """Task t: all rows of key head ``tasks[t, 1]`` of sequence ``tasks[t, 0]``."""
    for task in numba.prange(len(tasks)):
        _attend_head(places, rules, tasks[task, 0], tasks[task, 1])


@jit
def _attend_head(places, rules, n, h):
    lanes = np.empty((FIELDS, 1), np.int64)
    for row in range(places.sequences[n, QUERIES] * places.sizes[GROUP]):
        describe(places.sequences, places.sizes, rules.numbers, n, h, row, 1, 1, lanes)
        attend_row(places, rules, n, h, 0, lanes)


@jit
def finish(places, rules, n, h, lane, lanes, sums, step, sound, most, weight):
    """Output and lse of a lane from its sums of values, `step` apart, and of weights relative to exp(most).

    By the definition of the row, if they are not `sound`: not all finite.
    """
    per = np.float32(1 / weight) if weight != 0 else np.float32(0)
    at = lanes[OUT_AT, lane]
    for d in range(places.sizes[VALUE_DIM]):
        put(places.out, at + d, sums[d * step] * per)
    places.lse[lanes[LSE_AT, lane]] = most + math.log(weight) if weight != 0 else -np.inf
    if not sound or weight != weight:
        attend_row(places, rules, n, h, lane, lanes)


@jit
def attend_row(places, rules, n, h, lane, lanes):
    """Output and lse of the row in a lane."""
    sequences, sizes, table = places.sequences, places.sizes, places.table
    own = lanes[:, lane : lane + 1].copy()
    low = own[LOW, 0]
    count = max(0, own[HIGH, 0] - low)
    k_offsets, v_offsets = np.empty(count, np.int64), np.empty(count, np.int64)
    s = np.empty(count, rules.sinks.dtype)
    factors = np.ones(count, np.float32)
    highest = np.float64(rules.sinks[own[QUERY_HEAD, 0]]) if rules.sinks.size else -np.inf
    total = 0.0
    if count > 0:
        name_keys(sequences, sizes, table, n, h, low, count, count, k_offsets, v_offsets)
        if places.k_scale.size:
            name_scales(sizes, table, places.k_scale, n, h, low, count, factors)
        for j in range(count):
            s[j] = factors[j] * _dot(places.q, own[QUERY_AT, 0], places.k, k_offsets[j], sizes[DIM])
        logits(rules, s, 1, low, count, own)
        if places.v_scale.size:
            name_scales(sizes, table, places.v_scale, n, h, low, count, factors)
        sink = highest
        for j in range(count):
            if s[j] > highest:
                highest = np.float64(s[j])
        total = math.exp(sink - highest) if sink > -np.inf else 0.0
    elif highest > -np.inf:
        total = 1.0
    sums = np.zeros(sizes[VALUE_DIM])
    for j in range(count):
        if s[j] != -np.inf:
            weight = math.exp(s[j] - highest)
            total += weight
            for d in range(len(sums)):
                sums[d] += weight * (factors[j] * number(places.v, v_offsets[j] + d))
    for d in range(len(sums)):
        put(places.out, own[OUT_AT, 0] + d, sums[d] / total if total != 0 else 0.0)
    places.lse[own[LSE_AT, 0]] = highest + math.log(total) if total != 0 else -np.inf


@jit
def _dot(q, q_at, k, k_at, dim):
    total = 0.0
    for d in range(dim):
        total += number(q, q_at + d) * number(k, k_at + d)
    return total
