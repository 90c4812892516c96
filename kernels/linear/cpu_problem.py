"""Places of a problem's numbers in the one array of int64 that kernels take."""

from __future__ import annotations

M, N, COLUMNS, PITCH, OUT_PITCH, OUT_KIND, OUT_SIZE, COUNT, SEGMENT = range(9)
BLOCK_ROWS, BLOCK_COLUMNS, GRID_COLUMNS, ACTIVATION, WIDTH = range(9, 14)
"""M, N, K; distances of rows of codes and of the output, in elements; the kind of `_floats` of the output, and bytes of
an element; rows of activations there is code for; columns that are multiplied by one scale; rows and columns of a
block, blocks of a row; which activation; lanes of a block."""
