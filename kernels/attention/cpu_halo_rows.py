"""Rows of an image's pixels in memory: where they lie, and as float32 in scratch and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._numba import bits_from_float32, float32_from_bits, jit, shift_left, shift_right
from .cpu_problem import flat

Array = np.ndarray[Any, Any]


FLOAT32, BFLOAT16, FLOAT16 = range(3)
"""Kinds of elements. They are told apart when kernels run, so that these are compiled once for all."""

_NO_FLOATS, _NO_WORDS = np.empty(0, np.float32), np.empty(0, np.uint16)
_KINDS = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float16": FLOAT16}


class Field(NamedTuple):
    """Rows of numbers, one to a pixel, and the strides of their first elements: see `row_at`."""

    floats: Any  # the vector of a float32 field, or empty
    words: Any  # of another one, of uint16
    kind: int
    heads: int  # of an image
    image: int
    head: int
    row: int
    column: int


def field(x: Array) -> Field:
    """Of an array (B, H, rows, columns, ...) without negative strides."""
    strides = (s // x.itemsize for s in x.strides[:4])
    kind, data = _KINDS[x.dtype.name], flat(x)
    floats, words = (data, _NO_WORDS) if kind == FLOAT32 else (_NO_FLOATS, data.view(np.uint16))
    return Field(floats, words, kind, x.shape[1], *strides)


@jit
def row_at(x, n, y, column):
    """Where the row of a pixel begins, of head n of all images."""
    image = n // x.heads
    return image * x.image + (n - image * x.heads) * x.head + y * x.row + column * x.column


@jit
def read_row(x, at, length, out, out_at):
    """Elements ``at : at + length`` of a field as float32."""
    target = out[out_at : out_at + length]
    if x.kind == FLOAT32:
        source = x.floats[at : at + length]
        for i in range(target.size):
            target[i] = source[i]
        return
    words = x.words[at : at + length]
    if x.kind == BFLOAT16:
        for i in range(target.size):
            target[i] = float32_from_bits(shift_left(np.uint32(words[i]), np.uint32(16)))
    else:
        for i in range(target.size):
            target[i] = _from_float16(words[i])


@jit
def write_row(values, length, out, at):
    """``values[:length]``, rounded to the elements of a field, to nearest, ties to even."""
    source = values[:length]
    if out.kind == FLOAT32:
        target = out.floats[at : at + length]
        for i in range(source.size):
            target[i] = source[i]
        return
    words = out.words[at : at + length]
    if out.kind == BFLOAT16:
        for i in range(source.size):
            words[i] = _to_bfloat16(bits_from_float32(source[i]))
    else:
        for i in range(source.size):
            words[i] = _to_float16(bits_from_float32(source[i]))


@jit
def _from_float16(word):
    size = shift_left(np.uint32(word) & np.uint32(0x7FFF), np.uint32(13))
    value = float32_from_bits(size) * np.float32(2.0**112)  # the bias of the exponent from 15 to 127
    if size >= np.uint32(0x7C00 << 13):  # Inf and NaN
        value = float32_from_bits(size | np.uint32(0x7F800000))
    return -value if word & np.uint16(0x8000) else value


@jit
def _to_bfloat16(bits):
    if bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
        return np.uint16(0x7FC0)
    odd = shift_right(bits, np.uint32(16)) & np.uint32(1)
    return np.uint16(shift_right(np.uint32(bits + np.uint32(0x7FFF) + odd), np.uint32(16)))


@jit
def _to_float16(bits):
    sign = shift_right(bits, np.uint32(16)) & np.uint32(0x8000)
    size = bits & np.uint32(0x7FFFFFFF)
    if size > np.uint32(0x7F800000):
        half = np.uint32(0x7E00)
    elif size >= np.uint32(0x47800000):  # 2^16
        half = np.uint32(0x7C00)
    elif size < np.uint32(0x38800000):  # 2^-14: in units of 2^-24, which are the ulps of 1/2
        half = np.uint32(bits_from_float32(float32_from_bits(size) + np.float32(0.5)) - np.uint32(0x3F000000))
    else:  # the bias of the exponent from 127 to 15
        odd = shift_right(size, np.uint32(13)) & np.uint32(1)
        half = shift_right(np.uint32(size - np.uint32(0x38000000) + np.uint32(0xFFF) + odd), np.uint32(13))
    return np.uint16(sign | half)
