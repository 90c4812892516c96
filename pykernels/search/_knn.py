"""knn."""

from __future__ import annotations

from typing import Any

from .. import _options
from .._arrays import library, namespace
from .._dispatch import choose_backend
from . import _metric, _stages
from ._results import check_out_pair, deliver
from ._vectors import FLOATS, Vectors, check_pair, vectors

WORKSPACE = 64 << 20
SMALLEST_WORKSPACE = 1 << 20

_TERMS_BYTES = 8
"""Of each row: the float32 scale and bias that make the metric, which are held while searching."""


def knn(
    queries: Any,
    database: Any,
    k: int,
    *,
    metric: str = "ip",
    recall_target: float = 1.0,
    mask: Any = None,
    rescore: Any = None,
    oversampling: int = 4,
    workspace: int = WORKSPACE,
    out: tuple[Any, Any] | None = None,
    backend: str | None = None,
) -> Any:
    """The k rows of a database that are nearest to each query, by brute force (TPU-KNN, arXiv 2206.14286).

    Parameters
    ----------
    queries : (..., D), any number of leading dimensions, also none
    database : (N, D)
        Arrays of NumPy or torch, both of the same dtype: float32, float16, bfloat16, int8 or
        float8_e4m3fn; or QuantizedTensors of one format, int8 or e4m3fn, with granularity "tensor" or
        "row". A QuantizedTensor can also be searched with floating-point queries: blocks of its rows
        are then converted to the dtype of the queries, which is exact and as fast as that dtype.
        Quantize the queries too for the speed of the codes (for "l2" with granularity "tensor").
    k : neighbours to find, 0 to N
    metric : "ip", the inner product; "cosine"; or "l2", the squared Euclidean distance
    recall_target : the expected share of the true neighbours that is found, in (0, 1]
        Scores never reach memory, so that selecting from them exactly costs a few percent of the matrix
        product: the result is exact for every target.
    mask : bool array, True for the rows that may be found: (N,), or (..., N) for each query
    rescore : the database in float32, (N, D), of which `database` is a version of lower precision
        The ``min(N, oversampling * k)`` best rows of `database` are scored again with `rescore`, in
        float32, and the best k of these returned. `queries` are float32, and converted like the
        database for the first stage. A plain int8 database, whose scale is unknown, cannot be rescored.
    oversampling : candidates for each result, at least 1, of which `rescore` chooses
    workspace : about how many bytes may be used at once beside the arguments, dense copies of those that
        are not, and the results; at least 1 MiB
    out : pair of arrays for scores and ids, sharing no memory with the inputs
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    (scores, ids) : float32 and int64 arrays (..., k)
        "ip" and "cosine": scores descending; "l2": true distances, computed from differences: ascending,
        never negative, and 0 for equal vectors. Equal scores are in the order of ids. Where fewer than k
        rows are allowed, the last ids are -1, with the score -Inf ("l2": Inf).

    Rows are ranked by scores accumulated in float32. "l2" ranks by an inner product less half a squared
    length, and takes the best k of the ``k + 16`` first by their true distances; a float32 database far
    from the origin beside its spread is ranked relative to one of its rows. With "cosine", a vector of
    length zero (or below 2**-126) has similarity 0. A row whose score is NaN is never found, so that rows
    with NaN (or Inf, for "l2" and "cosine") are skipped and a query with NaN finds nothing. Not
    differentiable.

    Raises
    ------
    TypeError for dtypes that are not accepted or do not match; ValueError for shapes that do not, k outside
    0..N, recall_target outside (0, 1], a workspace below 1 MiB, an unknown metric, and an `out` of wrong
    shape or overlapping memory; NotImplementedError for a backend that cannot run here.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.search import knn
    >>> database = np.float32([[1, 0], [0, 1], [3, 4], [1, 0]])
    >>> scores, ids = knn(np.float32([1, 0]), database, 2)
    >>> scores, ids
    (array([3., 1.], dtype=float32), array([2, 0]))
    >>> knn(np.float32([[1, 0]]), database, 3, metric="l2", mask=np.array([True, True, True, False]))
    (array([[ 0.,  2., 20.]], dtype=float32), array([[0, 1, 2]]))
    """
    q, x = vectors("queries", queries), vectors("database", database)
    if q.arrays.tracing():
        _options.follows_data(backend)
        _options.recall_target(recall_target)
        options = (k, metric, mask, rescore, oversampling, workspace, out)
        return q.arrays.operators("search").knn(queries, database, *options)
    arrays = q.arrays
    fine = check(q, x, rescore)
    k = _options.integer("k", k, 0, x.rows)
    _options.choice("metric", metric, _metric.METRICS)
    _options.recall_target(recall_target)
    oversampling = _options.integer("oversampling", oversampling, 1)
    workspace = _options.integer("workspace", workspace, SMALLEST_WORKSPACE)
    backend = choose_backend(arrays, q.values, backend)
    shape = (*q.shape[:-1], k)
    if out is not None:
        sources = (q.values, x.values) if fine is None else (q.values, x.values, fine.values)
        check_out_pair(arrays, out, shape, sources)
    left = max(workspace - _TERMS_BYTES * x.rows, workspace // 2)
    job = _stages.Job(metric, *allowed(mask, q, x, backend), left, backend)
    results = [arrays.allocate(shape, name, q.values, backend) for name in ("float32", "int64")]
    if q.rows and k:
        scores, ids = (target.reshape(q.rows, k) for _, target in results)
        with _metric.ignoring_overflow():
            if fine is None:
                _stages.search(q, x, job, scores, ids)
            else:
                _stages.search_twice(q, x, fine, min(x.rows, k * oversampling), job, scores, ids)
    return deliver(arrays, (results[0][0], results[1][0]), out)


def check(q: Vectors, x: Vectors, rescore: Any) -> Vectors | None:
    """`rescore`, after checking that it, the queries and the database fit together."""
    if len(q.shape) < 1 or len(x.shape) != 2:
        raise ValueError(f"queries has shape {q.shape} and database {x.shape}: expected (..., D) and (N, D)")
    check_pair(q, x, ("queries", "database"))
    if rescore is None:
        widened = q.scale is None and q.dtype in FLOATS and x.scale is not None
        if not widened and (q.dtype, q.scale is None) != (x.dtype, x.scale is None):
            raise TypeError(
                f"queries has dtype {q.described} and database {x.described}: expected the same, "
                "or floating-point queries of a QuantizedTensor"
            )
        return None
    fine = vectors("rescore", rescore)
    for name, each in (("queries", q), ("rescore", fine)):
        if each.dtype != "float32":
            raise TypeError(f"{name} has dtype {each.described}: expected float32, as rescore is given")
    if x.scale is None and x.dtype not in FLOATS:
        raise TypeError(f"database has dtype {x.dtype}: expected a QuantizedTensor, as rescore is given")
    check_pair(q, fine, ("queries", "rescore"))
    if fine.shape != x.shape:
        raise ValueError(f"rescore has shape {fine.shape}: expected {x.shape}, as database")
    return fine


def allowed(mask: Any, q: Vectors, x: Vectors, backend: str) -> tuple[Any, Any]:
    """The numbers of the rows that `mask` allows to all queries, and its rows for each query; either may be None."""
    if mask is None:
        return None, None
    mask, kind = namespace(mask)
    _options.dtype_name(kind, mask, ("bool",), "mask")
    shapes = (x.rows,), (*q.shape[:-1], x.rows)
    if tuple(mask.shape) not in shapes:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {shapes[0]} or {shapes[1]}")
    if kind is not q.arrays:
        mask, kind = q.arrays.from_numpy(kind.to_numpy(mask), q.values), q.arrays
    if mask.ndim > 1:
        return None, kind.raw(kind.dense(mask), backend, (q.rows, x.rows))
    flags = kind.raw(kind.dense(mask), backend)
    return library(flags).where(flags)[0], None
