"""Products with few rows of activations, as when a token is decoded: weights are read once, in order."""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import overload

from .._numba import jit, sum_of_lanes, sums
from .._program import add_one
from .cpu_dots import MOST, ROWS, add_dots
from .cpu_finish import finish
from .cpu_problem import COLUMNS, COUNT, PITCH, SEGMENT, M, N
from .cpu_scales import factor_of, scale_weights, widen_row
from .cpu_widen import RUN

WIDE = 1024
"""Columns that are widened at a time where scales multiply weights."""

_BYTES, _MOST_TASKS = 1 << 16, 256
"""About as many of weights are a task, unless tasks became too many."""

f32 = np.float32


def tasks_of(codes: np.ndarray) -> int:
    return max(1, min(codes.nbytes // _BYTES, _MOST_TASKS))


@jit(parallel=True)
def few(codes, tables, x, scale, x_scale, bias, y, out, numbers, marks, each):
    """`numbers[COUNT]` rows of x, of which M are there; y (M, N) is room for sums.

    A worker has `each` tasks, side by side for the sake of requests, and then those that others are slow to take;
    ``marks[worker, 0]`` counts what is taken.
    """
    workers = len(marks)
    for worker in numba.prange(workers):
        for turn in range(workers):
            own = (np.int64(worker) + turn) % workers
            task = add_one(marks[own], 0)
            while task < each:
                place = own * each + task
                _part_of(place, workers * each, codes, tables, x, scale, x_scale, bias, y, out, numbers)
                task = add_one(marks[own], 0)


def _part_of(task, tasks, codes, tables, x, scale, x_scale, bias, y, out, numbers):
    """`part`, or where scales multiply weights (see `cpu_scales`) `_part_by_weight`; for jitted code."""
    raise NotImplementedError


@overload(_part_of)
def _part_by_scale(task, tasks, codes, tables, x, scale, x_scale, bias, y, out, numbers):
    do = part if scale.ndim == 1 else _part_by_weight

    def part_of(task, tasks, codes, tables, x, scale, x_scale, bias, y, out, numbers):
        do(task, tasks, codes, tables, x, scale, x_scale, bias, y, out, numbers)

    return part_of


@jit
def part(task, tasks, codes, tables, x, scale, x_scale, bias, y, out, numbers):
    n, columns, pitch, segment = numbers[N], numbers[COLUMNS], numbers[PITCH], numbers[SEGMENT]
    padded, segments = (columns + RUN - 1) // RUN * RUN, (columns + segment - 1) // segment
    first, stop = _rows(task, tasks, n)
    rest = np.zeros(ROWS * RUN, codes.dtype)
    factors = np.empty(ROWS, f32)
    for row in range(first, stop, ROWS):
        totals = sums(factors, 32, 16)
        for piece in range(2 * segments):  # whole runs of a segment, then what is left of it
            low = piece // 2 * segment
            high = min(low + segment, columns)
            whole = (high - low) // RUN * RUN
            source, start, last, distance, at, runs = codes, row, n - 1, pitch, low, whole // RUN
            if piece % 2:
                low += whole
                source, start, last, distance, at, runs = rest, 0, ROWS - 1, RUN, 0, min(high - low, 1)
                for r in range(ROWS):
                    own = min(row + r, n - 1) * pitch + low
                    for k in range(high - low):
                        rest[r * RUN + k] = codes[own + k]
            if runs:
                for r in range(ROWS):
                    factors[r] = factor_of(scale, numbers, row + r, low)
                add_dots(
                    *(source, start, last, distance, at, tables, x, low, padded, numbers[COUNT], runs, factors, totals)
                )
        _keep(totals, y, row, stop, numbers)
    _finish(y, first, stop, x_scale, bias, out, numbers)


@jit
def _part_by_weight(task, tasks, codes, tables, x, scale, x_scale, bias, y, out, numbers):
    n, columns, pitch = numbers[N], numbers[COLUMNS], numbers[PITCH]
    padded = (columns + RUN - 1) // RUN * RUN
    first, stop = _rows(task, tasks, n)
    wide, ones = np.empty(ROWS * WIDE, f32), np.ones(ROWS, f32)
    for row in range(first, stop, ROWS):
        totals = sums(ones, 32, 16)
        for low in range(0, columns, WIDE):
            own = min(WIDE, columns - low)
            for r in range(ROWS):
                at = min(row + r, n - 1) * pitch + low
                widen_row(codes, at, own, tables, ROWS * pitch, wide, r * WIDE)
                scale_weights(scale, numbers, row + r, low, own, wide, r * WIDE)
            runs = (own + RUN - 1) // RUN
            add_dots(wide, 0, ROWS - 1, WIDE, 0, tables, x, low, padded, numbers[COUNT], runs, ones, totals)
        _keep(totals, y, row, stop, numbers)
    _finish(y, first, stop, x_scale, bias, out, numbers)


@jit
def _rows(task, tasks, n):
    """The first and the last row of weights, exclusive, of a task."""
    blocks = (n + ROWS - 1) // ROWS
    return ROWS * (blocks * task // tasks), min(n, ROWS * (blocks * (task + 1) // tasks))


@jit
def _keep(totals, y, row, stop, numbers):
    for r in range(min(ROWS, stop - row)):
        for c in range(numbers[M]):
            y[c * numbers[N] + row + r] = sum_of_lanes(totals, r * MOST + c, 16)


@jit
def _finish(y, first, stop, x_scale, bias, out, numbers):
    for c in range(numbers[M]):
        finish(y[c * numbers[N] + first : c * numbers[N] + stop], c, first, x_scale, bias, out, numbers)
