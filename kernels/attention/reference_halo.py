"""Halo attention in NumPy float64, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .problem import Window
from .reference_softmax import softmax, wide

Array = np.ndarray[Any, Any]


class Block(NamedTuple):
    """Queries of a block, and the pixels of its window, as lists of coordinates."""

    query_y: Array  # in the array of queries
    query_x: Array
    key_y: Array  # in the image; outside of it for padding
    key_x: Array
    row_height: Array  # (queries, keys): rows of the tables
    row_width: Array
    inside: Array  # (keys,)


def halo(
    q: Array,
    k: Array,
    v: Array,
    rel_height: Array | None,
    rel_width: Array | None,
    window: Window,
    scale: float,
    out: Array,
    lse: Array,
) -> None:
    """`q` (B, H, queries_y, queries_x, D) of every `stride`-th pixel of the image k and v (B, H, height, width, .)."""
    for block in blocks(q, k, window):
        at = block.query_y, block.query_x
        for b, h in np.ndindex(*q.shape[:2]):
            s, allowed, _, values = _logits(q[b, h][at], k[b, h], v[b, h], rel_height, rel_width, window, scale, block)
            rows = (b, h, *at)
            out[rows], lse[rows] = softmax(s, allowed, values)


def halo_backward(
    grad_out: Array,
    q: Array,
    k: Array,
    v: Array,
    rel_height: Array | None,
    rel_width: Array | None,
    window: Window,
    scale: float,
    out: Array,
    lse: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    drel_height: Array | None,
    drel_width: Array | None,
) -> None:
    """Gradients of ``sum(grad_out * out)``; `out` and `lse` are what `halo` gave."""
    grads = [np.zeros(x.shape) for x in (q, k, v)]
    tables = [np.zeros(t.shape) for t in (rel_height, rel_width) if t is not None]
    for block in blocks(q, k, window):
        at, inside = (block.query_y, block.query_x), block.inside
        for b, h in np.ndindex(*q.shape[:2]):
            queries = wide(q[b, h][at])
            s, allowed, keys, values = _logits(queries, k[b, h], v[b, h], rel_height, rel_width, window, scale, block)
            finite = np.where(np.isneginf(lse[b, h][at]), 0, wide(lse[b, h][at]))
            p = np.where(allowed, np.exp(s - finite[:, None]), 0)
            given = wide(grad_out[b, h][at])
            delta = (given * wide(out[b, h][at])).sum(-1)
            ds = p * (given @ values.T - delta[:, None])
            dqs = scale * ds @ keys
            rows = [r for r, t in ((block.row_height, rel_height), (block.row_width, rel_width)) if t is not None]
            used = [wide(t) for t in (rel_height, rel_width) if t is not None]
            for table, total, row in zip(used, tables, rows, strict=True):
                dqs += np.einsum("ij,ijd->id", ds, table[row])
                np.add.at(total, row, ds[..., None] * queries[:, None])
            place, window_place = (b, h, *at), (b, h, block.key_y[inside], block.key_x[inside])
            grads[0][place] = dqs
            grads[1][window_place] += scale * (ds.T @ queries)[inside]
            grads[2][window_place] += (p.T @ given)[inside]
    for target, total in zip((dq, dk, dv), grads, strict=True):
        target[...] = total
    for target, total in zip((t for t in (drel_height, drel_width) if t is not None), tables, strict=True):
        target[...] = total


def blocks(q: Array, k: Array, window: Window) -> Iterator[Block]:
    height, width = k.shape[2:4]
    block, halo_, stride, _ = window
    for y in range(0, height, block):
        for x in range(0, width, block):
            queries = np.meshgrid(
                np.arange(y, min(y + block, height), stride), np.arange(x, min(x + block, width), stride), indexing="ij"
            )
            keys = np.meshgrid(
                np.arange(y - halo_, y + block + halo_), np.arange(x - halo_, x + block + halo_), indexing="ij"
            )
            (qy, qx), (ky, kx) = (a.ravel() for a in queries), (a.ravel() for a in keys)
            zero = block - 1 + halo_
            inside = (ky >= 0) & (ky < height) & (kx >= 0) & (kx < width)
            yield Block(qy // stride, qx // stride, ky, kx, ky - qy[:, None] + zero, kx - qx[:, None] + zero, inside)


def _logits(
    q: Array,
    k: Array,
    v: Array,
    rel_height: Array | None,
    rel_width: Array | None,
    window: Window,
    scale: float,
    block: Block,
) -> tuple[Array, Array, Array, Array]:
    """Logits, which of them are allowed, and the keys and values of the window, zero outside of the image."""
    keys, values = (_padded(x, block) for x in (k, v))
    q = wide(q)
    s = scale * q @ keys.T
    for table, rows in ((rel_height, block.row_height), (rel_width, block.row_width)):
        if table is not None:
            s = s + np.einsum("id,ijd->ij", q, wide(table)[rows])
    allowed = np.broadcast_to(block.inside | (not window.masked), s.shape)
    return s, allowed, keys, values


def _padded(x: Array, block: Block) -> Array:
    rows = np.zeros((len(block.inside), x.shape[-1]))
    rows[block.inside] = x[block.key_y[block.inside], block.key_x[block.inside]]
    return rows
