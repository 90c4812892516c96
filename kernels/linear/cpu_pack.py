"""Activations as the products take them: padded to whole runs, in the order of the runs, of the type of the product."""

from __future__ import annotations

import ml_dtypes
import numba
import numpy as np
from numba import types
from numba.extending import overload

from .._floats import from_float16
from .._numba import float32_from_bits, jit, kernel, shift_left
from .cpu_widen import RUN

u32 = np.uint32

BITS = {np.dtype(ml_dtypes.bfloat16): np.uint16, np.dtype(np.float16): np.int16}


def flat(x):
    """The rows of a matrix as one vector, from the first element to the last, in the bits that kernels take."""
    x = x.view(BITS.get(x.dtype, x.dtype))
    if x.flags.c_contiguous:
        return x.reshape(-1)
    length = (len(x) - 1) * x.strides[0] // x.itemsize + x.shape[1]
    return np.lib.stride_tricks.as_strided(x, (length,), (x.itemsize,))


@jit
def pack(x, columns, pitch, rows, order, out):
    """``out[row, i]``: the elements of `rows` rows of x, `pitch` apart, zeros beyond."""
    whole = columns // RUN * RUN
    for row in range(len(out)):
        target = out[row]
        if row >= rows:
            target[:] = 0
            continue
        source = x[row * pitch : row * pitch + columns]
        for k in range(0, whole, RUN):
            for i in range(RUN):
                target[k + i] = _number(source[k + order[i]], target)
        if whole < columns:
            for i in range(RUN):
                k = whole + order[i]
                target[whole + i] = _number(source[k], target) if k < columns else target.dtype.type(0)


def _number(value, like):
    """A float32, a bfloat16 (uint16), a float16 (int16) or an int8 as an element of an array like `like`."""
    raise NotImplementedError


@overload(_number)
def _number_as(value, like):
    if value == types.uint16 and like.dtype == types.float32:
        return lambda value, like: float32_from_bits(shift_left(u32(value), u32(16)))
    if value == types.int16:
        return lambda value, like: from_float16(np.uint16(value))
    dtype = like.dtype
    return lambda value, like: dtype(value)


@kernel
def pack_lanes(rows, out, width, workers):
    """``out[block, step, lane]``: words of the rows of `pack`, `width` to a block; lanes without a row are zeros."""
    for worker in numba.prange(workers):
        _pack_blocks(np.int64(worker), workers, rows, out, width)


@jit
def _pack_blocks(worker, workers, rows, out, width):
    count, steps = rows.shape
    for block in range(worker, len(out), workers):
        target = out[block]
        for lane in range(width):
            row = block * width + lane
            if row < count:
                source = rows[row]
                for s in range(steps):
                    target[s, lane] = source[s]
            else:
                for s in range(steps):
                    target[s, lane] = 0
