"""Inputs and work counts that tests, checks and benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from .formats import Format

Array = np.ndarray[Any, Any]

DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
SHAPES = ((), (1,), (7,), (1025,), (0,), (3, 0), (1, 1), (63, 100), (5, 1025), (2, 3, 129), (2, 2, 33, 65))
GRANULARITIES = ("tensor", "row", "column", "mx", (1, 128), (128, 128), (1, 7), (3, 50))
LOW_PATTERNS = (0x0000, 0x0001, 0x0002, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF)
"""Low halves of float32 that catch double rounding: ties, and their neighbours on both sides."""


def every_pattern(dtype: str) -> Array:
    """All 65,536 values of a 16-bit type, or float32 values by upper half and `LOW_PATTERNS`."""
    upper = np.arange(1 << 16, dtype=np.uint16)
    if dtype == "float32":
        lower = np.array(LOW_PATTERNS, np.uint32)
        bits: Array = (upper.astype(np.uint32)[:, None] << 16 | lower).ravel()
        return bits.view(np.float32)
    return upper.view(DTYPES[dtype])


def boundaries(fmt: Format) -> Array:
    """float64: all magnitudes of a format and their midpoints, each with both neighbours, both signs."""
    table = np.array([fmt.magnitude(code) for code in range(fmt.max_code + 3)])
    points = np.concatenate([table, (table[1:] + table[:-1]) / 2, [1e300, 1e-300, 5e-324, 2.0**-126, np.inf]])
    points = np.concatenate([points, np.nextafter(points, 0), np.nextafter(points, np.inf)])
    return np.concatenate([points, -points, [np.nan]])


def hard_blocks(dtype: str, width: int) -> Array:
    """Rows of `width` whose largest magnitude is each power of two, just below it, and beyond finite.

    The last rows are zero, hold NaN, hold Inf, or hold nothing finite.
    """
    kind = DTYPES[dtype]
    info: Any = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    powers = 2.0 ** np.arange(max(int(info.minexp) - int(info.nmant), -160), min(int(info.maxexp), 140))
    tops = powers.astype(kind)
    tops = np.concatenate([tops, np.nextafter(tops, kind.type(0)), [info.max], (448 * powers[:-20]).astype(kind)])
    fill = np.random.default_rng(0).uniform(-1, 1, (tops.size, width))
    rows = np.clip(fill * tops.astype(np.float64)[:, None], -float(info.max), float(info.max)).astype(kind)
    rows[:, width // 2] = tops
    special = np.zeros((5, width), kind)
    special[1:4] = rows[tops.size // 3]
    special[1, 0], special[2, -1], special[3, 0], special[3, 1] = np.nan, -np.inf, np.inf, np.nan
    special[4] = np.inf
    return np.concatenate([rows, special])


def mixed(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    """Gaussian values whose rows differ widely in size, with zeros, NaN and Inf among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp(rng.uniform(-6, 6, shape[:-1] + (1,) * bool(shape)))
    x = np.asarray(x).astype(DTYPES[dtype])
    if x.size > 50:
        x.flat[:3] = 0
        x.flat[40:42] = np.nan, -np.inf
    return x


def float32_runs(fmt: Format, overflow: str, rounding: str, encode: Any) -> Iterator[tuple[int, int, int]]:
    """The step function that a deterministic conversion of float32 is: (first bits, last bits, code).

    Covers every magnitude up to Inf. Each step is found by bisection of the monotonic `encode`,
    which takes a float32 array to codes; all of the format's codes are visited.
    """

    def code(bits: int) -> int:
        return int(encode(np.array([bits], np.uint32).view(np.float32))[0])

    first, infinity = 0, 0x7F800000
    while first < infinity:
        low, high = first, infinity
        here = code(first)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if code(middle) == here else (low, middle)
        yield first, low, here
        first = high
    yield infinity, infinity, code(infinity)


def min_bytes(operation: str, source: int, target: int, granularity: Any = None) -> int:
    """Bytes per element that an operation must move, by the item sizes of its input and output.

    A scale of a whole tensor or column is known only after a first pass, so the input counts twice.
    Other scales, up to a thirty-second of a byte, are not counted.
    """
    passes = 2 if operation == "quantize" and granularity in ("tensor", "column") else 1
    return passes * source + (0 if operation == "amax" else target)


def flops(operation: str) -> int:
    """Operations per element as the definition counts them: maximum, division, rounding, decoding, product."""
    return {"encode": 1, "decode": 1, "amax": 1, "quantize": 3, "quantize_dequantize": 5}[operation]
