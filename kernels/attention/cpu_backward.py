"""Numba launcher of the gradients of attention, with the name and the signature of `reference`.

Memory is linear in the numbers of queries and keys. Work: 5 products of Sq x Sk x D multiply-adds for each head, at the
rate of `cpu_product`, and an exponential for each pair of a row and a key.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .cpu_backward_rows import Work, differentiate_rows
from .cpu_backward_tile import WIDTH, differentiate_tiles
from .cpu_problem import DIM, GROUP, KV_HEADS, QUERIES, VALUE_DIM, flat, is_regular, places, rules
from .cpu_product import LANES
from .problem import Gradients, Lengths, Scoring

Array = np.ndarray[Any, Any]

_PARTS, _PART_ROWS = 16, 512
"""Parts of the rows of all heads of a sequence that are worth sums of their own, and rows of a part at least.

What is summed in parts depends on nothing but the sequence: not on the batch, and not on the number of threads.
"""


def attention_backward(
    grad_out: Array,
    grad_lse: Array | None,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    scoring: Scoring,
    lengths: Lengths,
    grads: Gradients,
) -> None:
    """Gradients of ``sum(grad_out * out) + sum(grad_lse * lse)``, where `out` and `lse` are what `attention` gave."""
    kind = np.float64 if q.dtype == np.float64 else np.float32
    q, grad_q = _target(q, grads.q, kind)
    k, v, lse = (np.ascontiguousarray(x, kind) for x in (k, v, lse))
    out, grad_out = _alike(out, grad_out, kind)
    if grad_lse is None:
        grad_lse = np.zeros(lse.shape, kind)
    delta = np.zeros(lse.shape, kind)
    given = places(q, k, v, out, lse, lengths)
    heads, group, dim, value_dim = (int(given.sizes[i]) for i in (KV_HEADS, GROUP, DIM, VALUE_DIM))

    rows = given.sequences[:, QUERIES] * group
    parts = np.clip(-(-rows // _PART_ROWS), 1, max(1, _PARTS // heads))
    most = int(parts.max(initial=1))
    share, whole = -(-rows // parts), math.lcm(WIDTH, group)
    part_rows = -(-share // whole) * whole  # no query is in two parts
    edge, value_edge = (-(-n // LANES) * LANES for n in (dim, value_dim))
    grad_keys = np.zeros((most, math.prod(k.shape[:3]), edge + value_edge), kind)
    grad_bias = np.zeros((0, 0, 0, 0) if grads.bias is None else grads.bias.shape, kind)
    strides = [s // grad_bias.itemsize if n > 1 else 0 for n, s in zip(grad_bias.shape, grad_bias.strides, strict=True)]
    apart = [grads.bias is None or size > 1 for size in grad_bias.shape[:3]]
    items, edges = _tasks((len(rows), heads, most), apart)

    work = Work(
        q=given.q,
        k=given.k,
        v=given.v,
        out=given.out,
        lse=given.lse,
        grad_out=flat(grad_out),
        grad_lse=flat(np.ascontiguousarray(grad_lse, kind)),
        delta=flat(delta),
        grad_q=flat(grad_q),
        grad_keys=grad_keys,
        grad_bias=flat(grad_bias),
        sequences=np.concatenate([given.sequences, part_rows[:, None]], 1),
        sizes=np.concatenate([given.sizes, np.array(strides, np.int64)]),
    )
    rule, workers = rules(scoring, kind), numba.get_num_threads()
    if lengths.cu_q is not None:
        grad_q.fill(0)
    effort = int((rows * (dim + value_dim)).sum()) * k.shape[2] * heads
    if kind == np.float64:
        differentiate_rows(effort, work, rule, items, edges, True, workers)
    else:
        differentiate_tiles(effort, work, rule, items, edges, workers)
        if not np.isfinite(delta).all():
            differentiate_rows(effort, work, rule, items, edges, False, workers)

    total = grad_keys[0] if most == 1 else grad_keys.sum(0)
    if grad_q is not grads.q:
        grads.q[...] = grad_q
    grads.k[...] = (total[:, :dim] * kind(scoring.scale)).reshape(k.shape)
    grads.v[...] = total[:, edge : edge + value_dim].reshape(v.shape)
    if grads.bias is not None:
        grads.bias[...] = grad_bias
    if grads.sinks is not None:
        grads.sinks[...] = _of_sinks(scoring.sinks, lse, delta)


def _target(x: Array, gradient: Array, kind: Any) -> tuple[Array, Array]:
    """`x` and memory for its gradient, of one type and with the same strides."""
    if x.dtype == gradient.dtype == kind and x.strides == gradient.strides and is_regular(x):
        return x, gradient
    x = np.ascontiguousarray(x, kind)
    return x, np.empty(x.shape, kind)


def _alike(a: Array, b: Array, kind: Any) -> tuple[Array, Array]:
    """Both in the type `kind`, with the same strides."""
    if a.dtype == b.dtype == kind and a.strides == b.strides and is_regular(a):
        return a, b
    return np.ascontiguousarray(a, kind), np.ascontiguousarray(b, kind)


def _tasks(sizes: tuple[int, ...], apart: list[bool]) -> tuple[Array, Array]:
    """All (sequence, head, part), and where runs of them begin and end: those that differ along the axes `apart`."""
    items = np.indices(sizes).reshape(len(sizes), -1).T
    owner = items * apart
    order = np.lexsort(owner.T[::-1])
    items, owner = items[order], owner[order]
    edges = np.flatnonzero((owner[1:] != owner[:-1]).any(1)) + 1
    return np.ascontiguousarray(items), np.array([0, *edges, len(items)], np.int64)


def _of_sinks(sinks: Array, lse: Array, delta: Array) -> Array:
    """Rows without a key or a sink have no part."""
    with np.errstate(invalid="ignore"):
        weight = np.exp(np.asarray(sinks, np.float64)[:, None] - np.where(np.isneginf(lse), 0, lse))
        terms = np.where(delta == 0, 0, weight * delta)
    total: Array = terms.sum((0, 2))
    return -total
