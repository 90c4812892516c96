"""The definition in NumPy float64, a sequence and a head at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .problem import Cache, Gradients, Lengths, Scoring
from .reference_halo import halo as halo
from .reference_halo import halo_backward as halo_backward
from .reference_softmax import softmax, wide
from .reference_store import store as store

Array = np.ndarray[Any, Any]


class Part(NamedTuple):
    """One sequence: its number, and where its queries and its keys lie."""

    number: int
    batch: int
    queries: slice
    keys: slice


def attention(q: Array, k: Array, v: Array, scoring: Scoring, lengths: Lengths, out: Array, lse: Array) -> None:
    """Attention of all sequences and heads into `out`, and the logarithms of the denominators into `lse`."""
    group = q.shape[1] // k.shape[1]
    for part in sequences(q, k, lengths):
        for h in range(q.shape[1]):
            rows, keys = (part.batch, h, part.queries), (part.batch, h // group, part.keys)
            out[rows], lse[rows] = head(wide(q[rows]), wide(k[keys]), wide(v[keys]), scoring, part.number, h)


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
    group = q.shape[1] // k.shape[1]
    totals = Gradients(*(None if g is None else np.zeros(g.shape) for g in grads))
    for part in sequences(q, k, lengths):
        for h in range(q.shape[1]):
            rows, keys = (part.batch, h, part.queries), (part.batch, h // group, part.keys)
            qs, ks, vs, given = wide(q[rows]), wide(k[keys]), wide(v[keys]), wide(grad_out[rows])
            s, allowed, slope = logits(qs, ks, scoring, part.number, h)
            finite = np.where(np.isneginf(lse[rows]), 0, wide(lse[rows]))
            p = np.where(allowed, np.exp(s - finite[:, None]), 0)
            delta = (given * wide(out[rows])).sum(-1)
            if grad_lse is not None:
                delta = delta - np.where(np.isneginf(lse[rows]), 0, wide(grad_lse[rows]))
            with np.errstate(invalid="ignore"):
                ds = np.where(allowed, p * (given @ vs.T - delta[:, None]), 0)
            totals.q[rows] += scoring.scale * over(allowed, ds * slope, ks)
            totals.k[keys] += scoring.scale * over(allowed.T, (ds * slope).T, qs)
            totals.v[keys] += over(allowed.T, p.T, given)
            if totals.bias is not None:
                shape = totals.bias.shape
                at = [min(i, size - 1) for i, size in zip((part.number, h), shape, strict=False)]
                axes = tuple(axis for axis in (0, 1) if shape[2 + axis] == 1 and ds.shape[axis] != 1)
                summed = ds.sum(axes, keepdims=True)
                totals.bias[at[0], at[1], :, : summed.shape[1]] += summed
            if totals.sinks is not None:
                totals.sinks[h] -= (np.exp(scoring.sinks[h] - finite) * delta).sum()
    for gradient, total in zip(grads, totals, strict=True):
        if gradient is not None:
            gradient[...] = total


def decode(q: Array, cache: Cache, scoring: Scoring, out: Array, lse: Array) -> None:
    """Attention of `q` (N, Hq, T, D), the last tokens of N sequences, to all keys of each."""
    for n, length in enumerate(cache.lengths):
        k, v = (gathered(cache, n, which) for which in ("k", "v"))
        one = scoring._replace(bias=None, mask=None)
        attention(
            q[n : n + 1], k[None, :, :length], v[None, :, :length], one, Lengths(), out[n : n + 1], lse[n : n + 1]
        )


def gathered(cache: Cache, n: int, which: str) -> Array:
    """The keys or values ("k", "v") of sequence `n`, (Hkv, length, D) in float64."""
    codes, scale = getattr(cache, which), getattr(cache, which + "_scale")
    length, page = int(cache.lengths[n]), codes.shape[2]
    pages = cache.table[n, : -(-length // page)]
    values = codes.view(ml_dtypes.float8_e4m3fn) if codes.dtype == np.uint8 else codes
    rows = wide(values[pages])
    if scale is not None:
        rows = rows * scale[pages][..., None]
    heads, width = codes.shape[1], codes.shape[3]
    return rows.transpose(1, 0, 2, 3).reshape(heads, -1, width)[:, :length]


def sequences(q: Array, k: Array, lengths: Lengths) -> Iterator[Part]:
    if lengths.cu_q is None:
        for b in range(q.shape[0]):
            count = k.shape[2] if lengths.kv is None else int(lengths.kv[b])
            yield Part(b, b, slice(0, q.shape[2]), slice(0, count))
        return
    for n in range(len(lengths.cu_q) - 1):
        first, last = (int(i) for i in lengths.cu_k[n : n + 2])
        count = last - first if lengths.kv is None else int(lengths.kv[n])
        yield Part(n, 0, slice(int(lengths.cu_q[n]), int(lengths.cu_q[n + 1])), slice(first, first + count))


def logits(q: Array, k: Array, scoring: Scoring, n: int, h: int) -> tuple[Array, Array, Array]:
    """Logits of a head (Sq, Sk), which of them are allowed, and their derivative by ``scale * q k``."""
    queries, keys = len(q), len(k)
    with np.errstate(invalid="ignore", over="ignore"):
        s = scoring.scale * (q @ k.T)
        slope = np.ones_like(s)
        if scoring.softcap:
            bounded = np.tanh(s / scoring.softcap)
            s, slope = scoring.softcap * bounded, 1 - bounded**2
        ahead = np.arange(keys) - (np.arange(queries) + (0 if scoring.upper_left else keys - queries))[:, None]
        if scoring.slopes is not None:
            s = s - scoring.slopes[h] * np.abs(ahead)
        if scoring.bias is not None:
            s = s + wide(scoring.bias[n, h, :, :keys])
    allowed = np.ones(s.shape, bool) if scoring.bias is None else ~np.isneginf(scoring.bias[n, h, :, :keys])
    if scoring.left >= 0:
        allowed &= ahead >= -scoring.left
    if scoring.right >= 0:
        allowed &= ahead <= scoring.right
    if scoring.mask is not None:
        allowed &= np.asarray(scoring.mask[n, h, :, :keys], bool)
    return np.where(allowed, s, 0), allowed, slope


def head(q: Array, k: Array, v: Array, scoring: Scoring, n: int, h: int) -> tuple[Array, Array]:
    """Output and logarithms of the denominators of one head."""
    s, allowed, _ = logits(q, k, scoring, n, h)
    sink = -np.inf if scoring.sinks is None else float(scoring.sinks[h])
    return softmax(s, allowed, v, sink)


def over(allowed: Array, weights: Array, rows: Array) -> Array:
    """``weights @ rows``, summed over allowed pairs alone: 0 times what is not allowed may be NaN."""
    total = np.zeros((len(weights), rows.shape[1]))
    for i, (chosen, weight) in enumerate(zip(allowed, weights, strict=True)):
        total[i] = weight[chosen] @ rows[chosen]
    return total
