"""Products with few rows of activations as steps of a program."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .._program import Given, Program, Room, Task, vector
from .cpu_dots import MOST, rows_for
from .cpu_few import part, tasks_of
from .cpu_pack import BITS, flat, pack
from .cpu_problem import numbers_of
from .cpu_widen import RUN, in_pairs, order, table
from .problem import Problem

Array = np.ndarray[Any, Any]

_NONE = np.empty(0, np.float32)

_X, _ORDER, _PACKED, _COLUMNS, _ROWS, _PADDED = 0, 2, 4, 6, 7, 8
"""Words of the steps that pack activations; a vector has two."""

_CODES, _TABLE, _GIVEN, _SCALE, _BIAS, _SUMS, _OUT, _NUMBERS, _TASKS = range(0, 18, 2)
"""Words of the steps that multiply."""


def is_step(rows: int, codes: Array, scale: Array | None, problem: Problem) -> bool:
    """Whether a product is one that `add_product` adds."""
    regular = scale is None or scale.shape[1] == 1 or problem.block[1] % RUN == 0
    return regular and rows <= MOST and codes.size > 0


def add_product(
    program: Program,
    x: Room,
    rows: int,
    codes: Array,
    scale: Array | None,
    bias: Array | None,
    out: Room | Given,
    dtypes: tuple[Any, Any],
    problem: Problem,
) -> None:
    """`linear` of a dense x (rows, K) into a dense out (rows, N), of `dtypes`."""
    (n, k), (given, made) = codes.shape, dtypes
    paired = in_pairs(np.dtype(given), codes.dtype)
    kind, padded, count = np.uint16 if paired else np.float32, -(-k // RUN) * RUN, rows_for(rows)
    packed = program.room(count * padded * np.dtype(kind).itemsize)
    mixed = order("pairs" if paired else "floats", codes.dtype, False)
    program.add(_pack(_bits(given), kind), count, x, mixed, packed, k, rows, padded)
    numbers = numbers_of(codes, scale, (n, made), problem, (rows, count, 0), False)
    tasks = tasks_of(codes)
    program.add(
        _product(_bits(codes.dtype), kind),
        tasks,
        *(flat(codes), table(problem.format if codes.itemsize == 1 else "int8"), packed),
        _NONE if scale is None else scale.reshape(-1),
        _NONE if bias is None else bias,
        *(program.room(4 * count * n), out, numbers, tasks),
    )


def _bits(dtype: Any) -> Any:
    """The type of elements as kernels take them."""
    return BITS.get(np.dtype(dtype), np.dtype(dtype).type)


@cache
def _pack(given: Any, kind: Any) -> Task:
    def task(row, a):
        padded, columns, there = a[_PADDED], a[_COLUMNS], min(max(a[_ROWS] - row, 0), 1)
        target = vector(a, _PACKED, kind)[row * padded : (row + 1) * padded].reshape((1, padded))
        source = vector(a, _X, given)[row * columns :]
        pack(source, columns, columns, there, vector(a, _ORDER, np.int64), target)

    return Task(task)


@cache
def _product(codes: Any, kind: Any) -> Task:
    def task(number, a):
        scale, numbers = vector(a, _SCALE, np.float32), vector(a, _NUMBERS, np.int64)
        given = vector(a, _CODES, codes), vector(a, _TABLE, np.uint8), vector(a, _GIVEN, kind), scale, scale[:0]
        made = vector(a, _SUMS, np.float32), vector(a, _OUT, np.uint8), numbers
        part(number, a[_TASKS], *given, vector(a, _BIAS, np.float32), *made)

    return Task(task)
