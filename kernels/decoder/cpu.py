"""Numba launchers, with the names and signatures of `reference`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._activations import activate, number_of
from .._floats import BYTES, KINDS, read_run, write_run
from .._numba import jit, kernel, sum_of_lanes, sums
from .problem import Gated, Norm, Rotary

Array = np.ndarray[Any, Any]

f32 = np.float32

LANES = 32
PIECE = 1 << 10
"""Numbers that a task of `gated` makes, and about as many as one of the others does."""

_NO_BYTES = np.empty((0, 0), np.uint8)
_NO_FLOATS = np.empty(0, np.float32)


def normalize(
    x: Array, residual: Array | None, weight: Array, bias: Array | None, total: Array | None, out: Array, problem: Norm
) -> None:
    """See `Norm`."""
    if out.size == 0:
        return
    if residual is None or total is None:
        others = _NO_BYTES, _NO_BYTES
    else:
        others = residual.view(BYTES), total.view(BYTES)
    _normalize(
        2 * out.nbytes if residual is None else 4 * out.nbytes,
        KINDS[out.dtype],
        x.view(BYTES),
        *others,
        out.view(BYTES),
        weight,
        _NO_FLOATS if bias is None else bias,
        problem.kind == "layer",
        problem.eps,
        problem.offset,
    )


@kernel
def _normalize(kind, x, residual, total, out, weight, bias, centred, eps, offset):
    each = max(1, PIECE // weight.size)
    for task in numba.prange((len(x) + each - 1) // each):
        _normalize_rows(kind, x, residual, total, out, weight, bias, centred, eps, offset, np.int64(task) * each, each)


@jit
def _normalize_rows(kind, x, residual, total, out, weight, bias, centred, eps, offset, first, count):
    size = weight.size
    h, other = np.empty(size, np.float32), np.empty(size if len(residual) else 0, np.float32)
    for i in range(first, min(first + count, len(x))):
        read_run(kind, x, i * x.strides[0], h)
        if other.size:
            read_run(kind, residual, i * residual.strides[0], other)
            for j in range(size):
                h[j] += other[j]
            write_run(kind, h, total, i * total.strides[0])
            read_run(kind, total, i * total.strides[0], h)
        if centred:
            mean = _sum(h) / f32(size)
            for j in range(size):
                h[j] -= mean
        factor = f32(1) / np.sqrt(_sum_of_squares(h) / f32(size) + f32(eps))
        _scale(h, factor, weight, f32(offset), bias)
        write_run(kind, h, out, i * out.strides[0])


@jit
def _scale(h, factor, weight, offset, bias):
    if bias.size:
        for j in range(h.size):
            h[j] = h[j] * factor * (weight[j] + offset) + bias[j]
    else:
        for j in range(h.size):
            h[j] = h[j] * factor * (weight[j] + offset)


@jit
def _sum(x):
    total = sums(x, 1, 32)
    whole = x.size // LANES * LANES
    for first in range(0, whole, LANES):
        run = x[first : first + LANES]
        for lane in range(LANES):
            total[0, lane] += run[lane]
    for i in range(whole, x.size):
        total[0, i - whole] += x[i]
    return sum_of_lanes(total, 0, 32)


@jit
def _sum_of_squares(x):
    total = sums(x, 1, 32)
    whole = x.size // LANES * LANES
    for first in range(0, whole, LANES):
        run = x[first : first + LANES]
        for lane in range(LANES):
            total[0, lane] += run[lane] * run[lane]
    for i in range(whole, x.size):
        total[0, i - whole] += x[i] * x[i]
    return sum_of_lanes(total, 0, 32)


def rotary(x: Array, cos: Array, sin: Array, positions: Array, out: Array, problem: Rotary) -> None:
    """See `Rotary`."""
    if out.size:
        given, target = x.view(BYTES), out.view(BYTES)
        width = 2 * cos.shape[1] if x is out else x.shape[3]
        _rotary(2 * out.nbytes, KINDS[out.dtype], given, cos, sin, positions, target, problem.interleaved, width)


@kernel
def _rotary(kind, x, cos, sin, positions, out, interleaved, width):
    tokens = positions.shape[1]
    for task in numba.prange(positions.size):
        n = np.int64(task) // tokens
        _turn_token(kind, x, cos, sin, positions, out, interleaved, width, n, np.int64(task) - n * tokens)


@jit
def _turn_token(kind, x, cos, sin, positions, out, interleaved, width, n, t):
    c, s = cos[positions[n, t]], sin[positions[n, t]]
    row = np.empty(width, np.float32)
    left, right = row[: c.size], row[c.size : 2 * c.size]
    for h in range(x.shape[1]):
        read_run(kind, x, n * x.strides[0] + h * x.strides[1] + t * x.strides[2], row)
        if interleaved:
            for i in range(c.size):
                a, b = row[2 * i], row[2 * i + 1]
                row[2 * i], row[2 * i + 1] = a * c[i] - b * s[i], b * c[i] + a * s[i]
        else:
            for i in range(c.size):
                a, b = left[i], right[i]
                left[i], right[i] = a * c[i] - b * s[i], b * c[i] + a * s[i]
        write_run(kind, row, out, n * out.strides[0] + h * out.strides[1] + t * out.strides[2])


def gated(x: Array, out: Array, problem: Gated) -> None:
    """See `Gated`."""
    if out.size:
        number, itemsize = number_of(problem.activation), out.itemsize
        _gated(3 * out.nbytes, KINDS[out.dtype], itemsize, x.view(BYTES), out.view(BYTES), number)


@kernel
def _gated(kind, itemsize, x, out, activation):
    width = out.shape[1] // itemsize
    pieces = (width + PIECE - 1) // PIECE
    for task in numba.prange(len(x) * pieces):
        row = np.int64(task) // pieces
        _gate(kind, itemsize, x, out, activation, row, (np.int64(task) - row * pieces) * PIECE, width)


@jit
def _gate(kind, itemsize, x, out, activation, row, first, width):
    size = min(PIECE, width - first)
    gate, up = np.empty(size, np.float32), np.empty(size, np.float32)
    read_run(kind, x, row * x.strides[0] + first * itemsize, gate)
    read_run(kind, x, row * x.strides[0] + (width + first) * itemsize, up)
    activate(activation, gate)
    for i in range(size):
        gate[i] *= up[i]
    write_run(kind, gate, out, row * out.strides[0] + first * itemsize)
