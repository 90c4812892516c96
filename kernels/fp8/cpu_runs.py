"""Loops over runs of elements: where the CPU kernels spend their time. Every loop vectorises."""

from __future__ import annotations

import numpy as np

from .._numba import LANES, WIDE, jit, max_of_lanes, max_of_wide, prefetch_lanes
from .cpu_core import (
    MAGNITUDE,
    directed,
    element_scale,
    load_decoding,
    load_encoding,
    magnitude,
    magnitude_mask,
    nearest,
    nearest_integer,
    nearest_plain,
    philox,
    scaled_bits,
    signed,
    signed_integer,
    signed_plain,
    u32,
    u64,
)
from .cpu_put import put
from .formats import ROUNDINGS

NEAREST = ROUNDINGS.index("nearest")
STOCHASTIC = ROUNDINGS.index("stochastic")


@jit
def amax_run(x, limits):
    """Largest magnitude bits in `x`; `limits` holds 0 and the largest bits that count."""
    zero, limit = limits[0], limits[1]
    largest = zero
    for i in range(x.size):
        m = magnitude(x[i])
        m = m if m <= limit else zero
        largest = m if m > largest else largest
    return largest


@jit
def block_maxima(x, width, limits, out):
    """Raise each of `out` to the `amax_run` of its block of `width` elements of `x`."""
    mask = magnitude_mask(x)
    whole = x.size // width if width % LANES == 0 else 0
    for j in range(whole):
        largest = out[j]
        if width % WIDE == 0:
            for first in range(j * width, (j + 1) * width, WIDE):
                largest = max(largest, max_of_wide(x, first, mask))
        else:
            for first in range(j * width, (j + 1) * width, LANES):
                largest = max(largest, max_of_lanes(x, first, mask))
        if largest > limits[1]:
            largest = max(out[j], amax_run(x[j * width : (j + 1) * width], limits))
        out[j] = largest
    for j in range(whole, out.size):
        out[j] = max(out[j], amax_run(x[j * width : (j + 1) * width], limits))


@jit
def fold_run(x, limits, largest):
    """The same element by element into the array `largest`."""
    zero, limit = limits[0], limits[1]
    for i in range(x.size):
        m = magnitude(x[i])
        m = m if m <= limit else zero
        largest[i] = m if m > largest[i] else largest[i]


@jit
def skip_infinite(x, width, inf, maxima):
    """Where a block of `width` columns of `x` reached the bits `inf`, the largest of its finite elements instead."""
    for j in range(maxima.size):
        if maxima[j] == inf:
            maxima[j] = 0
            for row in range(x.shape[0]):
                for v in x[row][j * width : (j + 1) * width]:
                    m = magnitude(v)
                    maxima[j] = m if inf > m > maxima[j] else maxima[j]


@jit
def encode_run(x, scale, out, c, d, rounding, seed, start):
    """Encode ``x / scale`` into `out`; `start` is the counter of the first element."""
    e, f = load_encoding(c), load_decoding(d)
    if rounding == NEAREST and e.plain:
        for i in range(x.size):
            s = element_scale(scale, i)
            bits = scaled_bits(x[i], s, 1)
            put(out, i, signed_plain(nearest_plain(u32(bits & MAGNITUDE), e), bits), s, f)
    elif rounding == NEAREST and e.integer:
        for i in range(x.size):
            s = element_scale(scale, i)
            put(out, i, nearest_integer(scaled_bits(x[i], s, 1)), s, f)
    elif rounding == NEAREST:
        for i in range(x.size):
            s = element_scale(scale, i)
            bits = scaled_bits(x[i], s, 1)
            put(out, i, signed(nearest(u32(bits & MAGNITUDE), e), bits, e), s, f)
    else:
        words = random_words(u64(seed), start, x.size) if rounding == STOCHASTIC else np.zeros(x.size, np.uint32)
        if e.integer:
            for i in range(x.size):
                s = element_scale(scale, i)
                bits = scaled_bits(x[i], s, 0)
                put(out, i, signed_integer(directed(u32(bits & MAGNITUDE), e, words[i]), bits), s, f)
        else:
            for i in range(x.size):
                s = element_scale(scale, i)
                bits = scaled_bits(x[i], s, 0)
                put(out, i, signed(directed(u32(bits & MAGNITUDE), e, words[i]), bits, e), s, f)


@jit
def encode_blocks(x, scales, width, out, c, d, rounding, seed, start, ahead):
    """`encode_run` with one of the float32 `scales` for each block of `width` elements.

    Meanwhile the elements `ahead` of these are brought into cache.
    """
    e, f = load_encoding(c), load_decoding(d)
    whole = x.size - x.size % LANES
    if width % LANES or rounding != NEAREST or not (e.plain or e.integer):
        whole = 0
    runs, codes = x[:whole].reshape(-1, LANES), out[:whole].reshape(-1, LANES)
    per_block = max(1, width // LANES)
    block, left = 0, per_block
    for k in range(runs.shape[0]):
        if left == 0:
            block, left = block + 1, per_block
        left -= 1
        run, target, s = runs[k], codes[k], scales[block]
        prefetch_lanes(run, ahead)
        if e.integer:
            for i in range(LANES):
                put(target, i, nearest_integer(scaled_bits(run[i], s, 1)), s, f)
            continue
        for i in range(LANES):
            bits = scaled_bits(run[i], s, 1)
            put(target, i, signed_plain(nearest_plain(u32(bits & MAGNITUDE), e), bits), s, f)
    if whole < x.size:
        per_element = scales
        if width > 1:
            per_element = np.empty(x.size, np.float32)
            for j in range(whole // width, (x.size + width - 1) // width):
                per_element[j * width : (j + 1) * width] = scales[j]
        encode_run(x[whole:], per_element[whole:], out[whole:], c, d, rounding, seed, start + whole)


@jit
def decode_run(codes, scale, out, d):
    constants = load_decoding(d)
    if constants.integer:
        for i in range(codes.size):
            put(out, i, np.int32(np.int8(codes[i])), element_scale(scale, i), constants)
    else:
        for i in range(codes.size):
            put(out, i, codes[i], element_scale(scale, i), constants)


@jit
def random_words(seed, start, n):
    """The random words of elements `start` to `start + n`."""
    skip = start % 4
    words = np.empty(n + 8, np.uint32)
    for g in range((skip + n + 3) // 4):
        words[4 * g], words[4 * g + 1], words[4 * g + 2], words[4 * g + 3] = philox(seed, u64(start // 4 + g))
    return words[skip:]
