"""topk."""

from __future__ import annotations

from typing import Any

from .. import _options
from .._arrays import FLOATING, INTEGERS, namespace
from .._dispatch import choose_backend, launcher
from . import _rows

DTYPES = (*FLOATING, *INTEGERS, "uint8")


def topk(
    x: Any,
    k: int,
    *,
    axis: int = -1,
    largest: bool = True,
    sorted: bool = True,
    out: tuple[Any, Any] | None = None,
    backend: str | None = None,
) -> tuple[Any, Any]:
    """The k largest (or smallest) elements along an axis, exactly, and where they are.

    Elements are ranked by value, and equal values by their index, the lowest first, always: the result
    is the same on every backend, the head of a stable sort. -0.0 equals 0.0. Every NaN, of either sign,
    is equal to every other and larger than +Inf: first for the largest, last for the smallest.

    Parameters
    ----------
    x : array of float64, float32, float16, bfloat16, int8, int16, int32, int64 or uint8, of any strides
        and at least one dimension
    k : 0 to the size of the axis
    axis : the axis to select along; all others are batches, and may be empty
    largest : whether to select the largest or the smallest
    sorted : True for the order of the ranking, the best first; False for the order of the indices
    out : pair (values, indices) of arrays of x's dtype and of int64, of the result's shape, sharing no
        memory with `x` or each other
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    (values, indices), arrays of x's kind with `k` along `axis`. Values are as they are in `x`, a -0.0
    too. Indices are int64. Under torch the gradient goes to the selected elements.

    Raises
    ------
    TypeError for other dtypes, a `k` or `axis` that is no integer, and an `out` of wrong kind or dtype;
    ValueError for `k` or `axis` out of range, and an `out` of wrong shape or overlapping memory;
    NotImplementedError for a backend that cannot run here. Nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.topk import topk
    >>> topk(np.array([3, 7, 1, 7, 5]), 3)
    (array([7, 7, 5]), array([1, 3, 4]))
    >>> topk(np.float32([[3, 1, 2], [0, -1, np.nan]]), 2, largest=False)[1]
    array([[1, 2],
           [1, 0]])
    """
    x, arrays = namespace(x)
    dtype = _options.dtype_name(arrays, x, DTYPES)
    axis = _options.axis(axis, len(x.shape))
    k = _options.integer("k", k, 0, x.shape[axis])
    if out is not None:
        _rows.check_out(arrays, x, axis, k, dtype, out)
    if arrays.tracing():
        _options.follows_data(backend)
    if arrays.tracing() or arrays.needs_gradient(x):
        return arrays.operators("topk").topk(x, k, axis, largest, sorted, out, backend)  # type: ignore[no-any-return]
    backend = choose_backend(arrays, x, backend)
    launch = launcher("topk", backend, "topk")
    source = _rows.rows(arrays, x, axis, backend)

    def run(values: Any, indices: Any) -> None:
        launch(source, k, largest, sorted, values, indices)

    return _rows.fill(arrays, x, axis, k, dtype, backend, out, run)
