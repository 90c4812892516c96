"""Scalar building blocks of the CPU kernels; each one vectorises inside a plain loop.

Elements travel as bit patterns whose type names the format: uint32 is float32, uint64 float64,
uint16 bfloat16 and int16 float16. Everything is converted to float32 bits first, the narrow types
exactly. float64 is truncated, for rounding to nearest with a sticky last bit, which no rounding to
11 bits or fewer can tell from the original.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numba import types
from numba.extending import overload

from .._numba import (
    bits_from_float32,
    bits_from_float64,
    float32_from_bits,
    float64_from_bits,
    jit,
    shift_left,
    shift_right,
)
from .formats import FLOAT32_INF, FLOAT32_MAX, Decoding, Encoding

u16, u32, u64, i32, f32, f64 = np.uint16, np.uint32, np.uint64, np.int32, np.float32, np.float64

INF = u32(FLOAT32_INF)
_MAX = u32(FLOAT32_MAX)
MAGNITUDE = u32(0x7FFFFFFF)
_MAGNITUDE16 = u16(0x7FFF)
_MAGNITUDE64 = u64(0x7FFFFFFFFFFFFFFF)
_FRACTION = u32(0x7FFFFF)
_UNITS, _UNITS_BITS = 1.5 * 2.0**23, 0x4B400000
"""A float32 whose last bit weighs one, amid its binade: it takes in small integers of both signs."""


_ELEMENT = {
    np.dtype(value): np.dtype(bits)
    for value, bits in ((f32, u32), (f64, u64), (np.float16, np.int16), (ml_dtypes.bfloat16, u16))
}
LARGEST_FINITE = {np.uint32: 0x7F7FFFFF, np.uint64: 0x7FEFFFFFFFFFFFFF, np.int16: 0x7BFF, np.uint16: 0x7F7F}


def bits_of(x: np.ndarray) -> np.ndarray:
    """The elements of a floating-point array as bit patterns, without a copy."""
    return x.view(_ELEMENT[x.dtype])


@jit
def load_encoding(c):
    return Encoding(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11])


@jit
def load_decoding(c):
    return Decoding(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7])


def float32_bits(v, sticky):
    """float32 bits of an element; those of a float64 as `narrow` makes them."""
    raise NotImplementedError


def scaled_bits(v, scale, sticky):
    """`float32_bits` of an element divided by the float32 `scale`."""
    raise NotImplementedError


def magnitude(v):
    """An element's bits without the sign, unsigned."""
    raise NotImplementedError


def magnitude_mask(x):
    """The bits of an element of the array `x` that hold its magnitude."""
    raise NotImplementedError


def element_scale(scale, i):
    """The scale of element `i`: None, one scale for all, or an array of them."""
    raise NotImplementedError


@jit
def _float16_to_float32(v):
    h = u32(v) & u32(0xFFFF)
    m = u32(shift_left(u32(h & u32(0x7FFF)), u32(13)) + u32(112 << 23))
    subnormal = bits_from_float32(f32(float32_from_bits(u32(m + u32(1 << 23))) - f32(2.0**-14)))
    r = subnormal if m < u32(113 << 23) else m
    r = u32(m + u32(112 << 23)) if m >= u32(143 << 23) else r
    return u32(r | shift_left(u32(h & u32(0x8000)), u32(16)))


@jit
def narrow(v, sticky):
    """float32 bits of a float64, truncated; if anything was cut off, `sticky` (0 or 1) joins the last bit."""
    m = u64(v & _MAGNITUDE64)
    last = u64(sticky) if u64(m & u64(0x1FFFFFFF)) != u64(0) else u64(0)
    r = u64(u64(shift_right(m, u64(29)) | last) - u64(896 << 23))
    r = u64(min(m, u64(sticky))) if m < u64(897 << 52) else r
    r = u64(_MAX) if m >= u64(1151 << 52) else r
    r = u64(INF) if m == u64(2047 << 52) else r
    r = u64(0x7FC00000) if m > u64(2047 << 52) else r
    return u32(r | shift_left(shift_right(v, u64(63)), u64(31)))


@overload(float32_bits)
def _float32_bits(v, sticky):
    return {
        types.uint32: lambda v, sticky: v,
        types.uint16: lambda v, sticky: shift_left(u32(v), u32(16)),
        types.int16: lambda v, sticky: _float16_to_float32(v),
        types.uint64: lambda v, sticky: narrow(v, sticky),
    }[v]


@overload(scaled_bits)
def _scaled_bits(v, scale, sticky):
    if scale == types.none:
        return lambda v, scale, sticky: float32_bits(v, sticky)
    if v == types.uint64:
        return lambda v, scale, sticky: narrow(bits_from_float64(float64_from_bits(v) / f64(scale)), sticky)
    return lambda v, scale, sticky: bits_from_float32(f32(float32_from_bits(float32_bits(v, sticky)) / scale))


@overload(magnitude)
def _magnitude(v):
    return {
        types.uint32: lambda v: u32(v & MAGNITUDE),
        types.uint16: lambda v: u16(v & _MAGNITUDE16),
        types.int16: lambda v: u16(u16(v) & _MAGNITUDE16),
        types.uint64: lambda v: u64(v & _MAGNITUDE64),
    }[v]


@overload(magnitude_mask)
def _magnitude_mask(x):
    mask = {16: _MAGNITUDE16, 32: MAGNITUDE, 64: _MAGNITUDE64}[x.dtype.bitwidth]
    return lambda x: mask


@overload(element_scale)
def _element_scale(scale, i):
    if isinstance(scale, types.Array):
        return lambda scale, i: scale[i]
    return lambda scale, i: scale


@jit
def nearest(m, e):
    """Magnitude code of the float32 magnitude bits `m`, rounded to nearest even."""
    return _special(m, _round(m, e), e)


@jit
def nearest_plain(m, e):
    """`nearest` for an `e` that is plain."""
    return e.nan_code if m > e.nan_above else _round(m, e)


@jit
def _round(m, e):
    a = m if m < e.clamp else e.clamp
    normal = shift_right(u32(u32(a + e.bias) + u32(shift_right(a, e.shift) & u32(1))), e.shift)
    subnormal = u32(bits_from_float32(f32(float32_from_bits(a) + float32_from_bits(e.magic))) - e.magic)
    return subnormal if a < e.min_normal else normal


@jit
def directed(m, e, word):
    """The same rounded towards zero (`word` 0) or stochastically (`word` 32 random bits)."""
    a = m if m < e.clamp else e.clamp
    exponent = shift_right(a, u32(23))
    lowest = shift_right(e.min_normal, u32(23))
    raised = exponent if exponent > lowest else lowest
    cut = u32(e.shift + u32(raised - exponent))
    deep = u32(cut - u32(31)) if cut > u32(31) else u32(0)
    deep = deep if deep < u32(31) else u32(31)
    cut = cut if cut < u32(31) else u32(31)
    significand = shift_right(u32(u32(a & _FRACTION) | u32(1 << 23)), deep)
    carry = shift_right(word, u32(u32(32) - cut))
    code = u32(shift_right(u32(significand + carry), cut) + shift_left(u32(raised - lowest), e.mantissa_bits))
    code = u32(0) if exponent == u32(0) else code
    return _special(m, code, e)


@jit
def _special(m, code, e):
    code = e.inf_code if m >= INF else code
    return e.nan_code if m > INF else code


@jit
def signed(code, bits, e):
    """The byte of a magnitude code with the sign of the float32 `bits`."""
    sign = u32(shift_right(bits, u32(24)) & u32(0x80))
    sign = u32(sign & e.zero_sign) if code == u32(0) else sign
    return np.uint8(code | sign)


@jit
def signed_plain(code, bits):
    """`signed` for an encoding that is plain."""
    return np.uint8(code | u32(shift_right(bits, u32(24)) & u32(0x80)))


@jit
def signed_integer(code, bits):
    """The int32 with the magnitude `code` and the sign of the float32 `bits`."""
    return i32(-i32(code)) if bits > MAGNITUDE else i32(code)


@jit
def nearest_integer(bits):
    """The float32 `bits` rounded to nearest even and clamped to 127, as int32; 0 for NaN."""
    x = float32_from_bits(bits)
    y = x if x < f32(127) else f32(127)
    y = y if y > f32(-127) else f32(-127)
    rounded = i32(bits_from_float32(f32(y + f32(_UNITS)))) - i32(_UNITS_BITS)
    return i32(rounded) if x == x else i32(0)


@jit
def philox(seed, block):
    """The four words of Philox4x32-10 with counter `block` and key `seed`, both uint64."""
    c0, c1, c2, c3 = u32(block), u32(shift_right(block, u64(32))), u32(0), u32(0)
    k0, k1 = u32(seed), u32(shift_right(seed, u64(32)))
    for _ in range(10):
        p0, p1 = u64(u64(c0) * u64(0xD2511F53)), u64(u64(c2) * u64(0xCD9E8D57))
        c0, c2 = u32(u32(u32(shift_right(p1, u64(32))) ^ c1) ^ k0), u32(u32(u32(shift_right(p0, u64(32))) ^ c3) ^ k1)
        c1, c3 = u32(p1), u32(p0)
        k0, k1 = u32(k0 + u32(0x9E3779B9)), u32(k1 + u32(0xBB67AE85))
    return c0, c1, c2, c3
