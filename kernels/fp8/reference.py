"""The definition: NumPy float64 and exact rationals, by table and by loop, without bit tricks.

Every launcher here has its twin, with the same signature, in `cpu` and `gpu`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from .formats import Format, Recipe

Array = np.ndarray[Any, Any]

_quiet = np.errstate(over="ignore", invalid="ignore")
"""NaN and overflow are part of the definition, not worth a warning."""


@_quiet
def encode(x: Array, out: Array, fmt: Format, overflow: str, rounding: str, seed: int | None) -> None:
    """Codes of `x` into the uint8 (`integer`: int8) array `out` of the same shape."""
    values = x.astype(np.float64).ravel()
    magnitude = np.abs(values)
    top = fmt.max_code + (overflow == "nonsat" and rounding != "toward_zero")
    table = np.array([fmt.magnitude(code) for code in range(top + 2)])
    finite = np.minimum(np.where(np.isfinite(values), magnitude, 0.0), table[top])
    if rounding == "stochastic" and x.dtype == np.float64:
        fraction, exponent = np.frexp(finite)
        finite = np.ldexp(np.floor(np.ldexp(fraction, 24)), exponent - 24)

    low = np.searchsorted(table, finite, side="right") - 1
    passed = (finite - table[low]) / (table[low + 1] - table[low])
    if rounding == "nearest":
        up = (passed > 0.5) | ((passed == 0.5) & (low % 2 == 1))
    elif rounding == "toward_zero":
        up = np.zeros(low.shape, bool)
    else:
        assert seed is not None
        words = np.array([philox(seed, i) for i in range(low.size)], np.uint64)
        up = np.floor(passed * 2.0**31) + (words >> np.uint64(1)) >= 2.0**31

    code = low + up
    code[np.isinf(values)] = fmt.max_code + (overflow != "sat")
    code[np.isnan(values)] = fmt.nan_code
    if fmt.integer:
        out[...] = np.where(np.signbit(values), -code, code).reshape(x.shape)
        return
    negative = np.signbit(values) & ((code != 0) | fmt.negative_zero)
    out[...] = (code | np.where(negative, 0x80, 0)).reshape(x.shape)


def philox(seed: int, index: int) -> int:
    """Word `index % 4` of Philox4x32-10 with counter `index // 4` and key `seed`."""
    mask = 0xFFFFFFFF
    block = index // 4
    c0, c1, c2, c3 = block & mask, block >> 32, 0, 0
    k0, k1 = seed & mask, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return (c0, c1, c2, c3)[index % 4]


def decode_table(fmt: Format) -> Array:
    """The float64 value of each of the 256 codes."""
    if fmt.integer:
        return np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    table = np.full(256, np.nan)
    for code in range(fmt.max_code + 1):
        table[code] = fmt.magnitude(code)
    if fmt.has_inf:
        table[fmt.max_code + 1] = np.inf
    table[0x80:] = -table[:0x80]
    if not fmt.negative_zero:
        table[fmt.nan_code] = np.nan
    return table


def decode(codes: Array, out: Array, fmt: Format) -> None:
    """Values of the one-byte `codes` into the floating-point array `out` of the same shape."""
    out[...] = decode_table(fmt)[codes.view(np.uint8)].astype(out.dtype)


@_quiet
def amax(x: Array, out: Array) -> None:
    """Largest magnitude over the middle axis of `x` (outer, n, inner) into `out` (outer, inner)."""
    out[...] = np.max(np.abs(x.astype(np.float64)), axis=1, initial=0.0).astype(out.dtype)


@_quiet
def block_scale(amax: float, fmt: Format, scale_format: str, scale_rounding: str) -> float:
    """The scale of a block whose largest finite magnitude is `amax`."""
    if amax == 0:
        return 1.0
    if scale_format == "fp32":
        return float(np.clip(np.float32(amax / fmt.max), np.float32(2.0**-126), np.finfo(np.float32).max))
    exponent = math.frexp(amax)[1] - 1
    power = Fraction(2) ** exponent
    if scale_rounding == "ceil":
        exponent -= fmt.emax
        if Fraction(amax) > Fraction(fmt.max) * Fraction(2) ** exponent:
            exponent += 1
    else:
        if scale_rounding == "even" and Fraction(amax) / power >= 2 - Fraction(1, 2 ** (fmt.mantissa_bits + 1)):
            exponent += 1
        exponent -= fmt.emax
    return 2.0 ** min(max(exponent, -127), 127)


@_quiet
def quantize(x: Array, codes: Array, scale: Array, recipe: Recipe, dynamic: bool) -> None:
    """Codes of `x` (B, M, N), a block of `recipe.block` elements of (M, N) per entry of `scale`.

    `scale` (B, ceil(M / bm), ceil(N / bn)), float32 or uint8 (E8M0), is computed if `dynamic`.
    """
    fmt, block = recipe.fmt, recipe.block
    if dynamic:
        for b, i, j in np.ndindex(scale.shape):
            rows, cols = _span(i, block[0]), _span(j, block[1])
            magnitude = np.abs(x[b, rows, cols].astype(np.float64))
            if fmt.integer and np.isnan(magnitude).any():
                scale[b, i, j] = 255 if scale.dtype == np.uint8 else np.nan
                continue
            amax = float(np.max(magnitude, where=np.isfinite(magnitude), initial=0.0))
            value = block_scale(amax, fmt, recipe.scale_format, recipe.scale_rounding)
            scale[b, i, j] = int(math.log2(value)) + 127 if scale.dtype == np.uint8 else value
    scaled = x.astype(_wide(x)) / _expand(scale, x.shape, block).astype(_wide(x))
    encode(scaled, codes, fmt, recipe.overflow, recipe.rounding, recipe.seed)


@_quiet
def dequantize(codes: Array, scale: Array, out: Array, recipe: Recipe) -> None:
    """``decode(codes) * scale`` into `out` (B, M, N)."""
    wide = _wide(out)
    value = decode_table(recipe.fmt)[codes.view(np.uint8)].astype(wide)
    value *= _expand(scale, codes.shape, recipe.block).astype(wide)
    out[...] = value.astype(out.dtype)


def quantize_dequantize(x: Array, out: Array, scale: Array, recipe: Recipe, dynamic: bool) -> None:
    """`dequantize` of `quantize`."""
    codes = np.empty(x.shape, np.int8 if recipe.fmt.integer else np.uint8)
    quantize(x, codes, scale, recipe, dynamic)
    dequantize(codes, scale, out, recipe)


def _wide(x: Array) -> type[np.floating[Any]]:
    """The type that scaling computes in."""
    return np.float64 if x.dtype == np.float64 else np.float32


def _span(index: int, size: int) -> slice:
    return slice(index * size, (index + 1) * size)


def _expand(scale: Array, shape: tuple[int, ...], block: tuple[int, int]) -> Array:
    """The scale of every element, in float64."""
    value = 2.0 ** (scale.astype(np.float64) - 127) if scale.dtype == np.uint8 else scale.astype(np.float64)
    if scale.dtype == np.uint8:
        value[scale == 255] = np.nan
    return value.repeat(block[0], axis=1).repeat(block[1], axis=2)[:, : shape[1], : shape[2]]
