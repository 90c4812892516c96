"""Numba kernels without scales: encode, decode, amax. Arrays are C-contiguous."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from .._numba import kernel
from .cpu_core import LARGEST_FINITE, bits_of
from .cpu_runs import amax_run, decode_run, encode_run, fold_run
from .formats import ROUNDINGS, Format, decoding, encoding

Array = np.ndarray[Any, Any]

CHUNK = 1 << 15
"""Elements of one task: in cache with its output, and some ten microseconds of work."""
TILE = 1 << 12
"""Columns that one task reduces together: their maxima stay in the first-level cache."""


@cache
def encoding_constants(fmt: Format, overflow: str, rounding: str) -> Array:
    return np.array(encoding(fmt, overflow, rounding), np.uint32)


@cache
def decoding_constants(fmt: Format) -> Array:
    return np.array(decoding(fmt), np.uint32)


@cache
def magnitude_limits(dtype: np.dtype[Any], ignored: str) -> Array:
    """Zero, and the largest magnitude bits that count, for elements of a bit-pattern type.

    `ignored` is "none", "inf and nan", or "inf"; then all bits count at first, and those of Inf come third.
    """
    unsigned = np.dtype(f"u{dtype.itemsize}")
    finite = LARGEST_FINITE[dtype.type]
    limit = finite if ignored == "inf and nan" else np.iinfo(unsigned).max
    return np.array([0, limit, finite + 1 if ignored == "inf" else 0], unsigned)


def signed_seed(seed: int | None) -> int:
    """The 64 bits of a seed as an int64, which Numba passes faster than a uint64."""
    return 0 if seed is None else seed - ((seed >> 63) << 64)


@kernel
def encode_kernel(x, scale, out, c, d, rounding, seed, counter):
    """Encode ``x / scale``; `counter` numbers the first element."""
    for task in prange((x.size + CHUNK - 1) // CHUNK):
        first = np.int64(task) * CHUNK
        last = min(first + CHUNK, x.size)
        encode_run(x[first:last], scale, out[first:last], c, d, rounding, seed, counter + first)


@kernel
def _decode_kernel(codes, out, d):
    for task in prange((codes.size + CHUNK - 1) // CHUNK):
        first = np.int64(task) * CHUNK
        decode_run(codes[first : first + CHUNK], None, out[first : first + CHUNK], d)


@kernel
def _amax_rows(x, limits, out):
    """x (rows, n) into the unsigned bits `out` (rows, pieces)."""
    pieces = out.shape[1]
    piece = (x.shape[1] + pieces - 1) // pieces
    for task in prange(out.size):
        row, j = divmod(np.int64(task), pieces)
        out[row, j] = amax_run(x[row][j * piece : (j + 1) * piece], limits)


@kernel
def _amax_columns(x, limits, out):
    """x (outer, n, inner) into `out` (outer, pieces, inner), zero on entry."""
    pieces = out.shape[1]
    piece = (x.shape[1] + pieces - 1) // pieces
    tiles = (x.shape[2] + TILE - 1) // TILE
    for task in prange(out.shape[0] * pieces * tiles):
        rest, tile = divmod(np.int64(task), tiles)
        o, j = divmod(rest, pieces)
        columns = slice(tile * TILE, (tile + 1) * TILE)
        for i in range(j * piece, min((j + 1) * piece, x.shape[1])):
            fold_run(x[o][i][columns], limits, out[o][j][columns])


def amax_bits(bits: Array, limits: Array) -> Array:
    """Largest magnitude bits that count over the middle axis of `bits` (outer, n, inner)."""
    outer, n, inner = bits.shape
    pieces = max(1, min(-(-n * inner // CHUNK), -(-n // 64)))
    partial = np.zeros((outer, pieces, inner), limits.dtype)
    if inner == 1:
        _amax_rows(bits.nbytes, bits.reshape(outer, n), limits, partial.reshape(outer, pieces))
    else:
        _amax_columns(bits.nbytes, bits, limits, partial)
    largest = partial[:, 0] if pieces == 1 else partial.max(axis=1)
    infinite = (largest == limits[2]) & (largest != 0)
    if infinite.any():
        largest[infinite] = amax_bits(bits, magnitude_limits(bits.dtype, "inf and nan"))[infinite]
    return largest


def encode(x: Array, out: Array, fmt: Format, overflow: str, rounding: str, seed: int | None) -> None:
    """Codes of `x` into the uint8 array `out` of the same shape."""
    c, d = encoding_constants(fmt, overflow, rounding), decoding_constants(fmt)
    bits, codes = bits_of(x).reshape(-1), out.reshape(-1)
    encode_kernel(x.nbytes, bits, None, codes, c, d, ROUNDINGS.index(rounding), signed_seed(seed), 0)


def decode(codes: Array, out: Array, fmt: Format) -> None:
    """Values of the uint8 `codes` into the floating-point array `out` of the same shape."""
    _decode_kernel(out.nbytes, codes.reshape(-1), bits_of(out).reshape(-1), decoding_constants(fmt))


def amax(x: Array, out: Array) -> None:
    """Largest magnitude over the middle axis of `x` (outer, n, inner) into `out` (outer, inner)."""
    bits = bits_of(x)
    out[...] = amax_bits(bits, magnitude_limits(bits.dtype, "none")).view(out.dtype)
