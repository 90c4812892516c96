"""approx_max_k and approx_min_k."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _options
from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from . import _plan, _rows
from ._plan import RecallPlan
from ._topk import topk


class Request(NamedTuple):
    """What was asked for: `k` of the axis, or all survivors (`aggregate` False), of a whole of `size` elements."""

    k: int
    axis: int
    size: int
    recall_target: float
    aggregate: bool
    largest: bool


def approx_max_k(
    operand: Any,
    k: int,
    *,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    reduction_input_size_override: int = -1,
    aggregate_to_topk: bool = True,
    backend: str | None = None,
) -> tuple[Any, Any]:
    """The k largest elements along a dimension, approximately: the contract of `jax.lax.approx_max_k`.

    The dimension is cut into stripes of one element for each bin, every stripe rotated by a hash of its
    number (`pykernels.kernels.topk` defines it); the best few of each bin survive, and the k best of the
    survivors are the result. `plan` chooses the bins so that the expected share
    of the true k best is at least `recall_target`, or the exact top-k where that is cheaper. The order
    of elements is that of `topk`, for NaN, -0.0 and ties too.

    The expectation is over random positions. Best elements side by side in a stripe, as near-duplicates
    often are, never share a bin, and the rotations spread those that repeat with a period. Only positions
    chosen by who knows the hash, which is fixed, put all of the best into one bin and break the promise;
    `recall_target=1.0` cannot be broken.

    Parameters
    ----------
    operand : array of float64, float32, float16 or bfloat16, of any strides and at least one dimension
    k : 1 to the size of the dimension
    reduction_dimension : the dimension to select along; all others are batches
    recall_target : in (0, 1]; 1.0 is the exact top-k
    reduction_input_size_override : where `operand` is a shard, the size of the whole input along the
        dimension, at least that of the shard; -1 otherwise. The shard then has as small bins as a plan
        for the whole: the survivors of all shards, or the k best of each, merged, have in expectation
        `recall_target` of the k best of the whole.
    aggregate_to_topk : False for the survivors themselves, for example to merge with other shards'
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    (values, indices), arrays of operand's kind; indices are int64 (int32 in JAX). With `k` along the
    dimension, the best first. Not aggregated, ``bins * per_bin >= k`` survivors in slots, slot
    ``r * bins + b`` the r-th best of bin b; or if the plan is exact the k best in the order of their
    indices. Under torch the gradient goes to the selected elements.

    Raises
    ------
    TypeError for other dtypes (integers too, see `topk`) and arguments of wrong type; ValueError for
    those out of range; NotImplementedError for a backend that cannot run here.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.topk import approx_max_k
    >>> x = np.arange(20.0).reshape(2, 10)
    >>> approx_max_k(x, 2, recall_target=1.0)
    (array([[ 9.,  8.],
           [19., 18.]]), array([[9, 8],
           [9, 8]]))
    """
    whole = reduction_input_size_override
    return _approximate(operand, k, reduction_dimension, recall_target, whole, aggregate_to_topk, True, backend)


def approx_min_k(
    operand: Any,
    k: int,
    *,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    reduction_input_size_override: int = -1,
    aggregate_to_topk: bool = True,
    backend: str | None = None,
) -> tuple[Any, Any]:
    """The k smallest elements along a dimension, approximately; see `approx_max_k`.

    NaN counts as larger than +Inf here too, and is found last.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.topk import approx_min_k
    >>> approx_min_k(np.float32([3, np.nan, 1, 2]), 2)
    (array([1., 2.], dtype=float32), array([2, 3]))
    """
    whole = reduction_input_size_override
    return _approximate(operand, k, reduction_dimension, recall_target, whole, aggregate_to_topk, False, backend)


def _approximate(
    operand: Any,
    k: int,
    dimension: int,
    recall_target: float,
    whole: int,
    aggregate: bool,
    largest: bool,
    backend: str | None,
) -> tuple[Any, Any]:
    x, arrays = namespace(operand)
    _options.floating(arrays, x, "operand")
    axis = _options.axis(dimension, len(x.shape), "reduction_dimension")
    n = x.shape[axis]
    k = _options.integer("k", k, 1, n)
    if whole == -1:
        whole = n
    whole = _options.integer("reduction_input_size_override", whole, n)
    request = Request(k, axis, whole, _options.recall_target(recall_target), bool(aggregate), largest)
    if arrays.tracing():
        _options.follows_data(backend)
    if arrays.tracing() or arrays.needs_gradient(x):
        return arrays.operators("topk").approximate(x, request, backend)  # type: ignore[no-any-return]
    return by_request(arrays, x, request, choose_backend(arrays, x, backend))


def by_request(arrays: Any, x: Any, request: Request, backend: str) -> tuple[Any, Any]:
    bins = plan_of(request, x.shape[request.axis], backend)
    if bins.bins == x.shape[request.axis]:
        k, axis, largest, ordered = request.k, request.axis, request.largest, request.aggregate
        return topk(x, k, axis=axis, largest=largest, sorted=ordered, backend=backend)
    return by_plan(arrays, x, request, bins, backend)


def by_plan(arrays: Any, x: Any, request: Request, bins: RecallPlan, backend: str) -> tuple[Any, Any]:
    """The survivors of the bins, or the k best of them."""
    dtype = arrays.dtype_name(x)
    source = _rows.rows(arrays, x, request.axis, backend)
    partial = launcher("topk", backend, "partial_topk")

    def survive(values: Any, indices: Any) -> None:
        partial(source, bins.bins, bins.per_bin, request.largest, values, indices)

    if not request.aggregate:
        return _rows.fill(arrays, x, request.axis, bins.survivors, dtype, backend, None, survive)
    shape = (source.shape[0], bins.survivors)
    candidates = arrays.allocate(shape, dtype, x, backend)[1]
    ids = arrays.allocate(shape, "int64", x, backend)[1]
    survive(candidates, ids)
    select = launcher("topk", backend, "select")

    def choose(values: Any, indices: Any) -> None:
        select(candidates, ids, request.k, request.largest, values, indices)

    return _rows.fill(arrays, x, request.axis, request.k, dtype, backend, None, choose)


def plan_of(request: Request, n: int, backend: str) -> RecallPlan:
    """The plan for `n` elements of the whole."""
    return _plan.shard_plan(n, request.size, request.k, request.recall_target, backend)


def selected(request: Request, n: int, backend: str) -> int:
    """How many of `n` elements the result has."""
    if request.aggregate:
        return request.k
    bins = plan_of(request, n, backend)
    return request.k if bins.bins == n else bins.survivors
