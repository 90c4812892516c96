"""What the products of a panel take: float32, or bfloat16 in pairs where these are instructions.

Keys, and float32 values, are read where they are; values in pairs are copied, a block at a time, to lie side by side.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .._dot import VECTOR
from .._numba import bits_from_float32, float32_from_bits, jit, shift_left, shift_right
from .._widen import widen
from .cpu_lanes import QUERY_AT
from .cpu_product import LANES, add_pair_products, add_products_at, pair_products, products

u16, u32 = np.uint16, np.uint32


@jit
def pack_queries(q, dim, lanes, width, block):
    """``block[d * width + lane]``: the queries of the lanes, in float32."""
    for lane in range(width):
        at = lanes[QUERY_AT, lane]
        for d in range(dim):
            block[d * width + lane] = number(q, at + d)


@jit
def pack_query_pairs(q, dim, lanes, width, block):
    """``block[d // 2 * width + lane]``: words of two neighbours; `dim` is even."""
    for lane in range(width):
        at = lanes[QUERY_AT, lane]
        for d in range(0, dim, 2):
            block[d // 2 * width + lane] = u32(q[at + d]) | shift_left(u32(q[at + d + 1]), u32(16))


@jit
def pair_rows(x, offsets, count, dim, out):
    """``out[(i // 2 * dim + d) * 2 :]``: elements d of rows i and i + 1, for even i; a missing row is zeros."""
    for i in range(0, count - 1, 2):
        a, b = x[offsets[i] : offsets[i] + dim], x[offsets[i + 1] : offsets[i + 1] + dim]
        row = out[i * dim : (i + 2) * dim]
        for d in range(dim):
            row[2 * d] = a[d]
            row[2 * d + 1] = b[d]
    if count % 2:
        i = count - 1
        for d in range(dim):
            out[(i * dim) + 2 * d] = x[offsets[i] + d]
            out[(i * dim) + 2 * d + 1] = 0


@jit
def pair_weights(s, width, count, out):
    """``out[j // 2 * width + lane]``: weights of keys j and j + 1 as words of bfloat16, for even j."""
    if count % 2:
        for lane in range(width):
            s[count * width + lane] = 0
    for j in range(0, count, 2):
        a, b, words = s[j * width : (j + 1) * width], s[(j + 1) * width : (j + 2) * width], out[j // 2 * width :]
        for lane in range(width):
            words[lane] = shift_right(_rounded(a[lane]), u32(16)) | (_rounded(b[lane]) & u32(0xFFFF0000))


@jit
def _rounded(x):
    """Bits of a float32 whose upper half is the nearest bfloat16, ties to even; of a NaN, a NaN."""
    bits = bits_from_float32(x)
    nearest = u32(bits + u32(0x7FFF) + (shift_right(bits, u32(16)) & u32(1)))
    return nearest if x == x else u32(0x7FC00000)


def number(x, i):
    """Element i of a vector as a floating-point number; for jitted code."""
    raise NotImplementedError


@overload(number)
def _number(x, i):
    if isinstance(x.dtype, types.Float):
        return lambda x, i: x[i]
    if x.dtype == types.uint16:
        return lambda x, i: float32_from_bits(shift_left(u32(x[i]), u32(16)))
    return _widened


def _widened(x, i):
    run, value = np.zeros(VECTOR, x.dtype), np.empty(VECTOR, np.float32)
    run[0] = x[i]
    widen(run, 0, value, 0)
    return value[0]


def put(x, i, value):
    """Store a number as element i of a vector of float32, float64, or bfloat16 in uint16; for jitted code."""
    raise NotImplementedError


@overload(put)
def _put(x, i, value):
    if x.dtype == types.uint16:

        def store(x, i, value):
            x[i] = u16(shift_right(_rounded(np.float32(value)), u32(16)))

        return store

    def plain(x, i, value):
        x[i] = value

    return plain


def operands(q, v, dim, value_dim, panels, room):
    """Room for packed queries, for values and for paired weights of a block of `room` tokens; for jitted code."""
    raise NotImplementedError


@overload(operands)
def _operands(q, v, dim, value_dim, panels, room):
    if q.dtype == types.uint16:

        def pairs(q, v, dim, value_dim, panels, room):
            block, weights = np.empty((panels, dim // 2 * LANES), u32), np.empty(room // 2 * LANES, u32)
            return block, np.empty(room * value_dim, u16), weights

        return pairs

    def floats(q, v, dim, value_dim, panels, room):
        return np.empty((panels, dim * LANES), np.float32), v, np.empty(0, u32)

    return floats


def pack(q, dim, lanes, block):
    """Queries of the lanes, as the products take them; for jitted code."""
    raise NotImplementedError


@overload(pack)
def _pack(q, dim, lanes, block):
    if block.dtype == types.uint32:
        return lambda q, dim, lanes, block: pack_query_pairs(q, dim, lanes, LANES, block)
    return lambda q, dim, lanes, block: pack_queries(q, dim, lanes, LANES, block)


def score(keys, k_offsets, count, block, dim, s):
    """``s[key * LANES + lane]``, the product of a key and a query; for jitted code."""
    raise NotImplementedError


@overload(score)
def _score(keys, k_offsets, count, block, dim, s):
    if keys.dtype == types.uint16:

        def pairs(keys, k_offsets, count, block, dim, s):
            pair_products(keys, k_offsets, count, block, 0, LANES, dim // 2, s, 0, LANES)

        return pairs

    def floats(keys, k_offsets, count, block, dim, s):
        products(keys, k_offsets, count, 1, block, 0, LANES, dim, s, 0, LANES)

    return floats


def add_values(v, v_offsets, elements, value_dim, s, count, values, weights, out):
    """``out[d * LANES + lane]`` plus values by the weights ``s[key * LANES + lane]``; for jitted code.

    `elements` are the numbers of a value's elements, as many as there are rows of `out`.
    """
    raise NotImplementedError


@overload(add_values)
def _add_values(v, v_offsets, elements, value_dim, s, count, values, weights, out):
    if v.dtype == types.uint16:

        def pairs(v, v_offsets, elements, value_dim, s, count, values, weights, out):
            pair_weights(s, LANES, count, weights)
            steps = (count + 1) // 2
            add_pair_products(values, elements, value_dim, 2 * value_dim, weights, 0, LANES, steps, out, 0, LANES)

        return pairs

    def floats(v, v_offsets, elements, value_dim, s, count, values, weights, out):
        add_products_at(v, elements, value_dim, v_offsets, s, 0, LANES, count, out, 0, LANES)

    return floats


def prepare(v, v_offsets, value_dim, count, values):
    """Values of a block of `count` tokens in pairs, where they are wanted so; for jitted code."""
    raise NotImplementedError


@overload(prepare)
def _prepare(v, v_offsets, value_dim, count, values):
    if v.dtype == types.uint16:
        return lambda v, v_offsets, value_dim, count, values: pair_rows(v, v_offsets, count, value_dim, values)
    return lambda v, v_offsets, value_dim, count, values: None
