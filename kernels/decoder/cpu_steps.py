"""What a decoder block does between its products as steps of a program; all matrices are dense."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._activations import number_of
from .._floats import KINDS, read_run, write_run
from .._numba import jit
from .._program import Given, Program, Room, Task, number, vector
from .cpu_rows import PIECE, gate, normalize_rows, turn_token
from .problem import Norm

Array = np.ndarray[Any, Any]

_NONE = np.empty(0, np.float32)


def add_normalize(
    program: Program,
    x: Room | Given,
    residual: Room | Given | None,
    weight: Array,
    bias: Array | None,
    total: Room | None,
    out: Room,
    rows: int,
    dtype: Any,
    norm: Norm,
) -> None:
    """`normalize`; without a residual there is no total."""
    others = (_NONE, _NONE) if residual is None or total is None else (residual, total)
    vectors = x, *others, out, weight, _NONE if bias is None else bias
    numbers = KINDS[dtype], weight.size * dtype.itemsize, int(norm.kind == "layer"), float(norm.eps), float(norm.offset)
    program.add(_NORMALIZE, rows, *vectors, *numbers)


def _normalize(row, a):
    kind, width, centred, eps, offset = a[12], a[13], a[14] != 0, number(a, 15), number(a, 16)
    x, residual = _rows(vector(a, 0, np.uint8), width), _rows(vector(a, 2, np.uint8), width)
    total, out = _rows(vector(a, 4, np.uint8), width), _rows(vector(a, 6, np.uint8), width)
    weight, bias = vector(a, 8, np.float32), vector(a, 10, np.float32)
    normalize_rows(kind, x, residual, total, out, weight, bias, centred, eps, offset, row, 1)


def add_rotary(
    program: Program, x: Room, shape: tuple[int, int, int], turned: int, tables: tuple[Given, Given, Given], dtype: Any
) -> None:
    """`rotary` of the first `turned` heads of x, of a `shape` (rows, heads, D), at one position a row, in place."""
    rows, heads, dim = shape
    program.add(_ROTARY, rows, x, *tables, KINDS[dtype], rows, heads, turned, dim * dtype.itemsize, dim // 2)


def _rotary(row, a):
    kind, rows, heads, turned, width, pairs = a[8], a[9], a[10], a[11], a[12], a[13]
    x = vector(a, 0, np.uint8).reshape((rows, heads, 1, width))[:, :turned]
    cos, sin = _rows(vector(a, 2, np.float32), pairs), _rows(vector(a, 4, np.float32), pairs)
    turn_token(kind, x, cos, sin, _rows(vector(a, 6, np.int64), 1), x, False, 2 * pairs, row, 0)


def add_gated(program: Program, x: Room, out: Room, rows: int, width: int, dtype: Any, activation: str) -> None:
    """`gated` of x (rows, 2 * width)."""
    pieces = -(-width // PIECE)
    numbers = KINDS[dtype], dtype.itemsize, number_of(activation), width, pieces
    program.add(_GATED, rows * pieces, x, out, *numbers)


def _gated(task, a):
    kind, itemsize, activation, width, pieces = a[4], a[5], a[6], a[7], a[8]
    x, out = _rows(vector(a, 0, np.uint8), 2 * width * itemsize), _rows(vector(a, 2, np.uint8), width * itemsize)
    row = task // pieces
    gate(kind, itemsize, x, out, activation, row, (task - row * pieces) * PIECE, width)


def add_sum(program: Program, x: Room, y: Room | None, out: Room, size: int, dtypes: tuple[Any, Any]) -> None:
    """``x + y``, or x, of one dtype, rounded to the other; out may be x or y."""
    given, made = dtypes
    numbers = KINDS[given], given.itemsize, KINDS[made], made.itemsize, size
    program.add(_SUM, -(-size // PIECE), x, _NONE if y is None else y, out, *numbers)


def _sum(task, a):
    x, y, out = vector(a, 0, np.uint8), vector(a, 2, np.uint8), vector(a, 4, np.uint8)
    kind, itemsize, out_kind, out_itemsize, size = a[6], a[7], a[8], a[9], a[10]
    first = task * PIECE
    values, others = np.empty(min(PIECE, size - first), np.float32), np.empty(PIECE, np.float32)
    read_run(kind, x, first * itemsize, values)
    if y.size:
        read_run(kind, y, first * itemsize, others[: values.size])
        for i in range(values.size):
            values[i] += others[i]
    write_run(out_kind, values, out, first * out_itemsize)


@jit
def _rows(x, width):
    return x.reshape((x.size // width, width))


_NORMALIZE, _ROTARY, _GATED, _SUM = Task(_normalize), Task(_rotary), Task(_gated), Task(_sum)
