"""Products with many rows of activations: panels of weights are widened in cache and meet blocks of activations.

A task is `GROUP` panels of `ROWS` rows of weights and up to `MOST_COLUMNS` rows of activations. What is multiplied at
a time is a chunk of columns: those that share scales, or as many as a panel has in the first cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .._dot import ROWS
from .._numba import jit
from .._program import add_one
from .cpu_finish import finish
from .cpu_panel import multiply, per_step, widen_panel
from .cpu_problem import COLUMNS, PITCH, SEGMENT, WIDTH, M, N
from .cpu_scales import factor_of, scale_weights
from .cpu_widen import RUN

GROUP, MOST_COLUMNS = 8, 256
STEPS = 512
"""Steps of a panel in the first cache."""

RESIDENT = 64
"""Rows of activations that stay in the second cache, while weights are read in order."""

f32 = np.float32


class Room(NamedTuple):
    """Of a panel: where rows start, what their sums begin with, and its products with a block."""

    starts: np.ndarray
    initial: np.ndarray
    products: np.ndarray


@jit(parallel=True)
def tiles(codes, tables, x, scale, x_scale, bias, out, numbers, marks, workers):
    """x is what `pack_lanes` makes; ``marks[0]`` counts the tasks that are taken."""
    for _ in numba.prange(workers):
        _work(marks, codes, tables, x, scale, x_scale, bias, out, numbers)


@jit
def _work(marks, codes, tables, x, scale, x_scale, bias, out, numbers):
    n, m, width = numbers[N], numbers[M], numbers[WIDTH]
    groups = (n + GROUP * ROWS - 1) // (GROUP * ROWS)
    parts = (m + MOST_COLUMNS - 1) // MOST_COLUMNS
    panel = np.zeros(ROWS * STEPS, x.dtype)
    room = Room(np.arange(ROWS) * STEPS, np.zeros(ROWS, np.int32), np.empty(ROWS * width, f32))
    total = np.empty(GROUP * MOST_COLUMNS * ROWS, f32)
    line = np.empty(GROUP * ROWS, f32)
    task = add_one(marks, 0)
    while task < groups * parts:
        first, column = task % groups * GROUP * ROWS, task // groups * MOST_COLUMNS
        rows, lanes = min(GROUP * ROWS, n - first), min(MOST_COLUMNS, m - column)
        blocks = (lanes + width - 1) // width
        for i in range((rows + ROWS - 1) // ROWS * ROWS * blocks * width):
            total[i] = 0
        _sum(codes, tables, x, scale, numbers, first, rows, column // width, blocks, panel, room, total)
        for c in range(lanes):
            place = c // width * ROWS * width + c % width
            for r in range(rows):
                line[r] = total[(r // ROWS * blocks * ROWS + r % ROWS) * width + place]
            finish(line[:rows], column + c, first, x_scale, bias, out, numbers)
        task = add_one(marks, 0)


@jit
def _sum(codes, tables, x, scale, numbers, first, rows, block, blocks, panel, room, total):
    columns, segment, width = numbers[COLUMNS], numbers[SEGMENT], numbers[WIDTH]
    longest = min(STEPS * per_step(x), (segment + RUN - 1) // RUN * RUN)
    pieces = (segment + longest - 1) // longest
    chunks, panels = (columns + segment - 1) // segment * pieces, (rows + ROWS - 1) // ROWS
    size = ROWS * width * blocks
    for i in range(panels * chunks):
        p, c = (i // chunks, i % chunks) if blocks * width <= RESIDENT else (i % panels, i // panels)
        start = c // pieces * segment
        at = start + c % pieces * longest
        count = min(longest, min(start + segment, columns) - at)
        if count > 0:
            _chunk(
                codes,
                tables,
                x,
                scale,
                numbers,
                first + p * ROWS,
                at,
                count,
                block,
                blocks,
                panel,
                room,
                total[p * size : (p + 1) * size],
            )


@jit
def _chunk(codes, tables, x, scale, numbers, row, at, count, block, blocks, panel, room, total):
    """Add the products of a panel's columns ``at : at + count`` with blocks of activations."""
    n, pitch, width, per = numbers[N], numbers[PITCH], numbers[WIDTH], per_step(x)
    runs = (count + RUN - 1) // RUN
    steps = runs * RUN // per
    ahead = count if at + count < numbers[COLUMNS] else ROWS * pitch - at
    for r in range(ROWS):
        start = min(row + r, n - 1) * pitch + at
        room.initial[r] = widen_panel(codes, start, count, tables, ahead, panel, r * STEPS)
        scale_weights(scale, numbers, row + r, at, count, panel, r * STEPS)
    padded = (numbers[COLUMNS] + RUN - 1) // RUN * RUN // per * width
    for b in range(blocks):
        own = x[(block + b) * padded + at // per * width :]
        multiply(panel, room.starts, own, room.initial, steps, width, room.products)
        target = total[b * ROWS * width : (b + 1) * ROWS * width]
        for r in range(ROWS):
            factor = factor_of(scale, numbers, row + r, at)
            for lane in range(width):
                target[r * width + lane] += room.products[r * width + lane] * factor
