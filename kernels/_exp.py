"""exp for loops that are to be vectorised: no table, no branch, no call.

exp(x) = 2^n exp(r) with n the integer next to x / ln 2 and |r| <= ln 2 / 2, where exp(r) is a Taylor
polynomial. exp(0) is 1, exp(-inf) is 0, exp(inf) is inf and a NaN stays one. The error is below 1.1 units
in the last place in float32 and in float64, of subnormal results as well; tests/test_exp.py measures it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from ._numba import bits_from_float32, bits_from_float64, float32_from_bits, float64_from_bits, jit, shift_left
from ._vector import multiply_add

f32, u32, f64, u64 = np.float32, np.uint32, np.float64, np.uint64

_LOWEST_32, _HIGHEST_32 = f32(-104), f32(89)
_LOWEST_64, _HIGHEST_64 = f64(-746), f64(710)
"""Beyond these, exp is 0 and inf."""

_PER_LN2_32, _PER_LN2_64 = f32(1 / math.log(2)), f64(1 / math.log(2))
_LN2_HIGH_32, _LN2_LOW_32 = f32(355 / 512), f32(math.log(2) - 355 / 512)
_LN2_HIGH_64, _LN2_LOW_64 = f64(float.fromhex("0x1.62e42feep-1")), f64(float.fromhex("0x1.a39ef35793c76p-33"))
"""ln 2 as a sum, the first part so short that n times it is exact."""

_ROUND_32, _ROUND_64 = f32(3 << 22), f64(3 << 51)
"""Added to a number, these leave it rounded to an integer, in the low bits."""

_ONE_32, _ONE_64 = u32(127), u64(1023)
_C32 = tuple(f32(1 / math.factorial(k)) for k in range(8))
_C64 = tuple(f64(1 / math.factorial(k)) for k in range(14))


@jit
def _taylor_32(r):
    p = _C32[7]
    for k in range(6, 1, -1):
        p = multiply_add(_C32[k], r, p)
    return multiply_add(r, r * r, p)


@jit
def _taylor_64(r):
    p = _C64[13]
    for k in range(12, 1, -1):
        p = multiply_add(_C64[k], r, p)
    return multiply_add(r, r * r, p)


@jit
def _exp_32(x):
    if x < _LOWEST_32:
        x = _LOWEST_32
    if x > _HIGHEST_32:
        x = _HIGHEST_32
    shifted = x * _PER_LN2_32 + _ROUND_32
    n = shifted - _ROUND_32
    y = f32(1) + _taylor_32((x - n * _LN2_HIGH_32) - n * _LN2_LOW_32)
    half = n * f32(0.5) + _ROUND_32
    return y * _power_32(half) * _power_32(n - (half - _ROUND_32) + _ROUND_32)


@jit
def _exp_64(x):
    if x < _LOWEST_64:
        x = _LOWEST_64
    if x > _HIGHEST_64:
        x = _HIGHEST_64
    shifted = x * _PER_LN2_64 + _ROUND_64
    n = shifted - _ROUND_64
    y = 1.0 + _taylor_64((x - n * _LN2_HIGH_64) - n * _LN2_LOW_64)
    half = n * 0.5 + _ROUND_64
    return y * _power_64(half) * _power_64(n - (half - _ROUND_64) + _ROUND_64)


@jit
def _power_32(shifted):
    """2^n of n + `_ROUND_32`, a normal number."""
    return float32_from_bits(shift_left(u32(bits_from_float32(shifted) + _ONE_32), u32(23)))


@jit
def _power_64(shifted):
    return float64_from_bits(shift_left(bits_from_float64(shifted) + _ONE_64, u64(52)))


def exp(x):
    """exp of a float32 or a float64, in that type; for jitted code."""
    raise NotImplementedError("exp is for jitted code; numpy.exp is for arrays")


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp_32(x)
    if x == types.float64:
        return lambda x: _exp_64(x)
    return None
