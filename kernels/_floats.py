"""Runs of float32, bfloat16 or float16 in memory, as float32 and back.

Kernels take arrays as bytes and the kind of their elements as a number, so that they are compiled once for all kinds.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from ._numba import bits_from_float32, float32_from_bits, jit, shift_left, shift_right

u16, u32, f32 = np.uint16, np.uint32, np.float32

FLOAT32, BFLOAT16, FLOAT16 = range(3)
KINDS = {np.dtype(np.float32): FLOAT32, np.dtype(ml_dtypes.bfloat16): BFLOAT16, np.dtype(np.float16): FLOAT16}
BYTES = np.dtype(np.uint8)


def _typed(dtype: Any, element: Any) -> Any:
    @intrinsic
    def typed(typing_context: Any, x: Any, first: Any, count: Any) -> Any:
        """`count` elements from byte `first` of the memory of `x`, an array of bytes of any strides."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word, size = ir.IntType(64), dtype.bitwidth // 8
            memory = make_array(signature.args[0])(context, builder, args[0]).data
            array = make_array(signature.return_type)(context, builder)
            populate_array(
                array,
                data=builder.bitcast(builder.gep(memory, [args[1]]), element.as_pointer()),
                shape=[args[2]],
                strides=[word(size)],
                itemsize=word(size),
                meminfo=None,
            )
            return array._getvalue()

        return types.Array(dtype, 1, "C")(x, types.intp, types.intp), generate

    return typed


floats_at = _typed(types.float32, ir.FloatType())
words_at = _typed(types.uint16, ir.IntType(16))
bytes_at = _typed(types.uint8, ir.IntType(8))


@jit
def read_run(kind, x, first, out):
    """Fill `out` with the elements from byte `first` of `x`."""
    if kind == FLOAT32:
        source = floats_at(x, first, out.size)
        for i in range(out.size):
            out[i] = source[i]
        return
    words = words_at(x, first, out.size)
    if kind == BFLOAT16:
        for i in range(out.size):
            out[i] = float32_from_bits(shift_left(u32(words[i]), u32(16)))
    else:
        for i in range(out.size):
            out[i] = from_float16(words[i])


@jit
def write_run(kind, values, x, first):
    """Keep `values` as the elements from byte `first` of `x`, rounded to nearest, ties to even."""
    if kind == FLOAT32:
        target = floats_at(x, first, values.size)
        for i in range(values.size):
            target[i] = values[i]
        return
    words = words_at(x, first, values.size)
    if kind == BFLOAT16:
        for i in range(values.size):
            words[i] = to_bfloat16(bits_from_float32(values[i]))
    else:
        for i in range(values.size):
            words[i] = to_float16(bits_from_float32(values[i]))


@jit
def from_float16(word):
    size = shift_left(u32(word) & u32(0x7FFF), u32(13))
    value = float32_from_bits(size) * f32(2.0**112)  # the bias of the exponent from 15 to 127
    if size >= u32(0x7C00 << 13):  # Inf and NaN
        value = float32_from_bits(size | u32(0x7F800000))
    return -value if word & u16(0x8000) else value


@jit
def to_bfloat16(bits):
    if bits & u32(0x7FFFFFFF) > u32(0x7F800000):
        return u16(0x7FC0)
    odd = shift_right(bits, u32(16)) & u32(1)
    return u16(shift_right(u32(bits + u32(0x7FFF) + odd), u32(16)))


@jit
def to_float16(bits):
    sign = shift_right(bits, u32(16)) & u32(0x8000)
    size = bits & u32(0x7FFFFFFF)
    if size > u32(0x7F800000):
        half = u32(0x7E00)
    elif size >= u32(0x47800000):  # 2^16
        half = u32(0x7C00)
    elif size < u32(0x38800000):  # 2^-14: in units of 2^-24, which are the ulps of 1/2
        half = u32(bits_from_float32(float32_from_bits(size) + f32(0.5)) - u32(0x3F000000))
    else:  # the bias of the exponent from 127 to 15
        odd = shift_right(size, u32(13)) & u32(1)
        half = shift_right(u32(size - u32(0x38000000) + u32(0xFFF) + odd), u32(13))
    return u16(sign | half)
