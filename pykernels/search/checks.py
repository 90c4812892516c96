"""Every backend against the reference, on the user's own machine: what ``pykernels check search`` runs.

Small integers have exact products and many equal scores: results must be the same. Random vectors are
compared by their scores, up to rounding in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import _arrays
from .._checking import Array, differences, on, rounded_differences
from .._dispatch import interpreting
from ..families import Check
from ..kernels.search import cases
from ..quant import QuantizedTensor
from ._knn import knn
from ._maxsim import maxsim
from ._metric import METRICS
from ._vectors import CODES, FLOATS

_TOLERANCE = 1e-5


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """The comparisons; of larger databases if `exhaustive`, of few small ones by an interpreter."""
    for backend in backends:
        if backend == "reference":
            continue
        slow = backend == "gpu" and interpreting()
        shapes = cases.SMALL if slow else cases.SHAPES + cases.LARGE * exhaustive
        for dtype in (*FLOATS, *CODES):
            for shape in shapes:
                yield from _searches(dtype, shape, backend)
            yield from _late_interactions(dtype, cases.TOKENS[1:2] if slow else cases.TOKENS, backend)


def _searches(dtype: str, shape: tuple[int, int, int], backend: str) -> Iterator[Check]:
    count, rows, dim = shape
    masks = {
        "all rows": None,
        "rows": _uniform((rows,), 3) < 0.5,
        "rows for each query": _uniform((count, rows), 4) < 0.5,
    }
    for data, make in (("integers", _integers), ("random", _random)):
        q, x = make((count, dim), dtype, 1), make((rows, dim), dtype, 2)
        for metric in METRICS:
            exact = data == "integers" and metric != "cosine"
            for name, mask in masks.items():

                def call(
                    b: str, q: Array = q, x: Array = x, metric: str = metric, mask: Array | None = mask
                ) -> tuple[Any, Any]:
                    return knn(on(b, q), on(b, x), min(len(x), 50), metric=metric, mask=mask, backend=b)  # type: ignore[no-any-return]

                yield Check(
                    "knn", f"{dtype} {shape} {metric}, {data}, {name}", backend, _compared(call, exact, backend)
                )
        if dtype in CODES:
            for metric in METRICS:
                yield Check(
                    "knn",
                    f"{dtype} {shape} {metric}, {data}, scaled",
                    backend,
                    _compared(_scaled(q, x, metric), False, backend),
                )


def _scaled(q: Array, x: Array, metric: str) -> Callable[[str], tuple[Any, Any]]:
    """A search of a quantized database, with a scale for each row."""
    scale = np.exp2(np.round(4 * _uniform((len(x), 1), 5))).astype(np.float32)

    def call(b: str) -> tuple[Any, Any]:
        queries = QuantizedTensor(on(b, q), on(b, np.array(0.5, np.float32)))
        database = QuantizedTensor(on(b, x), on(b, scale), "row")
        return knn(queries, database, min(len(x), 50), metric=metric, backend=b)  # type: ignore[no-any-return]

    return call


def _late_interactions(dtype: str, shapes: Sequence[tuple[int, int, int]], backend: str) -> Iterator[Check]:
    offsets = np.concatenate([[0], np.cumsum(cases.LENGTHS)]).astype(np.int64)
    for batch, width, dim in shapes:
        for data, make in (("integers", _integers), ("random", _random)):
            q, x = make((batch, width, dim), dtype, 1), make((int(offsets[-1]), dim), dtype, 2)
            counts = np.arange(batch) % (width + 1)

            def call(b: str, q: Array = q, x: Array = x, counts: Array = counts) -> tuple[Any, Any]:
                full = maxsim(on(b, q), on(b, x), document_offsets=offsets, backend=b)
                part = maxsim(on(b, q), on(b, x), document_offsets=offsets, query_lengths=counts, backend=b)
                return full, part

            case = f"{dtype} ({batch}, {width}, {dim}), {data}"
            yield Check("maxsim", case, backend, _compared(call, data == "integers", backend))


def _compared(call: Callable[[str], tuple[Any, Any]], exact: bool, backend: str) -> Callable[[], tuple[int, int]]:
    """Both results of a call; unless `exact`, floating-point ones up to rounding, and no others."""

    def run() -> tuple[int, int]:
        compared = mismatches = 0
        for got, expected in zip(call(backend), call("reference"), strict=True):
            if exact:
                count, different = differences(got, expected)
            else:
                count, different = rounded_differences(got, expected, _TOLERANCE)
            compared, mismatches = compared + count, mismatches + different
        return compared, mismatches

    return run


def _integers(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    values = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)
    return values.astype(_arrays.dtype_of(dtype))


def _random(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return (values * 30 if dtype == "int8" else values).astype(_arrays.dtype_of(dtype))


def _uniform(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).random(shape)
