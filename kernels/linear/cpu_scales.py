"""The scales of a block of weights, as products take them.

Scales that change after whole runs multiply sums, and come as a vector, row after row of the grid. Those of blocks of
`HALF_RUN` columns multiply the weights, widened to float32, and come as a matrix.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .._numba import jit
from .cpu_problem import BLOCK_COLUMNS, BLOCK_ROWS, GRID_COLUMNS, N
from .cpu_widen import RUN, widen_runs

HALF_RUN = RUN // 2
_LANES = 16

f32 = np.float32


def factor_of(scale, numbers, row, column):
    """What multiplies sums of a row of weights from a column on."""
    raise NotImplementedError


@overload(factor_of)
def _factor_of(scale, numbers, row, column):
    if scale.ndim == 2:
        return lambda scale, numbers, row, column: f32(1)

    def factor(scale, numbers, row, column):
        if not scale.size:
            return f32(1)
        grid_row = min(row, numbers[N] - 1) // numbers[BLOCK_ROWS] * numbers[GRID_COLUMNS]
        return scale[grid_row + column // numbers[BLOCK_COLUMNS]]

    return factor


def scale_weights(scale, numbers, row, column, count, out, at):
    """Multiply runs of widened weights of a row, from a column on, by scales that belong to weights."""
    raise NotImplementedError


@overload(scale_weights)
def _scale_weights(scale, numbers, row, column, count, out, at):
    if scale.ndim == 1 or out.dtype != types.float32:
        return lambda scale, numbers, row, column, count, out, at: None

    def multiply(scale, numbers, row, column, count, out, at):
        own = scale[min(row, numbers[N] - 1) // numbers[BLOCK_ROWS]]
        for run in range((count + RUN - 1) // RUN):
            block = column // HALF_RUN + 2 * run
            low, high = own[block], own[min(block + 1, len(own) - 1)]
            for vector in range(RUN // _LANES):
                part = out[at + run * RUN + vector * _LANES :]
                for lane in range(_LANES // 2):
                    part[lane] *= low
                for lane in range(_LANES // 2, _LANES):
                    part[lane] *= high

    return multiply


@jit
def widen_row(codes, at, count, tables, ahead, out, out_at):
    """Codes from `at` as `widen_runs` has them, zeros up to a whole run."""
    runs = count // RUN
    widen_runs(codes, at, tables, runs, ahead, out, out_at)
    done = runs * RUN
    if done < count:
        rest = np.zeros(RUN, codes.dtype)
        for k in range(count - done):
            rest[k] = codes[at + done + k]
        widen_runs(rest, 0, tables, 1, 0, out, out_at + done)
