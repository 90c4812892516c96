"""Every backend against the reference, on the user's own machine: what ``pykernels check topk`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import _arrays
from .._checking import Array, differences, on
from .._dispatch import interpreting
from ..families import Check
from ..kernels.topk import cases
from ._approx import Request, by_plan
from ._plan import RecallPlan
from ._topk import topk

SHAPES = ((1, 1), (3, 63), (2, 1025), (1, 5000))
LONG = ((3, 70_001), (64, 20_000))
BINS = ((7, 1), (64, 2), (128, 1), (200, 4))
FEW = ("float32", "bfloat16", "int64")


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """The comparisons; of more orders, bins and long rows if `exhaustive`, of few small ones by an interpreter."""
    for backend in backends:
        if backend == "reference":
            continue
        slow = backend == "gpu" and interpreting()
        for dtype in FEW if slow else cases.DTYPES:
            orders = cases.ORDERS if exhaustive and not slow else ("ties", "special", "patterns")
            for order in orders:
                shapes = SHAPES[1:3] if slow else SHAPES + LONG * exhaustive
                yield from _exact(dtype, order, shapes, backend, slow)
                yield from _approximate(dtype, order, shapes, backend, slow)


def _exact(dtype: str, order: str, shapes: Sequence[tuple[int, int]], backend: str, slow: bool) -> Iterator[Check]:
    for shape in shapes:
        x = cases.rows(shape, dtype, order)
        n = shape[-1]
        for k in sorted({1, min(n, 10)} if slow else {1, min(n, 10), min(n, 100), n // 2, n}):
            for largest, ordered in ((True, True), (False, False)):

                def call(
                    b: str, x: Array = x, k: int = k, largest: bool = largest, ordered: bool = ordered
                ) -> tuple[Any, Any]:
                    return topk(on(b, x), k, largest=largest, sorted=ordered, backend=b)

                case = f"{dtype} {shape} {order}, k {k}, {'largest' if largest else 'smallest'}"
                yield Check("topk", case, backend, _both(call, backend))


def _approximate(
    dtype: str, order: str, shapes: Sequence[tuple[int, int]], backend: str, slow: bool
) -> Iterator[Check]:
    if dtype not in cases.FLOATS:
        return
    for shape in shapes:
        x = cases.rows(shape, dtype, order)
        for bins, per_bin in BINS[:2] if slow else BINS:
            if shape[-1] // bins < per_bin:
                continue
            plan = RecallPlan(bins, per_bin, 0.0, bins * per_bin)
            for aggregate, largest in ((True, True), (False, False)):
                request = Request(min(bins, 10), 1, shape[-1], 0.0, aggregate, largest)

                def call(b: str, x: Array = x, request: Request = request, plan: RecallPlan = plan) -> tuple[Any, Any]:
                    array, arrays = _arrays.namespace(on(b, x))
                    return by_plan(arrays, array, request, plan, b)

                name = "approx_max_k" if largest else "approx_min_k"
                yield Check(name, f"{dtype} {shape} {order}, {per_bin} of {bins} bins", backend, _both(call, backend))


def _both(call: Callable[[str], tuple[Any, Any]], backend: str) -> Callable[[], tuple[int, int]]:
    """Values and indices compared."""

    def run() -> tuple[int, int]:
        compared = [differences(*parts) for parts in zip(call(backend), call("reference"), strict=True)]
        return sum(n for n, _ in compared), sum(bad for _, bad in compared)

    return run
