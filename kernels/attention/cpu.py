"""Numba launchers, with the names and signatures of `reference`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cpu_backward import attention_backward as attention_backward
from .cpu_few import SPLIT, are_few, attend_splits, merge_splits
from .cpu_few_product import WIDTH
from .cpu_halo import halo as halo
from .cpu_halo_backward import halo_backward as halo_backward
from .cpu_problem import (
    DIM,
    GROUP,
    KEYS,
    KV_HEADS,
    QUERIES,
    VALUE_DIM,
    Places,
    cached,
    in_pairs,
    is_regular,
    places,
    rules,
    widened,
)
from .cpu_product import LANES
from .cpu_rows import attend_rows
from .cpu_steps import add_attend as add_attend
from .cpu_steps import add_store as add_store
from .cpu_steps import arrays_of_step as arrays_of_step
from .cpu_steps import query_dtype as query_dtype
from .cpu_store import store as store
from .cpu_tasks import heads_of, tasks_of
from .cpu_tile import PANELS, attend_tiles
from .problem import Cache, Lengths, Scoring

Array = np.ndarray[Any, Any]


def attention(q: Array, k: Array, v: Array, scoring: Scoring, lengths: Lengths, out: Array, lse: Array) -> None:
    """Attention of all sequences and heads into `out`, and the logarithms of the denominators into `lse`."""
    if lse.size == 0:
        return
    if lengths.cu_q is None:
        _attend_some(q, k, v, scoring, lengths, out, lse, _few(q, k, v, q.shape[2]), None)
        return
    counts = np.diff(lengths.cu_q)
    few = np.array([_few(q, k, v, count) for count in counts.tolist()], bool)
    for kind in (True, False):
        some = np.flatnonzero((few == kind) & (counts > 0))
        if len(some):
            _attend_some(q, k, v, scoring, lengths, out, lse, kind, some)


def _attend_some(
    q: Array, k: Array, v: Array, scoring: Scoring, lengths: Lengths, out: Array, lse: Array, few: bool, some: Any
) -> None:
    """Of the sequences `some`, or all."""
    if q.dtype != np.float64 and not _in_pairs(q, k, v, few):
        q = q.astype(np.float32, copy=False)
        if not few:
            k, v = k.astype(np.float32, copy=False), v.astype(np.float32, copy=False)
    target = _target(q, out)
    given = places(q, k, v, target, lse, lengths)
    _attend(given if some is None else given._replace(sequences=given.sequences[some]), scoring, few)
    if target is not out:
        for n in range(1) if some is None else some:
            tokens = slice(None) if some is None else slice(lengths.cu_q[n], lengths.cu_q[n + 1])
            out[:, :, tokens] = target[:, :, tokens]


def decode(q: Array, cache: Cache, scoring: Scoring, out: Array, lse: Array) -> None:
    """Attention of `q` (N, Hq, T, D), the last tokens of N sequences, to all keys of each."""
    if lse.size == 0:
        return
    few = _few(q, cache.k, cache.v, q.shape[2])
    if not _in_pairs(q, cache.k, cache.v, few):
        q = q.astype(np.float32, copy=False)
        if not few:
            cache = widened(cache)
    target = _target(q, out)
    _attend(cached(q, cache, target, lse), scoring, few)
    if target is not out:
        out[...] = target


def _few(q: Array, k: Array, v: Array, queries: int) -> bool:
    return q.dtype != np.float64 and are_few(queries * q.shape[1] // k.shape[1], q.shape[3], v.shape[3])


def _in_pairs(q: Array, k: Array, v: Array, few: bool) -> bool:
    return q.dtype == k.dtype and in_pairs(q.dtype, q.shape[3], v.shape[3], few)


def _target(q: Array, out: Array) -> Array:
    """Where kernels write: `out`, or, where it is not of the type of `q` or its strides do not do, memory for it."""
    return out if q.dtype == out.dtype and is_regular(out) else np.empty(out.shape, q.dtype)


def _attend(given: Places, scoring: Scoring, few: bool) -> None:
    sizes, keys = given.sizes.tolist(), given.sequences[:, KEYS].tolist()
    heads, dim, value_dim = sizes[KV_HEADS], sizes[DIM], sizes[VALUE_DIM]
    rows = given.sequences[:, QUERIES] * sizes[GROUP]
    most = max(rows.tolist())
    elements, workers = sum(keys) * heads * (dim + value_dim), numba.get_num_threads()
    if given.q.dtype == np.float64:
        tasks = tasks_of(np.ones(len(rows), np.int64), heads)
        attend_rows(elements * most, given, rules(scoring, np.float64), tasks)
        return
    rule = rules(scoring, np.float32)
    if few:
        parts = np.array([max(1, -(-count // SPLIT)) for count in keys])
        tasks = tasks_of(parts, heads)
        room = -(-most // WIDTH) * WIDTH
        highest, total = np.empty((2, len(tasks), room), np.float32)
        sums = np.empty((len(tasks), room * value_dim), np.float32)
        attend_splits(elements * given.k.itemsize, given, rule, tasks, highest, total, sums, workers)
        merge_splits(sums.nbytes, given, rule, heads_of(parts, heads), highest, total, sums)
        return
    tasks = tasks_of(-(-rows // (LANES * PANELS)), heads)
    tasks[:, 2] *= PANELS
    attend_tiles(elements * most, given, rule, tasks, PANELS, workers)
