"""Rows of queries in lanes: a group's heads share keys, so row r is query ``r // group`` of head ``r % group``."""

from __future__ import annotations

from .._numba import jit
from .cpu_problem import (
    BASE,
    BIAS_STRIDE,
    GROUP,
    HEAD,
    KEYS,
    KV_HEADS,
    LEFT,
    LSE,
    MASK_STRIDE,
    OUT,
    PAGE,
    PAGE_TOKENS,
    QUERIES,
    RIGHT,
    TOKEN,
    UPPER_LEFT,
    K,
    Q,
    V,
)

QUERY_AT, OUT_AT, LSE_AT, POSITION, LOW, HIGH, BIAS_AT, MASK_AT, QUERY_HEAD = range(9)
FIELDS = 9
"""Of a lane: where its query, its output and its lse begin; p(i) and the keys it may see, LOW to HIGH - 1; where its
biases and masks begin; its query head."""


@jit
def describe(sequences, sizes, numbers, n, h, first, count, width, lanes):
    """Fill ``lanes[field, lane]`` for `count` > 0 rows from `first` of key head `h`; further lanes repeat the last."""
    own, keys, group = sequences[n], sequences[n, KEYS], sizes[GROUP]
    left, right = numbers[LEFT], numbers[RIGHT]
    shift = 0 if numbers[UPPER_LEFT] else keys - own[QUERIES]
    for lane in range(width):
        row = first + min(lane, count - 1)
        i = row // group
        head = h * group + row - i * group
        position = i + shift
        lanes[QUERY_AT, lane] = own[BASE + Q] + head * sizes[HEAD + Q] + i * sizes[TOKEN + Q]
        lanes[OUT_AT, lane] = own[BASE + OUT] + head * sizes[HEAD + OUT] + i * sizes[TOKEN + OUT]
        lanes[LSE_AT, lane] = own[BASE + LSE] + head * sizes[HEAD + LSE] + i * sizes[TOKEN + LSE]
        lanes[POSITION, lane] = position
        lanes[LOW, lane] = max(0, position - left) if left >= 0 else 0
        lanes[HIGH, lane] = max(0, min(keys, position + right + 1)) if right >= 0 else keys
        b, m = numbers[BIAS_STRIDE:], numbers[MASK_STRIDE:]
        lanes[BIAS_AT, lane] = n * b[0] + head * b[1] + i * b[2]
        lanes[MASK_AT, lane] = n * m[0] + head * m[1] + i * m[2]
        lanes[QUERY_HEAD, lane] = head


@jit
def reach(lanes, found):
    """The first key that any lane may see, the first and one more than the last that all may, and that any may."""
    found[0], found[1], found[2], found[3] = lanes[LOW, 0], lanes[LOW, 0], lanes[HIGH, 0], lanes[HIGH, 0]
    for lane in range(1, lanes.shape[1]):
        low, high = lanes[LOW, lane], lanes[HIGH, lane]
        found[0], found[1] = min(found[0], low), max(found[1], low)
        found[2], found[3] = min(found[2], high), max(found[3], high)


@jit
def name_keys(sequences, sizes, table, n, h, first, count, room, k_offsets, v_offsets):
    """Where keys and values of `count` > 0 tokens from `first` begin; up to `room`, the last is repeated."""
    k_head = sequences[n, BASE + K] + h * sizes[HEAD + K]
    v_head = sequences[n, BASE + V] + h * sizes[HEAD + V]
    k_step, v_step = sizes[TOKEN + K], sizes[TOKEN + V]
    j = 0
    while j < count:
        token, run = first + j, count - j
        k_at, v_at = k_head, v_head
        if table.size:
            number = token // sizes[PAGE_TOKENS]
            token -= number * sizes[PAGE_TOKENS]
            run = min(run, sizes[PAGE_TOKENS] - token)
            k_at, v_at = k_head + table[n, number] * sizes[PAGE + K], v_head + table[n, number] * sizes[PAGE + V]
        for i in range(run):
            k_offsets[j + i] = k_at + (token + i) * k_step
            v_offsets[j + i] = v_at + (token + i) * v_step
        j += run
    for j in range(count, room):
        k_offsets[j], v_offsets[j] = k_offsets[count - 1], v_offsets[count - 1]


@jit
def name_scales(sizes, table, scales, n, h, first, count, factors):
    """The scales of `count` tokens."""
    j = 0
    while j < count:
        number = (first + j) // sizes[PAGE_TOKENS]
        token = first + j - number * sizes[PAGE_TOKENS]
        at = (table[n, number] * sizes[KV_HEADS] + h) * sizes[PAGE_TOKENS] + token
        run = min(count - j, sizes[PAGE_TOKENS] - token)
        for i in range(run):
            factors[j + i] = scales[at + i]
        j += run
