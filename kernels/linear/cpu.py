"""Numba launchers of the family; see `problem` for what they take."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numba
import numpy as np

from .._dot import HALF, LANES, QUADS
from .._numba import CACHE_LINE, in_turn
from .cpu_dots import MOST, rows_for
from .cpu_few import few, tasks_of
from .cpu_pack import flat, pack, pack_lanes
from .cpu_problem import COUNT, OUT_PITCH, OUT_SIZE, WIDTH, M, N, numbers_of
from .cpu_scales import HALF_RUN
from .cpu_steps import add_product as add_product
from .cpu_steps import is_step as is_step
from .cpu_tile import tiles
from .cpu_widen import RUN, TABLES, in_pairs, order, table
from .problem import Problem

_NONE = np.empty(0, np.float32)

_PASSES = 3
"""Times that weights are read for few rows of activations; more rows pay for widened panels."""

_PIECE = 1 << 22
"""Weights that are dequantized at a time, where the products cannot do it."""


def linear(x, x_scale, codes, scale, bias, out, problem: Problem) -> None:
    """See `Problem`."""
    if not out.size:
        return
    if x.dtype == np.uint8:
        x = _values(problem.x_format).astype(ml_dtypes.bfloat16)[x]
    if x.dtype == np.int8 and codes.dtype != np.int8:
        x = x.astype(np.float32)
    columns = problem.block[1]
    if scale is None or scale.shape[1] == 1 or columns % RUN == 0:
        _multiply(x, x_scale, codes, scale, bias, out, problem, False)
    elif columns == HALF_RUN and TABLES:
        _multiply(_float32(x), x_scale, codes.view(np.uint8), scale, bias, out, problem, True)
    else:
        _in_pieces(_float32(x), x_scale, codes, scale, bias, out, problem)


def _multiply(x, x_scale, codes, scale, bias, out, problem: Problem, by_weight: bool) -> None:
    """Of x in floating point, or both sides int8; scales multiply sums of whole runs, or weights (see `cpu_scales`)."""
    (m, k), size = x.shape, codes.dtype.itemsize
    integers = x.dtype == np.int8
    paired = in_pairs(x.dtype, codes.dtype)
    many = (m > MOST and QUADS) if integers else m > _PASSES * MOST
    count = m if many else rows_for(m)
    width = HALF if m <= HALF else LANES
    target = out.strides[0] // out.itemsize, out.dtype
    numbers = numbers_of(codes, scale, target, problem, (m, count, width), by_weight)
    kind = (np.int8 if many else np.int16) if integers else np.uint16 if paired else np.float32
    packed = np.empty((m if many else -(-m // count) * count, -(-k // RUN) * RUN), kind)
    mixed = order("pairs" if paired else "floats", codes.dtype, integers)
    pack(flat(x), k, x.strides[0] // x.itemsize, m, mixed, packed)
    tables = table(problem.format if size == 1 else "int8")
    if scale is None:
        scale = _NONE
    elif not by_weight:
        scale = scale.reshape(-1)
    scales = scale, _NONE if x_scale is None else x_scale, _NONE if bias is None else bias
    run, tasks = (_many, 0) if many else (_few, tasks_of(codes))
    run(flat(codes), tables, packed, scales, flat(out).view(np.uint8), numbers, count, tasks)


def _few(codes, tables, x, scales, out, numbers, count, tasks) -> None:
    m, n, row = int(numbers[M]), int(numbers[N]), int(numbers[OUT_PITCH] * numbers[OUT_SIZE])
    scale, x_scale, bias = scales
    room, workers = np.empty(count * n, np.float32), numba.get_num_threads()
    for first in range(0, m, count):
        numbers[M], numbers[COUNT] = min(count, m - first), rows_for(m - first)
        own = x[first : first + count].reshape(-1)
        places = codes, tables, own, scale, x_scale[first:], bias, room, out[first * row :]
        marks = np.zeros((workers, CACHE_LINE // 8), np.int64)
        in_turn(few, *places, numbers, marks, -(-tasks // workers))


def _many(codes, tables, x, scales, out, numbers, *_) -> None:
    m, width = int(numbers[M]), int(numbers[WIDTH])
    if x.dtype == np.int8:
        words = (x.view(np.uint8) ^ 0x80).view(np.int32)
    else:
        words = x.view(np.uint32) if x.dtype == np.uint16 else x
    blocks = np.empty((-(-m // width), words.shape[1], width), words.dtype)
    workers = numba.get_num_threads()
    pack_lanes(blocks.nbytes, words, blocks, width, workers)
    in_turn(tiles, codes, tables, blocks.reshape(-1), *scales, out, numbers, np.zeros(1, np.int64), workers)


def _in_pieces(x, x_scale, codes, scale, bias, out, problem: Problem) -> None:
    """With any scales: rows of weights are dequantized to float32, some at a time."""
    rows, columns = problem.block
    n, k = codes.shape
    step = -(-max(_PIECE // k, 1) // rows) * rows
    for first in range(0, n, step):
        values = _values(problem.format)[codes[first : first + step].view(np.uint8)]
        own = scale[first // rows : -(-(first + len(values)) // rows)]
        values *= own.repeat(rows, 0)[: len(values)].repeat(columns, 1)[:, :k]
        part = None if bias is None else bias[first : first + step]
        _multiply(x, x_scale, values, None, part, out[:, first : first + step], problem, False)


@cache
def _values(format):
    """What the 256 codes of a format mean, in float32."""
    kind = np.int8 if format == "int8" else getattr(ml_dtypes, f"float8_{format}")
    return np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)


def _float32(x):
    return x if x.dtype == np.float32 else x.astype(np.float32)
