"""The stages of a search, on launcher arguments: rank, find, score, order."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays import library, namespace
from .._dispatch import launcher
from ..quant import quantize
from . import _metric
from ._metric import Ranking
from ._vectors import FLOATS, Vectors, widened

SPARE = 16
"""Candidates beyond k for "l2", whose ranking score is rounded relative to squared lengths, not to distances."""


class Job(NamedTuple):
    """What a search was asked for. `rows` and `mask` are as the launchers take them, or None."""

    metric: str
    rows: Any
    mask: Any
    workspace: int
    backend: str

    @property
    def largest(self) -> bool:
        return self.metric != "l2"


def search(q: Vectors, x: Vectors, job: Job, scores: Any, ids: Any) -> None:
    """The best rows of `x` for each of `q`, with their true scores, in order."""
    search_ranked(q, x, rank(q, x, x.raw(job.backend), job), job, scores, ids)


def search_ranked(q: Vectors, x: Vectors, ranking: Ranking, job: Job, scores: Any, ids: Any) -> None:
    """`search`, where the ranking is known."""
    near, candidates = scores, ids
    count = candidate_count(job, scores.shape[1], x.rows)
    if count > scores.shape[1]:
        arrays = namespace(scores)[1]
        shape = (len(scores), count)
        near, candidates = (arrays.allocate(shape, name, scores, job.backend)[1] for name in ("float32", "int64"))
    find(ranking, x, job, near, candidates)
    if job.metric == "l2":
        distances(q, x, candidates, job, near)
    elif ranking.factor is None:
        return
    else:
        near *= ranking.factor[:, None]
    choose(near, candidates, x.rows, job, scores, ids)


def candidate_count(job: Job, k: int, rows: int) -> int:
    """How many rows are ranked for k results: "l2" chooses among a few more by their true distances."""
    return min(rows, k + SPARE) if job.metric == "l2" else k


def rank(q: Vectors, x: Vectors, sample: Any, job: Job) -> Ranking:
    """How the rows of `x` rank for `q`; `sample` stands for all rows of a database of which `x` may be a part."""
    each_query_scaled = q.scale is not None and q.scale.ndim > 0
    if q.dtype == x.dtype and not (job.metric == "l2" and each_query_scaled):
        return _rank(q.raw(job.backend), q.raw_scale(job.backend), x, sample, job)
    return _rank(q.floats(job.backend, q.dtype if q.dtype in FLOATS else "float32"), None, x, sample, job)


def find(ranking: Ranking, x: Vectors, job: Job, scores: Any, ids: Any) -> None:
    """The best rows of `x` by ranking score, in order."""
    rows, queries = x.raw(job.backend), ranking.queries
    if queries.dtype == rows.dtype:
        _run(ranking, rows, job, scores, ids)
    else:
        _run_on_codes(ranking, rows, namespace(queries)[1].dtype_name(queries), job, scores, ids)


def distances(q: Vectors, x: Vectors, ids: Any, job: Job, out: Any) -> None:
    run = launcher("search", job.backend, "distances")
    run(q.floats(job.backend), x.raw(job.backend), x.raw_scale(job.backend), ids, out)


def search_twice(q: Vectors, x: Vectors, fine: Vectors, count: int, job: Job, scores: Any, ids: Any) -> None:
    """The best rows of `fine` for each of the float32 `q`, of the `count` best of `x`, which stands for it."""
    backend = job.backend
    queries = q.raw(backend)
    arrays = namespace(queries)[1]
    near, candidates = (arrays.allocate((q.rows, count), name, queries, backend)[1] for name in ("float32", "int64"))
    codes, scale = _like_database(queries, x, job)
    _run(_rank(codes, scale, x, x.raw(backend), job), x.raw(backend), job, near, candidates)
    if job.metric == "l2":
        distances(q, fine, candidates, job, near)
    else:
        _products(queries, fine.raw(backend), candidates, job, near)
    choose(near, candidates, x.rows, job, scores, ids)


def choose(near: Any, candidates: Any, rows: int, job: Job, scores: Any, ids: Any) -> None:
    """The best of the candidates (Q, c) into `scores` and `ids` (Q, k), in order; those that are NaN or -1 are lost."""
    numbers, arrays = library(near), namespace(near)[1]
    lost = (candidates < 0) | numbers.isnan(near)
    near[lost] = float("-inf") if job.largest else float("inf")
    distinct = numbers.arange(rows, rows + near.shape[1], **on(near))
    candidates = numbers.where(lost, distinct, candidates)
    best, chosen = (arrays.allocate(tuple(scores.shape), t, near, job.backend)[1] for t in ("float32", "int64"))
    launcher("topk", job.backend, "select")(near, candidates, scores.shape[1], job.largest, best, chosen)
    chosen[chosen >= rows] = -1
    scores[...], ids[...] = best, chosen


def _rank(q: Any, q_scale: Any, x: Vectors, sample: Any, job: Job) -> Ranking:
    x_scale = x.raw_scale(job.backend)
    if job.metric == "ip":
        return _metric.inner_product(q, x_scale, q_scale)
    if job.metric == "cosine":
        return _metric.cosine(q, x.raw(job.backend), job.backend)
    return _metric.euclidean(q, x.raw(job.backend), x_scale, q_scale, sample, job.backend)


def _run(ranking: Ranking, x: Any, job: Job, scores: Any, ids: Any) -> None:
    q, scale, bias, _ = ranking
    launcher("search", job.backend, "search")(q, x, scale, bias, job.rows, job.mask, job.workspace, scores, ids)


def _run_on_codes(ranking: Ranking, x: Any, dtype: str, job: Job, scores: Any, ids: Any) -> None:
    """`_run`, on blocks of the codes `x` converted to the dtype of the queries."""
    arrays, numbers = namespace(scores)[1], library(scores)
    count, k = tuple(scores.shape)
    value_bytes = 4 if dtype == "float32" else 2
    block = max(1, job.workspace // 2 // (x.shape[1] * value_bytes + (count if job.mask is not None else 0)))
    near, candidates = (arrays.allocate((count, 2 * k), t, scores, job.backend)[1] for t in ("float32", "int64"))
    found, numbered = (arrays.allocate((count, k), t, scores, job.backend)[1] for t in ("float32", "int64"))
    scores[...], ids[...] = float("-inf"), -1
    ranked = job._replace(metric="ip")
    for first in range(0, len(x), block):
        last = min(first + block, len(x))
        part = _between(job, first, last)
        if part.rows is not None and len(part.rows) == 0:
            continue
        scale, bias = (term if term is None else term[first:last] for term in (ranking.scale, ranking.bias))
        values = widened(x[first:last], dtype, job.backend)
        _run(Ranking(ranking.queries, scale, bias, None), values, part, found, numbered)
        near[:, :k], near[:, k:] = scores, found
        candidates[:, :k], candidates[:, k:] = ids, numbers.where(numbered < 0, numbered, numbered + first)
        choose(near, candidates, len(x), ranked, scores, ids)


def _between(job: Job, first: int, last: int) -> Job:
    """The job for rows first:last of the database."""
    rows = job.rows
    if rows is not None:
        rows = rows[(rows >= first) & (rows < last)] - first
    mask = None if job.mask is None else namespace(job.mask)[1].dense(job.mask[:, first:last])
    return job._replace(rows=rows, mask=mask, workspace=job.workspace // 2)


def _like_database(q: Any, x: Vectors, job: Job) -> tuple[Any, Any]:
    """The float32 queries in the dtype of the database, and their scales, one for all of them for "l2"."""
    if x.scale is None:
        return namespace(q)[1].cast(q, x.dtype), None
    granularity = "tensor" if job.metric == "l2" else "row"
    if x.dtype == "int8":
        codes, scale = _int8(q, granularity)
    else:
        quantized = quantize(q, "e4m3fn", granularity=granularity, backend=job.backend)
        codes, scale = namespace(q)[1].raw(quantized.codes, job.backend), quantized.scale
    return codes, library(q).broadcast_to(scale.reshape(-1), (len(q),))


def _int8(q: Any, granularity: str) -> tuple[Any, Any]:
    """Codes from -127 to 127; a row with NaN or Inf gets codes without meaning."""
    numbers = library(q)
    magnitude = numbers.where(numbers.isfinite(q), abs(q), numbers.zeros_like(q))
    magnitude = magnitude.max() if granularity == "tensor" else numbers.amax(magnitude, 1)
    scale = numbers.where(magnitude > 0, magnitude, numbers.ones_like(magnitude)) / 127
    codes = numbers.clip(numbers.round(q / scale.reshape(-1, 1)), -127, 127)
    return namespace(q)[1].cast(codes, "int8"), scale


def _products(q: Any, x: Any, ids: Any, job: Job, out: Any) -> None:
    """``<q[i], x[ids[i, j]]>``, or the cosine, in float32, a block of queries at a time."""
    numbers = library(q)
    factor = None
    if job.metric == "cosine":
        q, factor = _metric.unit(q, job.backend)
    count, dim = ids.shape[1], x.shape[1]
    block = max(1, job.workspace // (8 * count * dim))
    for first in range(0, len(q), block):
        part = slice(first, first + block)
        rows = x[numbers.where(ids[part] < 0, numbers.zeros_like(ids[part]), ids[part])]
        scores = numbers.matmul(rows, q[part, :, None])[:, :, 0]
        if factor is not None:
            lengths = _metric.norms(rows.reshape(-1, dim), job.backend)
            scores = scores * _metric.reciprocal(lengths).reshape(-1, count) * factor[part, None]
        out[part] = scores


def on(like: Any) -> dict[str, Any]:
    return {} if library(like).__name__ == "numpy" else {"device": like.device}
