"""Places of a problem's numbers in the one array of int64 that kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._activations import number_of
from .._floats import KINDS
from .problem import Problem

Array = np.ndarray[Any, Any]

M, N, COLUMNS, PITCH, OUT_PITCH, OUT_KIND, OUT_SIZE, COUNT, SEGMENT = range(9)
BLOCK_ROWS, BLOCK_COLUMNS, GRID_COLUMNS, ACTIVATION, WIDTH = range(9, 14)
"""M, N, K; distances of rows of codes and of the output, in elements; the kind of `_floats` of the output, and bytes of
an element; rows of activations there is code for; columns that are multiplied by one scale; rows and columns of a
block, blocks of a row; which activation; lanes of a block."""


def numbers_of(
    codes: Array, scale: Array | None, out: tuple[int, Any], problem: Problem, rows: tuple[int, int, int], whole: bool
) -> Array:
    """Of rows M, COUNT and WIDTH, and `out`, the distance of its rows and its dtype.

    Scales change after segments of columns, unless the `whole` row is one as they multiply weights.
    """
    (n, k), (pitch, dtype), (m, count, width) = codes.shape, out, rows
    grid = 1 if scale is None else scale.shape[1]
    segment = max(k, 1) if whole or grid == 1 else problem.block[1]
    outputs = pitch, KINDS[np.dtype(dtype)], np.dtype(dtype).itemsize
    described = *problem.block, grid, number_of(problem.activation), width
    return np.array((m, n, k, codes.strides[0] // codes.itemsize, *outputs, count, segment, *described), np.int64)
