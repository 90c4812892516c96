"""Numba kernels with block scales: quantize, dequantize, quantize_dequantize.

A scale covers a block of rows and columns of (B, M, N). Where a block is one row high, its run of
elements is reduced and encoded while it is in cache; otherwise a stripe of blocks is reduced column
by column first. Either way the input comes from memory once, unless one block is larger than the
caches.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import get_num_threads, prange

from .._numba import LANES, jit, kernel
from .cpu_convert import (
    CHUNK,
    TILE,
    amax_bits,
    decoding_constants,
    encode_kernel,
    encoding_constants,
    magnitude_limits,
    signed_seed,
)
from .cpu_core import bits_of
from .cpu_runs import block_maxima, decode_run, encode_blocks, fold_run, skip_infinite
from .cpu_scale import block_scale, block_scales, fetch_scale, fetch_scales, load_scaling, store_scale
from .formats import ROUNDINGS, Recipe, scaling

Array = np.ndarray[Any, Any]


FEW, LONG = 16, 1 << 21
"""Up to `FEW` blocks of one row and at least `LONG` bytes each are taken one by one, by all threads together."""
STRIPE, SHORT = 1 << 19, 128
"""Elements of a stripe of blocks that one task takes; rows of one where the scales are already known."""


@kernel
def _quantize_tiles(x, scale, out, block, group, width, step, dynamic, limits, s, c, d, rounding, seed):
    """x (B, M, N), a block of rows by columns per entry of `scale` (B, ceil(M / rows), ceil(N / columns)).

    A task takes `width` columns of `group` stripes of blocks, `step` columns at a time, all whole blocks.
    """
    height, columns = block
    m, n = x.shape[1:]
    stripes = scale.shape[1]
    groups, tiles = (stripes + group - 1) // group, (n + width - 1) // width
    ahead = step if height == 1 else height * n
    for task in prange(x.shape[0] * groups * tiles):
        rest, tile = divmod(np.int64(task), tiles)
        b, first_stripe = rest // groups, rest % groups * group
        largest = np.empty(step if height > 1 else 0, limits.dtype)
        maxima, values = np.empty(step // columns, limits.dtype), np.empty(step // columns, np.float32)
        for stripe in range(first_stripe, min(first_stripe + group, stripes)):
            top, bottom = stripe * height, min((stripe + 1) * height, m)
            for first in range(tile * width, min((tile + 1) * width, n), step):
                span = slice(first, min(first + step, n))
                size = span.stop - first
                start = first // columns
                scales = scale[b][stripe][start : start + (size + columns - 1) // columns]
                if not dynamic:
                    fetch_scales(scales, values)
                else:
                    maxima[:] = limits[0]
                    if columns % LANES == 0 or height == 1:
                        for row in range(top, bottom):
                            block_maxima(x[b][row][span], columns, limits, maxima[: scales.size])
                    else:
                        largest[:] = limits[0]
                        for row in range(top, bottom):
                            fold_run(x[b][row][span], limits, largest[:size])
                        block_maxima(largest[:size], columns, limits, maxima[: scales.size])
                    if limits[2]:
                        skip_infinite(x[b][top:bottom, span], columns, limits[2], maxima[: scales.size])
                    block_scales(x, maxima, load_scaling(s), scales, values)
                for row in range(top, bottom):
                    counter = (b * m + row) * n + first
                    run, target = x[b][row][span], out[b][row][span]
                    encode_blocks(run, values, columns, target, c, d, rounding, seed, counter, ahead)


@jit
def _store_block_scale(x, amax, s, scale):
    store_scale(scale, 0, block_scale(x, amax, load_scaling(s)))
    return fetch_scale(scale, 0)


@jit
def _fetch_first(scale):
    return fetch_scale(scale, 0)


@jit
def _store_column_scales(x, maxima, columns, limits, s, scale):
    """Scales of blocks as wide as `columns`, from the magnitude bits `maxima` of each column of `x`."""
    largest = np.empty(scale.size, limits.dtype)
    for j in range(scale.size):
        largest[j] = maxima[j * columns : (j + 1) * columns].max()
    block_scales(x, largest, load_scaling(s), scale, np.empty(scale.size, np.float32))


@kernel
def _dequantize(codes, scale, out, block, d):
    """codes (B, M, N); a task takes a chunk of a row."""
    height, width = block
    m, n = codes.shape[1:]
    tiles = (n + CHUNK - 1) // CHUNK
    for task in prange(codes.shape[0] * m * tiles):
        rest, tile = divmod(np.int64(task), tiles)
        b, row = divmod(rest, m)
        first, last = tile * CHUNK, min((tile + 1) * CHUNK, n)
        source, target, scales = codes[b][row], out[b][row], scale[b][row // height]
        if width < LANES:
            per_element = np.empty(last - first, np.float32)
            if width == 1:
                fetch_scales(scales[first:last], per_element)
            else:
                for i in range(first, last):
                    per_element[i - first] = fetch_scale(scales, i // width)
            decode_run(source[first:last], per_element, target[first:last], d)
        else:
            for j in range(first // width, (last + width - 1) // width):
                span = slice(max(j * width, first), min((j + 1) * width, last))
                decode_run(source[span], fetch_scale(scales, j), target[span], d)


def quantize(x: Array, codes: Array, scale: Array, recipe: Recipe, dynamic: bool) -> None:
    """Codes of `x` (B, M, N), a block of `recipe.block` elements of (M, N) per entry of `scale`.

    `scale` (B, ceil(M / bm), ceil(N / bn)), float32 or uint8 (E8M0), is computed if `dynamic`.
    """
    _quantize_bits(bits_of(x), codes.view(np.uint8), scale, recipe, dynamic)


def quantize_dequantize(x: Array, out: Array, scale: Array, recipe: Recipe, dynamic: bool) -> None:
    """`dequantize` of `quantize`, in one pass."""
    _quantize_bits(bits_of(x), bits_of(out), scale, recipe, dynamic)


def dequantize(codes: Array, scale: Array, out: Array, recipe: Recipe) -> None:
    """``decode(codes) * scale`` into `out` (B, M, N)."""
    decoding = decoding_constants(recipe.fmt)
    _dequantize(out.nbytes, codes.view(np.uint8), scale, bits_of(out), recipe.block, decoding)


def _quantize_bits(bits: Array, out: Array, scale: Array, recipe: Recipe, dynamic: bool) -> None:
    """Codes, or (not uint8) their values times the scales, into `out`."""
    if bits.size == 0:
        if dynamic:
            scale[...] = 127 if scale.dtype == np.uint8 else 1
        return
    nbytes = bits.nbytes
    options = (dynamic, *_constants(recipe, bits.dtype))
    batch, m, n = bits.shape
    height, width = min(recipe.block[0], m), min(recipe.block[1], n)
    if height == 1 and scale.size <= FEW and nbytes >= scale.size * LONG:
        _quantize_long(bits, scale, out, width, *options)
        return
    if height == 1 and n % width == 0:
        bits, scale, out = (array.reshape(1, 1, -1) for array in (bits, scale, out))
        m, n = 1, bits.size
    elif dynamic and height * min(n, 1024) > STRIPE:
        _column_scales(bits, scale, height, width, *options[1:3])
        if m <= height:
            scale, height = scale.repeat(-(-m // SHORT), axis=1), SHORT
        options = (False, *options[1:])
    columns = TILE if height == 1 else _columns(height, n, batch * scale.shape[1])
    step = max(1, columns // width) * width
    tile = max(1, CHUNK // step) * step if height == 1 else step
    group = max(1, CHUNK // (height * n))
    _quantize_tiles(nbytes, bits, scale, out, (height, width), group, tile, step, *options)


def _quantize_long(bits, scale, out, width, dynamic, limits, s, c, d, rounding, seed):  # type: ignore[no-untyped-def]
    """A few blocks of one row each, every one spread over all threads: one read for amax, one to encode."""
    n = bits.shape[-1]
    bits, out, scale = bits.reshape(-1, n), out.reshape(-1, n), scale.reshape(-1, scale.shape[-1])
    for row, j in np.ndindex(*scale.shape):
        span = slice(j * width, (j + 1) * width)
        run = bits[row, span]
        if dynamic:
            largest = amax_bits(run.reshape(1, -1, 1), limits)[0, 0]
            value = _store_block_scale(run, largest, s, scale[row, j:])
        else:
            value = _fetch_first(scale[row, j:])
        encode_kernel(run.nbytes, run, value, out[row, span], c, d, rounding, seed, row * n + j * width)


def _column_scales(bits, scale, height, width, limits, s):  # type: ignore[no-untyped-def]
    """The scales of blocks too tall for the caches, from a pass of its own."""
    for b, stripe in np.ndindex(*scale.shape[:2]):
        rows = bits[b, stripe * height : (stripe + 1) * height]
        maxima = amax_bits(rows[None], limits)[0]
        _store_column_scales(rows, maxima, width, limits, s, scale[b, stripe])


def _columns(height: int, n: int, stripes: int) -> int:
    """Columns of a task: whole rows if they fit, since memory likes long runs, but work for every thread."""
    return min(n, max(64, STRIPE // height), max(512, n * stripes // (4 * get_num_threads())))


@lru_cache(maxsize=1024)
def _constants(recipe: Recipe, dtype: np.dtype[Any]) -> tuple[Array, Array, Array, Array, int, int]:
    """What the kernels take of a recipe: limits, s, c, d, rounding and seed."""
    return (
        magnitude_limits(dtype, "inf" if recipe.fmt.integer else "inf and nan"),
        np.array(scaling(recipe.fmt, recipe.scale_format, recipe.scale_rounding), np.uint32),
        encoding_constants(recipe.fmt, recipe.overflow, recipe.rounding),
        decoding_constants(recipe.fmt),
        ROUNDINGS.index(recipe.rounding),
        signed_seed(recipe.seed),
    )
