"""Rows of an image's pixels in memory: where they lie, and as float32 in scratch and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._floats import BFLOAT16, FLOAT32, KINDS, from_float16, to_bfloat16, to_float16
from .._numba import bits_from_float32, float32_from_bits, jit, shift_left
from .cpu_problem import flat

Array = np.ndarray[Any, Any]


_NO_FLOATS, _NO_WORDS = np.empty(0, np.float32), np.empty(0, np.uint16)


class Field(NamedTuple):
    """Rows of numbers, one to a pixel, and the strides of their first elements: see `row_at`."""

    floats: Any  # the vector of a float32 field, or empty
    words: Any  # of another one, of uint16
    kind: int  # of `_floats`: told apart when kernels run, so that these are compiled once for all
    heads: int  # of an image
    image: int
    head: int
    row: int
    column: int


def field(x: Array) -> Field:
    """Of an array (B, H, rows, columns, ...) without negative strides."""
    strides = (s // x.itemsize for s in x.strides[:4])
    kind, data = KINDS[x.dtype], flat(x)
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
            target[i] = from_float16(words[i])


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
            words[i] = to_bfloat16(bits_from_float32(source[i]))
    else:
        for i in range(source.size):
            words[i] = to_float16(bits_from_float32(source[i]))
