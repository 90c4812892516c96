"""Numba launcher of `store`: tokens into pages, a token at a time, quantized on the way where pages have scales."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._floats import BYTES, KINDS, bytes_at, read_run
from .._numba import bits_from_float32, float32_from_bits, jit, kernel, shift_right
from .problem import Pages

Array = np.ndarray[Any, Any]

f32, u32 = np.float32, np.uint32

AS_THEY_ARE, INT8, E4M3FN = range(3)
FORMATS = {np.dtype(np.int8): INT8, np.dtype(np.uint8): E4M3FN}
_NO_SCALES = np.empty((0, 0, 0), np.float32)

_MAGNITUDE, _INFINITY = u32(0x7FFFFFFF), u32(0x7F800000)
_SMALLEST_SCALE = f32(2.0**-126)

_INTEGERS = f32(3 << 22)
"""Added to a float32, this leaves it rounded to an integer, in the low bits; `_SUBNORMALS` to units of 2^-9."""
_SUBNORMALS, _SUBNORMALS_BITS = f32(1 << 14), u32(np.float32(1 << 14).view(np.uint32))
_FIRST_NORMAL, _REBIAS = u32(np.float32(2.0**-6).view(np.uint32)), u32((127 - 7) << 3)


def store(k: Array, v: Array, pages: Pages, where: Array) -> None:
    """Write tokens to pages; see `Pages`."""
    if where.size == 0:
        return
    form = AS_THEY_ARE if pages.k_scale is None else FORMATS[pages.k.dtype]
    _store(
        2 * (k.nbytes + v.nbytes),
        KINDS[k.dtype],
        form,
        (k.view(BYTES), pages.k.view(BYTES), _NO_SCALES if form == AS_THEY_ARE else pages.k_scale),
        (v.view(BYTES), pages.v.view(BYTES), _NO_SCALES if form == AS_THEY_ARE else pages.v_scale),
        where,
    )


@kernel
def _store(kind, form, keys, values, where):
    tokens = where.shape[2]
    for task in numba.prange(where.shape[1] * tokens):
        n = np.int64(task) // tokens
        t = np.int64(task) - n * tokens
        store_token(kind, form, keys[0], keys[1], keys[2], n, t, where[0, n, t], where[1, n, t])
        store_token(kind, form, values[0], values[1], values[2], n, t, where[0, n, t], where[1, n, t])


@jit
def store_token(kind, form, x, pages, scale, n, t, page, row):
    width = pages.shape[3]
    numbers = np.empty(0 if form == AS_THEY_ARE else width, np.float32)
    for h in range(x.shape[1]):
        first = n * x.strides[0] + h * x.strides[1] + t * x.strides[2]
        at = page * pages.strides[0] + h * pages.strides[1] + row * pages.strides[2]
        target = bytes_at(pages, at, width)
        if form == AS_THEY_ARE:
            source = bytes_at(x, first, width)
            for i in range(width):
                target[i] = source[i]
        else:
            read_run(kind, x, first, numbers)
            scale[page, h, row] = _quantize(form, numbers, target)


@jit
def _quantize(form, x, codes):
    """Codes of a run, and the scale that they are multiplied by."""
    largest = u32(0)
    for i in range(x.size):
        size = u32(bits_from_float32(x[i]) & _MAGNITUDE)
        largest = size if size > largest else largest
    if largest >= _INFINITY:
        for i in range(codes.size):
            codes[i] = 0
        return f32(np.nan)
    scale = max(float32_from_bits(largest) / f32(127 if form == INT8 else 448), _SMALLEST_SCALE)
    if form == INT8:
        for i in range(x.size):
            codes[i] = np.uint8(bits_from_float32(f32(x[i] / scale + _INTEGERS)))
    else:
        for i in range(x.size):
            codes[i] = _e4m3fn(bits_from_float32(f32(x[i] / scale)))
    return scale


@jit
def _e4m3fn(bits):
    """The code nearest to a float32 of magnitude up to 448, ties to even."""
    size = u32(bits & _MAGNITUDE)
    small = u32(bits_from_float32(f32(float32_from_bits(size) + _SUBNORMALS)) - _SUBNORMALS_BITS)
    odd = u32(shift_right(size, u32(20)) & u32(1))
    normal = u32(shift_right(u32(u32(size + u32(0x7FFFF)) + odd), u32(20)) - _REBIAS)
    code = small if size < _FIRST_NORMAL else normal
    return np.uint8(u32(code | u32(shift_right(bits, u32(24)) & u32(0x80))))
