"""Halo attention of float64 in plain loops, a query at a time, on one thread."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._numba import jit
from .problem import Window

Array = np.ndarray[Any, Any]


class _Rules(NamedTuple):
    block: int
    halo: int
    stride: int
    masked: bool
    scale: float


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
    tables = _tables(q, rel_height, rel_width, window)
    results = np.empty(_by_head(out).shape), np.empty(_by_head(lse).shape)
    _attend(*map(_by_head, (q, k, v)), *tables, _Rules(*window, scale), *results)
    for target, result in zip((out, lse), results, strict=True):
        target[...] = result.reshape(target.shape)


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
    tables = _tables(q, rel_height, rel_width, window)
    totals = [np.zeros(_by_head(x).shape) for x in (dq, dk, dv)]
    of_tables = [np.zeros((len(totals[0]), *t.shape)) for t in tables]
    inputs = map(_by_head, (grad_out, q, k, v))
    rules = _Rules(*window, scale)
    _pull_back(*inputs, *tables, rules, *map(_by_head, (out, lse)), *totals, *of_tables)
    for target, total in zip((dq, dk, dv), totals, strict=True):
        target[...] = total.reshape(target.shape)
    for table, parts in zip((drel_height, drel_width), of_tables, strict=True):
        if table is not None:
            table[...] = parts.sum(0)


def _by_head(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _tables(q: Array, rel_height: Array | None, rel_width: Array | None, window: Window) -> list[Array]:
    shape = 2 * (window.block + window.halo) - 1, q.shape[-1]
    return [np.zeros(shape) if t is None else np.ascontiguousarray(t) for t in (rel_height, rel_width)]


@jit
def _window(y, x, rules):
    """The first row and column of the window of the query at pixel (y, x), and its side."""
    return y - y % rules.block - rules.halo, x - x % rules.block - rules.halo, rules.block + 2 * rules.halo


@jit
def _logits(q, k, rel_height, rel_width, rules, y, x, s):
    """Fill ``s[i, j]`` for the pixels of the window; -Inf for those that do not take part."""
    top, left, side = _window(y, x, rules)
    zero = rules.block - 1 + rules.halo
    for i in range(side):
        for j in range(side):
            row, column = top + i, left + j
            total = 0.0
            if 0 <= row < k.shape[0] and 0 <= column < k.shape[1]:
                for d in range(q.size):
                    total += q[d] * k[row, column, d]
            elif rules.masked:
                s[i, j] = -np.inf
                continue
            total *= rules.scale
            for d in range(q.size):
                total += q[d] * (rel_height[row - y + zero, d] + rel_width[column - x + zero, d])
            s[i, j] = total


@jit
def _weights(s, subtract):
    """``s = exp(s - subtract)`` in place, and their sum; nothing is subtracted where that is -Inf."""
    total = 0.0
    for i in range(s.shape[0]):
        for j in range(s.shape[1]):
            s[i, j] = math.exp(s[i, j] - (0.0 if subtract == -np.inf else subtract))
            total += s[i, j]
    return total


@jit
def _highest(s):
    most = -np.inf
    for i in range(s.shape[0]):
        for j in range(s.shape[1]):
            if s[i, j] > most:
                most = s[i, j]
    return most


@jit
def _attend(q, k, v, rel_height, rel_width, rules, out, lse):
    for n in range(q.shape[0]):
        _attend_head(q[n], k[n], v[n], rel_height, rel_width, rules, out[n], lse[n])


@jit
def _attend_head(q, k, v, rel_height, rel_width, rules, out, lse):
    side = rules.block + 2 * rules.halo
    s = np.empty((side, side))
    for i in range(q.shape[0]):
        for j in range(q.shape[1]):
            y, x = i * rules.stride, j * rules.stride
            _logits(q[i, j], k, rel_height, rel_width, rules, y, x, s)
            most = _highest(s)
            total = _weights(s, most)
            lse[i, j] = most + math.log(total) if total != 0 else -np.inf
            _average(s, 1 / total if total != 0 else 0.0, v, rules, y, x, out[i, j])


@jit
def _average(p, factor, v, rules, y, x, out):
    top, left, side = _window(y, x, rules)
    for d in range(out.size):
        out[d] = 0
    for i in range(max(0, -top), min(side, v.shape[0] - top)):
        for j in range(max(0, -left), min(side, v.shape[1] - left)):
            for d in range(out.size):
                out[d] += p[i, j] * v[top + i, left + j, d]
    for d in range(out.size):
        out[d] *= factor


@jit
def _pull_back(grad_out, q, k, v, rel_height, rel_width, rules, out, lse, dq, dk, dv, drel_height, drel_width):
    for n in range(q.shape[0]):
        _pull_back_head(
            grad_out[n], q[n], k[n], v[n], rel_height, rel_width, rules, out[n], lse[n],
            dq[n], dk[n], dv[n], drel_height[n], drel_width[n],
        )  # fmt: skip


@jit
def _pull_back_head(
    grad_out, q, k, v, rel_height, rel_width, rules, out, lse, dq, dk, dv, drel_height, drel_width
):  # fmt: skip
    side = rules.block + 2 * rules.halo
    p = np.empty((side, side))
    for i in range(q.shape[0]):
        for j in range(q.shape[1]):
            y, x = i * rules.stride, j * rules.stride
            _logits(q[i, j], k, rel_height, rel_width, rules, y, x, p)
            _weights(p, lse[i, j])
            delta = _dot(grad_out[i, j], out[i, j])
            _pull_back_query(
                p, grad_out[i, j], delta, q[i, j], k, v, rel_height, rel_width, rules, y, x,
                dq[i, j], dk, dv, drel_height, drel_width,
            )  # fmt: skip


@jit
def _dot(a, b):
    total = 0.0
    for d in range(a.size):
        total += a[d] * b[d]
    return total


@jit
def _pull_back_query(
    p, grad_out, delta, q, k, v, rel_height, rel_width, rules, y, x, dq, dk, dv, drel_height, drel_width
):  # fmt: skip
    top, left, side = _window(y, x, rules)
    zero = rules.block - 1 + rules.halo
    for i in range(side):
        for j in range(side):
            row, column = top + i, left + j
            inside = 0 <= row < k.shape[0] and 0 <= column < k.shape[1]
            if rules.masked and not inside:
                continue
            dp = _dot(grad_out, v[row, column]) if inside else 0.0
            ds = p[i, j] * (dp - delta)
            of_height, of_width = row - y + zero, column - x + zero
            for d in range(q.size):
                dq[d] += ds * (rel_height[of_height, d] + rel_width[of_width, d])
                drel_height[of_height, d] += ds * q[d]
                drel_width[of_width, d] += ds * q[d]
            if inside:
                for d in range(q.size):
                    dq[d] += rules.scale * ds * k[row, column, d]
                    dk[row, column, d] += rules.scale * ds * q[d]
                for d in range(grad_out.size):
                    dv[row, column, d] += p[i, j] * grad_out[d]
