"""Rows of a database as an index keeps them: the stored type, and what the metric needs beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays, _options
from .._arrays import library, namespace
from .._dispatch import choose_backend
from ..quant import amax, decode, quantize
from . import _metric

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float16", "bfloat16", "int8", "e4m3fn")
QUANTIZED = ("int8", "e4m3fn")
ID_LIMIT = _options.INT64_MAX

_INT8_MAX = 127
_SMALLEST_SCALE = 2.0**-126


def home(x: Any, like: Any) -> Any:
    """`x` as the kind of array that `like` is, on its device, in C order."""
    x, arrays = namespace(x)
    if isinstance(like, np.ndarray):
        return _arrays.dense(arrays.to_numpy(x))
    if isinstance(x, np.ndarray):
        return namespace(like)[1].from_numpy(_arrays.dense(x), like)
    return x.detach().to(like.device).contiguous()


def numpy(x: Any) -> Array:
    array: Array = namespace(x)[1].to_numpy(x)
    return array


def stored(vectors: Any, dtype: str, like: Any) -> dict[str, Any]:
    """Columns `vectors` and, if quantized, `factor`, of floating-point vectors (n, D), beside `like`."""
    x = home(vectors, like)
    arrays = namespace(x)[1]
    with np.errstate(over="ignore"):
        x = arrays.cast(x, "float32" if dtype in QUANTIZED else dtype)
    _refuse_not_finite(x, dtype)
    if dtype == "e4m3fn":
        codes = quantize(x, "e4m3fn", granularity="row")
        return {"vectors": arrays.raw(codes.codes, "gpu"), "factor": codes.scale.reshape(-1)}
    return _int8(x) if dtype == "int8" else {"vectors": x}


def check_stored(columns: dict[str, Any], dtype: str) -> None:
    """Refuse NumPy columns that `stored` never makes."""
    x = columns["vectors"]
    if dtype == "e4m3fn":
        _refuse_rows(((x & 0x7F) == 0x7F).any(1), "the code of a NaN")
    elif dtype == "int8":
        _refuse_rows((x < -_INT8_MAX).any(1), "the code -128")
    else:
        _refuse_not_finite(x, dtype)
    if "factor" in columns:
        _refuse_rows(~(np.isfinite(columns["factor"]) & (columns["factor"] > 0)), "a scale that is not positive")


def with_metric(columns: dict[str, Any], metric: str, centre: Any) -> dict[str, Any]:
    """The columns with the `scale` and `bias` that make ranking scores of inner products, as the metric needs.

    `centre`, or None for the origin, is where "l2" measures from; see `_metric.euclidean`.
    """
    if metric == "ip":
        return columns
    x, arrays = namespace(columns["vectors"])
    backend = choose_backend(arrays, x, None)
    source = arrays.raw(x, backend)
    with _metric.ignoring_overflow():
        if metric == "cosine":
            term = {"scale": _metric.reciprocal(_metric.norms(source, backend))}
        elif centre is not None:
            term = {"bias": -0.5 * _metric.squares_from(source, arrays.raw(centre, backend))}
        else:
            factor = columns.get("factor", 1.0)
            squares = home(_metric.sums_of_squares(source, backend), x)
            term = {"bias": -0.5 * factor * factor * squares}
        term = {name: home(value, x) for name, value in term.items()}
    for value in term.values():
        _refuse_rows(~np.isfinite(numpy(value)), "numbers whose squares are too large for float32")
    return columns | term


def values(columns: dict[str, Any], dtype: str) -> Any:
    """The vectors in float32."""
    x, arrays = namespace(columns["vectors"])
    if dtype == "e4m3fn":
        x = decode(x, format="e4m3fn")
    x = arrays.cast(x, "float32")
    return x * columns["factor"][:, None] if "factor" in columns else x


def check_vectors(vectors: Any, dim: int, name: str = "vectors") -> Any:
    """`vectors` as a floating-point array of shape (n, dim)."""
    x, arrays = namespace(vectors)
    _options.floating(arrays, x, name)
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (n, {dim})")
    return x


def distinct_ids(ids: Any, count: int | None = None) -> Array:
    """`ids` as a vector of `count` int64 in [0, 2**63), without repetition."""
    given = _options.integers("ids", ids)
    if count not in (None, len(given)):
        raise ValueError(f"ids has shape {given.shape}: expected ({count},), one for each vector")
    if given.min(initial=0) < 0:
        raise ValueError(f"ids has {given.min()}: expected integers from 0")
    unique, counts = np.unique(given, return_counts=True)
    if len(unique) < len(given):
        raise ValueError(f"ids has {unique[counts.argmax()]} more than once: expected distinct ids")
    return given


def _int8(x: Any) -> dict[str, Any]:
    numbers = library(x)
    magnitude = amax(x, 1)
    factor = numbers.where(magnitude > 0, (magnitude / np.float32(_INT8_MAX)).clip(_SMALLEST_SCALE), 1.0)
    codes = numbers.round(x / factor[:, None])
    return {"vectors": namespace(x)[1].cast(codes, "int8"), "factor": factor}


def _refuse_not_finite(x: Any, dtype: str) -> None:
    _refuse_rows(~np.isfinite(numpy(amax(x, 1))), f"a value that is NaN, Inf or too large for {dtype}")


def _refuse_rows(bad: Any, reason: str) -> None:
    if bad.any():
        raise ValueError(f"vectors has, in row {int(bad.argmax())}, {reason}: expected finite numbers")
