"""Device functions of the FP8 kernels: integer arithmetic, the same on every GPU and in the interpreter.

Elements become float32 bits in uint32. float64 is narrowed by truncation; the sticky last bit
stands for what was cut off, and no rounding to 11 bits or fewer can tell it from the original.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton import bits_from_float32, float32_constant, float32_from_bits
from .formats import FLOAT32_INF, FLOAT32_MAX, Recipe

INF = tl.constexpr(FLOAT32_INF)
_MAX = tl.constexpr(FLOAT32_MAX)
_NAN = tl.constexpr(0x7FC00000)
_INF64 = tl.constexpr(0x7FF << 52)


@triton.jit
def float32_bits(x, STICKY: tl.constexpr):
    """float32 bits of floating-point elements."""
    if x.dtype == tl.float64:
        bits = _narrow(x.to(tl.uint64, bitcast=True), STICKY)
    elif x.dtype == tl.bfloat16:
        bits = x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
    else:
        bits = bits_from_float32(x.to(tl.float32))
    return bits


@triton.jit
def _narrow(v, STICKY: tl.constexpr):
    m = v & 0x7FFFFFFFFFFFFFFF
    r = m >> 29
    if STICKY:
        r = r | ((m & 0x1FFFFFFF) != 0).to(tl.uint64)
    r = r - (896 << 23)
    r = tl.where(m < (897 << 52), (m != 0).to(tl.uint64), r)
    r = tl.where(m >= (1151 << 52), _MAX, r)
    r = tl.where(m == _INF64, INF, r)
    r = tl.where(m > _INF64, _NAN, r)
    return (r | ((v >> 63) << 31)).to(tl.uint32)


@triton.jit
def magnitude(x):
    """Integers ordered as ``abs(x)``: the bits without the sign, of float32 or of float64."""
    if x.dtype == tl.float64:
        m = x.to(tl.uint64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    else:
        m = float32_bits(x, False) & 0x7FFFFFFF
    return m


@triton.jit
def counted_magnitude(x, IGNORED: tl.constexpr):
    """The same, 0 for what is `IGNORED`: "none", "inf", or "inf and nan"."""
    m = magnitude(x)
    if IGNORED != "none":
        if x.dtype == tl.float64:
            inf = _INF64
        else:
            inf = INF
        m = tl.where(m == inf if IGNORED == "inf" else m >= inf, 0, m)
    return m


@triton.jit
def from_magnitude(m, DTYPE: tl.constexpr):
    """The element of type `DTYPE` with this magnitude."""
    if tl.float64 == DTYPE:
        x = m.to(tl.float64, bitcast=True)
    elif tl.bfloat16 == DTYPE:
        x = (m >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        x = float32_from_bits(m).to(DTYPE)
    return x


@triton.jit
def encode_bits(bits, word, e: tl.constexpr, ROUNDING: tl.constexpr):
    """uint8 codes of float32 bits; `word` is 32 random bits for each, used by stochastic rounding."""
    m = bits & 0x7FFFFFFF
    if ROUNDING == "nearest":
        code = _nearest(tl.minimum(m, e.clamp), e)
    else:
        code = _directed(tl.minimum(m, e.clamp), word, e, ROUNDING)
    # The largest code comes out of the rounding itself, so only other codes need a selection.
    top: tl.constexpr = ((e.clamp + e.bias) & 0xFFFFFFFF) >> e.shift
    if e.inf_code != top:
        code = tl.where(m >= INF, e.inf_code, code)
    if e.nan_code != top:
        code = tl.where(m > INF, e.nan_code, code)
    if e.integer:
        code = tl.where(bits >= 0x80000000, (code ^ 0xFF) + 1, code)
    else:
        sign = (bits >> 24) & 0x80
        if e.zero_sign == 0:
            sign = tl.where(code == 0, 0, sign)
        code = code | sign
    return code.to(tl.uint8)


@triton.jit
def _nearest(a, e: tl.constexpr):
    normal = tl.add(a + ((a >> e.shift) & 1), e.bias, sanitize_overflow=False) >> e.shift
    subnormal = bits_from_float32(float32_from_bits(a) + float32_constant(e.magic)) - e.magic
    return tl.where(a < e.min_normal, subnormal, normal)


@triton.jit
def _directed(a, word, e: tl.constexpr, ROUNDING: tl.constexpr):
    lowest: tl.constexpr = e.min_normal >> 23
    exponent = a >> 23
    raised = tl.maximum(exponent, lowest)
    cut = e.shift + (raised - exponent)
    significand = (a & 0x7FFFFF) | 0x800000
    if ROUNDING == "stochastic":
        deep = tl.minimum(tl.maximum(cut, 31) - 31, 31)
        cut = tl.minimum(cut, 31)
        significand = (significand >> deep) + (word >> (32 - cut))
    else:
        cut = tl.minimum(cut, 31)
    code = (significand >> cut) + ((raised - lowest) << e.mantissa_bits)
    return tl.where(exponent == 0, 0, code)


@triton.jit
def decode_bits(code, d: tl.constexpr):
    """float32 values of uint8 codes, exact: integers, or the code's fields times a power of two."""
    if d.integer:
        value = code.to(tl.int8, bitcast=True).to(tl.float32)
    else:
        value = _decode_float(code, d)
    return value


@triton.jit
def _decode_float(code, d: tl.constexpr):
    c = code.to(tl.uint32)
    m = c & 0x7F
    value = float32_from_bits((m << d.shift) | ((c & 0x80) << 24)) * float32_constant(d.rebias + (127 << 23))
    if d.max_code < 0x7F:
        special = float32_constant(d.special)
        if d.special == INF:
            value = tl.where(m > d.max_code + 1, float32_constant(_NAN), value)
            special = tl.where(c >= 0x80, -special, special)
            value = tl.where(m == d.max_code + 1, special, value)
        else:
            value = tl.where(m > d.max_code, special, value)
    if d.lone_nan < 256:
        value = tl.where(c == d.lone_nan, float32_constant(_NAN), value)
    return value


@triton.jit
def convert(value, DTYPE: tl.constexpr):
    """float32 or float64 values rounded to nearest even to `DTYPE`."""
    if tl.bfloat16 == DTYPE:
        bits = bits_from_float32(value)
        rounded = tl.add(bits, 0x7FFF + ((bits >> 16) & 1), sanitize_overflow=False) >> 16
        rounded = tl.where((bits & 0x7FFFFFFF) > INF, 0x7FC0, rounded)
        value = rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        value = value.to(DTYPE)
    return value


@triton.jit
def scale_value(scale):
    """float32 value of a stored scale: float32 itself, or a uint8 E8M0 code."""
    if scale.dtype == tl.uint8:
        c = scale.to(tl.uint32)
        bits = tl.where(c == 0, 0x400000, c << 23)
        scale = float32_from_bits(tl.where(c == 255, _NAN, bits))
    return scale


class ScaleRule(NamedTuple):
    """Constants of `block_scale`: ``amax / fmax``, or (carry not None) the exponent of ``amax`` less
    `emax`, one more where adding `carry` to the float64 significand overflows it. `nan`: ``amax`` may be NaN."""

    fmax: float
    emax: int
    carry: int | None
    nan: bool


def scale_rule(recipe: Recipe) -> ScaleRule:
    fmt = recipe.fmt
    if recipe.scale_format == "fp32":
        return ScaleRule(fmt.max, fmt.emax, None, fmt.integer)
    threshold = {
        "floor": 2.0,
        "ceil": fmt.max / 2.0**fmt.emax + 2.0**-52,
        "even": 2.0 - 2.0 ** -(fmt.mantissa_bits + 1),
    }[recipe.scale_rounding]
    return ScaleRule(fmt.max, fmt.emax, int((2.0 - threshold) * 2.0**52), fmt.integer)


@triton.jit
def block_scale(largest, rule: tl.constexpr, DTYPE: tl.constexpr):
    """Stored scales (`DTYPE`) of blocks with the largest magnitudes `largest`."""
    if largest.dtype == tl.uint64:
        amax = largest.to(tl.float64, bitcast=True)
    else:
        amax = float32_from_bits(largest).to(tl.float64)
    if rule.carry is None:
        scale = (amax / rule.fmax).to(tl.float32)
        scale = tl.minimum(tl.maximum(scale, float32_constant(0x00800000)), float32_constant(_MAX))
        scale = tl.where(largest == 0, 1.0, scale)
        if rule.nan:
            scale = tl.where(amax != amax, float32_constant(_NAN), scale)
    else:
        exponent = ((amax.to(tl.int64, bitcast=True) + rule.carry) >> 52) - (1023 + rule.emax)
        code = tl.minimum(tl.maximum(exponent + 127, 0), 254)
        code = tl.where(largest == 0, 127, code)
        if rule.nan:
            code = tl.where(amax != amax, 255, code)
        scale = code.to(tl.uint8)
        if tl.uint8 != DTYPE:
            scale = scale_value(scale)
    return scale
