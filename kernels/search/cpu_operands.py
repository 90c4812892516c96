"""The operands of the products: which instruction serves a dtype, packed queries, and tiles of database rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numba import types
from numba.extending import overload

from .._dot import (
    HALF,
    LANES,
    PAIRS,
    QUADS,
    ROWS,
    VECTOR,
    floats,
    floats_half,
    pairs,
    pairs_half,
    quads,
    quads_half,
)
from .._numba import LANES as LANE_RUN
from .._numba import jit, prefetch_lanes
from .._widen import widen
from .cpu_lanes import FEW

Array = np.ndarray[Any, Any]
FLOAT_STEP, PAIR_STEP, QUAD_STEP = np.dtype(np.float32), np.dtype(np.uint32), np.dtype(np.int32)
"""The word of a step tells the instruction: a float32, a pair of bfloat16, a quadruple of int8."""

_ELEMENTS = {FLOAT_STEP: FLOAT_STEP, PAIR_STEP: np.dtype(ml_dtypes.bfloat16), QUAD_STEP: np.dtype(np.int8)}
_TILE_BYTES = 1 << 18
AHEAD = 4 * ROWS


class Operands(NamedTuple):
    """Packed queries, and the database as the kernels take it.

    `words` are the rows of the database as a vector of steps; it is empty if they need conversion.
    `source` is the database as the conversion reads it.
    """

    blocks: Array
    words: Array
    source: Array
    columns: int
    steps: int


def operands(q: Array, x: Array, columns: int) -> Operands:
    """Operands for the products of the rows of `q` and `x`, of one dtype, in blocks of `columns` of `q`."""
    word = _step(x.dtype)
    width = 4 // _ELEMENTS[word].itemsize
    steps = -(-q.shape[1] // width)
    direct = _ELEMENTS[word] == x.dtype and q.shape[1] % width == 0
    words = x.reshape(-1).view(word) if direct else np.empty(0, word)
    return Operands(_pack(q, word, columns, steps), words, as_source(x).reshape(-1), columns, steps)


def block_columns(count: int) -> int:
    """The columns of a block when there are `count` in all."""
    return HALF if count <= HALF else LANES


def few_queries(dtype: np.dtype[Any]) -> int:
    """Up to how many queries a pass over the database takes one by one, before tiles are faster."""
    return FEW if _step(dtype) == FLOAT_STEP else 1


def as_values(q: Array) -> Array:
    """`q` with its codes as numbers."""
    return q.view(ml_dtypes.float8_e4m3fn) if q.dtype == np.uint8 else q


def as_source(x: Array) -> Array:
    """The database as vector operations take it: bfloat16 as uint16, float16 as int16."""
    if x.dtype == ml_dtypes.bfloat16:
        return x.view(np.uint16)
    return x.view(np.int16) if x.dtype == np.float16 else x


def _step(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The fastest product on this machine that is exact for a dtype."""
    if dtype == np.int8 and QUADS:
        return QUAD_STEP
    if dtype.itemsize == 1 or dtype == ml_dtypes.bfloat16:
        return PAIR_STEP if PAIRS else FLOAT_STEP
    return FLOAT_STEP


def _pack(q: Array, word: np.dtype[Any], columns: int, steps: int) -> Array:
    """Blocks of queries, (blocks, steps * columns); lanes beyond the last query hold zeros."""
    element = _ELEMENTS[word]
    blocks = -(-len(q) // columns)
    padded = np.zeros((blocks * columns, steps * 4 // element.itemsize), element)
    padded[: len(q), : q.shape[1]] = as_values(q)
    if word == QUAD_STEP:
        padded.view(np.uint8)[...] ^= 0x80
    lanes = padded.view(word).reshape(blocks, columns, steps).transpose(0, 2, 1)
    return np.ascontiguousarray(lanes).reshape(blocks, -1)


def tile_rows(steps: int) -> int:
    """Database rows of a tile: a quarter of a level-2 cache, so that their scores fit beside them."""
    return max(1, _TILE_BYTES // (4 * steps) // ROWS) * ROWS


def products(words, starts, count, block, initial, steps, columns, fresh, out):
    """``out[i, lane]``, the dot product of row ``starts[i]`` of the vector `words` with a column of the block.

    Of `count` rows; `out` is a vector and has room for ``count + ROWS - 1``. `fresh` rows are not in
    cache yet, and the hardware does not foresee reads from a dozen of them in turn.
    """
    raise NotImplementedError


@overload(products)
def _products(words, starts, count, block, initial, steps, columns, fresh, out):
    kinds = {types.float32: (floats, floats_half), types.uint32: (pairs, pairs_half), types.int32: (quads, quads_half)}
    tile, narrow = kinds[words.dtype]

    def run(words, starts, count, block, initial, steps, columns, fresh, out):
        if fresh:
            for i in range(min(AHEAD, count)):
                _prefetch_row(words, starts[i], steps)
        for i in range(0, count, ROWS):
            if fresh:
                for j in range(i + AHEAD, min(i + AHEAD + ROWS, count)):
                    _prefetch_row(words, starts[j], steps)
            if columns == HALF:
                narrow(words, starts, i, block, initial, steps, out)
            else:
                tile(words, starts, i, block, initial, steps, out)

    return run


@jit
def _prefetch_row(words, start, steps):
    for step in range(0, steps, LANE_RUN):
        prefetch_lanes(words, start + step)


def convert_tile(words, source, numbers, count, length, initial):
    """Fill the vector `words`, zero at first, with the steps of `count` rows of the vector `source`; and `initial`."""
    raise NotImplementedError


@overload(convert_tile)
def _convert_tile(words, source, numbers, count, length, initial):
    if words.dtype == types.int32:

        def quadruples(words, source, numbers, count, length, initial):
            _copy_rows(source, numbers, count, length, words.view(np.int8))
            _initial_sums(source, numbers, count, length, initial)

        return quadruples
    if words.dtype == types.uint32:
        return lambda words, source, numbers, count, length, initial: _widen_rows(
            source, numbers, count, length, words.view(np.uint16), 2
        )
    return lambda words, source, numbers, count, length, initial: _widen_rows(source, numbers, count, length, words, 1)


@jit
def tile_numbers(listed, first, count, numbers):
    """Row numbers ``listed[first : first + count]``, or these positions themselves if the list is empty.

    The last is repeated to fill the tile of products.
    """
    for i in range(count):
        numbers[i] = listed[first + i] if listed.size else first + i
    for i in range(count, count + ROWS - 1):
        numbers[i] = numbers[count - 1]


@jit
def tile_words(words, source, numbers, count, length, steps, converted, starts, initial):
    """The vector that holds the rows of a tile, and where they start in it."""
    padded = count + ROWS - 1
    if words.size:
        for i in range(padded):
            starts[i] = numbers[i] * steps
        row_sums(words, source, numbers, count, length, initial)
        return words
    for i in range(padded):
        starts[i] = min(i, count - 1) * steps
    convert_tile(converted, source, numbers, count, length, initial)
    return converted


def row_sums(words, source, numbers, count, length, initial):
    """What the products of int8 quadruples begin with; nothing for other words."""
    raise NotImplementedError


@overload(row_sums)
def _row_sums(words, source, numbers, count, length, initial):
    if words.dtype != types.int32:
        return lambda words, source, numbers, count, length, initial: None
    return lambda words, source, numbers, count, length, initial: _initial_sums(source, numbers, count, length, initial)


@jit
def _widen_rows(source, numbers, count, length, out, step):
    """Rows of `length` elements as float32, or as bfloat16 in uint16, one after the other in whole steps.

    Elements are written `VECTOR` at a time, those beyond a row before the next row.
    """
    width = (length + step - 1) // step * step
    whole = length - length % VECTOR
    tail = np.zeros(VECTOR, source.dtype)
    for i in range(count):
        for j in range(0, whole, VECTOR):
            widen(source, numbers[i] * length + j, out, i * width + j)
        if length > whole:
            for j in range(length - whole):
                tail[j] = source[numbers[i] * length + whole + j]
            widen(tail, 0, out, i * width + whole)


@jit
def _copy_rows(source, numbers, count, length, out):
    width = (length + 3) // 4 * 4
    for i in range(count):
        row, target = source[numbers[i] * length : (numbers[i] + 1) * length], out[i * width :]
        for j in range(row.size):
            target[j] = row[j]


@jit
def _initial_sums(x, numbers, count, length, initial):
    """-128 times the sum of each row of the int8 vector `x`: what an unsigned block adds to its products."""
    for i in range(count):
        row = x[numbers[i] * length : (numbers[i] + 1) * length]
        total = np.int32(0)
        for j in range(length):
            total = np.int32(total + np.int32(row[j]))
        initial[i] = np.int32(-128) * total
    for i in range(count, count + ROWS - 1):
        initial[i] = initial[count - 1]
