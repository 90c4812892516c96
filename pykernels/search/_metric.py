"""Metrics as the ranking score of the launchers, ``scale[n] * <q, x[n]> + bias[n]``; on their arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import library, namespace
from .._dispatch import launcher

METRICS = ("ip", "l2", "cosine")

_SMALLEST_NORM = 2.0**-126
_SAFE_SQUARES = 2.0**-90, 2.0**126
_BLOCK_VALUES = 1 << 19
_SAMPLE = 512
_FAR = 8.0


class Ranking(NamedTuple):
    """Queries, scale and bias as `search` takes them; `factor` makes scores of ranking scores.

    `scale`, `bias` and `factor` (Q,) may be None.
    """

    queries: Any
    scale: Any
    bias: Any
    factor: Any


def inner_product(q: Any, x_scale: Any, q_scale: Any) -> Ranking:
    return Ranking(q, x_scale, None, q_scale)


def cosine(q: Any, x: Any, backend: str) -> Ranking:
    """The scales of quantized rows and queries cancel."""
    q, factor = unit(q, backend)
    return Ranking(q, reciprocal(norms(x, backend)), None, factor)


def unit(q: Any, backend: str) -> tuple[Any, Any]:
    """Vectors brought near length 1 by a power of two, which is exact, and the factor of their products."""
    lengths = norms(q, backend)
    numbers, kind = library(q), namespace(q)[1]
    dtype = kind.dtype_name(q)
    if dtype in ("float32", "bfloat16"):
        exponents = numbers.frexp(lengths)[1]
        q = kind.cast(numbers.ldexp(kind.cast(q, "float32"), -exponents[:, None]), dtype)
        lengths = numbers.ldexp(lengths, -exponents)
    return q, reciprocal(lengths)


def euclidean(q: Any, x: Any, x_scale: Any, q_scale: Any, sample: Any, backend: str) -> Ranking:
    """The ranking of -|q - x|^2 / 2; `q_scale`, if not None, is one number for all queries, of shape (Q,).

    Far from the origin, <q, x> - |x|^2 / 2 would lose the differences that matter. There, a row c near
    the middle of the data moves the origin: <q - c, x> - |x - c|^2 / 2 ranks alike, and x stays as it is.
    It is chosen of `sample`, x itself or rows that stand for more than x.
    """
    centre = distant_centre(sample)
    if centre is not None:
        return Ranking(q - centre, None, -0.5 * squares_from(x, centre), None)
    bias = -0.5 * sums_of_squares(x, backend)
    if x_scale is not None:
        bias *= x_scale
        bias *= x_scale
    if q_scale is not None and len(q_scale):
        bias = bias / q_scale[0]
    return Ranking(q, x_scale, bias, None)


def norms(x: Any, backend: str) -> Any:
    """float32 lengths of the rows: 0 below float32's normal range, NaN if not finite."""
    numbers, kind = library(x), namespace(x)[1]
    result = sums_of_squares(x, backend)
    unsafe = result[:0]
    if kind.dtype_name(x) in ("float32", "bfloat16"):
        low, high = _SAFE_SQUARES
        unsafe = numbers.where(~((result > low) & (result < high)))[0]
    numbers.sqrt(result, out=result)
    block = max(1, _BLOCK_VALUES // x.shape[1])
    for first in range(0, len(unsafe), block):
        rows = unsafe[first : first + block]
        wide = kind.cast(x[rows], "float64")
        result[rows] = kind.cast(numbers.sqrt((wide * wide).sum(1)), "float32")
    result[result < _SMALLEST_NORM] = 0
    result[~numbers.isfinite(result)] = float("nan")
    return result


def sums_of_squares(x: Any, backend: str) -> Any:
    result, target = namespace(x)[1].allocate((len(x),), "float32", x, backend)
    launcher("search", backend, "sums_of_squares")(x, target)
    return result


def reciprocal(lengths: Any) -> Any:
    """1 / length, and 0 for length 0, in the place of the lengths."""
    lengths[lengths == 0] = float("inf")
    return library(lengths).reciprocal(lengths, out=lengths)


def distant_centre(x: Any) -> Any:
    """A row of the float32 `x` near the mean, if the mean lies far from the origin beside the spread; else None."""
    kind, numbers = namespace(x)[1], library(x)
    if kind.dtype_name(x) != "float32" or len(x) == 0:
        return None
    sample = kind.cast(sampled(x, 0, len(x)), "float64")
    sample = sample[numbers.isfinite(sample).all(1)]
    if len(sample) == 0:
        return None
    mean = sample.mean(0)
    squares = ((sample - mean) ** 2).sum(1)
    if (mean * mean).sum() <= _FAR**2 * squares.mean():
        return None
    return kind.cast(sample[squares.argmin()], "float32")


def sampled(x: Any, first: int, whole: int) -> Any:
    """The rows of `x` in an even sample of a database of `whole` rows, in which `x` begins at row `first`."""
    step = -(-whole // _SAMPLE)
    return x[-first % step :: step]


def squares_from(x: Any, centre: Any) -> Any:
    """``sum((x[n] - centre) ** 2)`` in float32, a block of rows at a time."""
    result = library(x).empty_like(x[:, 0])
    block = max(1, _BLOCK_VALUES // x.shape[1])
    for first in range(0, len(x), block):
        difference = x[first : first + block] - centre
        result[first : first + block] = (difference * difference).sum(1)
    return result


def ignoring_overflow() -> Any:
    """Overflow to Inf, and NaN from Inf, are results here and not worth NumPy's warnings."""
    return np.errstate(over="ignore", invalid="ignore", under="ignore")
