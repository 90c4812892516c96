"""What becomes of a code: it is stored, or its value times a scale."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .._numba import bits_from_float32, bits_from_float64, float32_from_bits, jit, shift_left, shift_right
from .cpu_core import INF, MAGNITUDE, f32, f64, nearest, u16, u32
from .formats import FLOAT16, Encoding, encoding

_FLOAT16 = Encoding(*(u32(field) for field in encoding(FLOAT16)))


@jit
def value_bits(code, d):
    """float32 bits of an fp8 code."""
    m = u32(code & u32(0x7F))
    r = u32(shift_left(m, d.shift) + d.rebias)
    subnormal = bits_from_float32(f32(float32_from_bits(u32(r + u32(1 << 23))) - float32_from_bits(d.min_normal)))
    r = subnormal if m < d.first_normal else r
    r = d.special if m > d.max_code else r
    r = u32(0x7FC00000) if m > u32(d.max_code + u32(1)) else r
    r = u32(r | shift_left(u32(code & u32(0x80)), u32(24)))
    return u32(0x7FC00000) if code == d.lone_nan else r


@jit
def _bfloat16(r):
    rounded = shift_right(u32(r + u32(u32(0x7FFF) + u32(shift_right(r, u32(16)) & u32(1)))), u32(16))
    return u16(0x7FC0) if u32(r & MAGNITUDE) > INF else u16(rounded)


@jit
def _float16(r):
    code = nearest(u32(r & MAGNITUDE), _FLOAT16)
    return np.int16(u16(code | u32(shift_right(r, u32(16)) & u32(0x8000))))


def _value(code, d):
    """The float32 that a code stands for."""
    raise NotImplementedError


def _product(code, scale, d):
    """float32 bits of a code's value times `scale`."""
    raise NotImplementedError


@overload(_value)
def _value_impl(code, d):
    if code == types.int32:
        return lambda code, d: f32(code)
    return lambda code, d: float32_from_bits(value_bits(u32(code), d))


@overload(_product)
def _product_impl(code, scale, d):
    if scale == types.none:
        return lambda code, scale, d: bits_from_float32(_value(code, d))
    return lambda code, scale, d: bits_from_float32(f32(_value(code, d) * scale))


def put(out, i, code, scale, d):
    """Store a code: as it is in a uint8 array, otherwise as its value times `scale`. An int32 is its own value."""
    raise NotImplementedError


@overload(put)
def _put(out, i, code, scale, d):
    def code8(out, i, code, scale, d):
        out[i] = np.uint8(code)

    def float32(out, i, code, scale, d):
        out[i] = _product(code, scale, d)

    def bfloat16(out, i, code, scale, d):
        out[i] = _bfloat16(_product(code, scale, d))

    def float16(out, i, code, scale, d):
        out[i] = _float16(_product(code, scale, d))

    def float64(out, i, code, scale, d):
        value = f64(_value(code, d))
        out[i] = bits_from_float64(value if scale is None else value * f64(scale))

    return {
        types.uint8: code8,
        types.uint32: float32,
        types.uint16: bfloat16,
        types.int16: float16,
        types.uint64: float64,
    }[out.dtype]
