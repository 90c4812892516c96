"""Search and selection over data that several processes hold, with torch.distributed."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .. import _options
from .._arrays import FLOATING, library, namespace
from .._dispatch import choose_backend, launcher
from .._group import Group
from ..topk import approx_max_k, plan, topk
from . import _knn, _metric, _stages
from ._metric import Ranking
from ._stages import Job
from ._vectors import CODES, FLOATS, Vectors, vectors

_DTYPES = FLOATS + CODES


def sharded_knn(
    queries: Any,
    shard: Any,
    k: int,
    *,
    metric: str = "ip",
    recall_target: float = 1.0,
    mask: Any = None,
    workspace: int = _knn.WORKSPACE,
    group: Any = None,
    backend: str | None = None,
) -> tuple[Any, Any]:
    """`knn` over a database whose rows several processes hold; all of them call it and get the same result.

    The result is that of one process with all rows, bit for bit (quantized rows: with the same scales).
    Each process searches its shard and sends k candidates for each query to all others, by `all_gather`.

    Parameters
    ----------
    queries : (..., D), the same on every process
    shard : (n, D), this process's rows of the database, as for `knn`; n >= 0 may differ
        The ids are the numbers of the rows in the shards put one after another in the order of ranks.
    k : 0 to the number of rows of all shards
    metric, recall_target, workspace, backend : as for `knn`; the first two the same on every process
    mask : bool array for this process's rows, (n,) or (..., n)
    group : process group; None for all processes
        With NCCL tensors travel between GPUs, with Gloo between CPUs.

    Returns
    -------
    (scores, ids) as from `knn`, (..., k).

    Raises
    ------
    What `knn` raises. Where one process raises an error for its arguments, all others raise
    RuntimeError; ValueError on all where they disagree. ValueError without a process group, and
    NotImplementedError without torch.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from torch import distributed
    >>> from pykernels.search import sharded_knn
    >>> file = os.path.join(tempfile.mkdtemp(), "store")
    >>> distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    >>> sharded_knn(np.float32([[1, 0]]), np.float32([[0, 1], [2, 0], [1, 0]]), k=2)
    (array([[2., 1.]], dtype=float32), array([[1, 2]]))
    >>> distributed.destroy_process_group()
    """
    peers = Group(group)

    def describe() -> tuple[int, dict[str, int]]:
        q, x = vectors("queries", queries), vectors("shard", shard)
        _knn.check(q, x, None)
        _options.integer("workspace", workspace, _knn.SMALLEST_WORKSPACE)
        _options.choice("metric", metric, _metric.METRICS)
        _options.recall_target(recall_target)
        _knn.allowed(mask, q, x, choose_backend(q.arrays, q.values, backend))
        return x.rows, {
            "k": _options.integer("k", k, 0),
            "metric": _metric.METRICS.index(metric),
            "the number of queries": q.rows,
            "the length of vectors": x.shape[-1],
            "the dtype of queries": _DTYPES.index(q.dtype),
            "the dtype of shard": _DTYPES.index(x.dtype),
        }

    sizes = peers.agree(describe)
    k = _options.integer("k", k, 0, sum(sizes))
    q, x = vectors("queries", queries), vectors("shard", shard)
    backend = choose_backend(q.arrays, q.values, backend)
    job = Job(metric, *_knn.allowed(mask, q, x, backend), workspace, backend)
    results = [q.arrays.allocate((*q.shape[:-1], k), name, q.values, backend) for name in ("float32", "int64")]
    if q.rows and k:
        scores, ids = (target.reshape(q.rows, k) for _, target in results)
        with _metric.ignoring_overflow():
            _search(q, x, peers, sizes, job, scores, ids)
    return results[0][0], results[1][0]


def _search(q: Vectors, x: Vectors, peers: Group, sizes: list[int], job: Job, scores: Any, ids: Any) -> None:
    """The stages of a search, with the candidates of all shards brought together between ranking and scoring."""
    rows = x.raw(job.backend)
    sample = _sample(rows, peers, sizes) if job.metric == "l2" and x.dtype == "float32" else rows
    ranking = _stages.rank(q, x, sample, job)
    count = _stages.candidate_count(job, ids.shape[1], sum(sizes))
    candidates = _candidates(q, x, ranking, sum(sizes[: peers.rank]), (len(ids), count), scores, job)
    numbers = library(scores)
    ranks, found, *near = (numbers.concatenate(peers.gather(part), 1) for part in candidates)

    # equal scores lie in the order of their ids, within a shard and from shard to shard
    positions = numbers.zeros_like(found)
    positions += numbers.arange(found.shape[1], **_stages.on(found))
    best, chosen = numbers.empty_like(ranks[:, :count]), numbers.empty_like(positions[:, :count])
    launcher("topk", job.backend, "select")(ranks, positions, count, True, best, chosen)
    query = numbers.arange(len(ids), **_stages.on(ids))[:, None]
    found = found[query, chosen]
    if near:
        best = near[0][query, chosen]
    elif ranking.factor is None:
        scores[...], ids[...] = best, found
        return
    else:
        best *= ranking.factor[:, None]
    _stages.choose(best, found, sum(sizes), job, scores, ids)


def _candidates(
    q: Vectors, x: Vectors, ranking: Ranking, first: int, shape: tuple[int, int], like: Any, job: Job
) -> list[Any]:
    """Ranking scores and ids, and for "l2" distances, of the best rows of a shard, which begins at row `first`.

    All are (Q, count) of `shape`, beside `like`; -Inf, -1 and Inf fill up those of a shard of fewer rows.
    """
    numbers, arrays = library(like), namespace(like)[1]
    ranks, ids = (arrays.allocate(shape, name, like, job.backend)[1] for name in ("float32", "int64"))
    ranks[...], ids[...] = float("-inf"), -1
    near = [numbers.full_like(ranks, float("inf"))] if job.metric == "l2" else []
    count = min(shape[1], x.rows)
    if count:
        own = (len(like), count)
        scores, rows = (arrays.allocate(own, name, like, job.backend)[1] for name in ("float32", "int64"))
        _stages.find(ranking, x, job, scores, rows)
        ranks[:, :count], ids[:, :count] = scores, numbers.where(rows < 0, rows, rows + first)
        if near:
            _stages.distances(q, x, rows, job, scores)
            near[0][:, :count] = scores
    return [ranks, ids, *near]


def _sample(x: Any, peers: Group, sizes: list[int]) -> Any:
    """The rows that `_metric.distant_centre` would look at if one process had all of them."""
    starts = [sum(sizes[:rank]) for rank in range(len(sizes))]
    own, *sampled = (
        _metric.sampled(rows, start, sum(sizes))
        for rows, start in zip((x, *map(range, sizes)), (starts[peers.rank], *starts), strict=True)
    )
    return _together(own.T, [len(rows) for rows in sampled], peers).T


def sharded_approx_max_k(
    shard: Any,
    k: int,
    *,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    group: Any = None,
    backend: str | None = None,
) -> tuple[Any, Any]:
    """`topk.approx_max_k` along a dimension that several processes hold parts of; all of them get the same result.

    Each process finds its candidates as in a part of the whole (``reduction_input_size_override``), so
    that the expected recall of the merged result is at least `recall_target`; 1.0 gives exactly the
    `topk` of one process with all parts.

    Parameters
    ----------
    shard : floating-point array, this process's part along `reduction_dimension`, whose size n >= 0 may
        differ; the other dimensions are the same on every process. Parts follow one another by rank.
    k : 1 to the size of all parts together
    reduction_dimension, recall_target, backend : as for `approx_max_k`
    group : process group; None for all processes

    Returns
    -------
    (values, indices) : as from `approx_max_k`, indices of the whole

    Raises
    ------
    What `approx_max_k` raises, and errors of disagreement as `sharded_knn`.
    """
    peers = Group(group)
    x, arrays = namespace(shard)
    if not isinstance(x, np.ndarray):
        x = x.detach()

    def describe() -> tuple[int, dict[str, int]]:
        dtype = _options.floating(arrays, x, "shard")
        axis = _options.axis(reduction_dimension, len(x.shape), "reduction_dimension")
        plan(1, 1, recall_target, backend=choose_backend(arrays, x, backend))
        return x.shape[axis], {
            "k": _options.integer("k", k, 1),
            "the dtype of shard": FLOATING.index(dtype),
            "the number of dimensions": len(x.shape),
            "reduction_dimension": axis,
            "the size of the other dimensions": prod(x.shape[:axis] + x.shape[axis + 1 :]),
        }

    sizes = peers.agree(describe)
    whole, first = sum(sizes), sum(sizes[: peers.rank])
    k = _options.integer("k", k, 1, whole)
    numbers = library(x)
    parts = numbers.moveaxis(x, reduction_dimension, -1)
    count = min(k, sizes[peers.rank])
    if count < k:
        best = topk(parts, count, backend=backend)
    else:
        best = approx_max_k(parts, k, recall_target=recall_target, reduction_input_size_override=whole, backend=backend)
    counts = [min(k, size) for size in sizes]
    values, indices = (_together(each, counts, peers) for each in (best[0], best[1] + first))
    # equal values lie in the order of their indices, within a part and from part to part
    values, chosen = topk(values, k, backend=backend)
    row = numbers.arange(prod(values.shape[:-1]), **_stages.on(indices))[:, None]
    indices = indices.reshape(len(row), sum(counts))[row, chosen.reshape(len(row), k)].reshape(values.shape)
    return tuple(numbers.moveaxis(each, -1, reduction_dimension) for each in (values, indices))


def _together(x: Any, counts: list[int], peers: Group) -> Any:
    """The arrays `x` of all processes, of `counts` columns, side by side."""
    kind = namespace(x)[1]
    room = kind.allocate((*x.shape[:-1], max(counts)), kind.dtype_name(x), x, "gpu")[0]
    room[..., : x.shape[-1]] = x
    parts = zip(peers.gather(room), counts, strict=True)
    return library(x).concatenate([part[..., :count] for part, count in parts], -1)
