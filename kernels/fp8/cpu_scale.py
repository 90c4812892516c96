"""The scale of a block, and how scales are stored. Scalar code; float32 or uint8 (E8M0) arrays."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .._numba import bits_from_float32, float32_from_bits, float64_from_bits, jit
from .cpu_core import f32, f64, float32_bits, u32, u64
from .formats import FLOAT32_MAX, SCALE_ROUNDINGS, Scaling

_CEIL, _EVEN = 1 + SCALE_ROUNDINGS.index("ceil"), 1 + SCALE_ROUNDINGS.index("even")
_SMALLEST = u32(1 << 23)


@jit
def load_scaling(c):
    return Scaling(c[0], c[1], c[2], c[3], c[4])


def block_scale(x, amax, s):
    """The float32 scale of a block of the array `x` whose magnitude bits reach `amax`."""
    raise NotImplementedError


@overload(block_scale)
def _block_scale(x, amax, s):
    if x.dtype == types.uint64:

        def scale64(x, amax, s):
            fraction = u32((amax >> u64(29)) & u64(0x7FFFFF)) | u32((amax & u64(0x1FFFFFFF)) != 0)
            return _scale(float64_from_bits(amax), np.int64(amax >> u64(52)) - 896, fraction, s)

        return scale64
    element = {types.uint32: np.uint32, types.uint16: np.uint16, types.int16: np.int16}[x.dtype]

    def scale32(x, amax, s):
        bits = float32_bits(element(amax), 0)
        return _scale(f64(float32_from_bits(bits)), np.int64(bits >> u32(23)), u32(bits & u32(0x7FFFFF)), s)

    return scale32


@jit
def _scale(amax, exponent, fraction, s):
    if not amax > 0:
        return f32(1) if amax == 0 else f32(np.nan)
    if s.mode == 0:
        quotient = f32(amax / f64(float32_from_bits(s.max)))
        return min(max(quotient, float32_from_bits(_SMALLEST)), float32_from_bits(u32(FLOAT32_MAX)))
    code = exponent - np.int64(s.emax)
    if s.mode == _CEIL:
        code += fraction > s.max_fraction
    elif s.mode == _EVEN:
        code += fraction + s.half >= 1 << 23
    return e8m0_value(min(max(code, 0), 254))


@jit
def e8m0_value(code):
    if code == 255:
        return f32(np.nan)
    return float32_from_bits(u32(code << 23) if code else u32(1 << 22))


def store_scale(scale, i, value):
    """Store a float32 scale; a uint8 array takes its E8M0 code."""
    raise NotImplementedError


def fetch_scale(scale, i):
    """The float32 value of a stored scale."""
    raise NotImplementedError


@overload(store_scale)
def _store_scale(scale, i, value):
    if scale.dtype == types.uint8:

        def e8m0(scale, i, value):
            scale[i] = np.uint8(bits_from_float32(value) >> u32(23))

        return e8m0

    def fp32(scale, i, value):
        scale[i] = value

    return fp32


@overload(fetch_scale)
def _fetch_scale(scale, i):
    if scale.dtype == types.uint8:
        return lambda scale, i: e8m0_value(scale[i])
    return lambda scale, i: scale[i]


@jit
def block_scales(x, maxima, s, scale, values):
    """The scales of blocks of `x` with the magnitude bits `maxima`: stored, and as float32 `values`."""
    for j in range(scale.size):
        values[j] = block_scale(x, maxima[j], s)
        store_scale(scale, j, values[j])


@jit
def fetch_scales(scale, values):
    for j in range(scale.size):
        values[j] = fetch_scale(scale, j)
